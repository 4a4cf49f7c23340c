"""What a phase starts from: earlier phases, released weights, or a shorter run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import provenance
from models.api import EMA_SUFFIX, Phase, WeightsSource, checkpoint_role
from models.errors import InvalidSettings
from models.spec import load_model_spec
from models.weights import find_third_party_weights
from pipelines.engine.fingerprint import resolve_entry_point
from pipelines.train.net_parts import part_of_parameter
from pipelines.train.state import (
    BEST_FILE,
    MODEL_FILE,
    START_FILE,
    STATE_FILE,
    best_file_name,
    check_checkpoint_step,
    count_trained_steps,
    frozen_checkpoint_file_name,
)
from storage import checkpoints
from storage.checkpoints import StepCheckpoints
from storage.files import Store
from storage.weight_files import weights_path

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.engine.node import NodeContext
    from storage.families import Artifact


def continues_published_run(ctx: NodeContext, phase: Phase) -> bool:
    """Whether the published, shorter run of this phase has come further than what lies in the work folder."""
    if ctx.previous is None:
        return False
    newest = StepCheckpoints(ctx.scratch).latest_step_up_to(phase.steps)
    return newest is None or newest < ctx.previous.steps


def copy_weights_to_scratch(ctx: NodeContext, model: str, phase: Phase) -> None:
    """Put them where every worker can reach them: those to start from, checkpoints that the phase uses, and a
    shorter run of this phase."""
    store = Store(ctx.scratch)
    if phase.init_sources:
        with store.scratch_folder() as folder:
            checkpoints.save_checkpoint(folder / START_FILE, *collect_initial_weights(ctx, model, phase))
            store.put(folder / START_FILE, START_FILE)
    for name, source in phase.used_checkpoints.items():
        with store.scratch_folder() as folder:
            checkpoints.save_checkpoint(
                folder / MODEL_FILE, *_open(ctx, model, phase, source, checkpoint_role("uses", name))
            )
            store.put(folder / MODEL_FILE, frozen_checkpoint_file_name(name))
    if ctx.previous is not None and continues_published_run(ctx, phase):
        path = check_checkpoint_step(ctx.previous.path(STATE_FILE), ctx.previous.steps)
        _, about = checkpoints.load_checkpoint(path)
        if "best" in about:
            step = about["best"][1]
            _copy_in(check_checkpoint_step(ctx.previous.path(BEST_FILE), step), store, best_file_name(step))
        _copy_in(path, store, StepCheckpoints.file_name(about["step"]))


def collect_initial_weights(
    ctx: NodeContext, model: str, phase: Phase
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the phase begins with, of all its sources -> tensors (`net.`, `ema.`, `optim.`;
    pipelines/train/state.py), and what is known of them."""
    found: dict[str, Tensor] = {}
    provenances: dict[str, str] = {}
    released: set[str] = set()
    done: list[int] = []
    opened = {
        source.name: _open(ctx, model, phase, source, checkpoint_role("init", part))
        for part, source in phase.init_sources.items()
    }
    for part, source in phase.init_sources.items():
        tensors, about = opened[source.name]
        chosen = _choose(tensors, part, source, phase, f"train.{model}.{phase.name}")
        provenances = provenance.combine_phase_provenance(
            provenances, provenance.provenance_from_metadata(about)
        )
        if source.released is not None:
            released |= {part_of_parameter(name.partition(".")[2]) for name in chosen}
        elif not source.model and phase.resume_optimizers:
            states, about = checkpoints.load_checkpoint(_input(ctx, model, source).path(STATE_FILE))
            chosen |= {
                name: tensor
                for name, tensor in states.items()
                if name.startswith("optim.") and part in ("", part_of_parameter(name.removeprefix("optim.")))
            }
            done.append(count_trained_steps(states, about, phase))
        found |= chosen
    names = dict.fromkeys(source.name for source in phase.init_sources.values())
    about = {
        "phase": ", ".join(names),
        "released": sorted(released),
        **provenance.provenance_to_metadata(provenances),
    }
    return found, about | {"step": max(done, default=0), "steps_before": 0}


def _open(
    ctx: NodeContext, model: str, phase: Phase, source: WeightsSource, role: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """role: of the input, if it is a checkpoint of another model."""
    if source.phase is not None:
        return checkpoints.load_checkpoint(_input(ctx, model, source, role).path(MODEL_FILE))
    released = load_model_spec(model).released[source.released or ""]
    files = {name: weights_path(ctx.store, find_third_party_weights(name)) for name in released.files}
    tensors, provenances = resolve_entry_point(released.reader)(files, getattr(ctx.config, model), phase)
    return tensors, {"provenance": provenances}


def _choose(
    tensors: Mapping[str, Tensor], part: str, source: WeightsSource, phase: Phase, node: str
) -> dict[str, Tensor]:
    """Of a source's tensors those of one part, or of all, under the names that they begin with here."""
    wanted = source.part or part
    chosen: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own, _, rest = name.partition(".")
        target = part or own
        if part and own != wanted:
            continue
        if target.endswith(EMA_SUFFIX):
            target = target.removesuffix(EMA_SUFFIX)
            if target in phase.ema_parts:
                chosen[f"ema.{target}.{rest}"] = tensor
        else:
            chosen[f"net.{target}.{rest}"] = tensor
    if not chosen:
        there = sorted({part_of_parameter(name) for name in tensors})
        raise InvalidSettings(
            f"{node} begins {part or 'its net'} with {source.name}, which has no {wanted or 'tensor'}; "
            f"it has {there}"
        )
    return chosen


def _input(ctx: NodeContext, model: str, source: WeightsSource, role: str = "") -> Artifact:
    return ctx.inputs[role if source.model else f"train.{model}.{source.phase}"]


def _copy_in(path: Path, store: Store, name: str) -> None:
    with store.scratch_folder() as folder:
        shutil.copyfile(path, folder / name)
        store.put(folder / name, name)
