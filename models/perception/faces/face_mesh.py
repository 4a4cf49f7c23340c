"""MediaPipe's face mesh and iris nets: 468 points of a face, its eyelids and irises, as torch functions.

A face's square is 1.5 times its box, turned so that its eyes are level. The mesh net places 468 points in it
and says whether it sees a face at all; from these points comes a better square for a second pass. The mesh
does not see blinks (r .1 to .2 with the truth on rendered heads): the iris net, on a square about each eye,
places the lids again (r .8).

Coordinates as in face_crops.py. Depth z is in pixels of the image, smaller is nearer, about 0 at the middle
of the head; it is not turned with the square.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.perception.faces.face_crops import CropSquares, crop_to_image_points, sample_crops
from models.perception.faces.mesh_points import (
    IBUG68,
    LEFT_EYE_CONTOUR,
    LEFT_EYE_CORNERS,
    MESH_POINT_COUNT,
    OUTER_EYE_CORNERS,
    RIGHT_EYE_CONTOUR,
    RIGHT_EYE_CORNERS,
)
from models.perception.interfaces import FixedSizeNet, InferenceSettings, LandmarkPrediction
from models.perception.litert_net import LiteRtNet
from models.perception.tflite_file import TfliteSignature
from models.perception.tflite_net import TorchTfliteNet

MESH_NET = TfliteSignature(192, ((1, 1, 1404), (1, 1, 1)))
IRIS_NET = TfliteSignature(64, ((213,), (15,)))
FACE_SQUARE_SCALE, EYE_SQUARE_SCALE = 1.5, 2.3
"""Side of a square, in the longer side of a face's box, and in the distance of an eye's corners."""
SURE_PRESENCE_LOGIT = 40.0
"""Of faces in full view (23 to 55 on real frames); the score of a frame is its logit as a share of this."""
SETTLED_SHIFT, MAX_FURTHER_PASSES = 0.02, 4
"""Mean distance of landmarks from those of the pass before, in sides of the square, from which one more pass
is made, and how many at most. A face that lies is turned upright by some 15 degrees a pass: detectors see its
roll too small by up to 40."""
SURE_ROLL_LOGIT = 20.0
"""With the right roll the logit is 25 to 65 on faces seen from the front, with one that is wrong by a right
angle or two 15 at most."""
MIN_BOX_SIDE = 4.0
"""Pixels: smaller boxes show no face."""
LANDMARK_STEPS_PER_PIXEL = 64
"""Points are rounded to so many: the last bits depend on runtime, batch and machine."""
FACES_PER_BATCH = 32


# --- squares ------------------------------------------------------------------------------------------------
def squares_from_boxes(boxes: Tensor, rolls: Tensor) -> CropSquares:
    """boxes (B,4), rolls (B,) radians."""
    size = boxes[:, 2:] - boxes[:, :2]
    return CropSquares((boxes[:, :2] + boxes[:, 2:]) / 2, FACE_SQUARE_SCALE * size.amax(1), rolls)


def squares_from_points(points: Tensor) -> CropSquares:
    """points (B,468,2 or 3) -> about the box that holds them all, the outer eye corners level."""
    low, high = points[..., :2].amin(1), points[..., :2].amax(1)
    left, right = (points[:, n] for n in OUTER_EYE_CORNERS)
    side = FACE_SQUARE_SCALE * (high - low).amax(1)
    return CropSquares((low + high) / 2, side, _line_angle(left, right))


def eye_squares(points: Tensor, corners: tuple[int, int]) -> CropSquares:
    """points (B,468,2 or 3) -> about one eye."""
    left, right = (points[:, n, :2] for n in corners)
    side = EYE_SQUARE_SCALE * (right - left).abs().amax(1)
    return CropSquares((left + right) / 2, side.clamp(min=1e-3), _line_angle(left, right))


def _line_angle(left: Tensor, right: Tensor) -> Tensor:
    return torch.atan2(right[:, 1] - left[:, 1], right[:, 0] - left[:, 0])


# --- nets ---------------------------------------------------------------------------------------------------
class FacesInBoxes(NamedTuple):
    """What the mesh makes of B boxes."""

    points: Tensor
    """(B,468,3) float32 pixels."""
    presence: Tensor
    """(B,) float32 logits that there is a face."""
    rolls: Tensor
    """(B,) float32 radians, at which it was looked for."""


class FaceMesh:
    """Pixels -> points. `iris`: None = the mesh net alone."""

    def __init__(self, mesh: FixedSizeNet, iris: FixedSizeNet | None = None):
        self._mesh, self._iris = mesh, iris

    @property
    def device(self) -> torch.device:
        return self._mesh.device

    @property
    def has_iris(self) -> bool:
        return self._iris is not None

    def configure_inference(self, how: InferenceSettings) -> None:
        for net in (self._mesh, self._iris):
            if net is not None:
                net.configure_inference(how)

    def predict(self, images: Tensor, squares: CropSquares) -> tuple[Tensor, Tensor]:
        """images (B,3,H,W) in [0,1], or uint8 -> points (B,468,3) in pixels, and the logit (B,) that there is
        a face: 23 to 55 on real faces in full view, below 0 without one."""
        return self.predict_crops(sample_crops(images, squares, self._mesh.input_side), squares)

    def predict_crops(self, crops: Tensor, squares: CropSquares) -> tuple[Tensor, Tensor]:
        """As `predict`, of crops (B,3,192,192) that were cut by these squares."""
        points, presence = self._mesh(crops)
        points = points.reshape(-1, MESH_POINT_COUNT, 3) / self._mesh.input_side
        return crop_to_image_points(points, squares), presence.reshape(-1)

    def find_faces(self, images: Tensor, boxes: Tensor, rolls: Tensor) -> FacesInBoxes:
        """images (B,3,H,W) in [0,1] or uint8, boxes (B,4), rolls (B,) radians -> the faces in the boxes.

        Where the mesh is not sure the roll may be wrong: a profile's eyes lie nearly on each other, and those
        of a face that lies or stands on its head are taken for level. Such a face is looked for level and
        turned by right angles too, and that counts of which the mesh is surest.
        """
        points, presence = self.predict(images, squares_from_boxes(boxes, rolls))
        unsure = (presence < SURE_ROLL_LOGIT).nonzero()[:, 0]
        if not len(unsure):
            return FacesInBoxes(points, presence, rolls)
        first, rolls, asked = rolls[unsure], rolls.clone(), images[unsure]
        quarters = [(first + k * torch.pi / 2, SURE_ROLL_LOGIT) for k in (1, 2, 3)]
        for turned, at_least in ((torch.zeros_like(first), 0.0), *quarters):
            again, logits = self.predict(asked, squares_from_boxes(boxes[unsure], turned))
            better = logits > presence[unsure].clamp(min=at_least)
            rows = unsure[better]
            points[rows], presence[rows], rolls[rows] = again[better], logits[better], turned[better]
        return FacesInBoxes(points, presence, rolls)

    def refine_eyes(self, images: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """points (B,468,3) -> the same with the lids of the iris net (depth as it was), and irises (B,2,5,2)
        in pixels, the left one first: centre, toward the nose, top, toward the ear, bottom."""
        if self._iris is None:
            raise ValueError("a face mesh without iris net")
        points, irises = points.clone(), []
        for corners, contour, mirrored in (
            (LEFT_EYE_CORNERS, LEFT_EYE_CONTOUR, False),
            (RIGHT_EYE_CORNERS, RIGHT_EYE_CONTOUR, True),
        ):
            squares = eye_squares(points.detach(), corners)
            lids, iris = predict_eye(self._iris, images, squares, mirrored)
            points[:, list(contour), :2] = lids[:, : len(contour)]
            irises.append(iris)
        return points, torch.stack(irises, dim=1)


def predict_eye(
    net: FixedSizeNet, images: Tensor, squares: CropSquares, mirrored: bool
) -> tuple[Tensor, Tensor]:
    """The iris net on left eyes, or on right ones, mirrored: contour (B,71,2) and iris (B,5,2) in pixels."""
    side = net.input_side
    crops = sample_crops(images, squares, side)
    found = net(crops.flip(3) if mirrored else crops)
    contour, iris = (one.reshape(len(one), -1, 3)[..., :2] / side for one in found)
    if mirrored:
        contour, iris = (torch.stack([1 - one[..., 0], one[..., 1]], dim=-1) for one in (contour, iris))
    return crop_to_image_points(contour, squares), crop_to_image_points(iris, squares)


# --- the landmarker -----------------------------------------------------------------------------------------
class MeshPrediction(NamedTuple):
    """Of n faces, on the CPU."""

    points: np.ndarray
    """(n,468,3) float32."""
    irises: np.ndarray
    """(n,2,5,2) float32; NaN without iris net."""
    presence: np.ndarray
    """(n,) float32 logits."""
    passed: np.ndarray
    """(n,68,2) float32: landmarks of the pass before the last, NaN where there was none."""


class FirstPass(NamedTuple):
    """A pass over n faces in the boxes that were given, on the CPU; NaN where it sees none."""

    squares: np.ndarray
    """(n,4) float32: centre, side and angle of the squares for the second pass."""
    landmarks: np.ndarray
    """(n,68,2) float32."""


class MeshLandmarker:
    """models.perception.interfaces.Landmarker, InferenceConfigurable: a pass of the mesh on the squares of
    the boxes, upright or turned, one on those of its points, more where that still moves them, as it does in
    faces that lie; then the eyes."""

    def __init__(self, mesh: FaceMesh):
        self.name = "mesh468_iris" if mesh.has_iris else "mesh468"
        self._mesh = mesh

    def configure_inference(self, how: InferenceSettings) -> None:
        self._mesh.configure_inference(how)

    def landmarks(self, frames: np.ndarray, boxes: np.ndarray, rolls: np.ndarray | None = None) -> np.ndarray:
        """frames (T,H,W,3) uint8, boxes (T,4) -> (T,68,2) float32; NaN where the box is, or where no face is
        seen in it."""
        return self.predict(frames, boxes, rolls).landmarks

    @torch.inference_mode()
    def predict(
        self,
        frames: np.ndarray,
        boxes: np.ndarray,
        rolls: np.ndarray | None = None,
        detected: np.ndarray | None = None,
    ) -> LandmarkPrediction:
        """68 landmarks, all 468 points, irises, and how surely there is a face. With `detected` the squares
        of the second pass are interpolated, as the boxes were."""
        usable = _usable_boxes(boxes, *frames.shape[1:3])
        rolls = np.zeros(len(boxes), np.float32) if rolls is None else rolls
        looked_at = np.flatnonzero(usable if detected is None else usable & detected)
        rows = np.flatnonzero(usable) if len(looked_at) else looked_at
        first = [self._first_pass(frames[some], boxes[some], rolls[some]) for some in _batches(looked_at)]
        before = np.full((len(frames), len(IBUG68), 2), np.nan, np.float32)
        for some, one in zip(_batches(looked_at), first, strict=True):
            before[some] = one.landmarks
        squares = np.concatenate([np.zeros((0, 4)), *(one.squares for one in first)])
        squares = _interpolate_squares(squares, looked_at, rows)
        seen = np.isfinite(squares).all(1)
        rows, squares = rows[seen], squares[seen]
        done = [
            self._faces(frames[rows[some]], squares[some], before[rows[some]])
            for some in _batches(np.arange(len(rows)))
        ]
        found = MeshPrediction(*map(np.concatenate, zip(*done, strict=True))) if done else None
        return _prediction(found, rows, len(frames), self._mesh.has_iris)

    def _first_pass(self, frames: np.ndarray, boxes: np.ndarray, rolls: np.ndarray) -> FirstPass:
        images = frames_to_images(frames, self._mesh.device)
        where = (torch.from_numpy(one.astype(np.float32)).to(images.device) for one in (boxes, rolls))
        faces = self._mesh.find_faces(images, *where)
        centre, side, angle = squares_from_points(faces.points)
        seen = faces.presence > 0
        squares = torch.where(seen[:, None], torch.column_stack([centre, side, angle]), torch.nan)
        landmarks = torch.where(seen[:, None, None], faces.points[:, list(IBUG68), :2], torch.nan)
        return FirstPass(squares.cpu().numpy(), landmarks.float().cpu().numpy())

    def _faces(self, frames: np.ndarray, squares: np.ndarray, before: np.ndarray) -> MeshPrediction:
        """before (n,68,2): landmarks of the first pass, NaN where there was none."""
        images = frames_to_images(frames, self._mesh.device)
        centre, side, angle = (torch.from_numpy(one.astype(np.float32)).to(images.device)
                               for one in (squares[:, :2], squares[:, 2], squares[:, 3]))  # fmt: skip
        points, presence = self._mesh.predict(images, CropSquares(centre, side, angle))
        passed = torch.from_numpy(before).to(points)
        for _ in range(MAX_FURTHER_PASSES):
            landmarks = points[:, list(IBUG68), :2]
            shift = (landmarks - passed).norm(dim=2).mean(1) / side
            far = (shift > SETTLED_SHIFT) & (presence > 0)
            if not far.any():
                break
            passed[far] = landmarks[far]
            points[far], presence[far] = self._mesh.predict(images[far], squares_from_points(points[far]))
        irises = torch.full((len(points), 2, 5, 2), torch.nan)
        if self._mesh.has_iris:
            points, irises = self._mesh.refine_eyes(images, points)
        points, irises, presence, passed = (
            one.float().cpu().numpy() for one in (points, irises, presence, passed)
        )
        return MeshPrediction(points, irises, presence, _rounded(passed))


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return [part for part in np.array_split(rows, max(1, -(-len(rows) // FACES_PER_BATCH))) if len(part)]


def _interpolate_squares(squares: np.ndarray, looked_at: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """squares (n,4) of the frames `looked_at` (n,) -> (m,4) of the frames `rows`; NaN where the nearest of
    them on either side shows no face."""
    if len(rows) == len(looked_at):
        return squares
    seen = np.isfinite(squares).all(1)
    known = squares.copy()
    known[seen, 3] = np.unwrap(known[seen, 3])
    return np.stack([np.interp(rows, looked_at, column) for column in known.T], axis=1)


def frames_to_images(frames: np.ndarray, device: torch.device) -> Tensor:
    """frames (T,H,W,3) uint8 -> (T,3,H,W) uint8, on the device."""
    images = torch.from_numpy(np.require(frames, requirements=("C_CONTIGUOUS", "WRITEABLE")))
    if device.type == "cuda":
        images = images.pin_memory().to(device, non_blocking=True)
    return images.permute(0, 3, 1, 2)


def _usable_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """(T,) bool: there is a box, it has an area, and its middle lies in the frame."""
    finite = np.isfinite(boxes).all(1)
    low, high = np.nan_to_num(boxes[:, :2]), np.nan_to_num(boxes[:, 2:])
    middle = (low + high) / 2
    inside = (middle >= 0).all(1) & (middle <= [width, height]).all(1)
    return np.asarray(finite & inside & (high - low >= MIN_BOX_SIDE).all(1))


def _prediction(found: MeshPrediction | None, rows: np.ndarray, count: int, iris: bool) -> LandmarkPrediction:
    """found: of the frames `rows` -> of all `count` frames; NaN and 0 where there is no face."""
    previous_pass = np.full((count, len(IBUG68), 2), np.nan, np.float32)
    dense = np.full((count, MESH_POINT_COUNT, 3), np.nan, np.float32)
    irises = np.full((count, 2, 5, 2), np.nan, np.float32)
    presence = np.zeros(count, np.float32)
    if found is not None:
        seen = (found.presence > 0) & np.isfinite(found.points).all((1, 2))
        dense[rows[seen]] = _rounded(found.points[seen])
        irises[rows[seen]] = _rounded(found.irises[seen])
        presence[rows[seen]] = found.presence[seen]
        previous_pass[rows[seen]] = found.passed[seen]
    landmarks3d = dense[:, list(IBUG68)]
    confidence = np.where(presence > 0, 1 / (1 + np.exp(-presence)), 0)
    return LandmarkPrediction(
        landmarks=np.ascontiguousarray(landmarks3d[..., :2]),
        confidence=np.repeat(confidence[:, None], len(IBUG68), axis=1).astype(np.float32),
        landmarks3d=landmarks3d,
        dense=dense,
        iris=irises if iris else None,
        score=np.clip(presence / SURE_PRESENCE_LOGIT, 0, 1),
        previous_pass=previous_pass,
    )


def _rounded(points: np.ndarray) -> np.ndarray:
    return np.round(points * LANDMARK_STEPS_PER_PIXEL) / LANDMARK_STEPS_PER_PIXEL


# --- loaders ------------------------------------------------------------------------------------------------
def load_face_mesh(
    weights: Mapping[str, Path], runtime: type[LiteRtNet] | type[TorchTfliteNet], iris: bool
) -> FaceMesh:
    mesh = runtime(weights["mp_mesh468"], MESH_NET)
    eyes = runtime(weights["mp_iris"], IRIS_NET) if iris else None
    return FaceMesh(mesh, eyes)


def load_mesh468_litert(weights: Mapping[str, Path]) -> MeshLandmarker:
    return MeshLandmarker(load_face_mesh(weights, LiteRtNet, iris=False))


def load_mesh468_torch(weights: Mapping[str, Path]) -> MeshLandmarker:
    return MeshLandmarker(load_face_mesh(weights, TorchTfliteNet, iris=False))


def load_mesh468_iris_litert(weights: Mapping[str, Path]) -> MeshLandmarker:
    return MeshLandmarker(load_face_mesh(weights, LiteRtNet, iris=True))


def load_mesh468_iris_torch(weights: Mapping[str, Path]) -> MeshLandmarker:
    return MeshLandmarker(load_face_mesh(weights, TorchTfliteNet, iris=True))
