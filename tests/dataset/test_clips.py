import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.dataset.clips import StoredClip, open_clip_families
from tests.train.conftest import FakeFamily


def artifact(samples):
    return SimpleNamespace(open_family=lambda: FakeFamily(samples))


@pytest.fixture
def inputs(family):
    """All clips have landmarks but the last; a view of every clip shows white frames."""
    last = family.keys[-1]
    views = {key: sample | {"frames": np.full_like(sample["frames"], 255)}
             for key, sample in family.samples.items()}  # fmt: skip
    points = {key: sample for key, sample in family.samples.items() if key != last}
    return {"clips": artifact(family.samples), "keypoints": artifact(points), "views": artifact(views)}


def test_clips_are_those_that_every_family_has(inputs, family):
    _, keys = open_clip_families(inputs, {"clips": ("frames",), "keypoints": ("landmarks",)})
    assert keys == family.keys[:-1]


def test_frames_are_those_of_the_node_of_which_frames_are_read(inputs, family):
    shown = [
        StoredClip(
            open_clip_families(inputs, {"keypoints": ("landmarks",), name: ("frames",)})[0], family.keys[0]
        )
        for name in ("clips", "views")
    ]
    assert (shown[1].frames([0, 1]) == 255).all()
    expected = family.samples[family.keys[0]]["frames"][:2]
    np.testing.assert_array_equal(shown[0].frames([0, 1]), expected)


def test_points_are_in_pixels_of_the_frames_that_are_shown(inputs, family):
    """A view of every other frame, the second last first, of twice the size about another corner."""
    key, reads = family.keys[0], {"keypoints": ("landmarks",)}
    points = family.samples[key]["landmarks"]
    affine = np.array([[2, 0, -3], [0, 2, 5]], np.float32)
    frame_at = np.array([4, 0, 2], np.int32)
    view = {"frames": family.samples[key]["frames"][frame_at], "affine": affine[None].repeat(3, axis=0),
            "frame_at": frame_at}  # fmt: skip
    inputs["views"] = artifact({key: view})
    plain, _ = open_clip_families(inputs, reads | {"clips": ("frames",)})
    shown, _ = open_clip_families(inputs, reads | {"views": ("frames", "affine", "frame_at")})
    np.testing.assert_array_equal(StoredClip(plain, key).read_points("landmarks", [3, 1]), points[[3, 1]])
    clip = StoredClip(shown, key)
    assert clip.length == 3
    np.testing.assert_allclose(clip.read_points("landmarks", [2, 0, 0]), points[[2, 4, 4]] * 2 + [-3, 5])


def test_a_field_is_read_once_and_kept(inputs, family):
    clips, keys = open_clip_families(inputs, {"clips": ("frames",), "keypoints": ("landmarks",)})
    clip = StoredClip(clips, keys[0])
    for _ in range(3):
        np.testing.assert_array_equal(clip.read_field("landmarks"), family.samples[keys[0]]["landmarks"])
    assert clips.fields["landmarks"].reads == 1


def test_what_was_read_does_not_travel_to_another_process(family):
    clips, keys = open_clip_families({"clips": artifact(family.samples)}, {"clips": ("frames", "landmarks")})
    clips.read(keys[0], "landmarks")
    again = pickle.loads(pickle.dumps(clips))
    assert not again._kept
    np.testing.assert_array_equal(again.read(keys[0], "landmarks"), family.samples[keys[0]]["landmarks"])
