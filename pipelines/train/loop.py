"""The training loop of every model: one function, run by each Ray Train worker.

Everything that outlives a crash goes through the work folder: a checkpoint every few steps, the metric lines,
the last sample grid. A rerun finds the newest whole checkpoint there; Ray's own registration of checkpoints
is not used, since the last one before a crash can be missing from it.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import labels
from models.api import Phase, Task
from models.precision import autocast
from pipelines.train.data import Chunk, Corpus, training_chunks
from pipelines.train.device import on_device, this_device, to_device
from pipelines.train.objective import Losses, Objective, choose_parts, learn
from pipelines.train.optim import Ema, adam, moments, restore_moments, set_rate
from pipelines.train.validate import validate
from storage import checkpoints
from storage.checkpoints import StepCheckpoints
from storage.files import Store

START, METRICS, SAMPLES, STOP = "start.safetensors", "metrics.jsonl", "samples.png", "stop"
BEST = "best.safetensors"
FLUSH = 1.0  # seconds between two writes of the metric lines
READERS = 2  # threads that read and decode ahead


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All a worker needs; pickled to it."""

    node: str
    phase: Phase
    build: Callable[[], Task]
    nets: Callable[[], dict[str, Any]]
    """Loads the perception nets that the phase's losses look through."""
    landmarks: Callable[[], Any] | None
    """Loads a landmark finder for validation, frames (T,256,256,3) -> (T,68,2); None = no such figures."""
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
    compile: bool = False


def work(config: dict[str, Any]) -> None:
    """Ray Train's entry in each worker."""
    train(config["job"])


def train(job: Job) -> None:
    rank, world = _place()
    device = this_device()
    torch.set_num_threads(job.threads)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(job.seed)  # the same initial weights in every worker
    state = State(job, device)
    files = StepCheckpoints(job.scratch)
    state.resume(files, _agreed(files.newest(job.phase.steps), world))
    if job.compile:
        state.net.compile(dynamic=False)  # after resuming: names of tensors stay those of the plain net
    log = MetricLog(job.scratch, state.step) if rank == 0 else None
    for _ in steps(job, state, device, rank, world):
        due = _due(job, state.step)
        if "log" in due:
            figures = state.figures.mean(world)
            if log is not None:
                log.add(state.step, figures, state.speed(world))
        if "preview" in due and log is not None:
            log.add(state.step, look(job, state, device), {})
            if state.best and state.best[1] == state.step:  # so that no kill parts the file from what is told
                due |= {"checkpoint"}
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


def look(job: Job, state: State, device: torch.device) -> dict[str, float]:
    """Validate, and keep the weights if they are the best yet."""
    corpus = job.held_out or job.train
    with state.showing():
        found = validate(state.task, corpus, job, device)
    store = Store(job.scratch)
    store.write(SAMPLES, found.grid)
    if found.psnr is not None:
        state.keep_best(store, found.psnr)
    state.clock.lap()  # looking is not training time
    where = "held_out" if job.held_out else "train"
    return {f"{where}/{name}": value for name, value in found.figures.items()}


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
        self.task.use(on_device(job.nets(), device))
        self.net: nn.Module = self.task.net.to(device)
        phase = job.phase
        self.parameters = choose_parts(self.net, phase.train)
        self.adam = adam(phase.optim, self.parameters.values())
        self.judging: dict[str, nn.Parameter] = {}
        self.judges_adam: torch.optim.Adam | None = None
        if phase.adversary:
            everyone = choose_parts(self.net, phase.learning)
            self.judging = {name: p for name, p in everyone.items() if name not in self.parameters}
            self.judges_adam = adam(phase.adversary.optim, self.judging.values())
        self.ema = Ema(self.parameters, phase.ema) if phase.ema else None
        self.before = 0
        """Steps that Adam had done when the phase began: those of the phases that it carries on from."""
        self.labels = dict(self.task.labels())
        self.figures, self.clock = Figures(), Clock()
        self.best: tuple[float, int] | None = None
        """The best validation PSNR and its step."""

    def resume(self, files: StepCheckpoints, step: int | None) -> None:
        """Go on from a checkpoint of this phase, or begin with the weights of the phase before."""
        if step is not None:
            tensors, about = files.load(step)
            self._restore(tensors, about)
        elif files.store.exists(START):
            self._begin(*checkpoints.load(files.store.fetch(START)))
        elif self.job.phase.start_from:
            node = f"{self.job.node.rpartition('.')[0]}.{self.job.phase.start_from}"
            raise FileNotFoundError(
                f"{self.job.node}: no weights of {node} in its work folder to start from; run that first: "
                f"`reenact run RUN.yaml --only {node}`"
            )
        elif frozen := sorted(self._parts() - set(self.job.phase.learning)):
            raise ValueError(
                f"{self.job.node} starts from nothing, but does not train {frozen}; set start_from to a "
                "phase or to weights.<id> that brings them"
            )

    def _parts(self) -> set[str]:
        return {name for name, _ in self.net.named_children()}

    def _begin(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        phase = self.job.phase
        net = _under("net.", tensors) if phase.carry else tensors
        found = self.net.load_state_dict(net, strict=False)
        begun = {name.split(".")[0] for name in net}
        lacking = {name.split(".")[0] for name in found.missing_keys}
        missing, half = sorted(lacking - set(phase.learning)), sorted(lacking & begun)
        if found.unexpected_keys or missing or half:
            raise ValueError(
                f"{self.job.node} cannot start from phase {about.get('phase')}: it brings unknown tensors "
                f"{found.unexpected_keys[:3]}, lacks the frozen parts {missing}, has only a share of {half}"
            )
        told = labels.trained_on(labels.read(about), self._parts(), phase.learning)
        if phase.released and begun & set(phase.train):  # those were trained with all that is published
            told = dict.fromkeys(self.labels, labels.AS_PUBLISHED) | told
        self.labels = labels.after(told, self.labels)
        if self.ema:
            self.ema = Ema(self.parameters, phase.ema)
        if phase.carry:
            self.before = self._restore_moments(tensors)

    def _restore_moments(self, tensors: dict[str, Tensor]) -> int:
        """-> steps that Adam has done."""
        known = _under("optim.", tensors)
        restore_moments(self.adam, self.parameters, known)
        # the judges may not have moved yet, and the phase before may have had none
        if self.judges_adam and any(f"{name}.step" in known for name in self.judging):
            restore_moments(self.judges_adam, self.judging, known)
        return max(int(known[f"{name}.step"]) for name in self.parameters)

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name (`net.`, `optim.`, `ema.`), and what is needed to read them."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {f"optim.{name}": tensor for name, tensor in moments(self.adam, self.parameters).items()}
        if self.judges_adam:
            judges = moments(self.judges_adam, self.judging)
            tensors |= {f"optim.{name}": tensor for name, tensor in judges.items()}
        if self.ema:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.mean.items()}
        return tensors, self._about() | ({"best": list(self.best)} if self.best else {})

    def _about(self) -> dict[str, Any]:
        return {
            "phase": self.job.phase.name,
            "step": self.step,
            **labels.written(self.labels),
            **self.task.describe(),
        }

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """The weights as they would be published, in eval mode."""
        if self.ema:
            self.ema.swap()
        self.net.eval()
        yield
        learn(self.net, self.job.phase.learning)
        if self.ema:
            self.ema.swap()

    def keep_best(self, store: Store, psnr: float) -> None:
        """Put the weights aside if no validation of this phase gave a higher PSNR."""
        if self.best and psnr <= self.best[0]:
            return
        self.best = (psnr, self.step)
        with store.scratch() as folder:
            checkpoints.save(folder / BEST, published(self.saved()[0]), self._about())
            store.put(folder / BEST, BEST)

    def _restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.net.load_state_dict(_under("net.", tensors))
        self.before = self._restore_moments(tensors) - about["step"]
        if self.ema:
            mean = _under("ema.", tensors)
            for name, tensor in self.ema.mean.items():
                tensor.copy_(mean[name])
        self.step, self.labels = about["step"], labels.read(about)
        self.best = tuple(about["best"]) if "best" in about else None  # pyright: ignore[reportAttributeAccessIssue]

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


def published(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Of a training state, the weights to use: the running mean where there is one."""
    tensors = dict(tensors)
    return _under("net.", tensors) | _under("ema.", tensors)


class Figures:
    """Losses summed on the device since they were last asked for. A term that sets in later is averaged over
    the steps it was there.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.double() if name in self.sums else value.double()
            self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, world: int) -> dict[str, float]:
        names = list(self.sums)
        values = torch.stack([self.sums[name] / self.counts[name] for name in names])
        if world > 1:
            dist.all_reduce(values)
            values /= world
        self.sums, self.counts = {}, {}
        return dict(zip(names, values.tolist(), strict=True))


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
    objective: nn.Module = Objective(state.task, phase).to(device)
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
    rate = set_rate(state.adam, job.phase.optim, step, state.before)
    if state.judges_adam and job.phase.adversary:
        set_rate(state.judges_adam, job.phase.adversary.optim, step, state.before)
    state.net.zero_grad(set_to_none=True)
    found: list[Losses] = []
    for i, chunk in enumerate(chunks):
        last = i == len(chunks) - 1
        quiet = contextlib.nullcontext() if last else _no_sync(objective)
        with quiet:
            with autocast(job.precision, device):
                losses: Losses = objective(to_device(chunk, device), step)
            (losses.to_minimise / len(chunks)).backward()
        found.append(losses._replace(to_minimise=losses.to_minimise.detach()))
    norm = _gradient_norm(state.parameters)
    _stop_if_broken(norm, step, chunks, found)
    if job.phase.optim.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(state.parameters.values(), job.phase.optim.clip, norm)
    state.adam.step()
    if state.judges_adam and job.phase.adversary and step % job.phase.adversary.every == 0:
        _step_of_judges(state, job.phase.adversary.optim.clip)
    if state.ema:
        state.ema.update()
    figures = {
        f"loss/{name}": torch.stack([one.terms[name] for one in found]).mean() for name in found[0].terms
    }
    figures["loss/total"] = torch.stack([one.total for one in found]).mean()
    state.figures.add(figures | {"gradient_norm": norm, "learning_rate": norm.new_tensor(rate)})


def _gradient_norm(parameters: Mapping[str, nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters.values() if p.grad is not None])


def _step_of_judges(state: State, clip: float | None) -> None:
    assert state.judges_adam is not None
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(state.judging.values(), clip)
    state.judges_adam.step()


def _no_sync(objective: nn.Module) -> Any:
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else contextlib.nullcontext()


class Seen(NamedTuple):
    """A forward pass, for who looks for the cause."""

    loss: float
    figures: str
    clips: tuple[str, ...]


def _stop_if_broken(norm: Tensor, step: int, chunks: list[Chunk], found: list[Losses]) -> None:
    """Looked at once a step, before any weight moves: looking waits for the device. A worker sees its own
    losses alone, so all agree whether to stop, and each then says what all have seen.
    """
    _, world = _place()
    losses = torch.stack([one.to_minimise for one in found])
    broken = (~(torch.isfinite(norm) & torch.isfinite(losses).all())).int()
    if world > 1:
        dist.all_reduce(broken, dist.ReduceOp.MAX)
    if not bool(broken):
        return
    seen = []
    for chunk, one in zip(chunks, found, strict=True):
        figures = ", ".join(f"{name} {term.item():.4g}" for name, term in one.terms.items())
        seen.append(Seen(one.to_minimise.item(), figures, chunk.keys))
    if world > 1:
        boxes: list[Any] = [None] * world
        dist.all_gather_object(boxes, seen)
        seen = [one for box in boxes for one in box]
    raise FloatingPointError(f"step {step}: {_cause(norm.item(), seen)}")


def _cause(norm: float, seen: list[Seen]) -> str:
    """Clips whose loss is not finite; if all are, those of the whole batch."""
    lost = [one for one in seen if not math.isfinite(one.loss)]
    what = f"the loss is {lost[0].loss}" if lost else f"the gradient is {norm}"
    clips = ", ".join(sorted({key for one in lost or seen for key in one.clips}))
    return f"{what} ({(lost or seen)[0].figures}); clips {'with it' if lost else 'of the batch'}: {clips}"


# --- the record of it ---------------------------------------------------------------------------------------
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
