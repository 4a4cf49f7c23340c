import json

import numpy as np
import pytest
import torch
from msgspec import to_builtins
from msgspec.structs import replace

from models.checkpoint import read_checkpoint
from models.errors import InvalidFile, InvalidSettings
from models.fsrt import augment, inference
from models.fsrt.config import AugmentConfig, TrainingSampleConfig
from models.fsrt.detector_task import KEYPOINT_LANDMARK_GROUPS, KeypointTask, landmark_group_means
from models.fsrt.spec import PHASE_TASKS, SPEC
from models.fsrt.task import FrameChanges, FsrtReenactmentTask
from models.loading import load_reenactor
from models.reenactor import ClipFrames, MotionTransfer
from models.task import CrossReenactmentTask
from tests.models.one_clip import tables


def batch_of(task, clip, training: bool = True, size: int = 3) -> dict[str, torch.Tensor]:
    samples = [task.sample(np.random.default_rng(i), tables(clip), training) for i in range(size)]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


@pytest.fixture
def task(nano) -> FsrtReenactmentTask:
    torch.manual_seed(0)
    task = FsrtReenactmentTask(nano, TrainingSampleConfig(sources=2, queries=32), AugmentConfig())
    task.net.eval()
    return task


def test_a_sample_reads_only_its_frames_and_depends_only_on_its_seed(task, clip):
    first, again = (task.sample(np.random.default_rng(5), tables(clip), True) for _ in range(2))
    assert [len(asked) for asked in clip.asked] == [3, 3]  # two sources and the driving frame
    assert all((first[name] == again[name]).all() for name in first)
    other = task.sample(np.random.default_rng(6), tables(clip), True)
    assert any((first[name] != other[name]).any() for name in first)


def test_frames_without_landmarks_are_not_used(task, nano, clip):
    clip.landmarks[:] = np.nan
    assert task.sample(np.random.default_rng(0), tables(clip), True) is None
    assert (
        KeypointTask(nano.detector, AugmentConfig()).sample(np.random.default_rng(0), tables(clip), True)
        is None
    )
    assert clip.asked == []  # nor decoded


def test_validation_samples_start_from_the_first_frames_unchanged(task, clip):
    sample = task.sample(np.random.default_rng(0), tables(clip), False)
    assert (sample["whole"][:2] == clip.images[:2]).all()
    drivers = [task.sample(np.random.default_rng(i), tables(clip), False)["whole"][2] for i in range(40)]
    assert not any(
        (frame == clip.images[i]).all() for frame in drivers for i in range(2)
    )  # never a source itself
    assert not sample["crop"].any()
    assert (sample["cropped_for_detector"] == sample["whole"]).all()
    assert (sample["driving_tight"] == sample["whole"][2]).all()


def test_a_step_gives_every_published_term(task, clip):
    terms = task.losses(batch_of(task, clip))
    assert set(terms) == {"pixel", "invariance", "variance", "covariance"}
    assert all(torch.isfinite(term()) and term().ndim == 0 for term in terms.values())


def test_gradient_reaches_everything_but_the_detector(task, clip):
    task.net.requires_grad_(True)
    terms = task.losses(batch_of(task, clip))
    torch.stack([term() for term in terms.values()]).sum().backward()
    assert all(p.grad is None for p in task.net.kp_detector.parameters())
    for part in ("expression_encoder", "encoder", "decoder"):
        assert all(p.grad is not None for p in getattr(task.net, part).parameters()), part


def test_keypoints_of_uncropped_frames_are_not_computed_twice(task, clip):
    """Skipping the second detector pass gives what running it would."""
    batch = batch_of(task, clip, size=4)
    views = task.augment_frames(batch)
    motion = task.extract_motion(views)
    for i in range(4):
        scale, shift = (
            1 / (1 - batch["crop"][i, :2] - batch["crop"][i, 2:]),
            batch["crop"][i, 2:] - batch["crop"][i, :2],
        )
        whole, _, _ = task.net.kp_detector(views.sources2_full[i])
        torch.testing.assert_close(motion.source_keypoints[i], (whole + shift) * scale, rtol=0, atol=1e-4)
        whole, _, _ = task.net.kp_detector(views.driving2_full[i : i + 1])
        torch.testing.assert_close(motion.driving_keypoints[i], (whole[0] + shift) * scale, rtol=0, atol=1e-4)


def test_the_target_is_the_driving_frame_at_the_queries(task, clip):
    batch = batch_of(task, clip, training=False)
    views = task.augment_frames(batch)
    driving = batch["whole"][:, 2].permute(0, 3, 1, 2).float() / 255
    small = torch.nn.functional.interpolate(driving, (16, 16), mode="bilinear", antialias=False)
    assert driving.shape[1:] == (3, 64, 64)
    torch.testing.assert_close(views.target, small, rtol=0, atol=0.8 / 255)


@pytest.mark.parametrize(("side", "mirrored"), [(64, False), (16, True)])
def test_every_crop_of_a_sample_is_that_of_its_stored_frames(nano, side, mirrored):
    """With pictures and detector of one side, and of two."""
    net = replace(nano, image_size=side)
    task = FsrtReenactmentTask(net, TrainingSampleConfig(queries=32), AugmentConfig())
    frames = [np.random.default_rng(i).integers(0, 256, (96 - i, 96 - i, 3), dtype=np.uint8) for i in (0, 6)]
    crops = [np.array(some, np.float32) for some in ([0.1, 0.2, 0.0, 0.3], [0.3, 0.0, 0.2, 0.1])]
    changes = FrameChanges(mirrored, *crops)
    sample = task.make_sample(np.random.default_rng(0), frames[:1], frames[1], changes, True)

    def cut(crop: np.ndarray, size: int) -> np.ndarray:
        return augment.crop_and_resize(frames, crop, size, mirrored)

    assert (sample["whole"] == cut(np.zeros(4), 64)).all()
    assert (sample["cropped"] == cut(changes.crop, side)).all()
    assert (sample["driving_tight"] == cut(changes.expression_crop, 64)[1]).all()
    assert ("cropped_for_detector" in sample) == (side == 16)
    if side == 16:
        assert (sample["cropped_for_detector"] == cut(changes.crop, 64)).all()


def test_crops_keep_the_landmarks_of_a_larger_view(task, clip):
    """The same draws on frames of twice the side cut away the same shares, but for rounding to pixels."""
    large = type(clip)(side=128)
    large.landmarks = clip.landmarks * 2
    for seed in range(20):
        crops = [task.sample(np.random.default_rng(seed), tables(one), True)["crop"] for one in (clip, large)]
        np.testing.assert_allclose(*crops, atol=1 / 64)


@torch.no_grad()
def test_validation_sees_source_driving_frame_and_output(task, clip):
    batch = batch_of(task, clip, training=False)
    look = task.validation_step(batch)
    assert look.scores == {}
    assert look.titles == ("source 1", "source 2", "driving frame", "output")
    assert look.row.shape == (3, 16, 4 * 16, 3)
    for name, place in (("source", 0), ("output", 3)):
        picture = getattr(look, name)
        assert picture.dtype == np.uint8
        assert (picture == look.row[:, :, 16 * place : 16 * (place + 1)]).all()
    target = task.augment_frames(batch).target.permute(0, 2, 3, 1) * 255
    assert np.abs(look.driving - target.numpy()).max() <= 0.51


@torch.no_grad()
def test_the_driving_keypoints_are_drawn_on_the_driving_frame_only(task, clip):
    batch = batch_of(task, clip, training=False)
    look, motion = task.validation_step(batch), task.extract_motion(task.augment_frames(batch))
    changed = (look.row[:, :, 2 * 16 : 3 * 16] != look.driving).any(-1)
    inside = ((motion.driving_keypoints.numpy() + 1) / 2 * 16).astype(int)
    red = (look.row[:, :, 2 * 16 : 3 * 16] == (255, 0, 0)).all(-1)
    for sample in range(3):
        assert red[sample, inside[sample, :, 1], inside[sample, :, 0]].all()
        assert not (changed & ~red)[sample].any()


def cross_batch(task, source, driving, size: int = 2) -> dict[str, torch.Tensor]:
    samples = [task.sample_cross(np.random.default_rng(i), source, driving) for i in range(size)]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


@pytest.fixture
def other(clip):
    """A clip of somebody else."""
    other = type(clip)(length=7)
    other.key = "bob#v2#000000#000007"
    other.images = np.random.default_rng(1).integers(0, 256, other.images.shape, dtype=np.uint8)
    return other


@torch.no_grad()
def test_a_pair_is_driven_as_inference_drives_it(nano, clip, other):
    """Both ways, by the reenactor itself; at one side throughout, so that nothing is resized."""
    net = replace(nano, image_size=64)
    task = FsrtReenactmentTask(net, TrainingSampleConfig(sources=2, queries=32), AugmentConfig())
    task.net.eval()
    reenactor = inference.FsrtReenactor(task.net, net, {}, "fp32")
    batch = cross_batch(task, clip, other)
    look = task.cross_validation_step(batch)
    shown = dict(zip(look.titles, np.split(look.row, len(look.titles), axis=2), strict=True))
    assert tuple(shown) == ("source 1", "source 2", "driving frame", "absolute", "relative")
    assert (look.output == shown["absolute"]).all()
    for i, driving in enumerate(look.driving):
        t = int(np.flatnonzero((other.images == driving).all((1, 2, 3)))[0])
        assert t > 0
        for motion in ("absolute", "relative"):
            made = reenactor.drive(
                ClipFrames(clip, [0, 1]), ClipFrames(other, [0, t]), MotionTransfer(motion=motion)
            )[1]
            np.testing.assert_allclose(shown[motion][i] / 255, made, atol=0.003, rtol=0)
    assert not np.array_equal(shown["absolute"], shown["relative"])


@torch.no_grad()
def test_pairs_of_a_net_without_keypoints_are_driven_one_way(nano, clip, other):
    """Relative motion is of keypoints."""
    net = replace(nano, keypoint_octaves=0)
    task = FsrtReenactmentTask(net, TrainingSampleConfig(sources=1, queries=32), AugmentConfig())
    task.net.eval()
    look = task.cross_validation_step(cross_batch(task, clip, other))
    assert look.titles == ("source", "driving frame", "absolute")
    assert (look.row[:, :, 16:32] == look.driving).all()  # no keypoints on it


def test_pairs_are_of_frames_with_a_face(task, clip, other):
    other.landmarks[3] = np.nan
    found = [task.sample_cross(np.random.default_rng(i), clip, other) for i in range(40)]
    drawn = {int(np.flatnonzero((other.images == s["whole"][2]).all((1, 2, 3)))[0]) for s in found if s}
    assert drawn == {1, 2, 4, 5, 6}
    other.landmarks[0] = np.nan  # where relative motion begins
    assert task.sample_cross(np.random.default_rng(0), clip, other) is None
    assert task.sample_cross(np.random.default_rng(0), other, clip) is None
    clip.length = 1
    assert task.sample_cross(np.random.default_rng(0), clip, clip) is None


def test_a_detector_has_no_pairs(nano, task):
    assert isinstance(task, CrossReenactmentTask)
    assert not isinstance(KeypointTask(nano.detector, AugmentConfig()), CrossReenactmentTask)


@torch.no_grad()
def test_a_detector_shows_given_and_found_keypoints(nano, clip):
    task = KeypointTask(nano.detector, AugmentConfig())
    look = task.validation_step(batch_of(task, clip, training=False))
    assert look.row.shape == (3, 64, 2 * 64, 3)
    assert tuple(look.scores) == PHASE_TASKS["keypoints"].figures
    assert look.scores["keypoint_error_percent"] > 0
    assert look.output is None


def test_distilled_keypoints_are_means_of_landmark_groups():
    landmarks = np.random.default_rng(0).uniform(0, 100, (3, 68, 2))
    keypoints = landmark_group_means(landmarks, 100)
    eye = list(range(36, 42))
    assert eye in [list(group) for group in KEYPOINT_LANDMARK_GROUPS]
    expected = landmarks[:, eye].mean(1) / 50 - 1
    np.testing.assert_allclose(
        keypoints[:, [list(g) for g in KEYPOINT_LANDMARK_GROUPS].index(eye)], expected, rtol=1e-5
    )


def test_the_distilled_detector_has_ten_keypoints(nano):
    with pytest.raises(InvalidSettings, match=r"keypoints 8: the distilled detector has 10"):
        KeypointTask(replace(nano.detector, keypoints=8), AugmentConfig())


@pytest.fixture
def checkpoint(task, nano, tmp_path):
    from safetensors.torch import save_file

    about = {"provenance": {"kp_detector": "distilled"}, "phase": "warmup", **task.architecture_metadata()}
    assert about["architecture"] == to_builtins(nano)
    path = tmp_path / "model.safetensors"
    save_file(task.net.state_dict(), path, metadata={"reenact": json.dumps(about)})
    return path


def pair(clip, sources, driving):
    """Frames of a clip to drive others of it."""
    return ClipFrames(clip, sources), ClipFrames(clip, driving)


def test_inference_from_a_checkpoint(task, nano, clip, checkpoint, monkeypatch):
    reenactor = load_reenactor(SPEC, {"renderer": read_checkpoint(checkpoint)})
    assert reenactor.architecture == nano
    assert reenactor.provenance == {"kp_detector": "distilled"}
    video = reenactor.drive(*pair(clip, [0], range(1, 9)))
    assert video.shape == (8, 16, 16, 3)
    assert video.dtype == np.float32
    assert 0 <= video.min() <= video.max() <= 1
    monkeypatch.setitem(inference.MAX_PIXELS_PER_PASS, "cpu", 100)
    chunked = reenactor.drive(*pair(clip, [0], range(1, 9)))
    np.testing.assert_allclose(chunked, video, atol=1e-5)
    one = reenactor.drive(*pair(clip, [0], [4]))  # a frame does not depend on its neighbours
    np.testing.assert_allclose(one[0], video[3], atol=1e-5)


def test_a_checkpoint_with_a_missing_tensor_is_refused(task, checkpoint):
    from safetensors.torch import load_file, save_file

    state, about = load_file(checkpoint), {"provenance": {}, **task.architecture_metadata()}
    state.pop("decoder.render_mlp.0.weight")
    save_file(state, checkpoint, metadata={"reenact": json.dumps(about)})
    with pytest.raises(InvalidFile, match=r"decoder\.render_mlp\.0\.weight"):
        load_reenactor(SPEC, {"renderer": read_checkpoint(checkpoint)})
