"""What a phase starts from: earlier phases, released weights, or a shorter run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import provenance
from models.api import EMA, Phase, Source, checkpoint_role
from models.errors import InvalidSettings
from models.spec import load_spec
from models.weights import find_weights
from pipelines.engine.fingerprint import resolve
from pipelines.train.parts import part_of
from pipelines.train.state import (
    BEST_FILE,
    MODEL_FILE,
    START_FILE,
    STATE_FILE,
    best_name,
    of_step,
    steps_done,
    used_name,
)
from storage import checkpoints
from storage.checkpoints import StepCheckpoints
from storage.files import Store
from storage.weight_files import weights_path

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.engine.node import Context
    from storage.families import Artifact


def continues(ctx: Context, phase: Phase) -> bool:
    """Whether the published, shorter run of this phase has come further than what lies in the work folder."""
    if ctx.previous is None:
        return False
    newest = StepCheckpoints(ctx.scratch).latest_step(phase.steps)
    return newest is None or newest < ctx.previous.steps


def prepare_weights(ctx: Context, model: str, phase: Phase) -> None:
    """Put them where every worker can reach them: those to start from, checkpoints that the phase uses, and a
    shorter run of this phase."""
    store = Store(ctx.scratch)
    if phase.sources:
        with store.scratch_folder() as folder:
            checkpoints.save_checkpoint(folder / START_FILE, *initial_weights(ctx, model, phase))
            store.put(folder / START_FILE, START_FILE)
    for name, source in phase.used.items():
        with store.scratch_folder() as folder:
            checkpoints.save_checkpoint(
                folder / MODEL_FILE, *_open(ctx, model, phase, source, checkpoint_role("uses", name))
            )
            store.put(folder / MODEL_FILE, used_name(name))
    if ctx.previous is not None and continues(ctx, phase):
        path = of_step(ctx.previous.path(STATE_FILE), ctx.previous.steps)
        _, about = checkpoints.load_checkpoint(path)
        if "best" in about:
            step = about["best"][1]
            _copy_in(of_step(ctx.previous.path(BEST_FILE), step), store, best_name(step))
        _copy_in(path, store, StepCheckpoints.file_name(about["step"]))


def initial_weights(ctx: Context, model: str, phase: Phase) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the phase begins with, of all its sources -> tensors (`net.`, `ema.`, `optim.`;
    pipelines/train/state.py), and what is known of them."""
    found: dict[str, Tensor] = {}
    provenances: dict[str, str] = {}
    released: set[str] = set()
    done: list[int] = []
    opened = {
        source.name: _open(ctx, model, phase, source, checkpoint_role("init", part))
        for part, source in phase.sources.items()
    }
    for part, source in phase.sources.items():
        tensors, about = opened[source.name]
        chosen = _choose(tensors, part, source, phase, f"train.{model}.{phase.name}")
        provenances = provenance.combine(provenances, provenance.from_metadata(about))
        if source.released is not None:
            released |= {part_of(name.partition(".")[2]) for name in chosen}
        elif not source.model and phase.resume_optimizers:
            states, about = checkpoints.load_checkpoint(_input(ctx, model, source).path(STATE_FILE))
            chosen |= {
                name: tensor
                for name, tensor in states.items()
                if name.startswith("optim.") and part in ("", part_of(name.removeprefix("optim.")))
            }
            done.append(steps_done(states, about, phase))
        found |= chosen
    names = dict.fromkeys(source.name for source in phase.sources.values())
    about = {"phase": ", ".join(names), "released": sorted(released), **provenance.to_metadata(provenances)}
    return found, about | {"step": max(done, default=0), "steps_before": 0}


def _open(
    ctx: Context, model: str, phase: Phase, source: Source, role: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """role: of the input, if it is a checkpoint of another model."""
    if source.phase is not None:
        return checkpoints.load_checkpoint(_input(ctx, model, source, role).path(MODEL_FILE))
    released = load_spec(model).released[source.released or ""]
    files = {name: weights_path(ctx.store, find_weights(name)) for name in released.files}
    tensors, provenances = resolve(released.reader)(files, getattr(ctx.config, model), phase)
    return tensors, {"provenance": provenances}


def _choose(
    tensors: Mapping[str, Tensor], part: str, source: Source, phase: Phase, node: str
) -> dict[str, Tensor]:
    """Of a source's tensors those of one part, or of all, under the names that they begin with here."""
    wanted = source.part or part
    chosen: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own, _, rest = name.partition(".")
        target = part or own
        if part and own != wanted:
            continue
        if target.endswith(EMA):
            target = target.removesuffix(EMA)
            if target in phase.ema_parts:
                chosen[f"ema.{target}.{rest}"] = tensor
        else:
            chosen[f"net.{target}.{rest}"] = tensor
    if not chosen:
        there = sorted({part_of(name) for name in tensors})
        raise InvalidSettings(
            f"{node} begins {part or 'its net'} with {source.name}, which has no {wanted or 'tensor'}; "
            f"it has {there}"
        )
    return chosen


def _input(ctx: Context, model: str, source: Source, role: str = "") -> Artifact:
    return ctx.inputs[role if source.model else f"train.{model}.{source.phase}"]


def _copy_in(path: Path, store: Store, name: str) -> None:
    with store.scratch_folder() as folder:
        shutil.copyfile(path, folder / name)
        store.put(folder / name, name)
