"""What a model gives the training loop: phases as values, and a task that turns clips into named losses.

A new model writes `phases.py` with `Phase` values and `task.py` with one class per kind of training step; the
loop (pipelines/train/loop.py) needs nothing else. Importing this module loads neither torch nor any model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

Sample = dict[str, "np.ndarray"]
"""What a task draws from one clip: arrays of fixed shape, stacked by the loader."""

Batch = dict[str, "Tensor"]
"""Stacked samples on the training device, first dimension B."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optim:
    """Adam with a linear warm-up and an exponential decay; nothing here depends on a phase's step budget."""

    lr: float = 1e-4
    """Learning rate at the end of the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 0
    """Steps over which the rate rises linearly from 0."""
    decay: float = 1.0
    """Factor by which the rate has fallen `decay_steps` after the warm-up."""
    decay_steps: int = 1_000_000
    clip: float | None = None
    """Largest gradient norm, or None."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr {self.lr}: expected a positive number")
        if self.warmup < 0:
            raise ValueError(f"warmup {self.warmup}: expected 0 or more steps")
        if not 0 < self.decay <= 1 or self.decay_steps < 1:
            raise ValueError(
                f"decay {self.decay} over {self.decay_steps} steps: expected (0, 1] over 1 or more"
            )
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip {self.clip}: expected a positive number or null")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of training: a node of the graph, `train.<model>.<name>`."""

    name: str
    start_from: str | None = None
    """The phase whose weights this one begins with; None = PyTorch's initial values."""
    steps: int
    """Optimiser steps. May be raised later: training then continues."""
    batch: int
    """Samples per optimiser step, over all workers."""
    chunk: int | None = None
    """Samples per forward pass, None = the whole batch. Batch statistics (FSRT's covariance, BatchNorm) are
    taken over a chunk, so it changes results; the number of workers does not. Chunks are dealt out evenly to
    the workers.
    """
    train: tuple[str, ...]
    """Parts of the net that learn; the others are frozen in eval mode. A name without a part is an error."""
    optim: Optim = field(default_factory=Optim)
    losses: dict[str, float | None] = field(default_factory=dict)
    """Weight of each loss term. 0 = computed without gradient and logged; null or left out = not computed."""
    ema: float = 0.0
    """Decay of a running mean of the weights, which is then what the phase publishes; 0 = off."""
    # A phase with a discriminator adds `adversary: Optim | None` and `adversary_only: int` here, and its own
    # step beside Objective in pipelines/train/objective.py.

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(
                f"phase {self.name}: {self.steps} steps of {self.batch}: expected 1 or more of each"
            )
        if self.batch % self.chunk_size:
            raise ValueError(f"phase {self.name}: chunk {self.chunk} does not divide batch {self.batch}")
        if not self.train:
            raise ValueError(f"phase {self.name}: train is empty; name at least one part of the net")
        if not any((weight or 0) > 0 for weight in self.losses.values()):
            raise ValueError(f"phase {self.name}: no loss has a weight above 0 in {self.losses}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"phase {self.name}: ema {self.ema}: expected 0 (off) or more, below 1")

    @property
    def weights(self) -> dict[str, float]:
        """The terms to compute."""
        return {name: weight for name, weight in self.losses.items() if weight is not None}

    @property
    def chunk_size(self) -> int:
        return self.chunk or self.batch


class Clip(Protocol):
    """A clip as a task sees it when it draws: nothing is read before it is asked for."""

    key: str
    length: int

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """Those frames only -> (n,S,S,3) uint8 RGB."""
        ...

    def read(self, name: str) -> Any:
        """A whole field of a family the phase reads (storage/shards.py), e.g. landmarks (T,68,2)."""
        ...


class Task(Protocol):
    """One kind of training step of one model. Built in every worker; holds the net and no other state."""

    net: nn.Module
    """`Phase.train` names its children."""

    def draw(self, rng: np.random.Generator, clip: Clip, training: bool) -> Sample | None:
        """Read from the clip and draw every random number the step needs, so that a sample is a pure function
        of its seed. None: the clip cannot serve (no landmarks in the frames drawn), take another.
        """
        ...

    def terms(self, batch: Batch) -> Mapping[str, Callable[[], Tensor]]:
        """The loss terms by name, each a scalar computed when called."""
        ...

    def scores(self, batch: Batch) -> dict[str, float]:
        """Figures for the validation log, over samples drawn with training=False."""
        ...

    def preview(self, batch: Batch) -> np.ndarray:
        """(B,H,W,3) uint8, a row of pictures per sample, left to right as the model's README says."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON for the checkpoint: {"model", "architecture"} and what a loader needs to rebuild the net."""
        ...

    def labels(self) -> dict[str, str]:
        """Parts whose weights are not the published ones, e.g. {"kp_detector": "distilled"}; shown beside
        scores.
        """
        ...
