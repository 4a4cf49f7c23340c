from dataclasses import replace

import numpy as np
import pytest

from models.perception.head.default_head import get_analytic_head
from pipelines.preprocess.sources.common.head_appearance import (
    sample_person_appearance,
    sample_synthetic_recording_appearance,
)
from pipelines.preprocess.sources.common.rendered_head import HeadRenderer, SyntheticHeadState

SIDE = 160


@pytest.fixture(scope="module")
def renderer():
    rng, model = np.random.default_rng(0), get_analytic_head()
    return HeadRenderer(
        model,
        sample_person_appearance(rng, 0, model),
        sample_synthetic_recording_appearance(rng, SIDE, SIDE),
        SIDE,
        SIDE,
    )


@pytest.fixture
def pose(renderer):
    return SyntheticHeadState(
        angles=np.zeros(3), scale=SIDE / 5.9, chest=np.array([SIDE / 2, SIDE * 0.45, 0]),
        exp=np.zeros(renderer.model.n_exp, np.float32), gaze=np.zeros(2),
    )  # fmt: skip


def test_a_frame_shows_the_head_before_the_wall(renderer, pose):
    frame = renderer.render_frame(pose)
    assert (frame.shape, frame.dtype) == ((SIDE, SIDE, 3), np.uint8)
    wall = np.abs(frame / 255 - renderer.setting.wall).max(-1)
    assert wall[:8, :8].max() < 0.1
    x, y = renderer.project_landmarks(pose)[30].astype(int)
    assert wall[y - 3 : y + 3, x - 3 : x + 3].mean() > 0.05


def test_landmarks_lie_in_the_frame_and_follow_a_turn(renderer, pose):
    ahead = renderer.project_landmarks(pose)
    assert ((ahead > 0) & (ahead < SIDE)).all()
    turned = renderer.project_landmarks(replace(pose, angles=np.array([0, 30.0, 0])))
    nose, jaw = (turned - ahead)[30], (turned - ahead)[[0, 16]].mean(0)
    assert abs(nose[0] - jaw[0]) > 3
