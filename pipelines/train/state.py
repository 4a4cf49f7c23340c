"""What a checkpoint holds: the net, its optimisers and running mean, the step, and the best yet."""

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
from models.errors import InvalidSettings
from pipelines.errors import UserError
from pipelines.train.device import on_device
from pipelines.train.job import Job
from pipelines.train.meters import Clock, Figures
from pipelines.train.objective import choose_parts, learn
from pipelines.train.optim import Ema, adam, moments, restore_moments
from pipelines.train.stopping import Stop
from storage import checkpoints
from storage.checkpoints import BEST, MODEL, START, STATE, StepCheckpoints
from storage.errors import Damaged
from storage.files import Store

_BEST = re.compile(r"best-(\d{9})\.safetensors")


class State:
    """Net, optimiser, running mean and step: what a checkpoint holds, and nothing else that matters."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.step = job, 0
        self.task = job.build()
        self.task.use(on_device(job.nets(), device))
        self.net: nn.Module = self.task.net.to(device)
        phase = job.phase
        self.parameters = choose_parts(self.net, phase.train)
        self.adam = adam(phase.optim, self.parameters.values())
        self.judging: dict[str, nn.Parameter] = {}
        self.judges_adam: torch.optim.Adam | None = None
        if phase.adversary:
            everyone = choose_parts(self.net, phase.learning)
            self.judging = {name: p for name, p in everyone.items() if name not in self.parameters}
            self.judges_adam = adam(phase.adversary.optim, self.judging.values())
        self.ema = Ema(self.parameters, phase.ema) if phase.ema else None
        self.before = 0
        """Steps that Adam had done when the phase began: those of the phases that it carries on from."""
        self.labels = dict(self.task.labels())
        self.figures, self.clock, self.stop = Figures(), Clock(), Stop()
        self.best: tuple[float, int] | None = None
        """The best validation PSNR and its step."""

    def resume(self, files: StepCheckpoints, step: int | None) -> None:
        """Go on from a checkpoint of this phase, or begin with the weights of the phase before."""
        if step is not None:
            tensors, about = files.load(step)
            self._restore(tensors, about)
            if self.best:
                checked_best(files.store, self.best[1])
        elif files.store.exists(START):
            self._begin(*checkpoints.load(files.store.fetch(START)))
        elif self.job.phase.start_from:
            node = f"{self.job.node.rpartition('.')[0]}.{self.job.phase.start_from}"
            raise UserError(
                f"{self.job.node}: no weights of {node} in its work folder to start from; run that first: "
                f"`reenact run RUN.yaml --only {node}`"
            )
        elif frozen := sorted(self._parts() - set(self.job.phase.learning)):
            raise InvalidSettings(
                f"{self.job.node} starts from nothing, but does not train {frozen}; set start_from to a "
                "phase or to weights.<id> that brings them"
            )

    def _parts(self) -> set[str]:
        return {name for name, _ in self.net.named_children()}

    def _begin(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        phase = self.job.phase
        net = _under("net.", tensors) if phase.carry else tensors
        found = self.net.load_state_dict(net, strict=False)
        begun = {name.split(".")[0] for name in net}
        lacking = {name.split(".")[0] for name in found.missing_keys}
        missing, half = sorted(lacking - set(phase.learning)), sorted(lacking & begun)
        if found.unexpected_keys or missing or half:
            raise InvalidSettings(
                f"{self.job.node} cannot start from phase {about.get('phase')}: it brings unknown tensors "
                f"{found.unexpected_keys[:3]}, lacks the frozen parts {missing}, has only a share of {half}"
            )
        told = provenance.trained_on(provenance.read(about), self._parts(), phase.learning)
        if phase.released and begun & set(phase.train):  # those were trained with all that is published
            told = dict.fromkeys(self.labels, provenance.AS_PUBLISHED) | told
        self.labels = provenance.after(told, self.labels)
        if self.ema:
            self.ema = Ema(self.parameters, phase.ema)
        if phase.carry:
            self.before = self._restore_moments(tensors)

    def _restore_moments(self, tensors: dict[str, Tensor]) -> int:
        """-> steps that Adam has done."""
        known = _under("optim.", tensors)
        restore_moments(self.adam, self.parameters, known)
        # the judges may not have moved yet, and the phase before may have had none
        if self.judges_adam and any(f"{name}.step" in known for name in self.judging):
            restore_moments(self.judges_adam, self.judging, known)
        return max(int(known[f"{name}.step"]) for name in self.parameters)

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name (`net.`, `optim.`, `ema.`), and what is needed to read them."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {f"optim.{name}": tensor for name, tensor in moments(self.adam, self.parameters).items()}
        if self.judges_adam:
            judges = moments(self.judges_adam, self.judging)
            tensors |= {f"optim.{name}": tensor for name, tensor in judges.items()}
        if self.ema:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.mean.items()}
        return tensors, self._about() | ({"best": list(self.best)} if self.best else {})

    def _about(self) -> dict[str, Any]:
        return {
            "phase": self.job.phase.name,
            "step": self.step,
            **provenance.written(self.labels),
            **self.task.describe(),
        }

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """The weights as they would be published, in eval mode."""
        if self.ema:
            self.ema.swap()
        self.net.eval()
        yield
        learn(self.net, self.job.phase.learning)
        if self.ema:
            self.ema.swap()

    def keep_best(self, store: Store, psnr: float) -> None:
        """Put the weights aside if no validation of this phase gave a higher PSNR."""
        if self.best and psnr <= self.best[0]:
            return
        self.best = (psnr, self.step)
        with store.scratch() as folder:
            checkpoints.save(folder / BEST, published(self.saved()[0]), self._about())
            store.put(folder / BEST, best_name(self.step))

    def drop_old_best(self, store: Store) -> None:
        """Once a checkpoint is saved: it and the one before it name at most two."""
        for old in [step for step in best_steps(store) if step <= self.step][:-2]:
            store.delete(best_name(old))

    def _restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.net.load_state_dict(_under("net.", tensors))
        self.before = self._restore_moments(tensors) - about["step"]
        if self.ema:
            mean = _under("ema.", tensors)
            for name, tensor in self.ema.mean.items():
                tensor.copy_(mean[name])
        self.step, self.labels = about["step"], provenance.read(about)
        self.best = tuple(about["best"]) if "best" in about else None  # pyright: ignore[reportAttributeAccessIssue]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def published(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Of a training state, the weights to use: the running mean where there is one."""
    tensors = dict(tensors)
    return _under("net.", tensors) | _under("ema.", tensors)


def best_name(step: int) -> str:
    """In the work folder: of its step, so that none is taken for another."""
    return f"best-{step:09d}.safetensors"


def best_steps(store: Store) -> list[int]:
    matches = (_BEST.fullmatch(entry.name) for entry in store.list(""))
    return sorted(int(match[1]) for match in matches if match)


def checked_best(store: Store, step: int) -> Path:
    """The best weights in a work folder, which are those of this step, or Damaged."""
    if not store.exists(best_name(step)):
        raise Damaged(
            f"{store.uri}: no {best_name(step)}, which its checkpoint calls the best; delete that folder"
        )
    return of_step(store.fetch(best_name(step)), step)


def of_step(path: Path, step: int) -> Path:
    """This checkpoint, which says of itself that it is of this step, or Damaged."""
    found = checkpoints.load(path)[1].get("step")
    if found != step:
        raise Damaged(
            f"{path} holds weights of step {found}, its record says {step}; delete it and run again"
        )
    return path


def publish_weights(folder: Path, tensors: Mapping[str, Any], about: Mapping[str, Any], work: Store) -> None:
    """The files that other nodes read: all that training goes on with, the weights to use, the best of them.
    `work`: where the best were put aside.
    """
    checkpoints.save(folder / STATE, tensors, about)
    checkpoints.save(folder / MODEL, published(tensors), about)
    if "best" in about:
        shutil.copyfile(checked_best(work, about["best"][1]), folder / BEST)
