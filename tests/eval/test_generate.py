from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from models.errors import InvalidSettings
from pipelines.errors import UserError
from pipelines.eval import generate
from pipelines.eval.pairs import CandidateClips, ClipPair, make_protocol_pairs, read_pairs
from pipelines.eval.protocols import EvaluationProtocol, SweepConfig
from pipelines.figures import picture_grids

SIZE = EvaluationProtocol(size=32)
RUNTIME = SimpleNamespace(use_gpu=False)


@pytest.fixture
def pair(road):
    """Source frame 0, driving frames 1 to 6, of a clip of 64 px."""
    return read_pairs(road.pairs.out / "pairs.parquet")[0]


@pytest.fixture
def unit(pair, unit_of, clips):
    return unit_of(pair, clips)


@pytest.fixture
def truth(pair, clips):
    return picture_grids.to_uint8(picture_grids.resize_frames(clips[pair.id][1:7], 32))


def frames_of(samples):
    (sample,) = samples
    return sample["frames"].decode()


def test_a_model_gives_the_driving_frames_of_the_pair(half_way, unit, pair):
    (sample,) = generate.generate_frames(unit, SIZE, {"model": half_way}, RUNTIME)
    assert sample["__key__"] == pair.id
    assert sample["frames"].decode().shape == (6, 32, 32, 3)
    assert sample["method"] == {"provenance": half_way.provenance, "image_size": 32}


def test_frames_are_kept_without_loss(half_way, unit):
    made = []
    drive = half_way.drive
    half_way.drive = lambda *args: made.append(drive(*args)) or made[0]
    kept = frames_of(generate.generate_frames(unit, SIZE, {"model": half_way}, RUNTIME))
    np.testing.assert_array_equal(kept, picture_grids.to_uint8(made[0]))


def test_a_model_of_another_size_is_judged_at_the_size_of_the_protocol(half_way, unit):
    (sample,) = generate.generate_frames(unit, EvaluationProtocol(size=64), {"model": half_way}, RUNTIME)
    assert sample["frames"].decode().shape == (6, 64, 64, 3)


def test_the_middle_frame_is_explained_in_the_order_of_the_model(half_way, unit, pair, clips):
    half_way.visualize = lambda source, driving, transfer: {
        "z": driving.images()[0, ::2, ::2], "a": np.zeros((32, 32, 3), np.uint8)
    }  # fmt: skip
    (sample,) = generate.generate_frames(unit, SIZE, {"model": half_way}, RUNTIME)
    assert list(sample["visualization"]) == ["0 z", "1 a"]
    np.testing.assert_array_equal(sample["visualization"]["0 z"], clips[pair.id][4, ::2, ::2])


def test_the_truth_is_the_driving_frames_at_the_judged_size(unit, truth):
    np.testing.assert_array_equal(frames_of(generate.driving_frames(unit, SIZE, {})), truth)


def test_the_copied_source_is_kept_as_one_picture(unit, pair, clips):
    expected = picture_grids.to_uint8(picture_grids.resize_frames(clips[pair.id][:1], 32))
    np.testing.assert_array_equal(frames_of(generate.copy_source(unit, SIZE, {})), expected)


def test_of_the_sources_clip_there_are_as_many_frames_as_would_drive(unit_of, clips, road):
    source, driving = sorted(clips)[:2]
    pair = ClipPair(
        id="pair-0", source_recording=source.split("#")[1], source_clip=source, source_frames=(0,),
        driving_recording=driving.split("#")[1], driving_clip=driving, driving_frames=(0, 3),
    )  # fmt: skip
    config = replace(road.protocol, size=64, frame_stride=3, max_frames=2)
    samples = generate.source_clip_frames(unit_of(pair, clips), config, {})
    assert np.array_equal(frames_of(samples), clips[source][[0, 3]])


def test_the_codec_baseline_is_near_the_truth_but_not_the_same(unit, truth):
    frames = frames_of(generate.codec(unit, SIZE, {}))
    assert 0 < np.abs(frames.astype(float) - truth).mean() < 5


def test_a_model_of_the_wrong_size_is_named_with_its_pair(half_way, unit, pair):
    half_way.image_size = 48
    with pytest.raises(ValueError, match=rf"pair {pair.id}: the model gave frames of shape \(6, 32, 32, 3\)"):
        list(generate.generate_frames(unit, SIZE, {"model": half_way}, RUNTIME))


def test_a_model_that_gives_nan_is_an_error(half_way, unit):
    drive = half_way.drive
    half_way.drive = lambda *args: drive(*args) * np.nan
    with pytest.raises(UserError, match="not finite"):
        list(generate.generate_frames(unit, SIZE, {"model": half_way}, RUNTIME))


def test_a_picture_of_its_own_that_does_not_fit_is_named(half_way, unit):
    half_way.visualize = lambda *args: {"flow": np.zeros((4, 4, 3), np.uint8)}
    with pytest.raises(ValueError, match=r"'flow': uint8 \(4, 4, 3\), expected uint8 \(32, 32, 3"):
        list(generate.generate_frames(unit, SIZE, {"model": half_way}, RUNTIME))


def test_a_pair_of_two_clips_is_driven_from_one_by_the_other(half_way, unit_of, make_family, clips):
    keys = [key for key in clips if not key.startswith("id0")]
    family = make_family(clips)
    candidates = CandidateClips(keys, family)
    pair = make_protocol_pairs(EvaluationProtocol(kind="cross_reenactment"), candidates, candidates)[0]
    frames = frames_of(generate.generate_frames(unit_of(pair, clips), SIZE, {"model": half_way}, RUNTIME))
    mean = (clips[pair.source_clip][:1].astype(np.float64) + clips[pair.driving_clip]) / 2 / 255
    np.testing.assert_allclose(frames, picture_grids.to_uint8(picture_grids.resize_frames(mean, 32)), atol=1)


def test_motion_that_a_model_does_not_know_is_refused(half_way, unit):
    relative = replace(SIZE, kind="cross_reenactment", motion="relative")
    with pytest.raises(InvalidSettings, match="absolute motion alone"):
        list(generate.generate_frames(unit, relative, {"model": half_way}, RUNTIME))


# --- edited heads -------------------------------------------------------------------------------------------
class Edited:
    """A model that keeps what it is asked to do."""

    def __init__(self, model):
        self.model, self.asked = model, []
        self.image_size, self.provenance = model.image_size, model.provenance

    def load_reenactor(self, nets, device):
        return self

    def check_transfer(self, transfer):
        pass

    def drive(self, source, driving, transfer):
        self.asked.append((list(driving.indices), transfer.edit))
        return self.model.drive(source, driving, transfer)

    def visualize(self, source, driving, transfer):
        self.shown = transfer.edit
        return {}


def test_a_frontal_head_is_asked_for_in_all_frames(half_way, unit, pair):
    model = Edited(half_way)
    list(generate.generate_frames(unit, replace(SIZE, kind="frontalisation"), {"model": model}, RUNTIME))
    ((frames, edit),) = model.asked
    assert (frames, edit.frontal, model.shown.frontal) == (list(pair.driving_frames), True, True)


def test_a_sweep_is_a_frame_for_each_value(half_way, unit_of, pair, clips):
    model = Edited(half_way)
    sweep = SweepConfig(attribute="turn.yaw", values=(-20, 0, 20))
    config = EvaluationProtocol(kind="editing", sweep=sweep, size=32)
    swept = replace(pair, driving_frames=(0, 0, 0))
    (sample,) = generate.generate_frames(unit_of(swept, clips), config, {"model": model}, RUNTIME)
    assert [(frames, dict(edit.turn)) for frames, edit in model.asked] == [
        ([0], {"yaw": -20}), ([0], {"yaw": 0}), ([0], {"yaw": 20})
    ]  # fmt: skip
    assert len(frames_of([sample])) == 3
    assert dict(model.shown.turn) == {"yaw": 0}
