"""What training computes: how it begins, its steps, a validation. The same for every model.

One step is in updates.py. When to log, save and stop is worker.py's; after which steps the net is validated
is decided here, since these are the steps that may be the best.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from itertools import islice

import torch

from models.api import BestCriterion, Phase
from models.errors import InvalidSettings
from pipelines.dataset.sampler import WorkerShare, iterate_sample_chunks
from pipelines.train.distributed import DistributedContext
from pipelines.train.job import TrainJobSpec
from pipelines.train.state import TrainState
from pipelines.train.updates import make_update_passes, train_step
from pipelines.train.validate import ValidationResult, validate_net
from storage.checkpoints import StepCheckpoints
from storage.files import Store

MAX_MISSING_SHARE = 0.25
"""Of the samples that a figure of faces could be of. With more of them without a face in the output its
value, of the others alone, does not choose the best weights."""


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
        value = choosing_figure(job.node, phase.best, found.figures)
        if value is not None:
            state.keep_best(Store(job.scratch), value)
    return found


def choosing_figure(node: str, best: BestCriterion, figures: Mapping[str, float]) -> float | None:
    """The figure that chooses the best weights; None where too few samples show the face that it is about, as
    in the first pictures of a net. InvalidSettings where validation has no such figure."""
    value, name = figures.get(best.figure), best.figure
    seen, missing = (figures.get(f"{name}_{count}") for count in ("frames", "missing"))
    if value is None and seen is None:
        advice = "it takes held-out clips of two people" if name.startswith("cross/") else "name one of them"
        raise InvalidSettings(
            f"{node}: best.figure {name!r}; validation has {', '.join(sorted(figures))}; {advice}, or set "
            "best to null"
        )
    if value is None or (seen is not None and missing and missing > MAX_MISSING_SHARE * (seen + missing)):
        return None
    return value


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
