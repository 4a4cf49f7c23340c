"""Where relative motion starts."""

import numpy as np
import pytest
from PIL import Image

from models.reenactor import FaceFrames, MotionTransfer
from pipelines.animate.best_frame import ClosestPoseFrameFinder
from pipelines.animate.face import cut_portrait
from pipelines.animate.render import AnimateOptions
from pipelines.errors import UserError
from tests.animate.stand_ins import (
    CLIPS,
    encode,
    frames_of,
)


def test_best_frame_is_where_the_face_is_posed_as_the_source(make, face, moving, tmp_path, messages):
    def turned(image, degrees):
        return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC, center=(125, 125)))

    frames = np.stack([turned(moving[0], 1.0 * (t - 14)) for t in range(24)])  # upright, as the source, at 14
    driving = encode(tmp_path / "turning.mp4", frames)
    out, result = make(driving, transfer=MotionTransfer(motion="relative"), best_frame=True)
    assert result.start == pytest.approx(14, abs=2)
    assert np.abs(frames_of(out)[result.start].astype(int) - 128).mean() < 2
    assert any(f"starts at driving frame {result.start}" in text for text in messages)


class Placed:
    """A landmarker to which the source shows the first of these faces (n,68,2), driving frames the others."""

    name = "placed"

    def __init__(self, points):
        self.points = points

    def landmarks(self, frames, boxes):
        return self.points[:1] if len(frames) == 1 else self.points[1:]


def likeness_of(face, nets, points):
    likeness = ClosestPoseFrameFinder(cut_portrait(face[:300, 80:400], CLIPS, nets.detector), Placed(points))
    count = len(points) - 1
    likeness.add_driving_frames(
        FaceFrames(frames=np.zeros((count, 1, 1, 3), np.uint8), boxes=np.zeros((count, 4), np.float32))
    )
    return likeness


def test_likeness_sees_neither_place_nor_size(face, nets):
    points = np.random.default_rng(0).uniform(0, 60, (3, 68, 2)).astype(np.float32)
    likeness = likeness_of(face, nets, np.stack([points[0], points[1], 0.3 * points[0] + 7, points[2]]))
    assert likeness.best_frame() == 1


def test_without_landmarks_in_any_frame_there_is_no_best_one(face, nets):
    points = np.full((3, 68, 2), np.nan, np.float32)
    points[0] = np.random.default_rng(0).uniform(0, 60, (68, 2))
    with pytest.raises(UserError, match="placed places no landmarks on any driving frame; leave out --best"):
        likeness_of(face, nets, points).best_frame()


def test_best_frame_without_relative_motion_means_nothing():
    with pytest.raises(UserError, match="--motion relative"):
        AnimateOptions(best_frame=True)
