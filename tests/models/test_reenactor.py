"""What a user may ask of a head's motion, as values."""

import numpy as np
import pytest
import torch

from models.errors import InvalidSettings
from models.reenactor import ClipFrames, FrameDrivenReenactor, MotionEdit, MotionTransfer


def test_an_edit_tells_its_changes_in_their_order():
    edit = MotionEdit(
        frontal=True, pose={"roll": 5.0}, turn={"yaw": -20.0}, expression_of={}, expression={"3": 0.5},
        identity={"jaw_width": -2.0},
    )  # fmt: skip
    assert edit.changes == [
        "frontal", "roll set to 5 degrees", "yaw -20 degrees", "expression of another picture",
        "expression 3 +0.5 sigmas", "identity jaw_width -2 sigmas",
    ]  # fmt: skip
    assert MotionEdit().changes == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pose": {"nod": 1.0}}, "pose nod: expected some of pitch, yaw, roll"),
        ({"turn": {"yaw": float("nan")}}, "turn yaw=nan: expected a finite number"),
        ({"expression": {"0": float("inf")}}, "expression 0=inf"),
        ({"identity": {"0": float("nan")}}, "identity 0=nan"),
    ],
)
def test_an_edit_that_means_nothing_is_refused(wrong, told):
    with pytest.raises(InvalidSettings, match=told):
        MotionEdit(**wrong)


class Brightness(FrameDrivenReenactor):
    """Its motion is the brightness of each frame."""

    batch = 2

    @classmethod
    def from_checkpoints(cls, checkpoints, device, precision):
        return cls()

    def encode_sources(self, sources):
        return sources.frames[:1]

    def extract_motion(self, driving):
        return {"brightness": torch.from_numpy(driving.frames).float().mean((1, 2, 3)) / 255}

    def render(self, scene, motion):
        return motion["brightness"].numpy()[:, None, None, None] * np.ones_like(scene, np.float32)


class Grey:
    """A clip whose frames get brighter."""

    key, length = "grey", 5

    def frames(self, indices):
        return np.stack([np.full((4, 4, 3), 51 * i, np.uint8) for i in indices])


def test_a_model_driven_by_frames_renders_any_number_of_them_in_batches():
    images = Brightness().drive(ClipFrames(Grey(), [0]), ClipFrames(Grey(), [1, 2, 5]))
    np.testing.assert_allclose(images[:, 0, 0, 0], [0.2, 0.4, 1.0])


@pytest.mark.parametrize(
    "how", [MotionTransfer(motion="relative"), MotionTransfer(edit=MotionEdit(frontal=True))]
)
def test_a_model_driven_by_frames_changes_no_motion(how):
    with pytest.raises(InvalidSettings, match="this model renders the driving motion unchanged"):
        Brightness().check_transfer(how)
