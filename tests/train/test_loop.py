"""Which validation may give the best weights."""

import pytest

from models.api import BestCriterion
from models.errors import InvalidSettings
from pipelines.train.loop import choosing_figure

POSE = BestCriterion(figure="cross/pose_mesh", highest=False)


@pytest.mark.parametrize(
    ("figures", "value"),
    [
        ({"cross/pose_mesh": 3.0, "cross/pose_mesh_frames": 6, "cross/pose_mesh_missing": 2}, 3.0),
        ({"cross/pose_mesh": 3.0, "cross/pose_mesh_frames": 5, "cross/pose_mesh_missing": 3}, None),
        ({"cross/pose_mesh_frames": 0, "cross/pose_mesh_missing": 8}, None),  # no face in any output
        ({"cross/pose_mesh": 3.0, "cross/pose_mesh_frames": 2, "cross/pose_mesh_missing": 0}, 3.0),
    ],
)
def test_a_figure_of_too_few_faces_does_not_choose(figures, value):
    """Of the samples whose driving frame shows one, three quarters must."""
    assert choosing_figure("train.x.y", POSE, figures) == value


def test_a_figure_that_is_not_there_is_an_error_with_those_that_are():
    with pytest.raises(InvalidSettings, match=r"best.figure 'psnr'; validation has l1; name one of them"):
        choosing_figure("train.x.y", BestCriterion(), {"l1": 0.1})
