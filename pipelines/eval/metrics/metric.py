"""What a metric is: a pure `update` from one clip to sums, sums that add, and a `compute` from sums to the
value.

T = frames of a clip; images are float64 RGB in [0,1], shape (T,H,W,3). Sums are float64 and merge by `+`, so
clips can be scored in any process, in any order, and resampled for a confidence interval without scoring them
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from typing import Any, Literal, TypeVar

import numpy as np

S = TypeVar("S", bound="Sums")


@dataclass(frozen=True, slots=True)
class Sums:
    """Base of every metric's state. All fields are sums, so two states of the same metric add field by
    field."""

    n: float = 0.0
    """Frames that entered the value."""
    missing: float = 0.0
    """Frames left out, for every method compared alike."""

    def __add__(self: S, other: S) -> S:
        if type(self) is not type(other):
            raise TypeError(f"{type(self).__name__} + {type(other).__name__}: states of one metric only")
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @classmethod
    def from_array(cls: type[S], values: np.ndarray) -> S:
        """(fields,) float64 in declaration order, as `astuple` gives them."""
        if len(values) != len(fields(cls)):
            raise ValueError(f"{cls.__name__}: {len(values)} values for {len(fields(cls))} fields")
        return cls(*(float(v) for v in values))


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    name: str
    """Two values may be compared only if name, variant, backend and protocol agree."""
    title: str
    variant: str
    better: Literal["up", "down"]
    unit: str
    reads: Literal["frames", "landmarks"]
    state: type[Any]
    update: Callable[..., Any]
    """frames: update(prediction, target). landmarks: update(prediction, target, keep); see the metric's
    file."""
    compute: Callable[[Any], float]
    """NaN when no frame entered."""
    each: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """landmarks: each(prediction, target) -> the value of every frame (T,), NaN where a face is missing. From
    these, methods that were scored apart can be compared on the frames that they share."""
    over: Callable[[np.ndarray, np.ndarray], Any] | None = None
    """landmarks: over(values of `each`, keep) -> sums, as `update` gives them."""
    needs: tuple[str, ...] = ()
    """Weight ids; without them the value is reported "not computed: needs <id>"."""


def check_pair(prediction: np.ndarray, target: np.ndarray) -> None:
    if prediction.shape != target.shape or prediction.ndim != 4 or prediction.shape[-1] != 3:
        raise ValueError(
            f"prediction {prediction.shape} and target {target.shape}: expected two equal (T,H,W,3)"
        )
