"""What training computes: how it begins, its steps, a validation. The same for every model.

One step is in updates.py. When to log, save and stop is worker.py's; after which steps the net is validated
is decided here, since these are the steps that may be the best.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import islice

import torch

from models.api import Phase
from models.errors import InvalidSettings
from pipelines.dataset.sampler import Share, training_chunks
from pipelines.train.device import Worker
from pipelines.train.job import Job
from pipelines.train.state import State
from pipelines.train.updates import passes_of, train_step
from pipelines.train.validate import Validation, validate
from storage.checkpoints import StepCheckpoints
from storage.files import Store


def begin(job: Job, worker: Worker, files: StepCheckpoints, step: int | None) -> State:
    """The state that training goes on from: that of a checkpoint of this phase, or its beginning."""
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(job.seed)  # the same initial weights in every worker
    state = State(job, worker.device)
    state.resume(files, step)
    worker.broadcast(state.net.state_dict().values())  # on machines of other kinds they may differ a little
    if job.compile:
        state.net.compile(dynamic=False)  # after resuming: names of tensors stay those of the plain net
    return state


def validates_after(phase: Phase, step: int) -> bool:
    """Whether the net is validated after a step."""
    return step == phase.steps or step % phase.validate_every == 0


def validate_state(job: Job, state: State, device: torch.device) -> Validation:
    """Validate, and keep the weights if they are the best yet. Only the phase says which steps may be the
    best: the last one of a run that goes on later would not have been validated in one go.
    """
    tables, phase = job.held_out or job.train, job.phase
    with state.eval_weights():
        found = validate(state.task, tables, job, device)
    if phase.best and state.step % phase.validate_every == 0:
        if phase.best.figure not in found.figures:
            raise InvalidSettings(
                f"{job.node}: best.figure {phase.best.figure!r}; validation has "
                f"{', '.join(sorted(found.figures))}; name one of them, or set best to null"
            )
        state.keep_best(Store(job.scratch), found.figures[phase.best.figure])
    return found


def steps(job: Job, state: State, worker: Worker) -> Iterator[int]:
    """Do the steps that are left, one for each item."""
    phase = job.phase
    passes = passes_of(phase, state.parameters)
    share = Share(phase.batch, phase.chunk_size, worker.rank, worker.world)
    left = range(state.step + 1, phase.steps + 1)
    chunks = training_chunks(state.task, job.train, job.seed, left, share, job.readers, job.prefetch)
    with contextlib.closing(chunks):
        for step in left:
            began = time.perf_counter()
            mine = list(islice(chunks, share.count))
            state.timer.waited += time.perf_counter() - began
            train_step(state, passes, mine, share, step, worker)
            state.step = step
            state.timer.steps += 1
            yield step
