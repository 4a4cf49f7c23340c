"""In which frame a source's boxes are, where they are in pixels and the source does not say of what.

They are those of the recording as the source's makers had it; a copy may be a smaller version. What a site
has, yt-dlp says. Otherwise a box that leaves the copy's frame proves that they are of a larger one; which of
the usual ones is a guess until a face is seen where it puts the boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.perception.interfaces import FaceDetector
from pipelines import media
from pipelines.errors import Rejected
from pipelines.preprocess.boxes import pad_box
from pipelines.preprocess.clips_config import ClipsConfig
from pipelines.preprocess.sources.common.source_tracks import box_iou, scale_track_box
from pipelines.preprocess.tracks import track_tick_range

if TYPE_CHECKING:
    from pipelines.media.probe_schema import Probe
    from pipelines.preprocess.sources.common.rows import AnnotatedFaceTrack

FrameSize = tuple[int, int]

COMMON_FRAME_HEIGHTS = (360, 480, 720, 1080, 1440, 2160)
"""Of frames of 16:9, into which a recording of another shape is fitted."""
BOX_OUTSIDE_FRAME_TOLERANCE = 0.01
"""Share of the frame by which a box may leave it all the same."""
MAX_FACE_SEARCH_FRAMES = 8
"""Frames, at most, in which a face is looked for."""
FACE_GROWTH = 0.35
"""Growth of a detected face on each side, in sides of it, to what boxes of sources hold."""
MIN_FACE_SOURCE_BOX_IOU = 0.25
"""Overlap of such a face and a box from which the box is taken to be about it."""
MIN_MATCHING_BOX_SHARE = 0.5
"""Share of the frames with a face in which its box must be about one."""


def find_box_frame_size(
    path: Path,
    probed: Probe,
    tracks: Sequence[AnnotatedFaceTrack],
    settings: ClipsConfig,
    detector: FaceDetector,
) -> tuple[Sequence[AnnotatedFaceTrack], FrameSize | None]:
    """The tracks with the frame that their boxes are in, and that frame; None where nothing had to be found.

    Raises Rejected, another_scale, where the boxes do not fit the copy and no frame is sure.
    """
    unscaled = [track for track in tracks if not track["height"]]
    if not unscaled:
        return tracks, None
    reach = np.max([track["box"][2:] for track in unscaled], axis=0)
    own = (probed["width"], probed["height"])
    origin = probed.get("origin", {})
    known = (origin.get("largest_width", 0), origin.get("largest_height", 0))
    original = known if all(known) else own
    if _holds(original, reach):
        frame = original
    else:
        larger = (
            []
            if all(known)
            else [frame for frame in candidate_original_resolutions(own) if _holds(frame, reach)]
        )
        # boxes may leave the right frame too, where a face does
        frame = find_frame_size_matching_faces(
            [original, *larger], unscaled, _faces(path, probed, unscaled, settings, detector), own
        )
        if frame is None:
            tried = ", ".join(f"{width} x {height}" for width, height in (original, *larger))
            raise Rejected(
                "another_scale",
                f"boxes reach {reach[0]:.0f} x {reach[1]:.0f} px, this copy has {own[0]} x {own[1]}, and no "
                f"face is seen in them if the original had {tried}; take a copy of the original's size, or "
                "give boxes in shares of the frame",
            )
    if frame == own:
        return tracks, None
    width, height = frame
    return [t if t["height"] else {**t, "width": width, "height": height} for t in tracks], frame


def candidate_original_resolutions(own: FrameSize) -> list[FrameSize]:
    """The usual frames that are larger than a copy, in its shape, smallest first."""
    long, short = max(own), min(own)
    zooms = [min(lines * 16 / 9 / long, lines / short) for lines in COMMON_FRAME_HEIGHTS]
    return [
        (round(own[0] * zoom), round(own[1] * zoom))
        for zoom in zooms
        if zoom > 1 + BOX_OUTSIDE_FRAME_TOLERANCE
    ]


def find_frame_size_matching_faces(
    frames: Sequence[FrameSize],
    tracks: Sequence[AnnotatedFaceTrack],
    faces: Sequence[tuple[int, np.ndarray]],
    own: FrameSize,
) -> FrameSize | None:
    """The frame in which the tracks' boxes are about faces; of several the one that suits best. None where
    there is none.

    faces: of each frame of the copy with a face, the number of its track and boxes (n,4) in pixels.
    """
    best, suits = None, 0.0
    for frame in frames:
        alike = []
        for number, found in faces:
            track: AnnotatedFaceTrack = {**tracks[number], "width": frame[0], "height": frame[1]}
            box = np.array(scale_track_box(track, *own))
            alike.append(max(float(box_iou(box, pad_box(face, FACE_GROWTH))) for face in found))
        if (
            alike
            and np.mean(np.array(alike) >= MIN_FACE_SOURCE_BOX_IOU) >= MIN_MATCHING_BOX_SHARE
            and np.mean(alike) > suits
        ):
            best, suits = frame, float(np.mean(alike))
    return best


def _holds(frame: FrameSize, reach: np.ndarray) -> bool:
    return bool((reach <= np.array(frame) * (1 + BOX_OUTSIDE_FRAME_TOLERANCE)).all())


def _faces(
    path: Path,
    probed: Probe,
    tracks: Sequence[AnnotatedFaceTrack],
    settings: ClipsConfig,
    detector: FaceDetector,
) -> list[tuple[int, np.ndarray]]:
    """Number of a track and its faces (n,4), in pixels of the copy, of each frame that was looked at and
    shows one."""
    zoom = min(1.0, settings.detect_size / max(probed["width"], probed["height"]))
    size = (max(2, round(probed["width"] * zoom)), max(2, round(probed["height"] * zoom)))
    scale = np.array([probed["width"] / size[0], probed["height"] / size[1]] * 2)
    found = []
    for number, tick in _sample_ticks(tracks, probed):
        frames, _ = media.read_frames_at_ticks(path, probed, size, None, np.array([tick]))
        boxes = detector.detect(frames)[0][:, :4]
        if len(boxes):
            found.append((number, boxes * scale))
    return found


def _sample_ticks(tracks: Sequence[AnnotatedFaceTrack], probed: Probe) -> list[tuple[int, int]]:
    """Number of a track and a tick of it, of LOOKS at most: middles of tracks that the file has, evenly
    chosen, then quarters of them."""
    first, last = media.video_tick_range(probed)
    spans = []
    for number, track in enumerate(tracks):
        begin, end = track_tick_range(track, probed)
        begin, end = max(begin, first), min(end, last)
        if begin < end:
            spans.append((number, begin, end))
    spread = spans[:: max(1, -(-len(spans) // MAX_FACE_SEARCH_FRAMES))]
    samples = [(n, int(begin + (end - begin) * at)) for at in (0.5, 0.25, 0.75) for n, begin, end in spread]
    return samples[:MAX_FACE_SEARCH_FRAMES]
