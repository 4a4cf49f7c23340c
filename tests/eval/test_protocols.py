import pytest
from msgspec.structs import replace

from pipelines.eval.protocols import EvaluationProtocol, SweepConfig
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
        ({"motion": "relative"}, "motion relative: self_reenactment keeps"),
        ({"sound": "other"}, "sound other: only kind audio_driven hears another"),
        ({"kind": "editing"}, "sweep is missing: kind editing, and no other, has one"),
        ({"sweep": SweepConfig(attribute="turn.yaw", values=(9,))}, "sweep is there: kind editing"),
        ({"kind": "frontalisation", "motion": "relative"}, "motion relative: frontalisation keeps"),
        ({"kind": "audio_driven", "driving_data": "talks"}, "audio_driven pairs each clip with itself"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        EvaluationProtocol(**change)


@pytest.mark.parametrize("attribute", ["pose.up", "turn", "expression.smile", "identity.-1", "colour.1"])
def test_a_sweep_of_what_cannot_be_edited_is_refused(attribute):
    with pytest.raises(ValueError, match=r"expected pose.ANGLE or turn.ANGLE"):
        SweepConfig(attribute=attribute, values=(1.0,))


def test_a_sweep_is_an_edit_for_each_of_its_values():
    sweep = SweepConfig(attribute="expression.3", values=(-1.0, 1.0))
    assert [dict(sweep.edit(value).expression) for value in sweep.values] == [{"3": -1.0}, {"3": 1.0}]
    assert dict(SweepConfig(attribute="pose.yaw", values=(30,)).edit(30).pose) == {"yaw": 30}


TALKS_BY_ANOTHER = EvaluationProtocol(kind="audio_driven", sound="other")
EDITED = EvaluationProtocol(kind="editing", sweep=SweepConfig(attribute="turn.yaw", values=(9,)))
FRONTAL = EvaluationProtocol(kind="frontalisation")


def test_where_a_clip_drives_itself_with_its_own_sound_there_is_a_truth():
    assert EvaluationProtocol().has_truth
    assert EvaluationProtocol(kind="audio_driven").has_truth
    assert not any(one.has_truth for one in (CROSS, TALKS_BY_ANOTHER, FRONTAL, EDITED))


def test_pairs_are_of_two_clips_where_another_person_drives_or_is_heard():
    assert CROSS.joins_clips
    assert TALKS_BY_ANOTHER.joins_clips
    assert not any(one.joins_clips for one in (EvaluationProtocol(), FRONTAL, EDITED))


def test_edited_heads_do_not_do_what_the_driving_frames_do():
    protocols = CROSS, TALKS_BY_ANOTHER, FRONTAL, EDITED
    assert [one.follows_driving for one in protocols] == [True, True, False, False]


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
