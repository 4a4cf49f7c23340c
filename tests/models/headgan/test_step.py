"""One whole training step against the plain formulation: what both sides minimise, and every gradient."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from models.headgan.config import (
    Architecture,
    AudioFeatureConfig,
    DiscriminatorConfig,
    ReconstructionLossConfig,
)
from models.headgan.discriminator import mouth_centre
from models.headgan.phases import ADVERSARIAL_PHASE
from models.headgan.task import HeadGanTask
from models.perception.head.default_head import get_analytic_head
from models.perception.vgg19 import Vgg19Layers, load_random_vgg19
from tests.models.one_clip import tables
from tests.models.one_pass import shared_pass, with_update

NET = Architecture(image_size=32, width=4, hidden=8, audio=5)
DISCRIMINATORS = DiscriminatorConfig(
    width=4, max_width=8, mouth_size=16, spectral=False
)  # plain discriminators look three times a step


def plain_module():
    spec = importlib.util.spec_from_file_location("headgan_plain", Path(__file__).with_name("plain.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_step_is_the_plain_one(talking_head):
    torch.manual_seed(0)
    code, vgg, clip = plain_module(), load_random_vgg19({}), talking_head(side=32)
    task = HeadGanTask(
        NET,
        DISCRIMINATORS,
        ReconstructionLossConfig(),
        "analytic_head",
        AudioFeatureConfig(),
        "clip_mean",
        "smooth",
        recompute=True,
    )
    task.set_frozen_nets({"analytic_head": get_analytic_head(), vgg.name: vgg})
    samples = [task.sample(np.random.default_rng(i), tables(clip), training=True) for i in range(2)]
    batch = {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}
    parts = {
        "": code.Generator(NET),
        "image_discriminator.": code.Discriminator(6, DISCRIMINATORS),
        "mouth_discriminator.": code.Discriminator(NET.audio + 3, DISCRIMINATORS),
    }
    tensors = task.net.state_dict()
    for prefix, part in reversed(parts.items()):
        mine = [name for name in tensors if name.startswith(prefix)]
        part.load_state_dict({name.removeprefix(prefix): tensors.pop(name).clone() for name in mine})
    given = given_of(code, task, batch)
    moving = with_update(ADVERSARIAL_PHASE, "discriminator", every=1)  # both sides learn in this step
    features = Vgg19Layers()
    features.load_state_dict(vgg._net.state_dict())

    found = shared_pass(task, moving, batch)
    found.loss.backward()
    of_generator, of_discriminators = code.whole_step(
        *parts.values(), features.features, given, DISCRIMINATORS.mouth_size
    )
    torch.testing.assert_close(found.totals["generator"], of_generator.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.totals["discriminator"], of_discriminators.detach(), rtol=1e-4, atol=0)

    ours = {name: parameter.grad for name, parameter in task.net.named_parameters()}
    of_generator.backward()
    generator, *discriminators = parts.items()
    check(ours, *generator)
    for _, discriminator in discriminators:
        discriminator.zero_grad()
    of_discriminators.backward()
    for prefix, discriminator in discriminators:
        check(ours, prefix, discriminator)


def given_of(code, task, batch):
    with torch.no_grad():
        faces = task.get_renderer(torch.device("cpu"))
        nmfc = faces.render_nmfc(batch["packed"])
        images = batch["frames"].permute(0, 1, 4, 2, 3) / 127.5 - 1
    return code.Given(
        window=nmfc[:, 1:].flatten(1, 2),
        told=nmfc[:, 0],
        source=images[:, 0],
        condition=nmfc[:, -1],
        target=images[:, 1],
        audio=batch["audio"],
        centres=mouth_centre(faces.project_landmarks(batch["packed"][:, -1])),
    )


def check(ours, prefix, part):
    """In float32, where an absolute difference near 0 may have either sign: as vectors, not one by one."""
    whole = torch.cat([parameter.grad.flatten() for parameter in part.parameters()]).norm()
    for name, parameter in part.named_parameters():
        gap = (ours[prefix + name] - parameter.grad).norm()
        assert gap <= 2e-3 * parameter.grad.norm() + 1e-5 * whole, name
