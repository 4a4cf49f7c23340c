"""What a model's task hands the training loop: samples, named losses, validation, and the state it keeps.

Importing this module loads neither torch nor any model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from models.api import EMA_SUFFIX

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor, nn

Sample = dict[str, "np.ndarray"]
"""What a task reads for one example: arrays of fixed shape, stacked by the loader."""

Batch = dict[str, "Tensor"]
"""Stacked samples on the training device, first dimension B."""


class Clip(Protocol):
    """A clip as a task sees it when it samples: nothing is read before it is asked for."""

    key: str
    length: int

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """Those frames only -> (n,S,S,3) uint8 RGB."""
        ...

    def read_field(self, name: str) -> Any:
        """A whole field of a family the phase reads (storage/shards.py), e.g. landmarks (T,68,2)."""
        ...

    def read_points(self, name: str, indices: Sequence[int]) -> np.ndarray:
        """Points of those frames, of a field (T,K,2) in pixels of the family `clips` -> (n,K,2) in pixels of
        what `frames` shows, which may be a view (`Phase.frames_from`)."""
        ...


class TrainingTable(Protocol):
    """Rows that a task samples from: the clips of the corpus, a bank of seeds, inverted codes, pairs of clips
    (whose row names two keys of the table of clips). A row without frames has length 0."""

    @property
    def keys(self) -> Sequence[str]: ...

    def pick_clip(self, rng: np.random.Generator) -> Clip:
        """The row of this sample's turn: each pass over the identities is in a fresh random order; `rng`
        chooses among the rows of the identity. Rows without identities, such as those of seeds, each have
        their own turn; a second row for the same sample is any other of `keys`.
        """
        ...

    def __getitem__(self, key: str) -> Clip: ...


@dataclass(frozen=True, slots=True)
class TrainStep:
    """What a task knows of the pass that its losses are for."""

    number: int
    """Of the step in the phase; counts from 1."""
    update: str
    """The update with a forward pass of its own that this pass is for; "" = the pass that the others share.
    """
    generator: Generator
    """Random numbers on the training device: a function of (seed, step, chunk, update) alone, so that noise
    is the same after a restart and whatever the number of workers. torch's global generators are seeded so
    too."""
    records: dict[str, Tensor] = field(default_factory=dict)

    def record_for_state_update(self, name: str, value: Tensor) -> None:
        """Hand a tensor of this chunk to `Task.update_state`. All chunks of a pass record the same names."""
        self.records[name] = value.detach()


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationOutput:
    """A batch as validation sees it. Pictures are uint8 RGB."""

    row: np.ndarray
    """(B,H,W',3) pictures side by side, left to right as the model's README says."""
    titles: tuple[str, ...] = ()
    """Of the row's pictures, all of side H, left to right; () = the grid has none."""
    scores: dict[str, float] = field(default_factory=dict)
    """Figures that only the model can know; means over the batch."""
    states: dict[str, Tensor] = field(default_factory=dict)
    """Sums over the batch, which are added over all batches and given to `Task.validation_metrics`."""
    source: np.ndarray | None = None
    """(B,H,W,3) what copying the source would give; None where the task renders no images."""
    driving: np.ndarray | None = None
    """(B,H,W,3) what the output should be."""
    output: np.ndarray | None = None
    """(B,H,W,3)"""


class Task(Protocol):
    """One kind of training step of one model. Built in every worker; holds the net, and the state it
    declares. A task without state of its own inherits the methods of `StatelessTask`."""

    net: nn.Module
    """`Update.parts` names its children."""

    def sample(
        self, rng: np.random.Generator, tables: Mapping[str, TrainingTable], training: bool
    ) -> Sample | None:
        """Read one example and draw every random number that its arrays need, so that a sample is a pure
        function of its seed. `tables`: by name, "clips" and those of `TaskSpec.tables`. None: what was picked
        cannot serve (no landmarks in its frames), take another."""
        ...

    def set_frozen_nets(self, nets: Mapping[str, Any]) -> None:
        """Called once, with the perception nets of this phase (models/perception) on the training device, and
        under the names of `Phase.uses` with {name: tensor} of those checkpoints.
        """
        ...

    def losses(self, batch: Batch, step: TrainStep) -> Mapping[str, Callable[[], Tensor]]:
        """The loss terms by name, each a scalar computed when called. The terms of updates that share a pass
        are called on one result; see `Update` for what each may look through.
        """
        ...

    def validation_step(self, batch: Batch) -> ValidationOutput:
        """What validation measures and shows, over samples drawn with training=False."""
        ...

    def validation_metrics(self, states: Mapping[str, Tensor]) -> dict[str, float]:
        """Figures of all `ValidationOutput.states`, summed: a Frechet distance, say."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What training on needs besides the net, such as an augmentation probability; for checkpoints."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor]) -> None: ...

    def update_state(self, step: int, update: str, records: Sequence[Mapping[str, Tensor]]) -> None:
        """Called after a pass in which chunks recorded something: what each chunk of the batch recorded, in
        order, over all workers. Called alike in every worker, so that the state is the same in all.
        """
        ...

    def architecture_metadata(self) -> dict[str, Any]:
        """JSON for the checkpoint: {"model", "architecture"} and what a loader needs to rebuild the net."""
        ...

    def provenance(self) -> dict[str, str]:
        """Parts whose weights are not the published ones, e.g. {"kp_detector": "distilled"}; shown beside
        scores. Those that are may be named too, as AS_PUBLISHED_PROVENANCE, where another phase can say
        otherwise (models/provenance.py).
        """
        ...


@runtime_checkable
class CrossReenactmentTask(Protocol):
    """A task that can show another person's motion on a face, besides what `Task` asks: validation then looks
    at fixed pairs of clips too. A distilled detector, say, has nothing of the kind."""

    def sample_cross(self, rng: np.random.Generator, source: Clip, driving: Clip) -> Sample | None:
        """What `cross_validation_step` reads of two people's clips: source frames of one, a driving frame of
        the other. A pure function of the seed, as `Task.sample`. None: these clips cannot serve."""
        ...

    def cross_validation_step(self, batch: Batch) -> ValidationOutput:
        """What the source looks like under the driving motion, transferred as inference does by default:
        `output`; `source`, whose face it should show, and `driving`, whose pose and expression. There is no
        truth."""
        ...


class StatelessTask:
    """The methods of a task whose steps depend on batch and weights alone, all of them its own."""

    def set_frozen_nets(self, nets: Mapping[str, Any]) -> None:
        """No other net takes part."""

    def provenance(self) -> dict[str, str]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            raise ValueError(f"a task without state, found {', '.join(sorted(tensors))}")

    def update_state(self, step: int, update: str, records: Sequence[Mapping[str, Tensor]]) -> None:
        """Nothing is recorded."""

    def validation_metrics(self, states: Mapping[str, Tensor]) -> dict[str, float]:
        return {}


def inference_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a published checkpoint, the tensors to infer with: running means in place of the parts that have
    one."""
    parts = {name.partition(".")[0] for name in tensors}
    raw = {part.removesuffix(EMA_SUFFIX) for part in parts if part.endswith(EMA_SUFFIX)}
    found = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part not in raw:
            found[f"{part.removesuffix(EMA_SUFFIX)}.{rest}" if part.endswith(EMA_SUFFIX) else name] = tensor
    return found
