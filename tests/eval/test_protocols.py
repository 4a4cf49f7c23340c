import pytest
from msgspec.structs import replace

from pipelines.eval.protocols import EvaluationProtocol

CROSS = EvaluationProtocol(kind="cross_reenactment")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_stride": 0}, "frame_stride 0: expected 1 or more"),
        ({"sources": 0}, "sources 0: expected 1 or more"),
        ({"max_pairs": 0}, "max_pairs 0: expected 1 or more"),
        ({"size": 63}, "size 63: expected an even number"),
        ({"motion": "relative"}, "motion relative: self-reenactment"),
        ({"pair_list": "pairs.csv"}, r"pair_list pairs\.csv: self-reenactment"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        EvaluationProtocol(**change)


def test_only_self_reenactment_has_a_truth():
    assert EvaluationProtocol().has_truth
    assert not CROSS.has_truth


@pytest.mark.parametrize(
    "change",
    [{"size": 64}, {"sources": 2}, {"frame_stride": 3}, {"max_frames": 9}, {"kind": "cross_reenactment"}],
)
def test_another_setting_is_another_protocol(change):
    assert replace(EvaluationProtocol(), **change).protocol_id(4, "abc") != EvaluationProtocol().protocol_id(
        4, "abc"
    )


def test_another_list_of_pairs_is_another_protocol():
    assert EvaluationProtocol().protocol_id(4, "abc") != EvaluationProtocol().protocol_id(4, "abd")


def test_relative_motion_is_another_protocol_than_absolute():
    texts = [replace(CROSS, motion=motion).protocol_id(4, "abc") for motion in ("absolute", "relative")]
    assert ["absolute motion" in texts[0], "relative motion" in texts[1]] == [True, True]
