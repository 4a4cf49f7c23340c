"""What training computes: how it begins, one step, one look at the net. The same for every model.

When to log, save and stop is worker.py's; after which steps the net is looked at is told here, since these
are the steps that may be the best.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.api import Phase
from models.precision import autocast
from pipelines.dataset.sampler import Chunk, training_chunks
from pipelines.train.device import to_device
from pipelines.train.job import Job
from pipelines.train.nonfinite import stop_if_broken
from pipelines.train.objective import Losses, Objective
from pipelines.train.optim import set_rate
from pipelines.train.state import State
from pipelines.train.validate import Validation, validate
from storage.checkpoints import StepCheckpoints
from storage.files import Store

READERS = 2  # threads that read and decode ahead


def begin(job: Job, device: torch.device, files: StepCheckpoints, step: int | None) -> State:
    """The state that training goes on from: that of a checkpoint of this phase, or its beginning."""
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(job.seed)  # the same initial weights in every worker
    state = State(job, device)
    state.resume(files, step)
    if job.compile:
        state.net.compile(dynamic=False)  # after resuming: names of tensors stay those of the plain net
    return state


def looked_at(phase: Phase, step: int) -> bool:
    """Whether the net is validated after a step."""
    return step == phase.steps or step % phase.validate_every == 0


def look(job: Job, state: State, device: torch.device) -> Validation:
    """Validate, and keep the weights if they are the best yet. Only the phase says which steps may be the
    best: the last one of a run that goes on later would not have been looked at in one go.
    """
    corpus = job.held_out or job.train
    with state.showing():
        found = validate(state.task, corpus, job, device)
    if found.psnr is not None and state.step % job.phase.validate_every == 0:
        state.keep_best(Store(job.scratch), found.psnr)
    return found


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


class Side(NamedTuple):
    """What moves on one optimiser."""

    adam: torch.optim.Adam
    parameters: Mapping[str, nn.Parameter]
    clip: float | None
    """Largest gradient norm."""


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
    sides = {"generator": Side(state.adam, state.parameters, job.phase.optim.clip)}
    if state.judges_adam and job.phase.adversary and step % job.phase.adversary.every == 0:
        sides["discriminator"] = Side(state.judges_adam, state.judging, job.phase.adversary.optim.clip)
    norms = {name: _gradient_norm(side.parameters) for name, side in sides.items()}
    # before either side moves; in the same wait for the device, workers agree whether to stop
    state.stop.agreed = stop_if_broken(norms, step, chunks, found, state.stop.asked)
    for name, side in sides.items():
        if side.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(side.parameters.values(), side.clip, norms[name])
        side.adam.step()
    if state.ema:
        state.ema.update()
    figures = {
        f"loss/{name}": torch.stack([one.terms[name] for one in found]).mean() for name in found[0].terms
    }
    figures["loss/total"] = torch.stack([one.total for one in found]).mean()
    norm = norms["generator"]
    state.figures.add(figures | {"gradient_norm": norm, "learning_rate": norm.new_tensor(rate)})


def _gradient_norm(parameters: Mapping[str, nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters.values() if p.grad is not None])


def _no_sync(objective: nn.Module) -> Any:
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else contextlib.nullcontext()
