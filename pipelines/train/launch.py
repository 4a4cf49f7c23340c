"""Whole nodes `train.<model>.<phase>`: hand a phase to Ray Train's workers, follow it, publish what it made.

Which task a phase runs, on which settings and fields, stands as text in the model's phases.py, and in the
node's key through pipelines/graph.py. Artifact: model.safetensors (weights), state.safetensors (all that
training on needs), best.safetensors (the weights of the best validation PSNR, where the phase renders
images), metrics.jsonl (losses and scores, no timings), samples.png.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import MODELS
from models.api import Phase
from models.labels import told
from pipelines.engine.fingerprint import resolve
from pipelines.executor import load_nets
from pipelines.stored_clips import Clips, opened
from pipelines.train.follow import follow, note
from storage import checkpoints
from storage.checkpoints import StepCheckpoints
from storage.files import Store
from storage.weights import path_of

if TYPE_CHECKING:
    from pipelines.engine.node import Context
    from pipelines.train.data import Corpus
    from pipelines.train.loop import Job

LOOKED = 1000
"""Clips of a split whose records are read to count those without sound; each costs a small read."""
MODEL, STATE, LOG = "model.safetensors", "state.safetensors", "metrics.jsonl"


def train_phase(ctx: Context) -> None:
    """Train the phase this node is named for to its step budget."""
    from pipelines.train.loop import Job

    _, model, name = ctx.node.split(".")
    declared = import_module(f"{MODELS[model]}.phases")
    section, runtime = getattr(ctx.config, model), ctx.config.runtime
    phase: Phase = section.phases[name]
    settings = {path.rsplit(".", 1)[-1]: _setting(section, path) for path in declared.SETTINGS[name]}
    seed, precision = settings.pop("seed"), settings.pop("precision")
    settings |= {name: getattr(ctx.config, name) for name in declared.told(section)}
    train, held_out = corpora(ctx, declared.reads(section))
    store = ctx.inputs["clips"].family().store
    _bring_weights(ctx, phase, store)
    job = Job(
        node=ctx.node,
        phase=phase,
        build=partial(resolve(declared.TASKS[name]), **settings),
        nets=partial(load_nets, declared.nets(section, phase), store),
        landmarks=partial(landmark_finder, store),
        train=train,
        held_out=held_out,
        seed=seed,
        precision=precision,
        scratch=ctx.scratch,
        log_every=runtime.log_every,
        checkpoint_every=runtime.checkpoint_every,
        preview_every=runtime.preview_every,
        threads=runtime.train_cpus,
        compile=runtime.train_compile,
    )
    if follow(ctx, job, partial(run_workers, ctx, job)):
        publish(ctx, job)


def _setting(section: Any, path: str) -> Any:
    for part in path.split("."):
        section = getattr(section, part)
    return section


def landmark_finder(store: Store) -> Any:
    """What validation's AKD is measured with, or None where its weights are missing."""
    return resolve("pipelines.eval.scoring:load_landmarks")(store)[0]


# --- what goes in -------------------------------------------------------------------------------------------
def _bring_weights(ctx: Context, phase: Phase, imported: Store) -> None:
    """Where every worker can reach them: the phase before or released weights, and an earlier, shorter run
    of this phase. `imported`: the store that third-party weights lie in.
    """
    from pipelines.train.loop import BEST, METRICS, START, STOP, log_text

    store = Store(ctx.scratch)
    store.delete(STOP)
    if phase.released:
        _copy_released(ctx, phase, imported, store)
    elif phase.start_from:
        before = ctx.inputs[f"{ctx.node.rsplit('.', 1)[0]}.{phase.start_from}"]
        _copy_in(before.path(STATE if phase.carry else MODEL), store, START)
    if ctx.previous is not None:
        _, about = checkpoints.load(path := ctx.previous.path(STATE))
        newest = StepCheckpoints(ctx.scratch).newest(phase.steps)
        if newest is None or newest < about["step"]:
            lines = ctx.previous.path(LOG).read_text().splitlines()
            store.write(METRICS, log_text({"speed": {}, **_split(json.loads(line))} for line in lines))
            if "best" in about:
                _copy_in(ctx.previous.path(BEST), store, BEST)
            _copy_in(path, store, StepCheckpoints.name(about["step"]))


def _copy_released(ctx: Context, phase: Phase, imported: Store, store: Store) -> None:
    from pipelines.train.loop import START

    model = ctx.node.split(".")[1]
    released = import_module(f"{MODELS[model]}.phases").RELEASED[phase.released]
    files = {weights: path_of(imported, weights) for weights in released.files}
    tensors, labels = resolve(released.reader)(files, getattr(ctx.config, model), phase)
    with store.scratch() as folder:
        checkpoints.save(folder / START, tensors, {"phase": phase.start_from, "labels": labels})
        store.put(folder / START, START)


def _split(line: dict[str, Any]) -> dict[str, Any]:
    return {"step": line.pop("step"), "values": line}


def _copy_in(path: Path, store: Store, name: str) -> None:
    with store.scratch() as folder:
        shutil.copyfile(path, folder / name)
        store.put(folder / name, name)


def corpora(ctx: Context, reads: Mapping[str, Sequence[str]]) -> tuple[Corpus, Corpus | None]:
    """Clips that every family has, split as the recordings table says -> training, held out. The run is told
    how many there are, how many a family lacks, and, of what is heard, how many have no sound.

    `reads`: node -> the fields read from it; the frames are those of `clips`.
    """
    import pyarrow.parquet as pq

    from pipelines.train.data import Corpus

    stored, keys = opened(ctx.inputs, reads)
    table = pq.read_table(
        ctx.inputs["recordings"].path("recordings.parquet"), columns=["id", "identity", "split"]
    )
    known = {row["id"]: row for row in table.to_pylist()}
    groups: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for key in keys:
        row = known[stored.clips.recording_of(key)]
        groups[row["split"]].setdefault(row["identity"], []).append(key)
    made = {
        split: Corpus(
            stored.clips, stored.fields, tuple(tuple(sorted(some)) for _, some in sorted(group.items()))
        )
        for split, group in groups.items()
    }
    for split, group in groups.items():
        chosen = [key for some in group.values() for key in some]
        facts: dict[str, Any] = {"identities": len(group), "clips": len(chosen)}
        if chosen and "clip" in stored.fields and "speech" in reads:
            facts["soundless"] = soundless(stored, chosen)
        of_split = [k for k in stored.clips.keys if known[stored.clips.recording_of(k)]["split"] == split]
        facts |= {f"left_out.{node}": n for node, n in left_out(stored, reads, of_split).items()}
        ctx.params({f"data.{split}.{name}": fact for name, fact in facts.items()})
    if not groups["train"]:
        raise ValueError(
            f"{ctx.node}: no clip to train on; all were rejected, or all recordings are in the test split"
        )
    return made["train"], made["test"] if groups["test"] else None


def left_out(stored: Clips, reads: Mapping[str, Sequence[str]], keys: Sequence[str]) -> dict[str, int]:
    """Node -> how many of these clips it lacks, as `fit3dmm` lacks those that it could not fit; nodes that
    lack none are left out.
    """
    families = {node: stored.fields[names[0]] for node, names in reads.items() if node != "clips"}
    counts = {node: sum(key not in family for key in keys) for node, family in families.items()}
    return {node: count for node, count in counts.items() if count}


def soundless(stored: Clips, keys: Sequence[str]) -> str:
    """How many clips have no sound, and so are heard as zeros: "3 of 120". Of many, LOOKED are looked at,
    evenly spread.
    """
    looked = keys[:: max(1, math.ceil(len(keys) / LOOKED))]
    with ThreadPoolExecutor(16) as pool:
        records = list(pool.map(lambda key: stored.fields["clip"].read(key, ["clip"])["clip"], looked))
    return f"{sum(not record['has_sound'] for record in records):,} of {len(looked):,}"


# --- running ------------------------------------------------------------------------------------------------
def run_workers(ctx: Context, job: Job) -> None:
    """Ray Train's worker group, or this process with runtime.train_workers 0. Returns when training has
    ended.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # its default: 10 s more a start
    # workers may have to wait for the cores of a node that runs beside this one
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "86400")
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from pipelines.train.loop import work

    runtime = ctx.config.runtime
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
    trainer = TorchTrainer(
        work,
        train_loop_config={"job": job},
        scaling_config=scaling,
        run_config=place,
        torch_config=TorchConfig(backend="nccl" if runtime.use_gpu else "gloo"),
    )
    trainer.fit()


def _check_room(workers: int, cpus: int, use_gpu: bool) -> None:
    """Ray would wait for ever for a worker that no machine can take."""
    import ray

    have = ray.cluster_resources()
    for kind, needed in (("CPU", workers * cpus), ("GPU", workers if use_gpu else 0)):
        if have.get(kind, 0) < needed:
            raise ValueError(
                f"{workers} training workers need {needed} {kind}, the cluster has {have.get(kind, 0):g}; "
                "lower runtime.train_workers or runtime.train_cpus"
            )


# --- what comes out -----------------------------------------------------------------------------------------
def publish(ctx: Context, job: Job) -> None:
    """The last checkpoint and the logs -> the artifact's files, without anything that depends on the time of
    day.
    """
    from pipelines.train.loop import BEST, SAMPLES, log_text, published, read_metrics

    store, files = Store(ctx.scratch), StepCheckpoints(ctx.scratch)
    if files.newest(job.phase.steps) != job.phase.steps:
        raise RuntimeError(
            f"{job.node} ended at step {files.newest(job.phase.steps)} of {job.phase.steps}; run again"
        )
    tensors, about = files.load(job.phase.steps)
    checkpoints.save(ctx.out / STATE, tensors, about)
    checkpoints.save(ctx.out / MODEL, published(tensors), about)
    if "best" in about:
        shutil.copyfile(store.fetch(BEST), ctx.out / BEST)
        ctx.metrics({"final/best_psnr": about["best"][0], "final/best_step": about["best"][1]})
    lines = read_metrics(store)
    values = [{"step": line["step"], **line["values"]} for line in lines]
    (ctx.out / LOG).write_bytes(log_text(values))
    (ctx.out / SAMPLES).write_bytes(store.read(SAMPLES))
    if about["labels"]:
        said = told(about["labels"])
        ctx.params({f"net.{part}": label for part, label in about["labels"].items()} | {"labels": said})
        ctx.progress(job.phase.steps, job.phase.steps, f"{note(lines)} [{said}]")
    scores = [line for line in values if any(name.startswith("held_out/") for name in line)]
    if scores:
        ctx.metrics({f"final/{name}": v for name, v in scores[-1].items() if name.startswith("held_out/")})
