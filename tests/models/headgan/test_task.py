"""HeadGAN's step, on nets of thousands of parameters and a head of our own making."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch.nn import functional as F

from models.api import Loss, Phase
from models.errors import InvalidSettings
from models.headgan import losses
from models.headgan.config import Architecture, AudioFeatureConfig, ReconstructionLossConfig
from models.headgan.discriminator import crop_around_centres, mouth_centre
from models.headgan.inference import CheckpointModelSettings, HeadGanReenactor
from models.headgan.phases import PHASES
from models.headgan.spec import TASK_SPEC
from models.headgan.task import DiscriminatorOutputs, HeadGanTask
from models.perception.head.default_head import get_analytic_head
from models.perception.vgg19 import load_random_vgg19
from models.reenactor import ClipFrames, MotionTransfer
from pipelines.preprocess.speech import SpeechFeaturesConfig
from pipelines.train.net_parts import freeze_other_parts
from tests.models.headgan.tiny_task import DISCRIMINATORS, NET, build, gradients, sample_batch
from tests.models.one_clip import tables
from tests.models.one_pass import shared_pass, with_losses, with_update

OFFICIAL = ReconstructionLossConfig(masked=True, perceptual_layers=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0))
GENERATORS = ("flow_network", "rendering_network")
SIDES = ("image_discriminator", "mouth_discriminator")


@pytest.fixture(scope="module")
def vgg():
    return load_random_vgg19({})


@pytest.fixture(scope="module")
def clip(talking_head):
    return talking_head()


@pytest.fixture(scope="module")
def drawer() -> HeadGanTask:
    """For tests that leave its net alone: making one takes a third of a second."""
    return build()


def parts(found: dict[str, torch.Tensor]) -> set[str]:
    return {name.partition(".")[0] for name, gradient in found.items() if gradient.any()}


# --- drawing ------------------------------------------------------------------------------------------------
def test_a_sample_is_a_pure_function_of_its_random_numbers(drawer, clip):
    task = drawer
    for training in (True, False):
        some, others = (sample_batch(task, clip, 3, training) for _ in range(2))
        assert all(torch.equal(some[name], others[name]) for name in some)
        assert some["frames"].shape == (3, 2, 64, 64, 3)
        assert some["packed"].shape == (3, 4, get_analytic_head().n_id + get_analytic_head().n_exp + 13)
        assert some["audio"].shape == (3, 5)


def test_a_sample_is_the_clips_own_frames_faces_and_sound(drawer, clip):
    """Whichever frames: the window ends on the driving one, at its start the first is repeated."""
    task, read = drawer, clip.read_field
    seen = set()
    for i in range(40):
        sample = task.sample(np.random.default_rng(i), tables(clip), True)
        reference, t = (int(np.flatnonzero((clip.pictures == f).all((1, 2, 3)))[0]) for f in sample["frames"])
        seen.add((reference, t))
        indices = [reference, max(0, t - 2), max(0, t - 1), t]
        packed = np.concatenate(
            [
                np.tile(read("id_coeffs"), (4, 1)),
                read("exp_coeffs")[indices],
                read("scale")[indices, None] / 2,  # stored frames have 64 px, the net's 32
                read("rotation")[indices].reshape(4, 9),
                read("translation")[indices] / 2,
            ],
            axis=1,
        )
        np.testing.assert_allclose(sample["packed"], packed, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(sample["audio"], read("speech")[t])
    assert all(reference != t for reference, t in seen)
    assert {t for _, t in seen} == set(range(8))


def test_validation_drives_the_first_frame_by_a_later_one(drawer, clip):
    task = drawer
    for i in range(10):
        sample = task.sample(np.random.default_rng(i), tables(clip), False)
        t = int(np.random.default_rng(i).integers(1, 8))
        np.testing.assert_array_equal(sample["frames"], clip.pictures[[0, t]])


def test_frames_without_a_fit_are_not_drawn(drawer, talking_head):
    clip, task = talking_head(), drawer
    clip.fields["fit_valid"] = np.array([True, True, False, True, True, True, True, False])
    for i in range(40):
        reference, t = task.choose_frames(np.random.default_rng(i), clip.read_field("fit_valid"), True)
        assert reference in (0, 1, 3, 4, 5, 6)
        assert t in (0, 1, 5, 6)  # the windows of the others hold frame 2 or 7
    clip.fields["fit_valid"][:] = False
    clip.fields["fit_valid"][4] = True
    assert task.sample(np.random.default_rng(0), tables(clip), True) is None
    assert task.sample(np.random.default_rng(0), tables(clip), False) is None


def test_each_frames_own_identity_where_the_run_says_so(drawer, clip):
    n = get_analytic_head().n_id
    own = build(identity="frame").sample(np.random.default_rng(0), tables(clip), True)["packed"][:, :n]
    one = drawer.sample(np.random.default_rng(0), tables(clip), True)["packed"][:, :n]
    assert len(np.unique(one, axis=0)) == 1
    assert len(np.unique(own, axis=0)) > 1


def test_a_clip_without_sound_is_heard_as_zeros(drawer, talking_head):
    clip = talking_head()
    clip.fields["clip"] = {"has_sound": False}
    assert not drawer.sample(np.random.default_rng(0), tables(clip), True)["audio"].any()


def test_a_net_that_hears_nothing_reads_no_sound(talking_head):
    clip = talking_head()
    del clip.fields["speech"], clip.fields["clip"]
    assert "audio" not in build(net=replace(NET, audio=0)).sample(
        np.random.default_rng(0), tables(clip), True
    )


def test_features_of_another_length_are_refused(drawer, talking_head):
    with pytest.raises(InvalidSettings, match=r"speech features of 7, net\.audio 5"):
        drawer.sample(np.random.default_rng(0), tables(talking_head(audio=7)), True)


# --- what the terms are -------------------------------------------------------------------------------------
def hinge(maps, sign: float) -> torch.Tensor:
    return torch.stack([F.relu(1 - sign * scale[-1]).mean() for scale in maps]).mean()


def apart(fake, real) -> torch.Tensor:
    scales = [
        0.8 * sum((f - r).abs().mean() for f, r in zip(some[:-1], others[:-1], strict=True))
        for some, others in zip(fake, real, strict=True)
    ]
    return torch.stack(scales).mean()


def test_every_term_is_the_papers_formula(clip, vgg):
    """Spec 6, supplement's and authors' choices, on images that the plain calls give."""
    for terms in (ReconstructionLossConfig(), OFFICIAL):
        task = build(vgg, net=replace(NET, residual=True, mask=True), terms=terms)
        task.net.eval()
        batch = sample_batch(task, clip)
        found = {name: term().item() for name, term in task.losses(batch).items()}
        faces = task.get_renderer(torch.device("cpu"))
        nmfc = faces.render_nmfc(batch["packed"])
        images = F.interpolate(
            batch["frames"].flatten(0, 1).permute(0, 3, 1, 2) / 255, (32, 32), mode="bilinear", antialias=True
        )
        source, target = (images * 2 - 1).view(2, 2, 3, 32, 32).unbind(1)
        out = task.net(torch.cat([nmfc[:, 1], nmfc[:, 2], nmfc[:, 3]], 1), nmfc[:, 0], source, batch["audio"])
        weight = (nmfc[:, 3:].sum(2) > 0.01).float() if terms.masked else torch.ones(2, 1, 32, 32)
        expected = {}
        for suffix, image in (("", out.image), ("_warped", out.warped)):
            expected[f"l1{suffix}"] = ((image - target).abs() * weight).mean()
            maps, wanted = (vgg.features(losses.perceptual_net_input(one, False)) for one in (image, target))
            gaps = [(a - b).abs().mean() for a, b in zip(maps, wanted, strict=True)]
            expected[f"perceptual{suffix}"] = sum(
                w * gap for w, gap in zip(terms.perceptual_layers, gaps, strict=True)
            )
        centres = mouth_centre(faces.project_landmarks(batch["packed"][:, 3]))
        mouths = [crop_around_centres(one, centres, 16) for one in (out.image, target)]
        for suffix, discriminator, given, (fake, real) in (
            ("", task.net.image_discriminator, nmfc[:, 3], (out.image, target)),
            ("_mouth", task.net.mouth_discriminator, batch["audio"], mouths),
        ):
            of_fake, of_real = discriminator(given, fake), discriminator(given, real)
            expected[f"gan{suffix}"] = -torch.stack([scale[-1].mean() for scale in of_fake]).mean()
            expected[f"feature_matching{suffix}"] = apart(of_fake, of_real)
            expected[f"discriminator{suffix}"] = hinge(of_real, 1) + hinge(of_fake, -1)
        whole = task.get_renderer(torch.device("cpu"), full_head=True).render_nmfc(batch["packed"][:, [0, 3]])
        union = (whole.sum(2) > 0.01).any(1, keepdim=True).float()
        expected["mask"] = (out.mask - union).abs().mean()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name


def test_the_mask_learns_from_the_whole_head_not_from_the_face_alone(clip):
    task = build(net=replace(NET, mask=True))
    packed = sample_batch(task, clip)["packed"][:, :1]
    face, whole = (
        losses.head_mask(task.get_renderer(packed.device, w).render_nmfc(packed)[:, 0]) for w in (False, True)
    )
    assert (whole >= face).all()
    assert whole.sum() > 1.1 * face.sum()


def test_the_mouth_is_where_the_picture_shows_it(clip):
    """In the pictures colours are mean-face coordinates, which say where the lips are."""
    task, model = build(), get_analytic_head()
    batch = sample_batch(task, clip, 4)
    centres = mouth_centre(task.get_renderer(torch.device("cpu")).project_landmarks(batch["packed"][:, -1]))
    lips = torch.from_numpy(model.landmarks(model.mean)[48:].mean(0))
    low, high = (torch.from_numpy(end) for end in (model.mean.min(0), model.mean.max(0)))
    red, green, _ = 0.2 + 0.7 * ((lips - low) / (high - low))
    for picture, (x, y) in zip(batch["frames"][:, 1] / 255, centres, strict=True):
        shown = picture[2 * int(y), 2 * int(x)]
        assert float((shown[1] - red).abs()) < 0.08
        assert float((shown[2] - green).abs()) < 0.08


# --- who learns from what -----------------------------------------------------------------------------------
def learn_all(task: HeadGanTask, phase: Phase) -> None:
    freeze_other_parts(task.net, phase.trainable_parts)


@pytest.fixture(scope="module")
def whole(vgg):
    return build(vgg)


@pytest.fixture
def adversarial(whole, clip):
    """A task of which all learn, and a batch; afterwards its net is as it was."""
    kept = {name: tensor.clone() for name, tensor in whole.net.state_dict().items()}
    learn_all(whole, PHASES["adversarial"])
    yield whole, sample_batch(whole, clip)
    whole.net.float().load_state_dict(kept)


@pytest.mark.parametrize("term", ["gan", "feature_matching", "gan_mouth", "feature_matching_mouth"])
def test_fooling_a_discriminator_does_not_teach_it(adversarial, term):
    task, batch = adversarial
    assert parts(gradients(task, task.losses(batch)[term]())) == set(GENERATORS)


@pytest.mark.parametrize("term", ["discriminator", "discriminator_mouth"])
def test_a_discriminators_own_loss_reaches_no_one_else(adversarial, term):
    task, batch = adversarial
    discriminator = SIDES[1] if term.endswith("mouth") else SIDES[0]
    assert parts(gradients(task, task.losses(batch)[term]())) == {discriminator}


def test_the_warped_image_teaches_the_flow_alone(adversarial):
    task, batch = adversarial
    for term in ("l1_warped", "perceptual_warped"):
        assert parts(gradients(task, task.losses(batch)[term]())) == {"flow_network"}


def test_a_discriminators_gradient_is_that_of_a_pass_on_each_image(adversarial):
    """One pass on real and rendered images together; float64 rules out chance."""
    task, _ = adversarial
    discriminator = task.net.double().eval().mouth_discriminator
    audio, fake, real = (torch.rand(shape, dtype=torch.float64) for shape in ((2, 5), *[(2, 3, 16, 16)] * 2))
    seen = DiscriminatorOutputs(
        discriminator, task.eval_discriminators["mouth_discriminator"], audio, fake, real
    )
    both = gradients(task, losses.real_hinge_loss(seen.real) + losses.fake_hinge_loss(seen.fake))
    alone = gradients(
        task,
        losses.real_hinge_loss(discriminator(audio, real))
        + losses.fake_hinge_loss(discriminator(audio, fake)),
    )
    assert both.keys() == alone.keys()
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, alone[name], rtol=1e-9, atol=1e-12)


def test_a_step_moves_each_discriminators_spectral_norm_by_one_power_iteration(adversarial):
    task, batch = adversarial
    name = "image_discriminator.discriminator_0.model1.0.0.parametrizations.weight"
    weight = task.net.get_parameter(f"{name}.original").detach().flatten(1)
    before = task.net.get_buffer(f"{name}.0._v").clone()
    for term in task.losses(batch).values():
        term()
    u = F.normalize(weight @ before, dim=0)
    torch.testing.assert_close(task.net.get_buffer(f"{name}.0._u"), u, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        task.net.get_buffer(f"{name}.0._v"), F.normalize(weight.T @ u, dim=0), rtol=1e-5, atol=1e-6
    )


def test_the_generator_sees_the_weights_that_the_discriminator_saw(adversarial):
    """Though it asks first: maps of the rendered image are equal, with and without gradient to it."""
    task, batch = adversarial
    step = task.run_generator(batch)
    seen = DiscriminatorOutputs(
        task.net.mouth_discriminator, task.eval_discriminators["mouth_discriminator"], step.audio,
        step.rendered.image[..., :16, :16], step.target[..., :16, :16],
    )  # fmt: skip
    through, own = seen.fake_for_generator, seen.fake
    for some, others in zip(through, own, strict=True):
        for one, other in zip(some, others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_watched_term_does_not_cut_off_one_that_shares_its_predictions(adversarial):
    task, batch = adversarial
    phase = with_update(PHASES["adversarial"], "discriminator", every=1)
    found = []
    for loss in (Loss(0.0), None):
        learn_all(task, phase)
        changed = with_losses(phase, {"gan": loss})
        state = {name: tensor.clone() for name, tensor in task.net.state_dict().items()}
        found.append(gradients(task, shared_pass(task, changed, batch).loss))
        task.net.load_state_dict(state)
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())


@pytest.mark.slow  # two threads wait for each other where other work takes the cores
def test_a_step_is_the_same_twice(adversarial):
    """On CPU with two threads, to the last bit, gradients too."""
    task, batch = adversarial
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    kept = {name: tensor.clone() for name, tensor in task.net.state_dict().items()}
    phase = with_losses(PHASES["adversarial"], {"perceptual": None, "perceptual_warped": None})
    phase = with_update(phase, "discriminator", every=1)
    seen = []
    for _ in range(2):
        task.net.load_state_dict(kept)  # its power iterations too
        seen.append(gradients(task, shared_pass(task, phase, batch).loss))
    torch.set_num_threads(threads)
    assert all(torch.equal(gradient, seen[1][name]) for name, gradient in seen[0].items())


# --- variants -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        {"net": replace(NET, condition="sketch")},
        {"net": replace(NET, audio=0)},
        {"discriminators": replace(DISCRIMINATORS, mouth=False)},
        {"net": replace(NET, residual=True, mask=True), "terms": OFFICIAL},
        {"net": replace(NET, flow=False)},
        {"recompute": True, "shading": "first", "identity": "frame"},
    ],
    ids=["sketch", "no audio", "no mouth", "official", "no flow", "recomputed"],
)
def test_every_variant_takes_a_finite_step(clip, vgg, change):
    task = build(vgg, **change)
    batch = sample_batch(task, clip)
    terms = {name: term() for name, term in task.losses(batch).items()}
    assert all(torch.isfinite(value) and value.ndim == 0 for value in terms.values())
    found = gradients(task, torch.stack(list(terms.values())).sum())
    assert found.keys() == {name for name, _ in task.net.named_parameters()}
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
    missing = {"mask"}
    missing -= {"mask"} if task.architecture.mask else set()
    missing |= {"l1_warped", "perceptual_warped"} if not task.architecture.flow else set()
    if not task.discriminators.mouth:
        missing |= {"gan_mouth", "feature_matching_mouth", "discriminator_mouth"}
    phase = PHASES["adversarial"]
    assert terms.keys() == {*phase.loss_weights, "mask"} - missing
    with torch.no_grad():
        look = task.validation_step(batch)
    assert len(look.titles) == (7 if task.architecture.flow else 5)
    assert tuple(look.scores) == (TASK_SPEC.figures if task.architecture.flow else ())
    assert look.row.shape == (2, 32, 32 * len(look.titles), 3)
    assert ("driving sketch" in look.titles) == (task.architecture.condition == "sketch")


def test_a_bf16_step_keeps_flow_drawing_and_losses_in_float32(clip, vgg):
    task = build(vgg)
    batch = sample_batch(task, clip)
    with torch.autocast("cpu", torch.bfloat16):
        step = task.run_generator(batch)
        values = {name: term() for name, term in task.losses(batch).items()}
    assert step.rendered.flow.dtype == step.condition.dtype == step.rendered.warped.dtype == torch.float32
    assert torch.equal(step.condition, task.run_generator(batch).condition)
    assert {name for name, value in values.items() if value.dtype != torch.float32} == set()
    found = gradients(task, torch.stack(list(values.values())).sum())
    assert found.keys() == {name for name, _ in task.net.named_parameters()}


def test_without_vgg19_the_perceptual_terms_are_not_offered(clip):
    task = build()
    assert not {"perceptual", "perceptual_warped"} & set(task.losses(sample_batch(task, clip)))
    assert task.provenance() == {"perceptual_net": "not used"}


@pytest.mark.parametrize("vgg_normalised", [False, True])
def test_another_net_always_sees_images_as_it_was_trained_on(clip, vgg_normalised):
    class Pixels:
        """Its maps are the image, five times."""

        name = "efficientnet_lite0"

        def features(self, images):
            return [images] * 5

    layers = (0.0, 0.0, 2.0, 0.0, 1.0)
    terms = ReconstructionLossConfig(vgg_normalised=vgg_normalised, perceptual_layers=layers)
    task = build(Pixels(), terms=terms)
    task.net.eval()
    batch = sample_batch(task, clip)
    found = {name: term().item() for name, term in task.losses(batch).items()}
    step = task.run_generator(batch)
    for name, image in (("perceptual", step.rendered.image), ("perceptual_warped", step.rendered.warped)):
        gap = (image - step.target).abs().mean().item() / 2  # in [0,1]
        assert found[name] == pytest.approx(3 * 0.0022 * gap, rel=1e-4)
    assert task.provenance() == {"perceptual_net": "efficientnet_lite0"}


def test_vgg19_looks_at_the_target_once(clip, vgg):
    class Counting:
        name, seen = vgg.name, 0

        def features(self, images):
            self.seen += len(images)
            return vgg.features(images)

    counting = Counting()
    task = build(counting)
    terms = task.losses(sample_batch(task, clip))
    terms["perceptual"](), terms["perceptual_warped"]()
    assert counting.seen == 3 * 2


# --- what it says of itself ---------------------------------------------------------------------------------
def test_checkpoints_say_what_draws_and_what_is_heard(vgg):
    task = build(vgg, speech=SpeechFeaturesConfig(encoder="headgan", transcripts="said.json"))
    about = task.architecture_metadata()
    assert about["model"] == "headgan"
    assert Architecture(**about["architecture"]) == NET
    assert (about["head"], about["identity"], about["shading"]) == ("analytic_head", "clip_mean", "smooth")
    assert AudioFeatureConfig(**about["hearing"]) == AudioFeatureConfig()
    # No path goes along.
    assert SpeechFeaturesConfig(**about["speech"]) == SpeechFeaturesConfig(encoder="headgan")
    assert task.provenance() == {"tokens": "transcripts", "perceptual_net": "random vgg19"}
    assert build(speech=SpeechFeaturesConfig(encoder="headgan")).provenance()["tokens"] == "none"
    assert "tokens" not in build(speech=SpeechFeaturesConfig()).provenance()
    assert build().architecture_metadata()["speech"] is None


# --- what validation shows ----------------------------------------------------------------------------------
def cut_row(look) -> dict[str, np.ndarray]:
    """Title -> (B,I,I,3)"""
    return dict(zip(look.titles, np.split(look.row, len(look.titles), axis=2), strict=True))


def test_the_row_shows_flow_in_colours(clip):
    task = build()
    with torch.no_grad():
        task.net.flow_network.dec_flow[1].bias.copy_(torch.tensor([4.0, 0.0]))
        task.net.flow_network.dec_flow[1].weight.zero_()
        look = task.validation_step(sample_batch(task, clip))
    shown = cut_row(look)
    assert tuple(shown) == (
        "source", "its NMFC", "driving frame", "driving NMFC", "flow", "warped source", "output",
    )  # fmt: skip
    np.testing.assert_array_equal(shown["flow"], np.broadcast_to([255, 64, 64], (2, 32, 32, 3)))
    for title, picture in (("source", look.source), ("output", look.output), ("driving frame", look.driving)):
        np.testing.assert_array_equal(shown[title], picture)
    warped, moved = (
        shown["warped source"][:, :, :28].astype(int),
        look.source[:, :, 4:],
    )  # from four pixels right
    np.testing.assert_allclose(warped, moved, atol=1)
    assert look.scores["flow"] == 4


@pytest.fixture(scope="module")
def other(talking_head):
    """A broader, larger face that turns further left in the picture, and speaks."""
    clip = talking_head()
    clip.key = "id1#talking#000000#000008"
    clip.pictures = clip.pictures[:, ::-1]
    clip.fields = clip.fields | {
        "id_coeffs": clip.fields["id_coeffs"] + 1.5,
        "scale": clip.fields["scale"] * 1.25,
        "translation": clip.fields["translation"] + np.float32([-6, 2, 0]),
        "speech": clip.fields["speech"] + 1,
    }
    return clip


def cross_batch(task, source, driving, size: int = 3) -> dict[str, torch.Tensor]:
    samples = [task.sample_cross(np.random.default_rng(i), source, driving) for i in range(size)]
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


def test_a_pair_is_driven_as_inference_drives_it(drawer, clip, other):
    """Relative motion, the reenactor's default: its conditions, its window and its sound."""
    about = CheckpointModelSettings.from_metadata(drawer.architecture_metadata())
    reenactor = HeadGanReenactor(build().net, about, {})
    reenactor.set_frozen_nets({"analytic_head": get_analytic_head()})
    for i in range(5):
        sample = drawer.sample_cross(np.random.default_rng(i), clip, other)
        t = int(np.flatnonzero((other.pictures == sample["frames"][1]).all((1, 2, 3)))[0])
        np.testing.assert_array_equal(sample["frames"][0], clip.pictures[0])
        scene, motion = reenactor.prepare_drive(
            ClipFrames(clip, [0]), ClipFrames(other, [t]), MotionTransfer(motion=reenactor.default_motion)
        )
        np.testing.assert_array_equal(sample["packed"][0], scene.head.pack()[0])
        np.testing.assert_allclose(sample["packed"][1:], motion["packed"][0], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(sample["audio"], motion["audio"][0])


def test_the_condition_that_drives_a_pair_is_of_the_sources_face(drawer, clip, other):
    batch = cross_batch(drawer, clip, other)
    n = get_analytic_head().n_id
    assert (batch["packed"][..., :n] == torch.from_numpy(clip.fields["id_coeffs"])).all()
    with torch.no_grad():
        own = cut_row(drawer.validation_step(sample_batch(drawer, clip, training=False)))
        look = drawer.cross_validation_step(batch)
    assert look.titles == tuple(own)  # the rows of both grids are alike
    assert look.scores == {}
    conditions = drawer.get_renderer(torch.device("cpu")).render_nmfc(batch["packed"][:, [0, -1]])
    shown = cut_row(look)
    for title, at in (("its NMFC", 0), ("driving NMFC", 1)):
        drawn = (conditions[:, at].permute(0, 2, 3, 1) * 255).round().byte().numpy()
        np.testing.assert_array_equal(shown[title], drawn)
    np.testing.assert_array_equal(look.source, shown["source"])


def test_pairs_without_the_fits_that_they_need_are_not_drawn(drawer, talking_head):
    lost = talking_head()
    lost.fields["fit_valid"] = np.array([False, *[True] * 7])
    whole = talking_head()
    assert drawer.sample_cross(np.random.default_rng(0), lost, whole) is None  # the source is frame 0
    found = [drawer.sample_cross(np.random.default_rng(i), whole, lost) for i in range(40)]
    drawn = [int(np.flatnonzero((lost.pictures == s["frames"][1]).all((1, 2, 3)))[0]) for s in found if s]
    assert set(drawn) == {3, 4, 5, 6, 7}  # the windows of the others hold frame 0
