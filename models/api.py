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

RELEASED = "weights."  # how `Phase.start_from` names a released file

Sample = dict[str, "np.ndarray"]
"""What a task draws from one clip: arrays of fixed shape, stacked by the loader."""

Batch = dict[str, "Tensor"]
"""Stacked samples on the training device, first dimension B."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optim:
    """Adam with a linear warm-up, an exponential decay, and a linear fall to 0 for models that end so.
    Nothing here depends on a phase's step budget.
    """

    lr: float = 1e-4
    """Learning rate at the end of the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 0
    """Steps over which the rate rises linearly from 0."""
    decay: float = 1.0
    """Factor by which the rate has fallen `decay_steps` after the warm-up."""
    decay_steps: int = 1_000_000
    hold: int = 0
    """Steps after the warm-up before the fall."""
    fall: int | None = None
    """Steps over which the rate then falls linearly, the step after them being the first without one; None =
    never. Training cannot go on beyond it."""
    clip: float | None = None
    """Largest gradient norm, or None."""
    start: int | None = 0
    """Steps this clock shows when the phase begins, so that one schedule runs through several phases. None:
    those that the net's Adam has done by then, in the phases whose moments it goes on with (`Phase.carry`).
    """

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
        if self.start is not None and self.start < 0:
            raise ValueError(f"start {self.start}: expected 0 or more steps, or null")
        if self.start is None and self.fall is not None:
            raise ValueError(f"start null with fall {self.fall}: expected the steps done before, or no fall")
        if self.hold < 0 or (self.fall is not None and self.fall < 1):
            raise ValueError(f"hold {self.hold}, fall {self.fall}: expected 0 or more steps, and 1 or more")

    @property
    def last(self) -> int | None:
        """The last step of a phase that has a rate above 0."""
        if self.fall is None or self.start is None:
            return None
        return self.warmup + self.hold + self.fall - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class Adversary:
    """The judges of a phase: discriminators with an optimiser of their own.

    One backward pass serves both sides. The generator's terms look through judges whose weights are held
    still, the judges' own terms look at images cut off from the generator; so neither side's gradient
    depends on which of them moves first.
    """

    train: tuple[str, ...]
    """Parts of the net that judge."""
    optim: Optim = field(default_factory=Optim)
    losses: dict[str, float | None]
    """Weight of each of the judges' own terms."""
    fools: dict[str, float | None]
    """Weight of each of the generator's terms that look through the judges."""
    alone: int = 0
    """Steps at the start of the phase in which the judges learn and `fools` are left out."""
    every: int = 1
    """The judges move at every so many steps of the generator's, on the gradient of that step alone."""

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("adversary.train is empty; name at least one part of the net")
        if self.alone < 0:
            raise ValueError(f"adversary.alone {self.alone}: expected 0 or more steps")
        if self.every < 1:
            raise ValueError(f"adversary.every {self.every}: expected 1 or more steps")
        if not any((weight or 0) > 0 for weight in self.losses.values()):
            raise ValueError(f"adversary: no loss has a weight above 0 in {self.losses}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of training: a node of the graph, `train.<model>.<name>`."""

    name: str
    start_from: str | None = None
    """The phase whose weights this one begins with, or `weights.<id>`, a released file that was imported
    (`reenact weights`); None = PyTorch's initial values.
    """
    carry: bool = False
    """Go on with the Adam moments of the phase it starts from too, as one training that was not cut."""
    steps: int
    """Optimiser steps. May be raised later: training then continues."""
    batch: int
    """Samples per optimiser step, over all workers."""
    chunk: int | None = None
    """Samples per forward pass, None = the whole batch. Batch statistics (FSRT's covariance, BatchNorm) are
    taken over a chunk, so it changes results; the number of workers does not (but the running statistics of
    a BatchNorm that learns are those of the first worker's chunks). Chunks are dealt out evenly to the
    workers.
    """
    train: tuple[str, ...]
    """Parts of the net that learn; the others are frozen in eval mode. A name without a part is an error."""
    optim: Optim = field(default_factory=Optim)
    losses: dict[str, float | None] = field(default_factory=dict)
    """Weight of each loss term. 0 = computed without gradient and logged, if the nets it needs are at hand;
    null or left out = not computed.
    """
    ema: float = 0.0
    """Decay of a running mean of the weights, which is then what the phase publishes; 0 = off."""
    adversary: Adversary | None = None
    """The discriminators, in a phase that has them."""
    validate_every: int = 500
    """Steps between validations. The best weights are chosen among these steps alone, so that they depend on
    nothing but the phase; the last step is looked at too, but not chosen."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(
                f"phase {self.name}: {self.steps} steps of {self.batch}: expected 1 or more of each"
            )
        if self.validate_every < 1:
            raise ValueError(
                f"phase {self.name}: validate_every {self.validate_every}: expected 1 or more steps"
            )
        if self.batch % self.chunk_size:
            raise ValueError(f"phase {self.name}: chunk {self.chunk} does not divide batch {self.batch}")
        if not self.train:
            raise ValueError(f"phase {self.name}: train is empty; name at least one part of the net")
        if not any((weight or 0) > 0 for weight in self.losses.values()):
            raise ValueError(f"phase {self.name}: no loss has a weight above 0 in {self.losses}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"phase {self.name}: ema {self.ema}: expected 0 (off) or more, below 1")
        if self.carry and (self.start_from is None or self.released):
            raise ValueError(f"phase {self.name}: carry needs a phase to start from, found {self.start_from}")
        if self.adversary and (both := set(self.train) & set(self.adversary.train)):
            raise ValueError(f"phase {self.name}: {sorted(both)} cannot both learn and judge")
        for optim in (self.optim, *([self.adversary.optim] if self.adversary else [])):
            if optim.last is not None and self.steps > optim.last:
                raise ValueError(
                    f"phase {self.name}: {self.steps} steps, but its rate has fallen to 0 after step "
                    f"{optim.last}; raise optim.fall or optim.hold, or lower steps"
                )

    @property
    def released(self) -> str | None:
        """Id of the released weights it starts from, if any."""
        found = (self.start_from or "").partition(RELEASED)
        return found[2] if found[1] and not found[0] else None

    @property
    def learning(self) -> tuple[str, ...]:
        """Parts of the net that learn, the judges among them."""
        return (*self.train, *(self.adversary.train if self.adversary else ()))

    @property
    def weights(self) -> dict[str, float]:
        """The generator's terms, without those that look through judges."""
        return given(self.losses)

    @property
    def chunk_size(self) -> int:
        return self.chunk or self.batch


@dataclass(frozen=True, slots=True)
class Released:
    """How a phase starts from released weights: `Phase.start_from: weights.<id>` names one of the model's."""

    reader: str
    """"module:function" of ({weights id: safetensors as imported}, the model's settings, the phase) ->
    tensors by our names, and labels.
    """
    files: tuple[str, ...]
    """Ids in the weights registry."""
    parts: tuple[str, ...]
    """Of the net, that these files are sure to hold."""


def given(losses: Mapping[str, float | None]) -> dict[str, float]:
    """The terms to compute: those whose weight is not null."""
    return {name: weight for name, weight in losses.items() if weight is not None}


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A batch as validation sees it. Pictures are uint8 RGB."""

    row: np.ndarray
    """(B,H,W',3) pictures side by side, left to right as the model's README says."""
    scores: dict[str, float] = field(default_factory=dict)
    """Figures that only the model can know; means over the batch."""
    source: np.ndarray | None = None
    """(B,H,W,3) what copying the source would give; None where the task renders no images."""
    driving: np.ndarray | None = None
    """(B,H,W,3) what the output should be."""
    output: np.ndarray | None = None
    """(B,H,W,3)"""


class Task(Protocol):
    """One kind of training step of one model. Built in every worker; holds the net and no other state."""

    net: nn.Module
    """`Phase.train` names its children."""

    def draw(self, rng: np.random.Generator, clip: Clip, training: bool) -> Sample | None:
        """Read from the clip and draw every random number the step needs, so that a sample is a pure function
        of its seed. None: the clip cannot serve (no landmarks in the frames drawn), take another.
        """
        ...

    def use(self, nets: Mapping[str, Any]) -> None:
        """Called once, with the perception nets that the model's phases.py asks for in this phase
        (`nets(section, phase)`; models/perception), on the training device.
        """
        ...

    def terms(self, batch: Batch) -> Mapping[str, Callable[[], Tensor]]:
        """The loss terms by name, each a scalar computed when called; those of an adversary too.

        A term in `Adversary.fools` is built with the judges' parameters frozen, a term in `Adversary.losses`
        from detached images.
        """
        ...

    def look(self, batch: Batch) -> Look:
        """What validation measures and shows, over samples drawn with training=False."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON for the checkpoint: {"model", "architecture"} and what a loader needs to rebuild the net."""
        ...

    def labels(self) -> dict[str, str]:
        """Parts whose weights are not the published ones, e.g. {"kp_detector": "distilled"}; shown beside
        scores. Those that are may be told too, as AS_PUBLISHED, where another phase can say otherwise
        (models/provenance.py).
        """
        ...
