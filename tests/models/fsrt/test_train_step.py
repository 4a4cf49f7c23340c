"""The official training step at 128 px in float64, all phases: losses, gradient norms and first gradients
(spec 16, items 7 and 8).

The full-size nets are filled by the formulas of tests/golden/fsrt.json; crops and colour views are given, as
there.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from models.api import Loss
from models.fsrt.config import (
    AugmentConfig,
    DiscriminatorConfig,
    ImageLossRenderingConfig,
    TrainingSampleConfig,
    full_architecture,
)
from models.fsrt.image_task import AdversarialTask
from models.fsrt.phases import PHASES
from models.fsrt.task import AugmentedFrames, FsrtReenactmentTask
from models.perception.vgg19 import Vgg19, Vgg19Layers
from pipelines.train.net_parts import freeze_other_parts
from tests.models.one_pass import shared_pass, with_losses


def fill_vgg(golden, net: Vgg19Layers) -> Vgg19Layers:
    """Convolution j: weights u_hash(n, 2j) sqrt(6 / fan in), biases 0.1 u_hash(n, 2j + 1), rounded to float32
    like the figures'."""
    convolutions = [layer for layer in net.features if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for j, layer in enumerate(convolutions):
            scale = np.sqrt(6 / layer.weight[0].numel())
            weight = scale * golden.u_hash(layer.weight.numel(), 2 * j)
            layer.weight.copy_(torch.from_numpy(weight).view_as(layer.weight))
            layer.bias.copy_(torch.from_numpy(0.1 * golden.u_hash(len(layer.bias), 2 * j + 1)))
    return net.double()


@pytest.fixture(scope="module")
def task(golden) -> AdversarialTask:
    task = AdversarialTask(
        replace(full_architecture(), image_size=128),
        TrainingSampleConfig(),
        AugmentConfig(),
        ImageLossRenderingConfig(),
        DiscriminatorConfig(),
    )
    for part in task.net.children():
        golden.fill(part)
    return task


@pytest.fixture(scope="module")
def vgg19(golden) -> Vgg19:
    return Vgg19(fill_vgg(golden, Vgg19Layers()), "formula")


def views_of(golden, sources: int, cropped: bool) -> AugmentedFrames:
    scale = torch.tensor([[1.25, 1.1], [1, 1]], dtype=torch.float64)
    shift = torch.tensor([[0.05, -0.1], [0, 0]], dtype=torch.float64)
    crop = torch.cat([(1 - 1 / scale - shift) / 2, (1 - 1 / scale + shift) / 2], dim=1)
    many, one = (2, sources, 3, 128, 128), (2, 3, 128, 128)
    everywhere = torch.tensor([cropped, cropped])
    return AugmentedFrames(
        sources=golden.img(many, 40),
        target=golden.img(one, 43),
        sources1=golden.img(many, 40),
        sources2=golden.img(many, 41),
        driving=golden.img(one, 44),
        driving_tight=golden.img(one, 46),
        sources2_full=golden.img(many, 42),
        driving2_full=golden.img(one, 45),
        crop=crop if cropped else torch.zeros_like(crop),
        source_moved=everywhere,
        driving_moved=everywhere,
        tight=torch.tensor([False, True]),
    )


class Step(NamedTuple):
    shown: dict[str, float]
    total: float
    norms: dict[str, float]
    firsts: dict[str, list[float]]


def stepped(
    golden,
    task: AdversarialTask,
    phase: str,
    number: int,
    sources: int = 1,
    cropped: bool = True,
    watched: tuple[str, ...] = (),
) -> Step:
    """Step `number` of a phase, terms in `watched` of weight 0, as the loop computes it."""
    setting = PHASES[phase]
    setting = with_losses(setting, dict.fromkeys(watched, Loss(0.0)))
    learning = freeze_other_parts(task.net, setting.trainable_parts)
    task.net.zero_grad(set_to_none=True)
    task.augment_frames = lambda batch: views_of(golden, sources, cropped)
    queries = ((torch.arange(1024) * 37) % 16_384).expand(2, -1)
    batch = {"corner": torch.tensor([[1, 0], [1, 0]]), "queries": queries}
    found = shared_pass(ByPhase(task, phase), setting, batch, number)
    found.loss.backward()
    gradients = {name: p.grad for name, p in learning.items() if p.grad is not None}
    of_part: dict[str, list[torch.Tensor]] = {name: [] for name, _ in task.net.named_children()}
    for name, gradient in gradients.items():
        of_part[name.split(".")[0]].append(gradient)
    return Step(
        shown={name: float(value) for name, value in found.terms.items()},
        total=float(found.totals["generator"]),
        norms={part: float(torch.nn.utils.get_total_norm(some)) for part, some in of_part.items()},
        firsts={name: g.flatten()[:8].tolist() for name, g in gradients.items()},
    )


class ByPhase:
    """The task as a phase has it: random queries in the first, whole images after."""

    def __init__(self, task: AdversarialTask, phase: str) -> None:
        self.net, self.task = task.net, task
        self.losses = task.losses if phase != "warmup" else partial(FsrtReenactmentTask.losses, task)


NAMES = {  # ours, theirs, and the weight they have applied already
    "perceptual": ("perceptual", 0.01),
    "gan": ("gen_gan", 0.001),
    "feature_matching": ("feature_matching", 0.01),
    "discriminator": ("disc_gan", 0.001),
}


def check(step: Step, expected: dict) -> None:
    terms = {name: float(value) for name, value in expected["terms"].items()}
    shown = step.shown
    found = {theirs: weight * shown[ours] for ours, (theirs, weight) in NAMES.items() if ours in shown}
    found["mse"] = shown["pixel"]
    found["reg_loss"] = shown["invariance"]  # all that is left of it without statistics (and not weighed)
    if terms["reg_loss"] > 1e-3:
        found["reg_loss"] += 0.2 * shown["variance"] + shown["covariance"]
    assert found == pytest.approx(terms, rel=1e-11)
    assert step.total == pytest.approx(float(expected["loss_total"]), rel=1e-12)
    for part, norm in expected["grad_l2"].items():
        assert step.norms[part] == pytest.approx(float(norm or 0), rel=1e-10), part
    for name, values in expected["grad_first8"].items():
        np.testing.assert_allclose(
            step.firsts[name], np.array(values, float), rtol=1e-8, atol=1e-14, err_msg=name
        )


CASES = {
    "phase1_1src": ("warmup", 1),
    "phase2_1src": ("perceptual", 1),
    "phase3_disc_warmup_1src": ("adversarial", 1),
    "phase3_full_1src": ("adversarial", 501),
    "phase2_2src": ("perceptual", 1, 2),
    "phase2_1src_no_statreg": ("perceptual", 1, 1, True, ("invariance", "variance", "covariance")),
    "phase2_1src_no_outofframe": ("perceptual", 1, 1, False),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == "phase1_1src" else pytest.mark.slow) for case in CASES]
)
def test_step_equals_the_official_one(golden, task, case, request):
    if CASES[case][0] != "warmup":
        task.set_frozen_nets({"vgg19": request.getfixturevalue("vgg19")})
    check(stepped(golden, task, *CASES[case]), golden.figures["train_step"][case])
