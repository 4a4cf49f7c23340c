"""FSRT at its published sizes against the plain formulation: training steps, animation frames, memory, GPU.

python -m pytest -m bench -s tests/bench/bench_fsrt.py

On a CPU with one thread, batch 1: seconds are CPU seconds, ratios are taken round by round (plain, fast, then
backwards), the median counts. Plain = tests/models/fsrt/plain.py in float32, its images in passes of 8,192
pixels (all at once it is slower and needs 10 GB). `floor` = the share of the time in which one large matrix
product would do the fast version's FLOPs. A step is forward, backward and Adam. Memory is the growth of a
fresh process over what it held with the weights loaded.

On a GPU a step is the training loop's own, from chunks as the reader's threads leave them: copies, colours,
crops, forward and backward of each chunk, Adam. FLOPs are those that our formulation does, a backward pass of
attention counted as two forward ones; beside them, marked, what the authors' formulation does for the same.

REENACT_BENCH_ROUNDS=1 makes it short: a plain round is about two minutes of CPU time. REENACT_BENCH_NET=tiny
tries it all in minutes; aims do not count then.
"""

import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from models.fsrt.config import (
    AugmentConfig,
    ImageLossRenderingConfig,
    TrainingSampleConfig,
    full_architecture,
    tiny_architecture,
)
from models.fsrt.image_task import WholeImageTask
from models.fsrt.phases import PHASES
from models.fsrt.pixel_sampling import LatticePixels
from models.fsrt.task import AugmentedFrames, FsrtReenactmentTask
from models.onednn import onednn_linear
from models.perception import vgg19
from models.perception.interfaces import InferenceSettings
from models.precision import autocast, supports_bf16
from pipelines.dataset.sampler import WorkerShare, stack_samples
from pipelines.train.distributed import DistributedContext
from pipelines.train.job import TrainJobSpec
from pipelines.train.optim import build_optimizer
from pipelines.train.state import TrainState
from pipelines.train.updates import make_update_passes, train_step
from tests.bench.flops import flops
from tests.models.one_clip import tables

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("REENACT_BENCH_ROUNDS", "3"))
SIZE = os.environ.get("REENACT_BENCH_NET", "full")
NET = {"full": full_architecture, "tiny": tiny_architecture}[SIZE]()
CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIDE, QUERIES = NET.image_size, min(4096, NET.image_size**2 // 4)
STEPS = {"warmup": "step, phase 1", "perceptual": "step, phase 2"}
AUTHORS = {"warmup": 935e9, "perceptual": 3848e9, "frame": 2118e9}
"""FLOP of the authors' formulation (spec 14): a sample's step, a driving frame."""
AIMS = {"step, phase 1": 1.4, "step, phase 2": 1.4, "frame": 1.5}
MEMORY_AIM = 1.5
PASSES = (1024, 4096, 16_384, 65_536, 10**6)


def plain_module():
    spec = importlib.util.spec_from_file_location("plain", ROOT / "tests/models/fsrt/plain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the work -----------------------------------------------------------------------------------------------
def views_of(device):
    torch.manual_seed(1)

    def some(*shape, side=NET.detector.size):
        return torch.rand(1, *shape, 3, side, side, device=device)

    yes = torch.ones(1, dtype=torch.bool, device=device)
    return AugmentedFrames(
        sources=some(1, side=SIDE), target=some(side=SIDE), sources1=some(1), sources2=some(1),
        driving=some(), driving_tight=some(),
        sources2_full=some(1), driving2_full=some(),
        crop=torch.full((1, 4), 0.1, device=device),
        source_moved=yes, driving_moved=yes, tight=yes,
    )  # fmt: skip


class Fast:
    """The net as it is trained and run, batch 1."""

    def __init__(self, device=CPU, precision="fp32"):
        torch.manual_seed(0)
        self.device, self.precision = device, precision
        self.task = WholeImageTask(
            NET, TrainingSampleConfig(queries=QUERIES), AugmentConfig(), ImageLossRenderingConfig()
        )
        self.net = self.task.net.to(device)
        self.net.kp_detector.eval().requires_grad_(False)
        self.features = vgg19.load_random_vgg19({})
        self.features.configure_inference(InferenceSettings(device=device.type))
        self.task.set_frozen_nets({"vgg19": self.features})
        self.views = views_of(device)
        learning = [p for p in self.net.parameters() if p.requires_grad]
        self.adam = build_optimizer(PHASES["warmup"].optimizers["g"], [{"params": learning}])
        self.queries = torch.randperm(SIDE**2)[None, :QUERIES].to(device)
        self.corner = torch.randint(2, (1, 2), device=device)

    def terms(self, phase):
        if phase == "warmup":
            found = self.task.loss_terms(self.views, self.queries)
        else:
            found = self.task.image_losses(self.views, LatticePixels(self.corner, SIDE))
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
            keypoints, e = self.motion(self.views.sources1[:, 0])
            z = self.net.encoder(self.views.sources, keypoints[None], e[None])
            return self.net.decoder.keys_values(z)

    def motion(self, images):
        keypoints, features, heatmap = self.net.kp_detector(images)
        return keypoints, self.net.expression_encoder(features, heatmap)

    @torch.inference_mode()
    def frames(self, scene, images, most=65_536):
        with autocast(self.precision, self.device):
            return self.net.decoder.render_video(scene, SIDE, *self.motion(images), most=most)


class Plain:
    """The same weights and inputs in the plain formulation."""

    def __init__(self, fast):
        self.code = plain_module()
        self.net = self.code.Fsrt(NET)
        self.net.load_state_dict(fast.net.state_dict(), strict=True)
        self.fast, self.vgg = fast, vgg19.load_random_vgg19({})
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
        views = self.fast.views
        (keypoints,), (e,) = self.net.keypoints_and_expressions(views.sources1[:, 0])
        return self.net.encoder(views.sources, keypoints[None], e[None])

    @torch.inference_mode()
    def frames(self, z, images, most=8192):
        (keypoints,), (e,) = self.net.keypoints_and_expressions(images)
        return self.net.decoder.render_image(z, SIDE, keypoints, e, most)


def weighted(terms, phase):
    return sum(weight * terms[name] for name, weight in PHASES[phase].loss_weights.items() if weight)


class Person:
    """A clip (models.task.Clip) of noise, with landmarks that allow every crop."""

    key, length = "noise", 9

    def __init__(self, side):
        self.side, self.rng = side, np.random.default_rng(0)

    def frames(self, indices):
        return self.rng.integers(0, 256, (len(indices), self.side, self.side, 3), dtype=np.uint8)

    def read_points(self, name, indices):
        return (self.side * self.rng.uniform(0.35, 0.65, (len(indices), 68, 2))).astype(np.float32)


def loop_step(net, phase, device, precision):
    """-> a callable: the next step of the training loop, always on the same chunks."""
    sampling = TrainingSampleConfig(queries=min(QUERIES, net.image_size**2 // 4))
    common = (net, sampling, AugmentConfig())
    build = {
        "warmup": lambda: FsrtReenactmentTask(*common),
        "perceptual": lambda: WholeImageTask(*common, ImageLossRenderingConfig()),
    }
    job = TrainJobSpec(
        node=phase.name, phase=phase, build=build[phase.name],
        nets=lambda: {"vgg19": vgg19.load_random_vgg19({})},
        landmarks=None, train=None, held_out=None, seed=0, precision=precision, scratch="",
        log_every=1, checkpoint_every=1, threads=1,
    )  # fmt: skip
    torch.manual_seed(0)
    state = TrainState(job, device)
    passes, worker = make_update_passes(phase, state.parameters), DistributedContext(device)
    person, rng, chunks = Person(net.detector.size), np.random.default_rng(1), []
    for _ in range(phase.batch // phase.samples_per_chunk):
        samples = [
            state.task.sample(rng, tables(person), training=True) for _ in range(phase.samples_per_chunk)
        ]
        chunks.append(stack_samples([(person.key, sample) for sample in samples]))
    numbers, share = itertools.count(1), WorkerShare(phase.batch, phase.samples_per_chunk)
    return lambda: train_step(state, passes, chunks, share, next(numbers), worker)


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


def matmul_rate(device, dtype, size=(4096, 1536, 1536)):
    """FLOP a second of one product of the render MLP's shape."""
    rows, before, after = size
    x = torch.randn(rows, before, device=device, dtype=dtype)
    weight = torch.randn(after, before, device=device, dtype=dtype)

    def work():
        for _ in range(10):
            onednn_linear(x, weight)

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
    versions = {"plain": plain, "fast": fast} | ({"bf16": half} if supports_bf16(CPU) else {})
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
    line("", "plain s", "fast s", "ratio", "aim", "TFLOP", "floor", "bf16 s", "ratio", "floor")
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
            cells += [f"{AIMS[title]:.1f}", f"{count / 1e12:.3f}"] if name == "fast" else []
            cells += [f"{share:.0%}"]
        line(title, *cells)
        ratios[title] = against["fast"]
    for title, aim in AIMS.items():
        assert ratios[title] >= aim or SIZE == "tiny", title


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
    kinds = ("fast", "bf16") if supports_bf16(CPU) else ("fast",)
    print(f"\npeak memory in GB over what the process held before, and in all (aim: below {MEMORY_AIM})")
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
    assert max(peaks) < MEMORY_AIM or SIZE == "tiny"  # the whole process


# --- GPU ----------------------------------------------------------------------------------------------------
def gpu_seconds(work):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


@pytest.fixture
def as_in_training():
    """How the training loop multiplies in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def shares(title, seconds, count, done, authors, ceiling):
    """A line: what is done in a second, and the share of the ceiling by our count and by the authors'."""
    ours = f"{done / 1e12:.2f}", f"{done / seconds / ceiling:.0%}"
    theirs = f"{authors / 1e12:.2f}*", f"{authors / seconds / ceiling:.0%}*"
    line(title, f"{seconds:.3f}", f"{count / seconds:.1f}", *ours, *theirs)


def steps_of_the_loop(net, device, precision, phases, ceiling, clock, repeat):
    """A line for each phase."""
    line("", "seconds", "a second", "TFLOP", "of ceiling", "TFLOP*", "of ceiling*")
    for name, title in STEPS.items():
        step = loop_step(net, phases[name], device, precision)
        done = flops(step)  # the first time: allocations and kernels too
        step()
        seconds, batch = median(clock(step) for _ in range(repeat)), phases[name].batch
        shares(title, seconds, batch, done, batch * AUTHORS[name], ceiling)


@pytest.mark.bench
def test_what_is_timed_on_a_gpu_runs_at_a_tiny_size_on_a_cpu():
    small = {name: replace(PHASES[name], batch=4, chunk=2) for name in STEPS}
    print("\nthe training loop's step, tiny, batch 4 in chunks of 2 (* has no meaning at this size)")
    ceiling = matmul_rate(CPU, torch.float32, (512, 512, 512))
    steps_of_the_loop(tiny_architecture(), CPU, "fp32", small, ceiling, cpu_seconds, 1)


@pytest.mark.bench
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu(as_in_training):
    ceiling, frames = matmul_rate(GPU, torch.bfloat16, (65_536, 4096, 4096)), 64
    print(f"\n{torch.cuda.get_device_name()}, bf16, one GPU; matrix products {ceiling / 1e12:.0f} TFLOP/s")
    print("  a step is batch 24 in chunks of 8, without reading; * = credited with all that the authors' do")
    steps_of_the_loop(NET, GPU, "bf16", PHASES, ceiling, gpu_seconds, 10)
    one, images = Fast(GPU, "bf16"), torch.rand(frames, 3, SIDE, SIDE, device=GPU)
    scene = one.scene()

    def render():
        one.frames(scene, images, 4 * 65_536)

    done = flops(render)
    seconds = median(gpu_seconds(render) for _ in range(5))
    shares(f"{frames} frames", seconds, frames, done, frames * AUTHORS["frame"], ceiling)
    print(f"  peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


if __name__ == "__main__":
    one_piece(*sys.argv[1:])
