import numpy as np
import pytest

from pipelines.eval.pair_clips import PairClip, clips_of_pair


@pytest.fixture
def families(unit_samples):
    class Counting(unit_samples):
        """Keeps what was read."""

        asked: list

        def frames(self, key, indices):
            self.asked.append(list(indices))
            return super().frames(key, indices)

        def read(self, key, fields):
            self.asked.append(list(fields))
            return super().read(key, fields)

    frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    clips = [{"__key__": key, "frames": frames + n, "clip": {"n": n}} for n, key in enumerate("ab")]
    found = {"clips": Counting(clips), "speech": Counting([{"__key__": "b", "speech": np.ones(3)}])}
    for family in found.values():
        family.asked = []
    return found


def test_a_clip_reads_each_field_of_the_family_that_has_it(families):
    clip = PairClip("b", list(families.values()))
    assert (clip.length, clip.read_field("clip"), clip.read_field("speech").sum()) == (5, {"n": 1}, 3)
    assert clip.frames([3, 1]).ravel().tolist() == [4, 2]


def test_a_frame_and_a_field_are_read_once_and_no_others(families):
    clip = PairClip("b", list(families.values()))
    for frames in ([0], [0, 3], [3, 0]):
        clip.frames(frames)
    for _ in range(3):
        clip.read_field("speech")
    assert {name: family.asked for name, family in families.items()} == {
        "clips": [[0], [3]], "speech": [["speech"]]
    }  # fmt: skip


def test_other_fields_of_a_family_come_with_the_first_and_frames_do_not(families):
    PairClip("b", list(families.values())).read_field("clip")
    assert families["clips"].asked == [["clip"]]


def test_an_unknown_field_and_an_unknown_clip_are_named(families):
    with pytest.raises(
        ValueError, match="clip b: no field 'pose' among those that are read, clip, frames, speech"
    ):
        PairClip("b", list(families.values())).read_field("pose")
    with pytest.raises(ValueError, match=r"clip c is not among \['a', 'b'\]"):
        PairClip("c", list(families.values())).read_field("frames")


def test_source_and_driving_of_one_clip_are_one_object(families):
    first, second = clips_of_pair("b", "b", {"pairs": families["speech"], **families}, besides=["pairs"])
    assert first is second


def test_of_two_corpora_each_clip_reads_its_own(families):
    sides = {"source.clips": families["clips"], "driving.clips": families["speech"]}
    source, driving = clips_of_pair("b", "b", {"pairs": families["speech"], **sides}, besides=["pairs"])
    assert source.read_field("clip") == {"n": 1}
    assert driving.read_field("speech").sum() == 3


# --- another clip's sound -----------------------------------------------------------------------------------
@pytest.fixture
def dubbed(unit_samples):
    """Clip a as it is seen, with the sound of clip b."""

    def clip(key, level, sound):
        return {"__key__": key, "frames": np.full((3, 1, 1, 1), level, np.uint8), "sound": np.full(9, level),
                "clip": {"identity": key, "has_sound": sound, "audible": float(sound)}}  # fmt: skip

    inputs = {
        "clips": unit_samples([clip("a", 1, False)]),
        "sound.clips": unit_samples([clip("b", 2, True)]),
        "sound.speech": unit_samples([{"__key__": "b", "speech": np.full((3, 4), 2.0)}]),
    }
    return clips_of_pair("a", "a", inputs, [], sound="b")[1]


def test_a_clip_with_the_sound_of_another_shows_its_own_frames(dubbed):
    assert (dubbed.key, dubbed.length, dubbed.frames([0, 2]).ravel().tolist()) == ("a", 3, [1, 1])


def test_what_is_heard_is_the_other_clips(dubbed):
    assert dubbed.read_field("sound").tolist() == [2] * 9
    assert dubbed.read_field("speech").shape == (3, 4)


def test_what_is_known_of_the_sound_is_the_other_clips_and_the_rest_its_own(dubbed):
    assert dubbed.read_field("clip") == {"identity": "a", "has_sound": True, "audible": 1.0}


def test_a_stage_that_reads_nothing_of_the_sound_sees_the_clip_alone(unit_samples):
    inputs = {"clips": unit_samples([{"__key__": "a", "frames": np.zeros((2, 1, 1, 1), np.uint8)}])}
    assert isinstance(clips_of_pair("a", "a", inputs, [], sound="b")[1], PairClip)
