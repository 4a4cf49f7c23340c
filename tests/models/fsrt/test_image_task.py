"""Phases on whole images, on a net of thousands of parameters (official figures: test_train_step.py)."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from models.api import Loss, Phase
from models.fsrt import image_task, losses
from models.fsrt.config import (
    AugmentConfig,
    DiscriminatorConfig,
    ImageLossRenderingConfig,
    TrainingSampleConfig,
)
from models.fsrt.image_task import AdversarialTask, WholeImageTask
from models.fsrt.phases import PHASES
from models.fsrt.pixel_sampling import LatticePixels, RandomPixels
from models.fsrt.task import AugmentedFrames
from models.perception.vgg19 import load_random_vgg19
from pipelines.train.net_parts import freeze_other_parts
from tests.models.one_clip import tables
from tests.models.one_pass import shared_pass, with_losses

DISCRIMINATOR = DiscriminatorConfig(size=16, width=2, max_width=4, blocks=2)
RANDOM = ImageLossRenderingConfig(pixels="random")


@pytest.fixture(scope="module")
def vgg():
    return load_random_vgg19({})


def build(nano, images=ImageLossRenderingConfig(), vgg=None, **changed) -> AdversarialTask:  # noqa: B008
    torch.manual_seed(0)
    sampling = TrainingSampleConfig(sources=2, queries=32)
    task = AdversarialTask(replace(nano, **changed), sampling, AugmentConfig(), images, DISCRIMINATOR)
    task.net.eval()
    if vgg is not None:
        task.set_frozen_nets({vgg.name: vgg})
    return task


@pytest.fixture
def task(nano, vgg) -> AdversarialTask:
    return build(nano, vgg=vgg)


def batch_of(task, clip, size: int = 3) -> dict[str, torch.Tensor]:
    samples = [task.sample(np.random.default_rng(i), tables(clip), True) for i in range(size)]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


def quarter_of(task, batch):
    return LatticePixels(batch["corner"], 16) if "corner" in batch else RandomPixels(batch["queries"], 16)


def gradients(task, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    task.net.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in task.net.named_parameters() if p.grad is not None}


def assert_same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert some.keys() == others.keys()
    for name, tensor in some.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-4, atol=atol)


def in_double(views: AugmentedFrames) -> AugmentedFrames:
    tensors = {field.name: getattr(views, field.name) for field in fields(views)}
    return AugmentedFrames(
        **{n: t.double() if t is not None and t.is_floating_point() else t for n, t in tensors.items()}
    )


# --- the image ----------------------------------------------------------------------------------------------
def test_only_the_corner_of_the_lattice_travels_in_the_batch(task, clip):
    batch = batch_of(task, clip, 8)
    assert batch["corner"].shape == (8, 2)
    assert {tuple(c) for c in batch["corner"].tolist()} <= {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len({tuple(c) for c in batch["corner"].tolist()}) > 1
    assert "queries" not in batch


@pytest.mark.parametrize("images", [ImageLossRenderingConfig(), RANDOM], ids=["lattice", "random"])
def test_the_composed_image_is_the_full_decode(nano, clip, images, monkeypatch):
    """Whatever is rendered with gradient, and in whatever pieces the rest is."""
    task = build(nano, images)
    task.net.double()
    batch = batch_of(task, clip)
    views = in_double(task.augment_frames(batch))
    scene = task.prepare_decoder_inputs(views)
    for pieces in (image_task.MAX_PIXELS_PER_PASS, 60):
        monkeypatch.setattr(image_task, "MAX_PIXELS_PER_PASS", pieces)
        image, target = task.render_image_and_target(views, scene, quarter_of(task, batch))
        motion = scene.motion
        expression = torch.where(views.tight.unsqueeze(1), motion.driving_tight, motion.driving)
        whole = task.net.decoder.render_image(
            task.encode_sources(views, motion), 16, motion.driving_keypoints, expression
        )
        torch.testing.assert_close(image, whole, rtol=0, atol=1e-12)
        assert torch.equal(target, views.target)


@pytest.mark.parametrize("images", [ImageLossRenderingConfig(), RANDOM], ids=["lattice", "random"])
def test_gradient_comes_from_the_quarter_only(nano, clip, images):
    task = build(nano, images)
    batch = batch_of(task, clip)
    views, quarter = task.augment_frames(batch), quarter_of(task, batch)
    rendered_here = torch.ones(3, quarter.count[0], 1)
    others = [torch.zeros(3, count, 1) for count in quarter.count[1:]]
    mask = quarter.compose_image_from_parts([rendered_here, *others])
    assert mask.sum() == 3 * 64

    image, _ = task.render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    outside = gradients(task, (image * (1 - mask)).sum())
    assert all(not g.any() for g in outside.values())
    image, _ = task.render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    inside = gradients(task, (image * mask).sum())
    image, _ = task.render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    assert_same(gradients(task, image.sum()), inside, atol=1e-4)
    for part in ("expression_encoder", "encoder", "decoder"):
        assert any(g.any() for name, g in inside.items() if name.startswith(part)), part


def test_the_pixel_loss_pulls_a_quarter_as_hard_as_over_the_lattice_alone(task, clip):
    batch = batch_of(task, clip)
    views, quarter = task.augment_frames(batch), quarter_of(task, batch)
    image, target = task.render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    whole = gradients(task, losses.pixel_mse_loss(image, target))
    image, target = task.render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    lattice = gradients(
        task, losses.pixel_mse_loss(quarter.subsample_images(image), quarter.subsample_images(target))
    )
    assert_same({name: 4 * g for name, g in whole.items()}, lattice, atol=1e-5)


def test_losses_of_a_lattice_compose_no_image(nano, clip, monkeypatch):
    task = build(nano, ImageLossRenderingConfig(loss_input="lattice"))
    batch = batch_of(task, clip)
    views, quarter = task.augment_frames(batch), quarter_of(task, batch)
    composed, target = build(nano).render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    monkeypatch.setattr(task, "render_remaining_pixels", None)  # the rest is not rendered
    image, wanted = task.render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    torch.testing.assert_close(image, quarter.subsample_images(composed), rtol=0, atol=1e-5)
    assert torch.equal(wanted, quarter.subsample_images(target))
    assert image.shape == (3, 3, 8, 8)


def test_losses_of_a_lattice_need_a_lattice():
    with pytest.raises(ValueError, match="loss_input lattice with pixels random: expected pixels lattice"):
        ImageLossRenderingConfig(pixels="random", loss_input="lattice")


def test_masked_sources_stay_hidden_in_the_pass_without_gradient(nano, clip):
    task = build(nano)
    task.sampling = TrainingSampleConfig(sources=2, queries=32, variable="mask")
    batch = batch_of(task, clip)
    batch["present"] = torch.tensor([[True, False]] * 3)
    views, quarter = task.augment_frames(batch), quarter_of(task, batch)
    image, _ = task.render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    views.sources[:, 1] = 0
    other, _ = task.render_image_and_target(views, task.prepare_decoder_inputs(views), quarter)
    torch.testing.assert_close(other, image, rtol=0, atol=1e-5)


def test_a_bf16_step_trains_every_weight_and_sums_in_float32(nano, clip, vgg):
    """Autocast keeps converted weights: a pass without gradient that came first would cut them off."""
    task = build(nano, vgg=vgg)
    batch = batch_of(task, clip)
    with torch.autocast("cpu", torch.bfloat16):
        terms = task.losses(batch)
        values = {name: term() for name, term in terms.items()}
        assert {name for name, value in values.items() if value.dtype != torch.float32} == set()
        found = gradients(task, torch.stack(list(values.values())).sum())
    for part in ("expression_encoder", "encoder", "decoder", "discriminator"):
        names = [name for name, _ in task.net.named_parameters() if name.startswith(part)]
        assert set(names) <= set(found), part


# --- the losses that look at it -----------------------------------------------------------------------------
def test_without_vgg19_the_perceptual_term_is_not_offered(nano, clip, vgg):
    blind = build(nano)
    assert "perceptual" not in blind.losses(batch_of(blind, clip))
    assert blind.provenance() == {"perceptual_net": "not used"}
    seeing = build(nano, vgg=vgg)
    term = seeing.losses(batch_of(seeing, clip))["perceptual"]()
    assert torch.isfinite(term)
    assert term > 0


def test_random_vgg19_weights_follow_every_number(task):
    assert task.provenance() == {"perceptual_net": "random vgg19"}


def test_another_net_compares_images_with_its_own_scale_and_is_named(nano, clip):
    class Mean:
        """Its one map is the image's mean."""

        name = "efficientnet_lite0"

        def features(self, images):
            return [images.mean((2, 3), keepdim=True)]

    task = build(nano, vgg=Mean())
    image, target = torch.rand(2, 2, 3, 16, 16)
    found = task.image_terms(image, target, torch.rand(2, 10, 2))["perceptual"]()
    gap = (image.mean((2, 3)) - target.mean((2, 3))).abs().mean()
    assert found.item() == pytest.approx(losses.PERCEPTUAL_LOSS_SCALES[Mean.name] * gap.item(), rel=1e-5)
    assert task.provenance() == {"perceptual_net": "efficientnet_lite0"}


def test_phase_two_has_no_discriminator_and_phase_three_adds_nothing_else(nano):
    plain = WholeImageTask(
        nano, TrainingSampleConfig(), AugmentConfig(), ImageLossRenderingConfig()
    ).net.state_dict()
    adversarial = build(nano).net.state_dict()
    added = {name for name in adversarial if name not in plain}
    assert set(plain) <= set(adversarial)
    assert added
    assert all(name.startswith("discriminator.discs.1.") for name in added)


def test_without_keypoints_the_discriminator_gets_none(nano):
    changed = build(nano, keypoint_octaves=0)
    assert changed.discriminator.keypoints == 0
    assert build(nano).discriminator.keypoints == 10


def adversarial(start: int = 2, **weights: float | None) -> Phase:
    """The published phase with a shorter warm-up of the discriminator."""
    known = {"gan": 1e-3, "feature_matching": 1e-2} | weights
    losses = {name: None if one is None else Loss(one, start=start) for name, one in known.items()}
    return with_losses(PHASES["adversarial"], losses)


def learn_all(task, phase: Phase) -> None:
    freeze_other_parts(task.net, phase.trainable_parts)


def stepped(task, phase: Phase, batch, step: int) -> dict[str, torch.Tensor]:
    learn_all(task, phase)
    return gradients(task, shared_pass(task, phase, batch, step).loss)


def of(part: str, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: g for name, g in found.items() if name.startswith(part)}


def without(part: str, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: g for name, g in found.items() if not name.startswith(part)}


def test_terms_change_at_the_right_steps(task, clip):
    """Spec 16 item 8: the discriminator learns from the first step, the generator sees it after `start`
    steps."""
    batch, phase = batch_of(task, clip), adversarial(start=500)
    learn_all(task, phase)
    before = set(PHASES["perceptual"].loss_weights) | {"discriminator"}
    for step in (1, 500):
        assert set(shared_pass(task, phase, batch, step).terms) == before
    assert set(shared_pass(task, phase, batch, 501).terms) == before | {"gan", "feature_matching"}
    assert set(shared_pass(task, PHASES["perceptual"], batch).terms) == before - {"discriminator"}


def test_a_discriminator_alone_leaves_the_generators_gradient_as_in_phase_two(task, clip):
    """Spec 16 item 8."""
    batch = batch_of(task, clip)
    alone = stepped(task, adversarial(), batch, 2)
    phase_two = stepped(task, PHASES["perceptual"], batch, 1)
    for name, tensor in without("discriminator", alone).items():
        assert torch.equal(tensor, phase_two[name]), name
    assert not of("discriminator", phase_two)
    assert any(g.any() for g in of("discriminator", alone).values())


def test_the_discriminator_learns_from_its_own_loss_alone(task, clip):
    batch = batch_of(task, clip)
    both = stepped(task, adversarial(), batch, 3)
    own = gradients(task, 1e-3 * task.losses(batch)["discriminator"]())
    assert set(own) == set(of("discriminator", both))  # nor does its loss reach the generator
    for name, tensor in own.items():
        assert torch.equal(tensor, both[name]), name


@pytest.mark.parametrize("term", ["gan", "feature_matching"])
def test_fooling_the_discriminator_does_not_teach_it(task, clip, term):
    phase = adversarial()
    learn_all(task, phase)
    found = gradients(task, task.losses(batch_of(task, clip))[term]())
    assert not of("discriminator", found)
    for part in ("expression_encoder", "encoder", "decoder"):
        assert any(g.any() for g in of(part, found).values()), part


def test_a_watched_term_does_not_cut_off_one_that_shares_its_predictions(task, clip):
    batch = batch_of(task, clip)
    watched = stepped(task, adversarial(gan=0.0), batch, 3)
    absent = stepped(task, adversarial(gan=None), batch, 3)
    for name, tensor in absent.items():
        assert torch.equal(tensor, watched[name]), name
    plain = stepped(task, PHASES["perceptual"], batch, 1)
    assert any((absent[name] != g).any() for name, g in plain.items())


def test_a_step_of_phase_three_offers_every_published_term(task, clip):
    phase = PHASES["adversarial"]
    terms = task.losses(batch_of(task, clip))
    assert set(terms) == set(phase.loss_weights)
    assert all(torch.isfinite(term()) and term().ndim == 0 for term in terms.values())


@torch.no_grad()
def test_validation_renders_the_whole_image_in_one_go(task, clip):
    look = task.validation_step(batch_of(task, clip))
    assert look.output.shape == (3, 16, 16, 3)
