"""FSRT at its published sizes against the plain formulation: training steps, animation frames, memory, GPU.

python -m pytest -m bench -s tests/bench/bench_fsrt.py

On a CPU with one thread, batch 1: seconds are CPU seconds, ratios are taken round by round (plain, fast, then
backwards), the median counts. Plain = tests/models/fsrt/plain.py in float32, its images in passes of 8,192
pixels (all at once it is slower and needs 10 GB). `floor` = the share of the time in which one large matrix
product would do the fast version's FLOPs. A step is forward, backward and Adam. Memory is the growth of a
fresh process over what it held with the weights loaded.

REENACT_BENCH_ROUNDS=1 makes it short: a plain round is about two minutes of CPU time.
"""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.fsrt.config import Augment, Images, Sampling, full
from models.fsrt.full_image import ImageTask
from models.fsrt.phases import PHASES
from models.fsrt.quarter import Lattice
from models.fsrt.task import Views
from models.onednn import linear
from models.perception import vgg19
from models.perception.interfaces import Inference
from models.precision import autocast, has_bf16
from pipelines.train.optim import adam

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("REENACT_BENCH_ROUNDS", "3"))
CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIDE, QUERIES = 256, 4096
STEPS = {"warmup": "step, phase 1", "perceptual": "step, phase 2"}
FLOPS = {"warmup": 935e9, "perceptual": 3848e9}  # of a sample's step in the authors' formulation
AIMS = {"step, phase 1": 1.4, "step, phase 2": 1.4, "frame": 1.5}
PASSES = (1024, 4096, 16_384, 65_536, 10**6)


def plain_module():
    spec = importlib.util.spec_from_file_location("plain", ROOT / "tests/models/fsrt/plain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the work -----------------------------------------------------------------------------------------------
def views_of(batch, device):
    torch.manual_seed(1)

    def some(*shape):
        return torch.rand(*shape, 3, SIDE, SIDE, device=device)

    yes = torch.ones(batch, dtype=torch.bool, device=device)
    return Views(
        sources=some(batch, 1), target=some(batch), sources1=some(batch, 1), sources2=some(batch, 1),
        driving=some(batch), driving_tight=some(batch),
        sources2_whole=some(batch, 1), driving2_whole=some(batch),
        crop=torch.full((batch, 4), 0.1, device=device),
        source_moved=yes, driving_moved=yes, tight=yes,
    )  # fmt: skip


class Fast:
    """The net as it is trained and run."""

    def __init__(self, device=CPU, precision="fp32", batch=1):
        torch.manual_seed(0)
        self.device, self.precision = device, precision
        self.task = ImageTask(full(), Sampling(), Augment(), Images())
        self.net = self.task.net.to(device)
        self.net.kp_detector.eval().requires_grad_(False)
        self.features = vgg19.load_random({})
        self.features.configure(Inference(device=device.type))
        self.task.use({"vgg19": self.features})
        self.views = views_of(batch, device)
        learning = [p for p in self.net.parameters() if p.requires_grad]
        self.adam = adam(PHASES["warmup"].optim, learning)
        self.queries = torch.stack([torch.randperm(SIDE**2)[:QUERIES] for _ in range(batch)]).to(device)
        self.corner = torch.randint(2, (batch, 2), device=device)

    def terms(self, phase):
        if phase == "warmup":
            found = self.task.step(self.views, self.queries)
        else:
            found = self.task.whole_step(self.views, Lattice(self.corner, SIDE))
        return {name: term() for name, term in found.items()}

    def step(self, phase):
        self.adam.zero_grad(set_to_none=True)
        with autocast(self.precision, self.device):
            total = weighted(self.terms(phase), phase)
        total.backward()
        self.adam.step()

    @torch.inference_mode()
    def scene(self):
        with autocast(self.precision, self.device):
            keypoints, e = self.motion(self.views.sources[:1, 0])
            z = self.net.encoder(self.views.sources[:1], keypoints[None], e[None])
            return self.net.decoder.keys_values(z)

    def motion(self, images):
        keypoints, features, heatmap = self.net.kp_detector(images)
        return keypoints, self.net.expression_encoder(features, heatmap)

    @torch.inference_mode()
    def frames(self, scene, images, most=65_536):
        with autocast(self.precision, self.device):
            return self.net.decoder.video(scene, SIDE, *self.motion(images), most=most)


class Plain:
    """The same weights and inputs in the plain formulation."""

    def __init__(self, fast):
        self.code = plain_module()
        self.net = self.code.Fsrt(full())
        self.net.load_state_dict(fast.net.state_dict(), strict=True)
        self.fast, self.vgg = fast, vgg19.load_random({})
        self.adam = torch.optim.Adam((p for p in self.net.parameters() if p.requires_grad), lr=1e-4)

    def step(self, phase):
        self.adam.zero_grad(set_to_none=True)
        views = self.fast.views
        if phase == "warmup":
            terms = self.code.warmup_step(self.net, views, self.fast.queries)
        else:
            terms = self.code.image_step(self.net, views, self.fast.corner, self.vgg.features)
        weighted(terms, phase).backward()
        self.adam.step()

    @torch.inference_mode()
    def scene(self):
        source = self.fast.views.sources
        (keypoints,), (e,) = self.net.look(source[:, 0])
        return self.net.encoder(source, keypoints[None], e[None])

    @torch.inference_mode()
    def frames(self, z, images, most=8192):
        (keypoints,), (e,) = self.net.look(images)
        return self.net.decoder.image(z, SIDE, keypoints, e, most)


def weighted(terms, phase):
    return sum(weight * terms[name] for name, weight in PHASES[phase].losses.items() if weight)


# --- measuring ----------------------------------------------------------------------------------------------
def cpu_seconds(work):
    begun = time.process_time()
    work()
    return time.process_time() - begun


def rounds(kinds):
    """Name -> CPU seconds of every round; each other round runs backwards."""
    found = {name: [] for name in kinds}
    for i in range(ROUNDS):
        for name in list(kinds) if i % 2 == 0 else reversed(list(kinds)):
            found[name].append(cpu_seconds(kinds[name]))
    return found


def count_product(x, weight, *_, **__):
    """Shapes (N,I), (O,I)"""
    return 2 * x[0] * x[1] * weight[0]


def flops(work):
    """FLOPs of one piece of work, those of oneDNN's operator too."""
    known = {torch.ops.mkldnn._linear_pointwise: count_product}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        work()
    return counter.get_total_flops()


def matmul_rate(device, dtype, size=(4096, 1536, 1536)):
    """FLOP a second of one product of the render MLP's shape."""
    rows, before, after = size
    x = torch.randn(rows, before, device=device, dtype=dtype)
    weight = torch.randn(after, before, device=device, dtype=dtype)

    def work():
        for _ in range(10):
            linear(x, weight)

    clock = gpu_seconds if device.type == "cuda" else cpu_seconds
    work()
    return 10 * 2 * rows * before * after / min(clock(work) for _ in range(5))


WIDTH = 12


def line(title, *cells):
    print(f"  {title:<28}" + "".join(f"{cell:>{WIDTH}}" for cell in cells), flush=True)


@pytest.fixture(scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def works():
    """Unit of work -> version -> callable"""
    fast, half = Fast(), Fast(precision="bf16")
    plain = Plain(fast)
    versions = {"plain": plain, "fast": fast} | ({"bf16": half} if has_bf16(CPU) else {})
    driving = fast.views.driving
    found = {
        title: {name: (lambda one=one, phase=phase: one.step(phase)) for name, one in versions.items()}
        for phase, title in STEPS.items()
    }
    scenes = {name: one.scene() for name, one in versions.items()}
    found["frame"] = {
        name: (lambda one=one, name=name: one.frames(scenes[name], driving)) for name, one in versions.items()
    }
    return found


@pytest.mark.bench
def test_against_the_plain_formulation(one_thread):
    rates = {"fast": matmul_rate(CPU, torch.float32), "bf16": matmul_rate(CPU, torch.bfloat16)}
    print(f"\n{torch.cpu.get_capabilities()['cpu_name']}, 1 thread, batch 1; matrix products at")
    print(f"  fp32 {rates['fast'] / 1e9:.0f}, bf16 {rates['bf16'] / 1e9:.0f} GFLOP/s")
    line("", "plain s", "fast s", "ratio", "TFLOP", "floor", "bf16 s", "ratio", "floor")
    ratios = {}
    for title, kinds in works().items():
        count = flops(kinds["fast"])  # the first time: allocations and kernels too
        found = rounds(kinds)
        seconds = {name: median(spent) for name, spent in found.items()}
        against = {
            name: median(a / b for a, b in zip(found["plain"], spent, strict=True))
            for name, spent in found.items()
        }
        shares = {name: count / rate / seconds[name] for name, rate in rates.items() if name in seconds}
        cells = [f"{seconds['plain']:.1f}"]
        for name, share in shares.items():
            cells += [f"{seconds[name]:.2f}", f"{against[name]:.2f}"]
            cells += [f"{count / 1e12:.3f}"] if name == "fast" else []
            cells += [f"{share:.0%}"]
        line(title, *cells)
        ratios[title] = against["fast"]
    for title, aim in AIMS.items():
        assert ratios[title] >= aim, title


# --- memory -------------------------------------------------------------------------------------------------
def grown(version, work, most):
    """Peak memory of a piece of work in a process of its own: GB over what it held before, and in all."""
    ask = [sys.executable, __file__, version, work, str(most)]
    kept = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(ask, env=os.environ | kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def one_piece(version, work, most):
    torch.set_num_threads(1)
    fast = Fast(precision="bf16" if version == "bf16" else "fp32")
    one = Plain(fast) if version == "plain" else fast
    scene = one.scene() if work == "frame" else None
    before = resident()
    if work == "frame":
        one.frames(scene, fast.views.driving, int(most))
    else:
        one.step(work)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([(peak - before) / 1e9, peak / 1e9]))


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.bench
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory():
    kinds = ("fast", "bf16") if has_bf16(CPU) else ("fast",)
    print("\npeak memory in GB over what the process held before, and in all")
    line("", "plain", *kinds, "in all")
    for phase, title in STEPS.items():
        found = [grown(version, phase, 0) for version in ("plain", *kinds)]
        line(title, *(f"{more:.2f}" for more, _ in found), f"{found[1][1]:.2f}")
    peaks = []
    for most in PASSES:
        plain = [f"{grown('plain', 'frame', most)[0]:.2f}" if most == 4096 else "-"]
        found = [grown(version, "frame", most) for version in kinds]
        peaks += [in_all for _, in_all in found]
        line(
            f"frame, {most:,} pixels a pass",
            *plain,
            *(f"{more:.2f}" for more, _ in found),
            f"{peaks[-1]:.2f}",
        )
    assert max(peaks) < 1.5  # the whole process


# --- GPU ----------------------------------------------------------------------------------------------------
def gpu_seconds(work):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


@pytest.mark.bench
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu():
    batch, frames = 24, 64
    ceiling = matmul_rate(GPU, torch.bfloat16, (65_536, 4096, 4096))
    one = Fast(GPU, "bf16", batch)
    print(
        f"\n{torch.cuda.get_device_name()}, bf16, batch {batch}; matrix products {ceiling / 1e12:.0f} TFLOP/s"
    )
    line("", "seconds", "a second", "TFLOP/s", "of ceiling")
    for phase, title in STEPS.items():
        for _ in range(3):
            one.step(phase)
        seconds = median(gpu_seconds(lambda phase=phase: one.step(phase)) for _ in range(10))
        rate = batch * FLOPS[phase] / seconds
        line(title, f"{seconds:.3f}", f"{batch / seconds:.0f}", f"{rate / 1e12:.0f}", f"{rate / ceiling:.0%}")
    scene, images = one.scene(), torch.rand(frames, 3, SIDE, SIDE, device=GPU)
    one.frames(scene, images, 4 * 65_536)
    seconds = median(gpu_seconds(lambda: one.frames(scene, images, 4 * 65_536)) for _ in range(5))
    line(f"{frames} frames", f"{seconds:.3f}", f"{frames / seconds:.0f}")
    print(f"  peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


if __name__ == "__main__":
    one_piece(*sys.argv[1:])
