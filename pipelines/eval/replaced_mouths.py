"""Two baselines of audio-driven reenactment that hear nothing: the real frames with the mouth that is the
mean of the clip's mouths, and with the mouth of another frame of the clip, drawn by hash.

Mouths are cut and put back in coordinates of the face. What lies about in the plane of the mouth and is moved
little by speech tells how the face lies in each frame: the corners of the eyes, and the point half-way
between the corners of the mouth. The nose stands out of that plane: with it a turned head's mouth came to lie
beside the face. The region is an ellipse around all mouths of the clip, with a soft rim.

T = frames of a clip, H x W = their size, K = 68 landmarks in iBUG's order, pixels, pixel centres at +0.5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from pipelines.eval.landmark_warp import hold_landmarks, sample_bilinear

EYE_CORNERS, MOUTH_CORNERS = [36, 39, 42, 45], [48, 54]
MOUTH_POINTS = slice(48, 68)
REGION_MARGIN = 1.4
"""Half axes of the region over those of the box around all mouths: no lip of the frame lies on the rim."""
RIM_WIDTH = 0.25
"""Share of the half axes over which the new mouth fades into the frame."""


class FacePlaces(Struct, frozen=True):
    """Where the face lies in each frame: pixels = face points @ axes.T + shift, affine, since a head that
    turns gets narrower."""

    axes: np.ndarray
    """(T,2,2)"""
    shifts: np.ndarray
    """(T,2)"""

    def to_frame(self, t: int, points: np.ndarray) -> np.ndarray:
        """(...,2) points of the face -> pixels of a frame"""
        return points @ self.axes[t].T + self.shifts[t]

    def to_face(self, t: int, pixels: np.ndarray) -> np.ndarray:
        return (pixels - self.shifts[t]) @ np.linalg.inv(self.axes[t]).T


class MouthRegion(Struct, frozen=True):
    """An ellipse in the coordinates of the face."""

    centre: np.ndarray
    """(2,)"""
    half_axes: np.ndarray
    """(2,)"""

    def weights(self, points: np.ndarray) -> np.ndarray:
        """(...,2) points of the face -> (...), 1 inside, 0 outside, in between on the rim"""
        radius = np.linalg.norm((points - self.centre) / self.half_axes, axis=-1)
        return np.clip((1 - radius) / RIM_WIDTH, 0, 1)

    def patch_points(self) -> np.ndarray:
        """-> (h,w,2): the pixel centres of a patch that covers it, one for each unit of the face's size"""
        low = self.centre - self.half_axes
        width, height = np.ceil(2 * self.half_axes).astype(int)
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        return low + np.stack([columns, rows], axis=-1)


def replace_by_mean_mouth(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """frames (T,H,W,3) uint8, landmarks (T,68,2), NaN where a frame has none -> (T,H,W,3) uint8. The mean is
    of the frames that have landmarks; in the others the mouth lies where it was last seen. ValueError where
    none has any."""
    places, region, found = _locate_mouths(landmarks)
    mouths = (cut_mouth(frames[t], int(t), places, region) for t in np.flatnonzero(found))
    mean = sum(mouths, np.zeros(())) / found.sum()
    return np.stack([paste_mouth(frame, mean, t, places, region) for t, frame in enumerate(frames)])


def replace_by_other_mouths(frames: np.ndarray, landmarks: np.ndarray, donors: Sequence[int]) -> np.ndarray:
    """The same with the mouth of frame donors[t] in frame t; see `sample_donor_frames`."""
    places, region, _ = _locate_mouths(landmarks)
    return np.stack([
        paste_mouth(frame, cut_mouth(frames[donor], donor, places, region), t, places, region)
        for t, (frame, donor) in enumerate(zip(frames, donors, strict=True))
    ])  # fmt: skip


def sample_donor_frames(seed: int, clip: str, frames: Sequence[int], donors: Sequence[int]) -> list[int]:
    """For each of these frames of a clip another one among the donors, by hash of (seed, clip, frame): which
    one does not depend on what other frames are asked for. ValueError where there is none."""
    chosen = []
    for frame in frames:
        others = [one for one in donors if one != frame]
        if not others:
            raise ValueError(f"clip {clip}: frame {frame} has no other frame to take a mouth from")
        number = int.from_bytes(hashlib.sha256(f"{seed}:{clip}:{frame}".encode()).digest()[:8], "big")
        chosen.append(others[number % len(others)])
    return chosen


def cut_mouth(frame: np.ndarray, t: int, places: FacePlaces, region: MouthRegion) -> np.ndarray:
    """frame (H,W,3) uint8 -> (h,w,3) float64, the mouth in the coordinates of the face"""
    return sample_bilinear(frame.astype(np.float64), places.to_frame(t, region.patch_points()))


def paste_mouth(
    frame: np.ndarray, mouth: np.ndarray, t: int, places: FacePlaces, region: MouthRegion
) -> np.ndarray:
    """-> (H,W,3) uint8"""
    height, width = frame.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    points = places.to_face(t, pixels)
    weights = region.weights(points)
    rows, columns = np.nonzero(weights)
    where = points[rows, columns] - (region.centre - region.half_axes)  # pixels of the patch
    weight = weights[rows, columns][:, None]
    out = frame.copy()
    mixed = (1 - weight) * frame[rows, columns] + weight * sample_bilinear(mouth, where)
    out[rows, columns] = np.floor(mixed + 0.5).astype(np.uint8)
    return out


def locate_faces(landmarks: np.ndarray) -> FacePlaces:
    """(T,68,2), all finite -> where the face lies: the affine maps that bring the first frame's points
    nearest to each frame's, so that coordinates of the face are pixels of that frame, but for their
    origin."""
    middle = landmarks[:, MOUTH_CORNERS].mean(axis=1, keepdims=True)
    points = np.concatenate([landmarks[:, EYE_CORNERS], middle], axis=1).astype(np.float64)  # (T,5,2)
    centres = points.mean(axis=1)
    offsets = points - centres[:, None]
    return FacePlaces((np.linalg.pinv(offsets[0]) @ offsets).swapaxes(1, 2), centres)


def _locate_mouths(landmarks: np.ndarray) -> tuple[FacePlaces, MouthRegion, np.ndarray]:
    """-> places, region, and (T,) bool: frames that have landmarks themselves"""
    found = np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))
    held, _ = hold_landmarks(landmarks)
    places = locate_faces(held)
    mouths = np.concatenate([places.to_face(t, held[t, MOUTH_POINTS]) for t in range(len(held))])
    low, high = mouths.min(axis=0), mouths.max(axis=0)
    return places, MouthRegion((low + high) / 2, (high - low) / 2 * REGION_MARGIN), found
