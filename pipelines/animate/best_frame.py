"""Where relative motion starts: at the first driving frame, or with --best-frame at the one whose face has
the pose most like the source's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from models.perception.head.hull import hull_area
from models.perception.interfaces import Landmarker
from models.reenactor import FaceFrames, Motion
from pipelines.animate.driving import select_motion_frames
from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.animate.driving import Driver
    from pipelines.animate.face import SourcePortrait

Log = Callable[[str], None]


def get_motions_and_start_frame(
    driver: Driver, source: SourcePortrait, best_frame: bool, landmarker: Landmarker | None, log: Log
) -> tuple[Iterable[Motion], Motion | None, int]:
    """Batches of motion, the motion where relative motion starts (None: that of the first frame), and that
    frame's number."""
    if not best_frame:
        return driver.motions(), None, 0
    assert landmarker is not None, "best_frame compares landmarks"
    likeness = ClosestPoseFrameFinder(source, landmarker)
    motions = list(driver.motions(likeness.add_driving_frames))
    start = int(np.flatnonzero(driver.has_face)[likeness.best_frame()])
    log(f"relative motion starts at driving frame {start}, whose face is most like the source's")
    before = 0
    for motion in motions:
        count = len(next(iter(motion.values())))
        if start < before + count:
            return motions, select_motion_frames(motion, [start - before]), start
        before += count
    raise AssertionError(f"frame {start} of {before}")


class ClosestPoseFrameFinder:
    """How much the face of each driving frame is posed as the source's (supplement 7.3).

    68 landmarks less their mean, over the root of their hull's area; the sum of squared differences.
    """

    def __init__(self, source: SourcePortrait, landmarker: Landmarker):
        self._landmarker = landmarker
        points = landmarker.landmarks(source.crop[None], source.box[None])[0]
        self._wanted = normalize_landmarks(points)
        if self._wanted is None:
            raise UserError(f"{landmarker.name} places no landmarks on the source; leave out --best-frame")
        self._distances: list[float] = []

    def add_driving_frames(self, driving: FaceFrames) -> None:
        """Measure more driving frames, each of which shows a face."""
        for points in self._landmarker.landmarks(driving.frames, driving.boxes):
            shape = normalize_landmarks(points)
            gap = np.inf if shape is None else float(np.square(shape - self._wanted).sum())
            self._distances.append(gap)

    def best_frame(self) -> int:
        """Number, among the frames with a face, of the most alike; the earliest of equals. UserError where
        none has landmarks.
        """
        if not np.isfinite(self._distances).any():
            raise UserError(
                f"{self._landmarker.name} places no landmarks on any driving frame; leave out --best-frame"
            )
        return int(np.argmin(self._distances))


def normalize_landmarks(points: np.ndarray) -> np.ndarray | None:
    """Landmarks (68,2) -> about 0, their hull of area 1; None where they are missing or in a line."""
    area = hull_area(points)
    return (points - points.mean(0)) / area**0.5 if area > 0 else None
