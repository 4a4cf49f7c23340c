"""The rows of the paper's tables in a tiny form; what several sources, masks and no keypoints must keep."""

import numpy as np
import pytest
import torch
import yaml
from msgspec.structs import replace

from models.fsrt import augment
from models.fsrt.config import (
    Architecture,
    AugmentConfig,
    DiscriminatorConfig,
    FsrtConfig,
    ImageLossRenderingConfig,
    TrainingSampleConfig,
    tiny_architecture,
)
from models.fsrt.image_task import AdversarialTask
from models.fsrt.network import Decoder, Encoder
from models.fsrt.task import FsrtReenactmentTask
from pipelines import config
from pipelines.train.net_parts import freeze_other_parts
from tests.models.one_clip import tables
from tests.models.one_pass import shared_pass

ROWS = sorted(
    path.stem for path in (config.CONFIGS_FOLDER / "run").glob("fsrt_*.yaml")
    if "eval" not in path.stem and path.stem != "fsrt_finetune"
)  # fmt: skip


def batch_of(task, clip, training: bool = True, size: int = 3) -> dict[str, torch.Tensor]:
    samples = [task.sample(np.random.default_rng(i), tables(clip), training) for i in range(size)]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


# --- every row learns ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("row", ROWS)
def test_the_row_learns_one_batch_in_a_tiny_form(row, clip, tmp_path):
    """The run file's own settings over the tiny net: a few steps on the same samples."""
    own = yaml.safe_load((config.CONFIGS_FOLDER / f"run/{row}.yaml").read_text())
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"use": ["run/tiny"], "fsrt": own.get("fsrt", {})}))
    fsrt = config.load_config(file).config.fsrt
    torch.manual_seed(0)
    task = FsrtReenactmentTask(fsrt.net, fsrt.sampling, fsrt.augment)
    phase = fsrt.phases["warmup"]
    adam = torch.optim.Adam(freeze_other_parts(task.net, phase.trainable_parts).values(), lr=1e-3)
    batch = batch_of(task, clip)
    totals = []
    for step in range(1, 9):
        adam.zero_grad()
        losses = shared_pass(task, phase, batch, step)
        losses.loss.backward()
        adam.step()
        totals.append(float(losses.totals["generator"]))
    assert np.isfinite(totals).all()
    assert totals[-1] < 0.9 * totals[0]


@pytest.mark.parametrize(
    ("net", "sampling"),
    [({"keypoint_octaves": 0}, {}), ({}, {"sources": 2, "variable": "mask"}), ({}, {"sources": 2})],
)
def test_the_adversarial_step_reaches_every_part(net, sampling, clip):
    torch.manual_seed(0)
    task = AdversarialTask(
        replace(tiny_architecture(), **net), TrainingSampleConfig(queries=64, **sampling),
        AugmentConfig(out_of_frame=0.0),
        ImageLossRenderingConfig(), DiscriminatorConfig(size=64, width=4, max_width=16),
    )  # fmt: skip
    terms = task.losses(batch_of(task, clip, size=2))
    torch.stack([term() for term in terms.values()]).sum().backward()
    for part in ("expression_encoder", "encoder", "decoder", "discriminator"):
        grads = [p.grad for p in getattr(task.net, part).parameters()]
        assert all(grad is not None and torch.isfinite(grad).all() for grad in grads), part


# --- several sources ----------------------------------------------------------------------------------------
@pytest.fixture
def scene(nano):
    torch.manual_seed(0)
    return {
        "images": torch.rand(2, 3, 3, 16, 16),
        "keypoints": torch.rand(2, 3, 10, 2) - 0.5,
        "expression": torch.randn(2, 3, nano.expression_size),
    }


def parts_of(net: Architecture) -> tuple[Encoder, Decoder]:
    torch.manual_seed(1)
    # two blocks: with one, a masked source could leak through the tokens of another and nobody would see
    deep = replace(net, encoder_depth=2, decoder_depth=2, initial="balanced")
    return Encoder(deep).eval(), Decoder(deep).eval()


@torch.no_grad()
@pytest.mark.parametrize("attention", ["joint", "per_image"])
@pytest.mark.parametrize("left", [[0], [0, 1], [1, 2]])
def test_item_5_a_masked_source_is_a_removed_source(attention, left, nano, scene):
    encoder, decoder = parts_of(replace(nano, encoder_attention=attention))
    keypoints, expression = scene["keypoints"][:, 0], scene["expression"][:, 0]
    present = torch.zeros(2, 3, dtype=torch.bool)
    present[:, left] = True
    hidden = {name: tensor.clone() for name, tensor in scene.items()}
    hidden["images"][~present] = 1e3  # whatever it shows
    z = encoder(**hidden, present=present)
    masked = decoder.render_image(z, 16, keypoints, expression, present=present)
    removed = decoder.render_image(
        encoder(**{k: v[:, left] for k, v in scene.items()}), 16, keypoints, expression
    )
    torch.testing.assert_close(masked, removed, rtol=0, atol=1e-5)
    all_seen = decoder.render_image(encoder(**scene), 16, keypoints, expression)
    assert (masked - all_seen).abs().max() > 1e-3  # the mask does something


@torch.no_grad()
@pytest.mark.parametrize("attention", ["joint", "per_image"])
def test_item_5_permuting_sources_permutes_z_and_leaves_the_picture(attention, nano, scene):
    encoder, decoder = parts_of(replace(nano, encoder_attention=attention))
    order = [2, 0, 1]
    z = encoder(**scene)
    turned = encoder(**{name: tensor[:, order] for name, tensor in scene.items()})
    by_source = z.unflatten(1, (3, nano.tokens_per_source))
    torch.testing.assert_close(
        turned.unflatten(1, (3, nano.tokens_per_source)), by_source[:, order], rtol=0, atol=1e-5
    )
    pictures = [
        decoder.render_image(t, 16, scene["keypoints"][:, 0], scene["expression"][:, 0]) for t in (z, turned)
    ]
    torch.testing.assert_close(pictures[0], pictures[1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_with_one_source_joint_and_per_image_encoding_are_the_same(nano, scene):
    one = {name: tensor[:, :1] for name, tensor in scene.items()}
    joint, alone = (
        parts_of(replace(nano, encoder_attention=way))[0](**one) for way in ("joint", "per_image")
    )
    torch.testing.assert_close(joint, alone, rtol=0, atol=1e-6)


def of_some(batch: dict[str, torch.Tensor], sources: int) -> dict[str, torch.Tensor]:
    """The same samples with their first sources only."""
    of_frames = ("whole", "cropped", "cropped_for_detector")
    fewer = {n: torch.cat([batch[n][:, :sources], batch[n][:, -1:]], dim=1) for n in of_frames}
    return {name: t for name, t in batch.items() if name != "present"} | fewer


def three_and(nano, sources: int, variable: str) -> tuple[FsrtReenactmentTask, FsrtReenactmentTask]:
    """A task that draws up to three sources, and one with fewer, of the same weights."""
    nano = replace(nano, initial="balanced")
    torch.manual_seed(0)
    tasks = [
        FsrtReenactmentTask(
            nano, TrainingSampleConfig(sources=3, queries=32, variable=variable), AugmentConfig()
        ),
        FsrtReenactmentTask(nano, TrainingSampleConfig(sources=sources, queries=32), AugmentConfig()),
    ]
    tasks[1].net.load_state_dict(tasks[0].net.state_dict())
    for task in tasks:
        task.net.eval()
    return tasks[0], tasks[1]


@torch.no_grad()
@pytest.mark.parametrize("variable", ["mask", "one_per_batch"])
@pytest.mark.parametrize("sources", [1, 2])
def test_a_source_that_does_not_count_changes_no_loss(variable, sources, nano, clip):
    many, few = three_and(nano, sources, variable)
    batch = batch_of(many, clip)
    batch["present"] = torch.arange(3).expand(3, 3) < sources
    mine, theirs = many.losses(batch), few.losses(of_some(batch, sources))
    assert set(mine) == set(theirs)
    for name, term in mine.items():
        torch.testing.assert_close(term(), theirs[name](), rtol=1e-5, atol=1e-5, msg=name)


def test_each_sample_draws_its_own_number_of_sources(nano, clip):
    task = FsrtReenactmentTask(
        nano, TrainingSampleConfig(sources=3, queries=8, variable="mask"), AugmentConfig()
    )
    drawn = [task.sample(np.random.default_rng(i), tables(clip), True)["present"] for i in range(60)]
    assert all(one[0] and (np.diff(one.astype(int)) <= 0).all() for one in drawn)  # the first ones
    counts = np.bincount([one.sum() for one in drawn], minlength=4)[1:]
    assert counts.min() > 10  # of 20 expected
    assert task.sample(np.random.default_rng(0), tables(clip), False)["present"].all()


def test_one_number_a_batch_is_that_of_its_first_sample(nano, clip):
    task, _ = three_and(nano, 1, "one_per_batch")
    batch = batch_of(task, clip)
    batch["present"] = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    views = task.augment_frames(batch)
    assert views.sources.shape[1] == views.sources2.shape[1] == 2
    assert views.present is None


# --- no keypoints -------------------------------------------------------------------------------------------
@torch.no_grad()
def test_without_keypoints_nothing_depends_on_them(nano, scene):
    encoder, decoder = parts_of(replace(nano, keypoint_octaves=0))
    z, other = (
        encoder(scene["images"], k, scene["expression"]) for k in (scene["keypoints"], 9 + scene["keypoints"])
    )
    assert torch.equal(z, other)
    pictures = [
        decoder.render_image(z, 16, k, scene["expression"][:, 0])
        for k in (scene["keypoints"][:, 0], torch.ones(2, 10, 2))
    ]
    assert torch.equal(pictures[0], pictures[1])
    told, _ = parts_of(nano)
    assert not torch.equal(
        *(told(scene["images"], k, scene["expression"]) for k in (scene["keypoints"], -scene["keypoints"]))
    )


def test_without_keypoints_the_detector_looks_once(nano, clip, monkeypatch):
    """Its features are still what the expression is read from; where the keypoints are, nobody asks."""
    off = AugmentConfig(out_of_frame=0.0, expression_view="whole")
    task = FsrtReenactmentTask(replace(nano, keypoint_octaves=0), TrainingSampleConfig(queries=8), off)
    batch, passes = batch_of(task, clip), []
    task.net.kp_detector.register_forward_hook(lambda *_: passes.append(1))
    task.extract_motion(task.augment_frames(batch))
    assert len(passes) == 1


@pytest.mark.parametrize(("view", "cropped"), [("tight", True), ("whole", False), ("centre", True)])
def test_the_third_view_is_cut_as_the_settings_say(view, cropped, nano, clip):
    task = FsrtReenactmentTask(
        nano, TrainingSampleConfig(queries=8), AugmentConfig(expression_view=view, out_of_frame=0.0)
    )
    samples = [task.sample(np.random.default_rng(i), tables(clip), True) for i in range(20)]
    assert any((one["driving_tight"] != one["whole"][1]).any() for one in samples) == cropped
    held_out = task.sample(np.random.default_rng(0), tables(clip), False)
    assert (held_out["driving_tight"] == held_out["whole"][1]).all()


def test_centre_crops_are_centred_and_change_the_aspect():
    rng = np.random.default_rng(0)
    crops = np.stack([augment.sample_centre_crop(rng, 0.7, 256) for _ in range(200)])
    left, top, right, bottom = crops.T
    assert (left == right).all()
    assert (top == bottom).all()
    shares = 1 - 2 * crops[:, :2]
    assert 0.7 <= shares.min() < 0.72
    assert 0.98 < shares.max() <= 1
    assert np.abs(shares[:, 0] - shares[:, 1]).max() > 0.2
    assert (1 - 2 * augment.sample_centre_crop(rng, 1e-9, 8) > 0).all()  # never empty


# --- crops --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(6))
def test_item_6_shift_and_scale_follow_the_picture_content(seed):
    """A picture of its own coordinates: what is seen at k' = (k + shift) * scale says k."""
    rng, side, size = np.random.default_rng(seed), 85, 48
    crop = augment.sample_out_of_frame_crop(rng, rng.uniform(110, 150, (1, 68, 2)), side)
    if seed % 2:
        crop = augment.sample_centre_crop(rng, 0.5, side)
    assert crop.any()
    x, y = np.meshgrid(*2 * [3 * np.arange(side, dtype=np.uint8) + 1])
    seen = augment.crop_and_resize([np.stack([x, y, x], -1)], crop, size)[0, ..., :2]
    seen = (torch.from_numpy(seen).permute(2, 0, 1) + 0.5) / 255 * 2 - 1
    scale, shift = (torch.from_numpy(part)[:, None, None] for part in augment.frame_to_crop_scale_shift(crop))
    there = (torch.arange(size) + 0.5) / size * 2 - 1
    expected = torch.stack(torch.meshgrid(there, there, indexing="xy"))
    inner = (slice(None), slice(2, -2), slice(2, -2))  # the border repeats its last pixel
    torch.testing.assert_close(((seen + shift) * scale)[inner], expected[inner], rtol=0, atol=0.02)


# --- settings that contradict each other --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingSampleConfig(variable="mask"), "variable mask with 1 source: expected sources 2"),
        (lambda: FsrtConfig(phases={"keypoint": None}), "phases.keypoint: expected one of keypoints, warmup"),
        (lambda: AugmentConfig(centre=0.0), "centre 0.0: expected a share above 0"),
        (lambda: Architecture(keypoint_octaves=-1), "keypoint_octaves -1: expected 0 or more"),
        (
            lambda: FsrtConfig(net=Architecture(start_octave=0)),
            r"augment.out_of_frame 0.5 with net.start_octave 0: .*expected 0",
        ),
        (
            lambda: FsrtConfig(net=Architecture(keypoint_octaves=0)),
            r"augment.out_of_frame 0.5 without keypoints .*expected 0",
        ),
        (
            lambda: FsrtConfig(net=Architecture(keypoint_octaves=0), augment=AugmentConfig(out_of_frame=0.0)),
            r"expression_view tight without keypoints .*expected whole or centre",
        ),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
