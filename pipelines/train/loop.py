"""The training loop of every model: one function, run by each Ray Train worker.

Everything that outlives a crash goes through the work folder: a checkpoint every few steps, the metric lines,
the last sample grid. A rerun finds the newest whole checkpoint there; Ray's own registration of checkpoints
is not used, since the last one before a crash can be missing from it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.api import Batch, Phase, Task
from pipelines.train.data import Chunk, Corpus, draw, gather, training_chunks
from pipelines.train.objective import Objective, choose_parts, learn
from pipelines.train.optim import Ema, adam, learning_rate, moments, restore_moments
from storage import checkpoints
from storage.checkpoints import StepCheckpoints
from storage.files import Store

START, METRICS, SAMPLES, STOP = "start.safetensors", "metrics.jsonl", "samples.png", "stop"
VALIDATION = 16  # samples scored on a schedule
ROWS, PICTURE = 8, 128  # of the sample grid: rows, and the least side of a picture in it
FLUSH = 1.0  # seconds between two writes of the metric lines
READERS = 2  # threads that read and decode ahead


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All a worker needs; pickled to it."""

    node: str
    phase: Phase
    build: Callable[[], Task]
    train: Corpus
    held_out: Corpus | None
    """Clips of identities that are not trained on, or None if there are none."""
    seed: int
    precision: str
    scratch: str
    log_every: int
    checkpoint_every: int
    preview_every: int
    threads: int


def work(config: dict[str, Any]) -> None:
    """Ray Train's entry in each worker."""
    train(config["job"])


def train(job: Job) -> None:
    rank, world = _place()
    device = _device()
    torch.set_num_threads(job.threads)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(job.seed)  # the same initial weights in every worker
    state = State(job, device)
    files = StepCheckpoints(job.scratch)
    state.resume(files, _agreed(files.newest(job.phase.steps), world))
    log = MetricLog(job.scratch, state.step) if rank == 0 else None
    for _ in steps(job, state, device, rank, world):
        due = _due(job, state.step)
        if "log" in due:
            figures = state.figures.mean(world)
            if log is not None:
                log.add(state.step, figures, state.speed(world))
        if "preview" in due and log is not None:
            log.add(state.step, validate(job, state, device), {})
        stop = "log" in due and _agreed(log is not None and log.stop_asked(), world)
        if log is not None and (stop or "checkpoint" in due):
            log.flush()
            files.save(state.step, *state.saved())
        if stop:
            break
    if log is not None:
        log.flush()
    if world > 1:
        dist.barrier()


def _due(job: Job, step: int) -> set[str]:
    """What follows a step. Figures are logged with every checkpoint, so that a resumed run logs the same
    windows.
    """
    last = step == job.phase.steps
    every = {"log": job.log_every, "checkpoint": job.checkpoint_every, "preview": job.preview_every}
    due = {name for name, period in every.items() if last or step % period == 0}
    return due | {"log"} if due else due


# --- where this worker runs ---------------------------------------------------------------------------------
def _place() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _device() -> torch.device:
    from ray.train.torch import get_device

    return get_device()


def _agreed(value: Any, world: int) -> Any:
    """Rank 0's value, on every rank."""
    if world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


# --- what changes from step to step -------------------------------------------------------------------------
class State:
    """Net, optimiser, running mean and step: what a checkpoint holds, and nothing else that matters."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.step = job, 0
        self.task = job.build()
        self.net: nn.Module = self.task.net.to(device)
        self.parameters = choose_parts(self.net, job.phase.train)
        self.adam = adam(job.phase.optim, self.parameters.values())
        self.ema = Ema(self.parameters, job.phase.ema) if job.phase.ema else None
        self.labels = dict(self.task.labels())
        self.figures = Figures(job.phase.weights)
        self.clock = Clock()

    def resume(self, files: StepCheckpoints, step: int | None) -> None:
        """Go on from a checkpoint of this phase, or begin with the weights of the phase before."""
        if step is not None:
            tensors, about = files.load(step)
            self._restore(tensors, about)
        elif files.store.exists(START):
            self._begin(*checkpoints.load(files.store.fetch(START)))
        elif self.job.phase.start_from:
            raise FileNotFoundError(
                f"{self.job.node}: no weights of phase {self.job.phase.start_from} to start from"
            )

    def _begin(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        found = self.net.load_state_dict(tensors, strict=False)
        begun = {name.split(".")[0] for name in tensors}
        missing = sorted({name.split(".")[0] for name in found.missing_keys} - set(self.job.phase.train))
        half = sorted({name.split(".")[0] for name in found.missing_keys} & begun)
        if found.unexpected_keys or missing or half:
            raise ValueError(
                f"{self.job.node} cannot start from phase {about.get('phase')}: it brings unknown tensors "
                f"{found.unexpected_keys[:3]}, lacks the frozen parts {missing}, has only a share of {half}"
            )
        self.labels = about.get("labels", {}) | self.labels
        if self.ema:
            self.ema = Ema(self.parameters, self.job.phase.ema)

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name (`net.`, `optim.`, `ema.`), and what is needed to read them."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {f"optim.{name}": tensor for name, tensor in moments(self.adam, self.parameters).items()}
        if self.ema:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.mean.items()}
        about = {
            "phase": self.job.phase.name,
            "step": self.step,
            "labels": self.labels,
            **self.task.describe(),
        }
        return tensors, about

    def _restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.net.load_state_dict(_under("net.", tensors))
        restore_moments(self.adam, self.parameters, _under("optim.", tensors))
        if self.ema:
            mean = _under("ema.", tensors)
            for name, tensor in self.ema.mean.items():
                tensor.copy_(mean[name])
        self.step, self.labels = about["step"], about["labels"]

    def speed(self, world: int) -> dict[str, float]:
        """Since the last call: throughput, and the share of time spent waiting for data."""
        seconds, waited, count = self.clock.lap()
        samples = count * self.job.phase.batch
        return {
            "samples_per_second": samples / seconds,
            "step_seconds": seconds / count,
            "data_wait": waited / seconds,
            "workers": float(world),
        }


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Figures:
    """Losses summed on the device since they were last asked for."""

    def __init__(self, names: dict[str, float]) -> None:
        self.names = [*(f"loss/{name}" for name in names), "loss/total", "gradient_norm", "learning_rate"]
        self.total: Tensor | None = None
        self.count = 0

    def add(self, terms: Tensor, total: Tensor, norm: Tensor, rate: float) -> None:
        values = torch.cat(
            [terms.double(), torch.stack([total.double(), norm.double()]), total.new_tensor([rate]).double()]
        )
        self.total = values if self.total is None else self.total + values
        self.count += 1

    def mean(self, world: int) -> dict[str, float]:
        assert self.total is not None
        values = self.total / self.count
        if world > 1:
            dist.all_reduce(values)
            values /= world
        self.total, self.count = None, 0
        return dict(zip(self.names, values.tolist(), strict=True))


class Clock:
    """Time since the last lap, and how much of it was spent waiting for data."""

    def __init__(self) -> None:
        self.began, self.waited, self.steps = time.perf_counter(), 0.0, 0

    def lap(self) -> tuple[float, float, int]:
        now = time.perf_counter()
        result = (max(now - self.began, 1e-9), self.waited, max(self.steps, 1))
        self.began, self.waited, self.steps = now, 0.0, 0
        return result


# --- steps --------------------------------------------------------------------------------------------------
def steps(job: Job, state: State, device: torch.device, rank: int, world: int) -> Iterator[int]:
    """Do the steps that are left, one for each item."""
    phase = job.phase
    objective: nn.Module = Objective(state.task, phase.weights).to(device)
    if world > 1:
        objective = DistributedDataParallel(objective, device_ids=[device] if device.type == "cuda" else None)
    left = range(state.step + 1, phase.steps + 1)
    chunks = training_chunks(
        state.task, job.train, job.seed, left, phase.batch, phase.chunk_size, rank, world, READERS
    )
    each = phase.batch // phase.chunk_size // world
    with contextlib.closing(chunks):
        for step in left:
            began = time.perf_counter()
            mine = list(islice(chunks, each))
            state.clock.waited += time.perf_counter() - began
            one_step(job, state, objective, mine, step, device)
            state.step = step
            state.clock.steps += 1
            yield step


def one_step(
    job: Job, state: State, objective: nn.Module, chunks: list[Chunk], step: int, device: torch.device
) -> None:
    """Forward and backward over this worker's chunks, one optimiser step."""
    rate = learning_rate(job.phase.optim, step)
    for group in state.adam.param_groups:
        group["lr"] = rate
    state.adam.zero_grad(set_to_none=True)
    totals, terms = [], []
    for i, chunk in enumerate(chunks):
        last = i == len(chunks) - 1
        quiet = contextlib.nullcontext() if last else _no_sync(objective)
        with quiet:
            with _autocast(job, device):
                total, shown = objective(_to(chunk, device))
            _stop_if_broken(total, "the loss", step, chunks, objective, shown)
            (total / len(chunks)).backward()
        totals.append(total.detach())
        terms.append(shown)
    gradients = [p.grad for p in state.parameters.values() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    _stop_if_broken(norm, "the gradient", step, chunks, objective, terms[-1])
    if job.phase.optim.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(state.parameters.values(), job.phase.optim.clip, norm)
    state.adam.step()
    if state.ema:
        state.ema.update()
    state.figures.add(torch.stack(terms).mean(0), torch.stack(totals).mean(), norm, rate)


def _no_sync(objective: nn.Module) -> Any:
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else contextlib.nullcontext()


def _autocast(job: Job, device: torch.device) -> torch.autocast:
    return torch.autocast(
        device.type, torch.bfloat16, enabled=job.precision == "bf16" and device.type == "cuda"
    )


def _to(chunk: Chunk, device: torch.device) -> Batch:
    return {
        name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in chunk.arrays.items()
    }


def _stop_if_broken(
    value: Tensor, what: str, step: int, chunks: list[Chunk], objective: nn.Module, terms: Tensor
) -> None:
    if bool(torch.isfinite(value)):
        return
    inner = objective.module if isinstance(objective, DistributedDataParallel) else objective
    assert isinstance(inner, Objective)
    figures = ", ".join(f"{n} {v:.4g}" for n, v in zip(inner.weights, terms.tolist(), strict=True))
    clips = ", ".join(sorted({key for chunk in chunks for key in chunk.keys}))
    raise FloatingPointError(
        f"step {step}: {what} is {float(value.detach())} ({figures}); clips of the batch: {clips}"
    )


# --- looking at it ------------------------------------------------------------------------------------------
@torch.no_grad()
def validate(job: Job, state: State, device: torch.device) -> dict[str, float]:
    """Scores over fixed samples of held-out clips, and a sample grid in the work folder."""
    corpus = job.held_out or job.train
    drawn = [draw(state.task, corpus, job.seed, i, training=False) for i in range(VALIDATION)]
    size = min(VALIDATION, job.phase.chunk_size)
    if state.ema:
        state.ema.swap()
    state.net.eval()
    with _autocast(job, device):
        scores = [
            state.task.scores(_to(gather(drawn[i : i + size]), device)) for i in range(0, VALIDATION, size)
        ]
        rows = state.task.preview(_to(gather(drawn[:ROWS]), device))
    learn(state.net, job.phase.train)
    if state.ema:
        state.ema.swap()
    Store(job.scratch).write(SAMPLES, grid_png(rows))
    state.clock.lap()  # looking is not training time
    where = "held_out" if job.held_out else "train"
    weights = [len(drawn[i : i + size]) / VALIDATION for i in range(0, VALIDATION, size)]
    return {
        f"{where}/{name}": sum(w * s[name] for w, s in zip(weights, scores, strict=True))
        for name in scores[0]
    }


def grid_png(rows: np.ndarray) -> bytes:
    """rows (B,H,W,3) uint8, stacked and enlarged by a whole factor -> PNG"""
    import io

    from PIL import Image

    factor = max(1, PICTURE // rows.shape[1])
    picture = np.concatenate(list(rows)).repeat(factor, 0).repeat(factor, 1)
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG")
    return out.getvalue()


class MetricLog:
    """Metric lines in the work folder, rewritten whole so that any store can hold them; the driver reads
    along.
    """

    def __init__(self, scratch: str, after: int) -> None:
        self.store, self.written = Store(scratch), 0.0
        self.lines = [
            line for line in read_metrics(self.store) if line["step"] <= after
        ]  # a resumed run repeats steps

    def add(self, step: int, values: dict[str, float], speed: dict[str, float]) -> None:
        self.lines.append({"step": step, "values": values, "speed": speed})
        if time.monotonic() - self.written >= FLUSH:
            self.flush()

    def flush(self) -> None:
        self.store.write(METRICS, log_text(self.lines))
        self.written = time.monotonic()

    def stop_asked(self) -> bool:
        return self.store.exists(STOP)


def log_text(lines: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()


def read_metrics(store: Store) -> list[dict[str, Any]]:
    if not store.exists(METRICS):
        return []
    return [json.loads(line) for line in store.read(METRICS).decode().splitlines()]
