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
from pipelines.dataset.sampler import WorkerShare, iterate_sample_chunks
from pipelines.train.distributed import DistributedContext
from pipelines.train.job import TrainJobSpec
from pipelines.train.state import TrainState
from pipelines.train.updates import make_update_passes, train_step
from pipelines.train.validate import ValidationResult, validate_net
from storage.checkpoints import StepCheckpoints
from storage.files import Store


def begin_training(
    job: TrainJobSpec, worker: DistributedContext, files: StepCheckpoints, step: int | None
) -> TrainState:
    """The state that training goes on from: that of a checkpoint of this phase, or its beginning."""
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(job.seed)  # the same initial weights in every worker
    state = TrainState(job, worker.device)
    state.resume(files, step)
    worker.broadcast_tensors(
        state.net.state_dict().values()
    )  # on machines of other kinds they may differ a little
    if job.compile:
        state.net.compile(dynamic=False)  # after resuming: names of tensors stay those of the plain net
    return state


def is_validation_step(phase: Phase, step: int) -> bool:
    """Whether the net is validated after a step."""
    return step == phase.steps or step % phase.validate_every == 0


def validate_and_keep_best(job: TrainJobSpec, state: TrainState, device: torch.device) -> ValidationResult:
    """Validate, and keep the weights if they are the best yet. Only the phase says which steps may be the
    best: the last one of a run that goes on later would not have been validated in one go.
    """
    tables, phase = job.held_out or job.train, job.phase
    with state.eval_weights():
        found = validate_net(state.task, tables, job, device)
    if phase.best and state.step % phase.validate_every == 0:
        if phase.best.figure not in found.figures:
            raise InvalidSettings(
                f"{job.node}: best.figure {phase.best.figure!r}; validation has "
                f"{', '.join(sorted(found.figures))}; name one of them, or set best to null"
            )
        state.keep_best(Store(job.scratch), found.figures[phase.best.figure])
    return found


def run_steps(job: TrainJobSpec, state: TrainState, worker: DistributedContext) -> Iterator[int]:
    """Do the steps that are left, one for each item."""
    phase = job.phase
    passes = make_update_passes(phase, state.parameters)
    share = WorkerShare(phase.batch, phase.samples_per_chunk, worker.rank, worker.world)
    left = range(state.step + 1, phase.steps + 1)
    chunks = iterate_sample_chunks(state.task, job.train, job.seed, left, share, job.readers, job.prefetch)
    with contextlib.closing(chunks):
        for step in left:
            began = time.perf_counter()
            mine = list(islice(chunks, share.chunk_count))
            state.timer.waited += time.perf_counter() - began
            train_step(state, passes, mine, share, step, worker)
            state.step = step
            state.timer.steps += 1
            yield step
