"""What a model gives `reenact animate` and the evaluation: sources encoded once, motion read from driving
frames, motion fitted to the source, pictures.

`models/<name>/reenact.py` has `load_reenactor(path, device)` and `reenactor_of(tensors, about, device)`,
which return a `Reenactor`. Importing this module loads neither torch nor any model. T = frames, S = their
side, I = the model's own image side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Motion = Mapping[str, "Tensor"]
"""What a model reads from frames, by name; the first dimension of each tensor is T. A few kB a frame, so that
a video's motion can be held where its frames cannot.
"""
Precision = Literal["auto", "fp32", "bf16"]
"""Numbers the nets work with. auto: bf16 on a GPU, else fp32. What needs fp32 keeps it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Frames cropped as the model's training clips were."""

    frames: np.ndarray
    """(T,S,S,3) uint8 RGB"""
    boxes: np.ndarray
    """(T,4) float32: the face in pixels of these frames, x0, y0, x1, y1; NaN where none was found"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """How the driving person's motion becomes the source's."""

    motion: Literal["absolute", "relative"] = "absolute"
    """absolute: pose and place of the driving head. relative: its changes since a first frame, added to the
    source's own pose; it keeps the source's face shape and place."""
    adapt_scale: bool = False
    """relative: changes are scaled by the size of the source's face over that of the driving face."""

    def __post_init__(self) -> None:
        if self.motion not in ("absolute", "relative"):
            raise ValueError(f"motion {self.motion!r}: expected absolute or relative")
        if self.adapt_scale and self.motion == "absolute":
            raise ValueError("adapt_scale scales the changes of relative motion; with absolute it has no use")


class Reenactor(Protocol):
    """A trained model, ready to be driven."""

    image_size: int
    """I: side of the pictures it renders."""
    labels: Mapping[str, str]
    """Parts that do not carry the published weights, e.g. {"kp_detector": "distilled"}."""
    batch: int
    """Driving frames to hand over at once: enough to keep the device busy; no result depends on it."""

    def check(self, how: Transfer) -> None:
        """Raises ValueError, which says why, where the model cannot transfer motion this way."""
        ...

    def scene(self, sources: Shown) -> Any:
        """All that rendering needs of one or more source pictures, computed once."""
        ...

    def motion(self, driving: Shown) -> Motion: ...

    def transfer(self, scene: Any, driving: Motion, first: Motion, how: Transfer) -> Motion:
        """driving (T frames), first (one frame: where relative motion starts) -> motion to render (T)."""
        ...

    def render(self, scene: Any, motion: Motion) -> np.ndarray:
        """-> (T,I,I,3) float32 in [0,1]"""
        ...

    def reenact(self, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
        """source (H,W,3) or (n,H,W,3), driving (T,H,W,3) uint8 -> (T,I,I,3) float32 in [0,1]; absolute
        motion."""
        ...
