"""Whole nodes `train.<model>.<phase>`: hand a phase to Ray Train's workers, follow it, publish what it made.

Which task a phase runs, on which settings and fields, stands as text in the model's spec.py, and in the
node's key through pipelines/graph.py. Artifact: model.safetensors (weights), state.safetensors (all that
training on needs), best.safetensors (the weights of the best validation, where `Phase.best` names a
figure), metrics.jsonl (losses and scores, no timings), samples.png, and cross.png where validation shows
pairs of two people.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.api import Phase
from models.errors import InvalidSettings
from models.provenance import describe_provenance
from models.spec import FamilyFields, load_model_spec, units_table_role
from pipelines.dataset.splits import (
    count_missing_clips,
    describe_clips_without_sound,
    family_of_all_clips,
    measure_clip_sides,
)
from pipelines.engine.fingerprint import resolve_entry_point
from pipelines.errors import UserError
from pipelines.train.metric_log import (
    METRICS_FILE,
    MetricLog,
    encode_metric_lines,
    read_metrics,
    truncate_metric_log,
)
from pipelines.train.monitor import follow_training, progress_note
from pipelines.train.stop_file import STOP_FILE
from storage.checkpoints import StepCheckpoints
from storage.files import Store

if TYPE_CHECKING:
    from pipelines.dataset.sampler import SplitClips
    from pipelines.engine.node import NodeContext
    from pipelines.train.job import TrainJobSpec
    from pipelines.train.tables import TableSplit

_IN_PROCESS = threading.Lock()
"""Held by a phase that trains in this process: the others wait, since torch's random numbers and threads are
those of the process."""


def train_phase(ctx: NodeContext, model: str, phase: str) -> None:
    """Train a model's phase to its step budget."""
    from pipelines.train.job import make_train_job

    section = getattr(ctx.config, model)
    settings: Phase = section.phases[phase]
    spec = load_model_spec(model)
    sides = spec.frame_sides(section, settings)
    tables = spec.phase_sample_tables(section, settings)
    train, held_out = open_training_tables(ctx, tables, spec.unit_tables, sides)
    if any(step > settings.steps for step in StepCheckpoints(ctx.scratch).steps()):  # a longer run's
        ctx.set_scratch_subfolder(f"steps-{settings.steps}")
    job = make_train_job(ctx, model, phase, train, held_out)
    tell_cross_pairs(ctx, job, spec.tasks[phase].task)
    prepare_training_work_folder(ctx, model, job.phase)
    if follow_training(ctx, job, partial(run_training_workers, ctx, job)):
        publish_checkpoint(ctx, job)


def tell_cross_pairs(ctx: NodeContext, job: TrainJobSpec, task: str) -> None:
    """Say once what validation shows of two people. task: "module:class". InvalidSettings, before any work,
    where it shows nothing and the best weights are to follow it."""
    from models.task import CrossReenactmentTask
    from pipelines.train.cross_validation import why_no_cross_pairs
    from pipelines.train.validation_figures import CROSS_PREFIX

    shows_pairs = issubclass(
        resolve_entry_point(task),  # pyright: ignore[reportArgumentType]
        CrossReenactmentTask,
    )
    split = "held-out" if job.held_out else "training"
    why = why_no_cross_pairs(job.held_out or job.train)
    best = job.phase.best
    if best and best.figure.startswith(CROSS_PREFIX) and (why or not shows_pairs):
        problem = f"{why} in the {split} split" if shows_pairs else "this phase cannot show another's motion"
        raise InvalidSettings(
            f"{job.node}: best.figure {best.figure!r} is of pairs of two people, and there are none: "
            f"{problem}; name a figure of self-reenactment, or set best to null"
        )
    if not job.phase.validation_cross_samples or not shows_pairs:
        return
    if why:
        text = f"none: {why} in the {split} split"
        ctx.report_progress(0, job.phase.steps, f"validation shows no cross-reenactment, {text}")
    else:
        text = f"{job.phase.validation_cross_samples} pairs of {split} clips of two people"
    ctx.log_params({"validation.cross": text})


# --- what goes in -------------------------------------------------------------------------------------------
def prepare_training_work_folder(ctx: NodeContext, model: str, phase: Phase) -> None:
    """Put into the work folder what every worker begins with, and the lines of the run that is continued."""
    from pipelines.train.initial_weights import continues_published_run, copy_weights_to_scratch

    store = Store(ctx.scratch)
    store.delete(STOP_FILE)
    if ctx.previous is not None and continues_published_run(ctx, phase):
        truncate_metric_log(store, 0)
        _copy_lines(ctx.previous.path(METRICS_FILE), store)
    else:  # before anybody reads along: a resumed run repeats the steps after its checkpoint
        truncate_metric_log(store, StepCheckpoints(ctx.scratch).latest_step_up_to(phase.steps) or 0)
    copy_weights_to_scratch(ctx, model, phase)


def _copy_lines(path: Path, store: Store) -> None:
    log = MetricLog(store)
    with path.open() as file:
        for line in file:
            values = json.loads(line)
            log.add(values.pop("step"), values, {})
    log.flush()


def open_training_tables(
    ctx: NodeContext,
    tables: Mapping[str, FamilyFields],
    unit_tables: Collection[str] = (),
    frame_sides: Mapping[int, str] = MappingProxyType({}),
) -> tuple[dict[str, SplitClips], dict[str, SplitClips] | None]:
    """Tables to train on; the same of rows that are held out, or None where one of them has none. `tables`:
    name -> node -> the fields read from it. `unit_tables`, `frame_sides`: as in `ModelSpec`."""
    splits = {name: open_training_table(ctx, name, reads, unit_tables) for name, reads in tables.items()}
    if "clips" in splits and frame_sides:
        record_small_clips(ctx, splits["clips"], frame_sides)
    held_out = {name: split.rows["test"] for name, split in splits.items() if split.rows["test"].identities}
    train = {name: split.rows["train"] for name, split in splits.items()}
    return train, held_out if held_out and held_out.keys() == train.keys() else None


def open_training_table(
    ctx: NodeContext, table: str, reads: FamilyFields, unit_tables: Collection[str] = ()
) -> TableSplit:
    """Rows to train on, held out. The run records how many there are, how many are missing in a family, and
    how many have no sound where the task reads speech features."""
    from pipelines.train.tables import split_rows

    units = units_table_role(table) if units_table_role(table) in ctx.inputs else ""
    split = split_rows(ctx.inputs, reads, units, unit_tables)
    where = "data" if table == "clips" else f"data.{table}"
    for name, rows in split.rows.items():
        keys = rows.keys
        facts: dict[str, int | str]
        facts = {"rows": len(keys)} if units else {"identities": len(rows.identities), "clips": len(keys)}
        if keys and "clip" in split.stored.fields and "speech" in reads:
            facts["without_sound"] = describe_clips_without_sound(split.stored, keys)
        family = family_of_all_clips(split.stored, reads)
        of_split = [k for k in family.keys if split.people[family.recording_of(k)].split == name]
        facts |= {
            f"missing.{node}": n for node, n in count_missing_clips(split.stored, reads, of_split).items()
        }
        ctx.log_params({f"{where}.{name}.{fact}": value for fact, value in facts.items()})
    if not split.rows["train"].identities:
        raise UserError(
            f"{ctx.node}: table {table} has no row to train on; all were rejected, or all are in the test "
            "split"
        )
    return split


def record_small_clips(ctx: NodeContext, split: TableSplit, frame_sides: Mapping[int, str]) -> None:
    """How many of the clips show fewer pixels of their recording than the phase can use, in words and as a
    share, and what that means for those that are trained on. frame_sides: as in `ModelSpec`."""
    for name, rows in split.rows.items():
        found = measure_clip_sides(split.stored, rows.keys)
        for side, loss in frame_sides.items():
            small = sum(one < side for one in found)
            if not found:
                continue
            text = f"{small:,} of {len(found):,}"
            ctx.log_params({f"data.{name}.below_{side}px": text})
            ctx.log_metrics({f"data/{name}_share_below_{side}px": small / len(found)})
            if small and name == "train":
                ctx.warn(
                    f"{text} training clips looked at show fewer than {side} px of their recording: {loss}; "
                    f"a view with min_size {side} leaves them out"
                )


# --- running ------------------------------------------------------------------------------------------------
def run_training_workers(ctx: NodeContext, job: TrainJobSpec) -> None:
    """Ray Train's worker group, or this process with runtime.train_workers 0. Returns when training has
    ended.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # its default: 10 s more a start
    # workers may have to wait for the cores of a node that runs beside this one
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "86400")
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from pipelines.cluster.start import is_private_cluster
    from pipelines.train.process_group import SingleMachineTorchConfig
    from pipelines.train.worker import train_worker

    runtime = ctx.runtime
    workers = runtime.train_workers
    if workers:
        _check_room(workers, runtime.train_cpus, runtime.use_gpu)
    scaling = ScalingConfig(
        num_workers=workers,
        use_gpu=runtime.use_gpu,
        resources_per_worker={"CPU": runtime.train_cpus} | ({"GPU": 1} if runtime.use_gpu else {}),
    )
    # Ray's own records of the run: only for its dashboard, resuming goes through the work folder's
    # checkpoints.
    place = RunConfig(name=f"{job.node}-{ctx.key[:16]}", storage_path=Store(ctx.scratch).uri_of("ray"))
    group = SingleMachineTorchConfig if workers == 1 or is_private_cluster() else TorchConfig
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=scaling,
        run_config=place,
        torch_config=group(backend="nccl" if runtime.use_gpu else "gloo"),
    )
    with nullcontext() if workers else _IN_PROCESS:
        trainer.fit()


def _check_room(workers: int, cpus: int, use_gpu: bool) -> None:
    """Ray would wait for ever for a worker that no machine can take."""
    import ray

    have = ray.cluster_resources()
    for kind, needed in (("CPU", workers * cpus), ("GPU", workers if use_gpu else 0)):
        if have.get(kind, 0) < needed:
            raise InvalidSettings(
                f"{workers} training workers need {needed} {kind}, the cluster has {have.get(kind, 0):g}; "
                "lower runtime.train_workers or runtime.train_cpus"
            )


# --- what comes out -----------------------------------------------------------------------------------------
def publish_checkpoint(ctx: NodeContext, job: TrainJobSpec) -> None:
    """The last checkpoint and the logs -> the artifact's files, without anything that depends on the time of
    day.
    """
    from pipelines.train.state import write_state_and_weights_files
    from pipelines.train.worker import CROSS_GRID_FILE, SAMPLE_GRID_FILE

    store, files = Store(ctx.scratch), StepCheckpoints(ctx.scratch)
    reached = files.latest_step_up_to(job.phase.steps)
    if reached != job.phase.steps:
        raise RuntimeError(f"{job.node} ended at step {reached} of {job.phase.steps}; run again")
    tensors, about = files.load(job.phase.steps)
    write_state_and_weights_files(ctx.out, tensors, about, store)
    if "best" in about:
        figure = job.phase.best.figure if job.phase.best else ""
        ctx.log_metrics({f"final/best_{figure}": about["best"][0], "final/best_step": about["best"][1]})
    elif (best := job.phase.best) and job.phase.validate_every <= job.phase.steps:
        ctx.warn(
            f"no best weights are kept: in no validation did enough outputs show a face to choose by "
            f"{best.figure}; eval.checkpoint best has nothing to use"
        )
    latest, scores = _join_lines(store, ctx.out / METRICS_FILE)
    (ctx.out / SAMPLE_GRID_FILE).write_bytes(store.read(SAMPLE_GRID_FILE))
    if store.exists(CROSS_GRID_FILE):
        (ctx.out / CROSS_GRID_FILE).write_bytes(store.read(CROSS_GRID_FILE))
    if about["provenance"]:
        text = describe_provenance(about["provenance"])
        ctx.log_params(
            {f"net.{part}": text for part, text in about["provenance"].items()} | {"provenance": text}
        )
        ctx.report_progress(job.phase.steps, job.phase.steps, f"{progress_note(latest)} [{text}]")
    if scores:
        ctx.log_metrics({f"final/{name}": value for name, value in scores.items()})


def _join_lines(store: Store, path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """All metric lines as one file -> the last value of every figure; the last scores of held-out clips."""
    latest: dict[str, float] = {}
    scores: dict[str, float] = {}
    with path.open("wb") as file:
        for line in read_metrics(store):
            file.write(encode_metric_lines([{"step": line["step"], **line["values"]}]))
            latest |= line["values"] | line["speed"]
            scores = {k: v for k, v in line["values"].items() if k.startswith("held_out/")} or scores
    return latest, scores
