import numpy as np
import pytest

from pipelines.eval.pair_clips import PairClip, clips_of


@pytest.fixture
def families(unit_samples):
    class Counting(unit_samples):
        decoded = 0

        def __getitem__(self, index):
            self.decoded += 1
            return super().__getitem__(index)

    frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    clips = [{"__key__": key, "frames": frames + n, "clip": {"n": n}} for n, key in enumerate("ab")]
    return {"clips": Counting(clips), "speech": Counting([{"__key__": "b", "speech": np.ones(3)}])}


def test_a_clip_reads_each_field_of_the_family_that_has_it(families):
    clip = PairClip("b", list(families.values()))
    assert (clip.length, clip.read("clip"), clip.read("speech").sum()) == (5, {"n": 1}, 3)
    assert clip.frames([3, 1]).ravel().tolist() == [4, 2]


def test_a_sample_is_decoded_once(families):
    clip = PairClip("b", list(families.values()))
    for _ in range(3):
        clip.frames([0])
        clip.read("speech")
    assert [family.decoded for family in families.values()] == [1, 1]


def test_an_unknown_field_and_an_unknown_clip_are_named(families):
    with pytest.raises(
        ValueError, match="clip b: no field 'pose' among those that are read, clip, frames, speech"
    ):
        PairClip("b", list(families.values())).read("pose")
    with pytest.raises(ValueError, match=r"clip c is not among \['a', 'b'\]"):
        PairClip("c", list(families.values())).read("frames")


def test_source_and_driving_of_one_clip_are_one_object(families):
    first, second = clips_of("b", "b", {"pairs": families["speech"], **families}, besides=["pairs"])
    assert first is second


def test_of_two_corpora_each_clip_reads_its_own(families):
    sides = {"source.clips": families["clips"], "driving.clips": families["speech"]}
    source, driving = clips_of("b", "b", {"pairs": families["speech"], **sides}, besides=["pairs"])
    assert source.read("clip") == {"n": 1}
    assert driving.read("speech").sum() == 3
