import pytest
from msgspec.structs import replace

from pipelines.eval.protocols import EvaluationProtocol
from pipelines.preprocess.clips_config import FrameCodecConfig

JPEG = FrameCodecConfig()
CROSS = EvaluationProtocol(kind="cross_reenactment")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_stride": 0}, "frame_stride 0: expected 1 or more"),
        ({"sources": 0}, "sources 0: expected 1 or more"),
        ({"max_pairs": 0}, "max_pairs 0: expected 1 or more"),
        ({"size": 63}, "size 63: expected an even number"),
        ({"frames_from": "truth"}, "frames_from 'truth': expected clips, or views.NAME"),
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
    changed = replace(EvaluationProtocol(), **change)
    assert changed.protocol_id(4, "abc", JPEG) != EvaluationProtocol().protocol_id(4, "abc", JPEG)


def test_another_list_of_pairs_is_another_protocol():
    ids = [EvaluationProtocol().protocol_id(4, digest, JPEG) for digest in ("abc", "abd")]
    assert ids[0] != ids[1]


def test_frames_that_are_kept_otherwise_are_another_protocol_and_it_says_how():
    def told(**stored):
        return EvaluationProtocol().protocol_id(4, "abc", FrameCodecConfig(**stored))

    assert "clips' frames kept as JPEG q95 4:2:0, 41 to 47 dB;" in told()
    assert "clips' frames kept as PNG, lossless;" in told(codec="png")
    assert len({told(), told(codec="png"), told(codec="h264"), told(quality=90)}) == 4


def test_relative_motion_is_another_protocol_than_absolute():
    texts = [replace(CROSS, motion=motion).protocol_id(4, "abc", JPEG) for motion in ("absolute", "relative")]
    assert ["absolute motion" in texts[0], "relative motion" in texts[1]] == [True, True]
