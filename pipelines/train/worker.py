"""The training loop of every model as each Ray Train worker runs it: when to log, validate, save and stop.

Everything that outlives a crash goes through the work folder: a checkpoint every few steps, the metric lines,
the last sample grid. A rerun finds the newest whole checkpoint there; Ray's own registration of checkpoints
is not used, since the last one before a crash can be missing from it. What a step computes is in loop.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from models.precision import check_precision
from pipelines.train.checks import fp32_hint
from pipelines.train.distributed import DistributedContext, ray_device
from pipelines.train.job import TrainJobSpec
from pipelines.train.loop import begin_training, is_validation_step, run_steps, validate_and_keep_best
from pipelines.train.meters import measure_throughput
from pipelines.train.metric_log import MetricLog, truncate_metric_log
from pipelines.train.state import TrainState
from pipelines.train.stop_file import StopFile
from storage.checkpoints import StepCheckpoints
from storage.files import Store

SAMPLE_GRID_FILE, CROSS_GRID_FILE = "samples.png", "cross.png"
"""Of the last validation: its samples; its pairs of two people."""


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's entry in each worker."""
    run_training(config["job"], ray_device())


def run_training(job: TrainJobSpec, device: torch.device) -> None:
    check_precision(job.precision, device, fp32_hint(job.node))
    worker = DistributedContext.from_ray(device)
    torch.set_num_threads(job.threads)
    files = StepCheckpoints(job.scratch)
    state = begin_training(
        job, worker, files, worker.broadcast_value(files.latest_step_up_to(job.phase.steps))
    )
    log, stop_file = None, None
    if worker.rank == 0:
        truncate_metric_log(files.store, state.step)
        log, stop_file = MetricLog(files.store), StopFile(files.store)
    for _ in run_steps(job, state, worker):
        state.stop.asked = stop_file is not None and stop_file.is_asked()
        stop = state.stop.agreed or (worker.world == 1 and state.stop.asked)
        due = _due(job, state.step) | ({"log", "checkpoint"} if stop else set())
        if "log" in due:
            figures = state.meters.mean(worker.world)
            if log is not None:
                log.add(state.step, figures, measure_throughput(state.timer, job.phase.batch, worker.world))
        if "validate" in due and log is not None:
            log.add(state.step, _validate(job, state, device), {})
            if (
                state.best and state.best[1] == state.step
            ):  # so that a kill cannot part the file from its record
                due |= {"checkpoint"}
        if log is not None and "checkpoint" in due:
            log.flush()
            files.save(state.step, *state.to_checkpoint())
            state.drop_old_best(files.store)
        if stop:
            break
    if log is not None:
        log.flush()
    if worker.world > 1:
        dist.barrier()


def _validate(job: TrainJobSpec, state: TrainState, device: torch.device) -> dict[str, float]:
    found = validate_and_keep_best(job, state, device)
    store = Store(job.scratch)
    store.write(SAMPLE_GRID_FILE, found.grid)
    if found.cross_grid is not None:
        store.write(CROSS_GRID_FILE, found.cross_grid)
    state.timer.reset()  # validating is not training time
    where = "held_out" if job.held_out else "train"
    return {f"{where}/{name}": value for name, value in found.figures.items()}


def _due(job: TrainJobSpec, step: int) -> set[str]:
    """What follows a step. Figures are logged with every checkpoint, so that a resumed run logs the same
    windows.
    """
    last = step == job.phase.steps
    every = {"log": job.log_every, "checkpoint": job.checkpoint_every}
    due = {name for name, period in every.items() if last or step % period == 0}
    if is_validation_step(job.phase, step):
        due |= {"validate"}
    return due | {"log"} if due else due
