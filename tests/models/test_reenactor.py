"""What a user may ask of a head's motion, as values."""

import pytest

from models.errors import InvalidSettings
from models.reenactor import Edit


def test_an_edit_tells_its_changes_in_their_order():
    edit = Edit(
        frontal=True, pose={"roll": 5.0}, turn={"yaw": -20.0}, expression_of={}, expression={"3": 0.5},
        identity={"jaw_width": -2.0},
    )  # fmt: skip
    assert edit.changes == [
        "frontal", "roll set to 5 degrees", "yaw -20 degrees", "expression of another picture",
        "expression 3 +0.5 sigmas", "identity jaw_width -2 sigmas",
    ]  # fmt: skip
    assert Edit().changes == []


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
        Edit(**wrong)
