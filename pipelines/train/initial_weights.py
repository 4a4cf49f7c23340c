"""What a phase starts from: the phase before, released weights, or a shorter run of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from models.api import Phase
from models.spec import load_spec
from pipelines.engine.fingerprint import resolve
from pipelines.train.state import BEST, MODEL, START, STATE, best_name, of_step
from storage import checkpoints
from storage.checkpoints import StepCheckpoints
from storage.files import Store
from storage.weight_files import path_of

if TYPE_CHECKING:
    from pipelines.engine.node import Context


def continues(ctx: Context, phase: Phase) -> bool:
    """Whether the published, shorter run of this phase has come further than what lies in the work folder."""
    if ctx.previous is None:
        return False
    newest = StepCheckpoints(ctx.scratch).newest(phase.steps)
    return newest is None or newest < ctx.previous.steps


def bring_weights(ctx: Context, model: str, phase: Phase) -> None:
    """Put them where every worker can reach them: those to start from, and a shorter run of this phase."""
    store = Store(ctx.scratch)
    if phase.released:
        _copy_released(ctx, model, phase, phase.released, store)
    elif phase.start_from:
        before = ctx.inputs[f"train.{model}.{phase.start_from}"]
        _copy_in(before.path(STATE if phase.carry else MODEL), store, START)
    if ctx.previous is not None and continues(ctx, phase):
        path = of_step(ctx.previous.path(STATE), ctx.previous.steps)
        _, about = checkpoints.load(path)
        if "best" in about:
            step = about["best"][1]
            _copy_in(of_step(ctx.previous.path(BEST), step), store, best_name(step))
        _copy_in(path, store, StepCheckpoints.name(about["step"]))


def _copy_released(ctx: Context, model: str, phase: Phase, weights: str, store: Store) -> None:
    imported = ctx.inputs["clips"].family().store  # the one that third-party weights lie in
    released = load_spec(model).released[weights]
    files = {name: path_of(imported, name) for name in released.files}
    tensors, labels = resolve(released.reader)(files, getattr(ctx.config, model), phase)
    with store.scratch() as folder:
        checkpoints.save(folder / START, tensors, {"phase": phase.start_from, "labels": labels})
        store.put(folder / START, START)


def _copy_in(path: Path, store: Store, name: str) -> None:
    with store.scratch() as folder:
        shutil.copyfile(path, folder / name)
        store.put(folder / name, name)
