"""HeadGAN's generator at its published size against the plain formulation: steps, frames, memory, GPU.

python -m pytest -m bench -s tests/bench/bench_headgan.py

On a CPU with one thread, batch 1, float32: seconds are CPU seconds, ratios are taken round by round, the
median counts. Plain = tests/models/headgan/plain.py. A step is the generator's forward pass, L1 of image and
warped image, backward and Adam; VGG19 and the discriminators cost both the same and are left out. Memory is
the peak of a fresh process that does one step, its growth over what it held with weights, gradients and
Adam's moments in place.

REENACT_BENCH_ROUNDS=1 makes it short: a plain step is about 20 seconds of CPU time.
"""

import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch

from models.headgan import losses
from models.headgan.blocks import fold
from models.headgan.config import supplement
from models.headgan.network import Generator
from models.precision import autocast

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("REENACT_BENCH_ROUNDS", "3"))
SIDE = int(os.environ.get("REENACT_BENCH_SIDE", "256"))
MACS = 308.7e9 * (SIDE / 256) ** 2  # of a forward pass (spec 15); a step is three of them
MEMORY_AIM = 0.8
GPU_BATCH, GPU_AIM = 8, 0.35


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
    net = replace(supplement(), image_size=SIDE)
    ours = Generator(net, recompute=which == "recompute")
    if which != "plain":
        return ours.to(device)
    plain = plain_module().Generator(net)
    plain.load_state_dict(ours.state_dict())
    return plain.to(device)


def step(net, adam, given, precision="fp32"):
    adam.zero_grad(set_to_none=True)
    with autocast(precision, given[0].device):
        out = net(*given)
        total = losses.pixel(out[0], given[2]) + losses.pixel(out[1], given[2])
    total.backward()
    adam.step()


def adam_of(net):
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)


def cpu_seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


# --- CPU ----------------------------------------------------------------------------------------------------
@pytest.mark.bench
def test_steps_and_frames_on_one_core():
    torch.set_num_threads(1)
    given = inputs(1)
    nets = {which: made(which) for which in ("plain", "kept", "recompute")}
    adams = {which: adam_of(net) for which, net in nets.items()}
    seconds = {which: [] for which in nets}
    for _ in range(ROUNDS):
        for which, net in nets.items():
            seconds[which].append(cpu_seconds(lambda n=net, a=adams[which]: step(n, a, given)))
    for which, found in seconds.items():
        ratio = median(p / f for p, f in zip(seconds["plain"], found, strict=True))
        rate = 2 * 3 * MACS / median(found) / 1e9
        print(f"\nstep, {which}: {median(found):.1f} s, {rate:.0f} GFLOP/s, {ratio:.2f} x plain", end="")
    net = fold(made("kept").eval())
    with torch.inference_mode():
        maps = net.encode(given[1], given[2])
        frame = cpu_seconds(lambda: net.render(given[0], given[2], maps, given[3]))
        plain = cpu_seconds(lambda: nets["plain"].eval()(*given))
    print(f"\nframe: {frame:.1f} s, plain {plain:.1f} s")
    ratio = median(p / f for p, f in zip(seconds["plain"], seconds["recompute"], strict=True))
    assert ratio >= 1, f"a step takes {1 / ratio:.2f} x the plain one's time"


GROWTH = """
import re, sys
from pathlib import Path
import torch
sys.path[:0] = [{root!r}, {here!r}]
import bench_headgan as bench
torch.set_num_threads(1)
net, given = bench.made({which!r}), bench.inputs(1)
adam = bench.adam_of(net)
for parameter in net.parameters():
    parameter.grad = torch.zeros_like(parameter)
adam.step()
adam.zero_grad(set_to_none=True)
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = kilobytes("VmRSS")
bench.step(net, adam, given)
print(before // 1024, kilobytes("VmHWM") // 1024)
"""


def peak(which):
    """Of a process that does one step: MB before it, and at its peak."""
    code = GROWTH.format(root=str(ROOT), here=str(Path(__file__).parent), which=which)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    return before, after


@pytest.mark.bench
def test_memory_of_a_step():
    found = {which: peak(which) for which in ("plain", "kept", "recompute")}
    for which, (before, after) in found.items():
        print(f"\n{which}: {after} MB, of which {after - before} in the step", end="")
    print()
    assert found["recompute"][1] <= MEMORY_AIM * found["plain"][1]


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
