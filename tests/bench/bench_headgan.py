"""HeadGAN at its published sizes against the plain formulation: training steps, frames, memory, GPU.

python -m pytest -m bench -s tests/bench/bench_headgan.py

On a CPU with one thread, batch 1, float32: seconds are CPU seconds, ratios are taken round by round (each
other round backwards), the median counts. Plain = tests/models/headgan/plain.py. A step is all that a step of
phase `adversarial` is: generator, VGG19 on target, image and warped image, both discriminators, all losses,
backward, Adam on both sides; ours draws the NMFCs too, the plain one is given them. `floor` = the share of
the time in which one large matrix product would do the step's FLOPs, counted with no map computed twice.
Memory is the peak of a fresh process that does a second step, in all and over what it held before: weights,
Adam's moments.

REENACT_BENCH_ROUNDS=1 makes it short: a plain step is about 20 seconds of CPU time.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch.utils.flop_counter import FlopCounterMode

from models.headgan import losses
from models.headgan.blocks import fold_spectral_norm
from models.headgan.conditions import FaceRenderer
from models.headgan.config import (
    AudioFeatureConfig,
    DiscriminatorConfig,
    ReconstructionLossConfig,
    paper_supplement_architecture,
)
from models.headgan.discriminator import mouth_centre
from models.headgan.motion import parse_head_motion_arrays
from models.headgan.network import Generator
from models.headgan.phases import ADVERSARIAL_PHASE
from models.headgan.task import HeadGanTask
from models.headgan.visualize import frames_to_images
from models.onednn import onednn_linear
from models.perception import vgg19
from models.perception.head.default_head import load_analytic_head
from models.perception.interfaces import InferenceSettings
from models.precision import autocast
from pipelines.train.optim import build_optimizer
from tests.models.one_pass import shared_pass, with_update

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("REENACT_BENCH_ROUNDS", "3"))
SIDE = int(os.environ.get("REENACT_BENCH_SIDE", "256"))
MACS = 308.7e9 * (SIDE / 256) ** 2  # of a forward pass (spec 15); a step is three of them
MEMORY_AIM = 0.8
GPU_BATCH, GPU_AIM = 8, 0.35
NET, DISCRIMINATORS = (
    replace(paper_supplement_architecture(), image_size=SIDE),
    DiscriminatorConfig(mouth_size=SIDE // 4),
)


def plain_module():
    spec = importlib.util.spec_from_file_location("headgan_plain", ROOT / "tests/models/headgan/plain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs(batch, device="cpu"):
    torch.manual_seed(1)
    shapes = [(9, SIDE, SIDE), (3, SIDE, SIDE), (3, SIDE, SIDE), (300,)]
    return [torch.rand(batch, *shape, device=device) for shape in shapes]


def made(which, device="cpu"):
    torch.manual_seed(0)
    ours = Generator(NET, recompute=which == "recompute")
    if which != "plain":
        return ours.to(device)
    plain = plain_module().Generator(NET)
    plain.load_state_dict(ours.state_dict())
    return plain.to(device)


def step(net, adam, given, precision="fp32"):
    adam.zero_grad(set_to_none=True)
    with autocast(precision, given[0].device):
        out = net(*given)
        total = losses.pixel_l1_loss(out[0], given[2]) + losses.pixel_l1_loss(out[1], given[2])
    total.backward()
    adam.step()


def adam_of(net):
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)


def cpu_seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


# --- the whole step -----------------------------------------------------------------------------------------
def batch_of_one(head):
    torch.manual_seed(1)
    return {
        "frames": torch.randint(256, (1, 2, SIDE, SIDE, 3), dtype=torch.uint8),
        "packed": torch.from_numpy(heads(head).pack())[None],
        "audio": torch.rand(1, NET.audio),
    }


def heads(model):
    """Reference and driving window, frontal and turned."""
    given = {
        "scale": np.full(4, SIDE / 3.2),
        "translation": np.tile([SIDE / 2, SIDE / 2, 0.0], (4, 1)),
        "angles": np.array([[0.0, 0, 0], [5, 10, 2], [5, 12, 2], [5, 14, 2]]),
        "exp_coeffs": np.zeros((4, model.n_exp)),
    }
    return parse_head_motion_arrays(given, model.n_id, model.n_exp)


class Ours:
    """The step as it is trained, but for the loop around it."""

    def __init__(self, recompute=True):
        torch.manual_seed(0)
        self.task = HeadGanTask(
            NET,
            DISCRIMINATORS,
            ReconstructionLossConfig(),
            "analytic_head",
            AudioFeatureConfig(),
            "clip_mean",
            "smooth",
            recompute,
        )
        vgg, head = vgg19.load_random_vgg19({}), load_analytic_head({})
        vgg.configure_inference(InferenceSettings(device="cpu"))
        self.task.set_frozen_nets({"analytic_head": head, "vgg19_random": vgg})
        self.phase = with_update(ADVERSARIAL_PHASE, "discriminator", every=1)
        parts = dict(self.task.net.named_children())
        sides = [update.learning_rate_scales for update in self.phase.active_updates.values()]
        chosen = [[p for name in side for p in parts[name].parameters()] for side in sides]
        self.adams = [build_optimizer(ADVERSARIAL_PHASE.optimizers["g"], [{"params": one}]) for one in chosen]
        self.batch = batch_of_one(head)

    def step(self):
        self.task.net.zero_grad(set_to_none=True)
        shared_pass(self.task, self.phase, self.batch).loss.backward()
        for one in self.adams:
            one.step()


class Plain:
    """The same on the same inputs in the plain formulation, with weights of its own."""

    def __init__(self):
        torch.manual_seed(0)
        self.code, self.vgg = plain_module(), vgg19.load_random_vgg19({})._net.features
        self.net = self.code.Generator(NET)
        self.discriminator = self.code.Discriminator(6, DISCRIMINATORS)
        self.mouth_discriminator = self.code.Discriminator(NET.audio + 3, DISCRIMINATORS)
        discriminators = [*self.discriminator.parameters(), *self.mouth_discriminator.parameters()]
        self.adams = [
            build_optimizer(ADVERSARIAL_PHASE.optimizers["g"], [{"params": list(some)}])
            for some in (discriminators, self.net.parameters())
        ]
        head = load_analytic_head({})
        batch, faces = batch_of_one(head), FaceRenderer(head, SIDE)
        nmfc, images = faces.render_nmfc(batch["packed"]), frames_to_images(batch["frames"], SIDE)
        self.given = self.code.Given(
            window=nmfc[:, 1:].flatten(1, 2),
            told=nmfc[:, 0],
            source=images[:, 0],
            condition=nmfc[:, -1],
            target=images[:, 1],
            audio=batch["audio"],
            centres=mouth_centre(faces.project_landmarks(batch["packed"][:, -1])),
        )

    def step(self):
        of_discriminators, of_generator = self.adams
        found = self.code.whole_step(
            self.net,
            self.discriminator,
            self.mouth_discriminator,
            self.vgg,
            self.given,
            DISCRIMINATORS.mouth_size,
        )
        of_generator.zero_grad()
        found[0].backward()
        of_generator.step()
        of_discriminators.zero_grad()  # what the generator's terms left there
        found[1].backward()
        of_discriminators.step()


VERSIONS = {"plain": Plain, "kept": lambda: Ours(recompute=False), "ours": Ours}


# --- CPU ----------------------------------------------------------------------------------------------------
def matmul_rate():
    """FLOP a second of one large product."""
    x, weight = torch.randn(4096, 1536), torch.randn(1536, 1536)
    onednn_linear(x, weight)
    return 2 * x.numel() * len(weight) / min(cpu_seconds(lambda: onednn_linear(x, weight)) for _ in range(10))


@pytest.mark.bench
def test_steps_on_one_core():
    torch.set_num_threads(1)
    versions, rates = {which: make() for which, make in VERSIONS.items()}, []
    for one in versions.values():
        one.step()
    with FlopCounterMode(display=False) as counter:
        versions["kept"].step()
    count, seconds = counter.get_total_flops(), {which: [] for which in versions}
    for i in range(ROUNDS):
        rates.append(matmul_rate())
        for which in list(versions) if i % 2 == 0 else reversed(list(versions)):
            seconds[which].append(cpu_seconds(versions[which].step))
    rate = median(rates)
    print(f"\na step is {count / 1e12:.2f} TFLOP; matrix products at {rate / 1e9:.0f} GFLOP/s", end="")
    ratios = {}
    for which, found in seconds.items():
        ratios[which] = median(p / f for p, f in zip(seconds["plain"], found, strict=True))
        floor = count / rate / median(found)
        print(f"\n{which}: {median(found):.1f} s, {ratios[which]:.2f} x plain, floor {floor:.0%}", end="")
    print()
    assert ratios["ours"] >= 1


@pytest.mark.bench
def test_frame_on_one_core():
    torch.set_num_threads(1)
    given, net, other = inputs(1), fold_spectral_norm(made("kept").eval()), made("plain").eval()
    with torch.inference_mode():
        maps = net.encode(given[1], given[2])
        frame = cpu_seconds(lambda: net.render(given[0], given[2], maps, given[3]))
        plain = cpu_seconds(lambda: other(*given))
    print(f"\nframe: {frame:.1f} s, plain {plain:.1f} s")
    assert frame <= 1.1 * plain  # the same convolutions: nothing to win but the encoder and spectral norms


def peak(which):
    """Of a process that does a second step: MB before it, and at its peak."""
    kept = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ask = [sys.executable, __file__, which]
    done = subprocess.run(ask, env=os.environ | kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def one_step(which):
    torch.set_num_threads(1)
    one = VERSIONS[which]()
    for side in one.adams:  # moments in place, without the memory that a first step would leave behind
        for parameter in (p for group in side.param_groups for p in group["params"]):
            parameter.grad = torch.zeros_like(parameter)
        side.step()
        side.zero_grad(set_to_none=True)
    before = kilobytes("VmRSS")
    one.step()
    print(json.dumps([before // 1024, kilobytes("VmHWM") // 1024]))


def kilobytes(name):
    return int(re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.bench
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_of_a_step():
    found = {which: peak(which) for which in VERSIONS}
    for which, (before, after) in found.items():
        share = after / found["plain"][1]
        print(f"\n{which}: {after} MB ({share:.0%} of plain), of which {after - before} in the step", end="")
    print()
    assert found["ours"][1] <= MEMORY_AIM * found["plain"][1]


# --- GPU ----------------------------------------------------------------------------------------------------
def gpu_seconds(work, repeat=5):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeat):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeat


@pytest.mark.bench
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_step_on_a_gpu():
    a = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16)
    ceiling = 2 * 8192**3 / gpu_seconds(lambda: a @ a, 20)
    given, best = inputs(GPU_BATCH, "cuda"), 0.0
    for which in ("plain", "kept", "recompute"):
        net = made(which, "cuda")
        adam = adam_of(net)
        torch.cuda.reset_peak_memory_stats()
        seconds = gpu_seconds(lambda n=net, a=adam: step(n, a, given, "bf16"))
        share = 2 * 3 * MACS * GPU_BATCH / seconds / ceiling
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"\n{which}: {seconds * 1e3:.0f} ms, {100 * share:.0f} % of the ceiling, {memory:.1f} GiB", end=""
        )
        best = max(best, share) if which != "plain" else best
    print(f"\nceiling {ceiling / 1e12:.0f} TFLOP/s")
    assert best >= GPU_AIM


if __name__ == "__main__":
    one_step(*sys.argv[1:])
