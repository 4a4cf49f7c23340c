"""What a checkpoint holds: the net, its optimizers and running means, the task's state, the step, the best
yet."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import provenance
from models.api import EMA_SUFFIX, Phase
from models.errors import InvalidSettings
from models.task import inference_weights
from pipelines.errors import UserError
from pipelines.train.distributed import nets_to_device
from pipelines.train.job import TrainJobSpec
from pipelines.train.meters import LossMeters, StepTimer
from pipelines.train.net_parts import freeze_other_parts, part_of_parameter, set_train_and_eval_modes
from pipelines.train.optim import NamedOptimizer, ParameterEma
from pipelines.train.stop_file import StopState
from storage import checkpoints
from storage.checkpoints import BEST_FILE, MODEL_FILE, START_FILE, STATE_FILE, StepCheckpoints
from storage.errors import DamagedFile
from storage.files import Store

_BEST = re.compile(r"best-(\d{9})\.safetensors")


class TrainState:
    """Net, optimizers, running means, the task's own state and the step: what a checkpoint holds, and nothing
    else that matters."""

    def __init__(self, job: TrainJobSpec, device: torch.device) -> None:
        self.job, self.step = job, 0
        self.task = job.build()
        self.task.set_frozen_nets(nets_to_device(job.nets(), device) | load_phase_used_checkpoints(job))
        self.net: nn.Module = self.task.net.to(device)
        phase = job.phase
        self.parameters = freeze_other_parts(self.net, phase.trainable_parts)
        self.optimizers = {
            name: self._optimizer(name)
            for name in dict.fromkeys(update.optimizer for update in phase.active_updates.values())
        }
        self.ema = ParameterEma(self.parameters, phase.ema_parts)
        self.steps_before = 0
        """Steps that the optimizers had done when the phase began: those of the phases that it resumes."""
        self.provenance = {**self.task.provenance(), **job.preprocessing_nets}
        self.meters, self.timer, self.stop = LossMeters(), StepTimer(), StopState()
        self.best: tuple[float, int] | None = None
        """The best figure (`Phase.best`) of a validation, and its step."""

    def _optimizer(self, name: str) -> NamedOptimizer:
        phase = self.job.phase
        updates = [update for update in phase.active_updates.values() if update.optimizer == name]
        scales = {part: scale for update in updates for part, scale in update.learning_rate_scales.items()}
        own = {key: p for key, p in self.parameters.items() if part_of_parameter(key) in scales}
        return NamedOptimizer(phase.optimizers[name], own, scales)

    @property
    def moving_buffers(self) -> list[Tensor]:
        """Buffers of the parts that learn, such as running statistics."""
        trainable = set(self.job.phase.trainable_parts)
        return [buffer for name, buffer in self.net.named_buffers() if part_of_parameter(name) in trainable]

    def resume(self, files: StepCheckpoints, step: int | None) -> None:
        """Go on from a checkpoint of this phase, or begin with the weights that it starts from."""
        phase = self.job.phase
        if step is not None:
            tensors, about = files.load(step)
            self._restore(tensors, about)
            if self.best:
                find_best_weights_at_step(files.store, self.best[1])
        elif files.store.exists(START_FILE):
            self._begin(*checkpoints.load_checkpoint(files.store.fetch(START_FILE)))
        elif phase.init_sources:
            source = next(iter(phase.init_sources.values()))
            model = "train" if source.model else self.job.node.rpartition(".")[0]
            node = f"{model}.{source.name}"
            raise UserError(
                f"{self.job.node}: no weights of {node} in its work folder to start from; run that first: "
                f"`reenact run RUN.yaml --only {node}`"
            )
        elif frozen := sorted(self._parts() - set(phase.trainable_parts)):
            raise InvalidSettings(
                f"{self.job.node} starts from nothing, but does not train {frozen}; set init to a phase or "
                "to weights.<id> that brings them"
            )

    def _parts(self) -> set[str]:
        return {name for name, _ in self.net.named_children()}

    def _begin(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """tensors: `net.` weights, `ema.` what running means begin with, `optim.` states to resume."""
        phase, net = self.job.phase, _under("net.", tensors)
        found = self.net.load_state_dict(net, strict=False)
        begun = {part_of_parameter(name) for name in net}
        absent = {part_of_parameter(name) for name in found.missing_keys}
        missing, half = sorted(absent - set(phase.trainable_parts)), sorted(absent & begun)
        if found.unexpected_keys or missing or half:
            raise InvalidSettings(
                f"{self.job.node} cannot start from {about.get('phase')}: it brings unknown tensors "
                f"{found.unexpected_keys[:3]}, lacks the frozen parts {missing}, has only a share of {half}"
            )
        before = provenance.provenance_after_training(
            provenance.provenance_from_metadata(about), self._parts(), phase.trainable_parts
        )
        first = next(iter(phase.active_updates.values()))
        if set(about.get("released", ())) & set(
            first.learning_rate_scales
        ):  # trained with all that is published
            before = dict.fromkeys(self.provenance, provenance.AS_PUBLISHED_PROVENANCE) | before
        self.provenance = provenance.combine_phase_provenance(before, self.provenance)
        self.ema = ParameterEma(self.parameters, phase.ema_parts)
        self._restore_means(tensors)
        if phase.resume_optimizers:
            self.steps_before = count_trained_steps(tensors, about, phase)
            self._restore_optimizers(tensors)

    def _restore_optimizers(self, tensors: dict[str, Tensor]) -> None:
        saved = _under("optim.", tensors)
        for optimizer in self.optimizers.values():
            optimizer.load_state(saved)

    def _restore_means(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in _under("ema.", tensors).items():
            if name in self.ema.mean:
                self.ema.mean[name].copy_(tensor)

    def to_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name (`net.`, `optim.`, `ema.`, `task.`), and what is needed to read them."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for optimizer in self.optimizers.values():
            tensors |= {f"optim.{name}": tensor for name, tensor in optimizer.state().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.mean.items()}
        tensors |= {f"task.{name}": tensor for name, tensor in self.task.state().items()}
        return tensors, self._about() | ({"best": list(self.best)} if self.best else {})

    def _about(self) -> dict[str, Any]:
        return {
            "phase": self.job.phase.name,
            "step": self.step,
            "steps_before": self.steps_before,
            **provenance.provenance_to_metadata(self.provenance),
            **self.task.architecture_metadata(),
        }

    @contextlib.contextmanager
    def eval_weights(self) -> Iterator[None]:
        """The weights as inference uses them, running means where there are, in eval mode."""
        self.ema.swap_with_weights()
        self.net.eval()
        yield
        set_train_and_eval_modes(self.net, self.job.phase.trainable_parts)
        self.ema.swap_with_weights()

    def keep_best(self, store: Store, value: float) -> None:
        """Put the weights aside if no validation of this phase gave a better figure."""
        best = self.job.phase.best
        if best is None or (self.best and not best.is_better(value, self.best[0])):
            return
        self.best = (value, self.step)
        with store.scratch_folder() as folder:
            checkpoints.save_checkpoint(
                folder / BEST_FILE, weights_from_training_state(self.to_checkpoint()[0]), self._about()
            )
            store.put(folder / BEST_FILE, best_file_name(self.step))

    def drop_old_best(self, store: Store) -> None:
        """Once a checkpoint is saved: it and the one before it name at most two."""
        for old in [step for step in list_best_checkpoint_steps(store) if step <= self.step][:-2]:
            store.delete(best_file_name(old))

    def _restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.net.load_state_dict(_under("net.", tensors))
        self._restore_optimizers(tensors)
        self._restore_means(tensors)
        self.task.load_state(_under("task.", tensors))
        self.step, self.provenance = about["step"], provenance.provenance_from_metadata(about)
        self.steps_before = count_trained_steps(tensors, about, self.job.phase) - self.step
        value, step = about.get("best", (None, 0))
        self.best = None if value is None else (value, step)


def count_trained_steps(tensors: Mapping[str, Tensor], about: Mapping[str, Any], phase: Phase) -> int:
    """Steps of a state and of the phases that its phase resumed: as it says; one that does not say is of a
    time when an optimizer made one step at each."""
    if "steps_before" in about:
        return about["steps_before"] + about["step"]
    first = next(iter(phase.active_updates.values()))
    saved = _under("optim.", tensors)
    steps = [
        int(t)
        for name, t in saved.items()
        if name.endswith(".step") and part_of_parameter(name) in first.learning_rate_scales
    ]
    return max(steps, default=about["step"])


def load_phase_used_checkpoints(job: TrainJobSpec) -> dict[str, dict[str, Tensor]]:
    """The checkpoints that the phase uses (`Phase.uses`), as inference would: name -> tensors."""
    store = Store(job.scratch)
    return {
        name: inference_weights(
            checkpoints.load_checkpoint(store.fetch(frozen_checkpoint_file_name(name)))[0]
        )
        for name in job.phase.uses
    }


def frozen_checkpoint_file_name(name: str) -> str:
    """In the work folder: the checkpoint that the phase uses under this name."""
    return f"uses-{name}.safetensors"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def weights_from_training_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a training state, the weights: every part, and beside it `<part>_ema` where it has a running mean
    (whose buffers are the part's own)."""
    net, means = _under("net.", tensors), _under("ema.", tensors)
    parts = {part_of_parameter(name) for name in means}
    beside = {
        f"{part_of_parameter(name)}{EMA_SUFFIX}.{name.partition('.')[2]}": means.get(name, tensor)
        for name, tensor in net.items()
        if part_of_parameter(name) in parts
    }
    return net | beside


def best_file_name(step: int) -> str:
    """In the work folder: of its step, so that none is taken for another."""
    return f"best-{step:09d}.safetensors"


def list_best_checkpoint_steps(store: Store) -> list[int]:
    matches = (_BEST.fullmatch(entry.name) for entry in store.list(""))
    return sorted(int(match[1]) for match in matches if match)


def find_best_weights_at_step(store: Store, step: int) -> Path:
    """The best weights in a work folder, which are those of this step, or Damaged."""
    if not store.exists(best_file_name(step)):
        raise DamagedFile(
            f"{store.uri}: no {best_file_name(step)}, which its checkpoint calls the best; delete that folder"
        )
    return check_checkpoint_step(store.fetch(best_file_name(step)), step)


def check_checkpoint_step(path: Path, step: int) -> Path:
    """This checkpoint, which says of itself that it is of this step, or Damaged."""
    found = checkpoints.load_checkpoint(path)[1].get("step")
    if found != step:
        raise DamagedFile(
            f"{path} holds weights of step {found}, its record says {step}; delete it and run again"
        )
    return path


def write_state_and_weights_files(
    folder: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], work: Store
) -> None:
    """The files that other nodes read: all that training goes on with, the weights to use, the best of them.
    `work`: where the best were put aside.
    """
    checkpoints.save_checkpoint(folder / STATE_FILE, tensors, about)
    checkpoints.save_checkpoint(folder / MODEL_FILE, weights_from_training_state(tensors), about)
    if "best" in about:
        shutil.copyfile(find_best_weights_at_step(work, about["best"][1]), folder / BEST_FILE)
