"""A whole training step: which updates share a pass, forward and backward over the chunks, and who moves
when.

A phase's updates without `own_forward` learn from one pass; every other one runs a pass of its own when it is
due, in the order of the phase. A pass ends with the optimizer steps of its updates, so that a later pass sees
the weights that an earlier one has moved.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.api import Phase, Update
from models.errors import InvalidSettings
from models.precision import autocast
from models.task import Batch, TrainStep
from pipelines.dataset.sampler import SampleChunk, WorkerShare
from pipelines.train.distributed import DistributedContext, chunk_to_device
from pipelines.train.losses import PassLosses, compute_losses
from pipelines.train.net_parts import part_of_parameter
from pipelines.train.nonfinite import check_finite
from pipelines.train.state import TrainState

NOISE_STREAM = 2
"""What a random stream is for, beside those of pipelines/dataset/sampler.py."""


@dataclass(frozen=True, slots=True)
class UpdatePass:
    """Updates that learn from one forward pass."""

    name: str
    """Of the update that has it to itself; "" = the shared one."""
    updates: Mapping[str, Update]
    parameters: Mapping[str, Mapping[str, nn.Parameter]]
    """Of each update, by name."""


def make_update_passes(phase: Phase, parameters: Mapping[str, nn.Parameter]) -> list[UpdatePass]:
    """The passes of a step, in order; the shared one comes where its first update stands."""
    groups: dict[str, dict[str, Update]] = {}
    for name, update in phase.active_updates.items():
        groups.setdefault(name if update.own_forward else "", {})[name] = update
    return [
        UpdatePass(
            name,
            updates,
            {
                one: {
                    key: p
                    for key, p in parameters.items()
                    if part_of_parameter(key) in update.learning_rate_scales
                }
                for one, update in updates.items()
            },
        )
        for name, updates in groups.items()
    ]


def train_step(
    state: TrainState,
    passes: list[UpdatePass],
    chunks: list[SampleChunk],
    share: WorkerShare,
    step: int,
    worker: DistributedContext,
) -> None:
    """Every update that is due, over this worker's chunks of the step; then the running means."""
    phase = state.job.phase
    rates = {name: one.set_rate(step, state.steps_before) for name, one in state.optimizers.items()}
    worker.broadcast_tensors(state.moving_buffers)  # running statistics are those of the first worker
    batches = [chunk_to_device(chunk, worker.device) for chunk in chunks]
    first, update = next(iter(phase.active_updates.items()))
    rate = torch.tensor(rates[update.optimizer], dtype=torch.float32, device=worker.device)
    figures: dict[str, Tensor] = {}
    state.stop.agreed = False
    for one in passes:
        if one.name and not one.updates[one.name].is_due(step):
            continue
        if len(passes) > 1:
            set_trainable(state.parameters, one)
        figures |= run_update_pass(state, one, chunks, batches, share, step, worker)
    state.ema.update(step, phase.batch)
    names = {f"total/{first}": "loss/total", f"gradient_norm/{first}": "gradient_norm"}
    logged = {names.get(name, name): value for name, value in figures.items()}
    state.meters.add(
        {k: v for k, v in logged.items() if not k.startswith("total/")} | {"learning_rate": rate}
    )


def run_update_pass(
    state: TrainState,
    one: UpdatePass,
    chunks: list[SampleChunk],
    batches: list[Batch],
    share: WorkerShare,
    step: int,
    worker: DistributedContext,
) -> dict[str, Tensor]:
    """Forward and backward over the chunks, one optimizer step of each update that is due -> its figures."""
    job = state.job
    state.net.zero_grad(set_to_none=True)
    found: list[PassLosses] = []
    records: list[Mapping[str, Tensor]] = []
    for i, batch in enumerate(batches):
        context = seed_train_step(job.seed, step, share.global_chunk_index(i), one.name, worker.device)
        with autocast(job.precision, worker.device):
            losses = compute_losses(state.task, batch, context, one.updates)
        if losses.loss is not None:
            (losses.loss / len(batches)).backward()
        found.append(losses.detach())
        records.append(context.records)
    due = [name for name, update in one.updates.items() if update.is_due(step) and name in found[0].totals]
    norms = {name: reduce_gradients(one, name, step, worker) for name in due}
    # before any of them moves; in the same wait for the device, workers agree whether to stop
    state.stop.agreed |= check_finite(norms, step, chunks, found, state.stop.asked)
    moving = {name: state.optimizers[one.updates[name].optimizer] for name in due}
    for name, optimizer in moving.items():
        if (clip := optimizer.settings.clip) is not None:
            torch.nn.utils.clip_grads_with_norm_(one.parameters[name].values(), clip, norms[name])
    for optimizer in dict.fromkeys(moving.values()):  # once, though several updates share it
        optimizer.torch.step()
    if any(records):
        state.task.update_state(step, one.name, worker.all_gather_chunks(records))
    figures = {f"loss/{term}": _mean([losses.terms[term] for losses in found]) for term in found[0].terms}
    figures |= {f"total/{name}": _mean([losses.totals[name] for losses in found]) for name in found[0].totals}
    return figures | {f"gradient_norm/{name}": norm for name, norm in norms.items()}


def seed_train_step(seed: int, step: int, chunk: int, update: str, device: torch.device) -> TrainStep:
    """What a task knows of a pass over one chunk; torch's global generators are seeded for it too, so that
    dropout depends on nothing else either."""
    stream = np.random.SeedSequence([seed, NOISE_STREAM, step, chunk, zlib.crc32(update.encode())])
    number = int(stream.generate_state(1, np.uint64)[0])
    torch.manual_seed(number)
    return TrainStep(step, update, torch.Generator(device).manual_seed(number))


def set_trainable(parameters: Mapping[str, nn.Parameter], one: UpdatePass) -> None:
    """Gradients for the parts that learn in this pass, and for no other."""
    trainable = {name for update in one.parameters.values() for name in update}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trainable)


def reduce_gradients(one: UpdatePass, update: str, step: int, worker: DistributedContext) -> Tensor:
    """Average an update's gradients over the workers -> their norm."""
    parameters = list(one.parameters[update].values())
    worker.average_gradients(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        raise InvalidSettings(
            f"step {step}: no gradient of update {update} reaches its parts "
            f"{', '.join(one.updates[update].learning_rate_scales)}; let one of its losses look through them"
        )
    return torch.nn.utils.get_total_norm(gradients)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()
