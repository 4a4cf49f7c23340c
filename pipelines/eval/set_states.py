"""What is known of the sets of frames that metrics compare as a whole: of a method's, and of those they are
compared with.

States of any frames add up; but one of 2,048 features takes 33 MB, so that vectors of many frames are
gathered before one is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.eval.metrics import METRICS

FRAMES_PER_STATE = 1024
"""Vectors that are gathered, at least: adding a state up takes as long as making one of a hundred frames."""
SetStates = dict[str, tuple[Any, Any]]
"""Metric -> the method's state and the reference's, as the metric's `set_state` makes them."""


def add_set_states(first: Mapping[str, tuple[Any, Any]], second: Mapping[str, tuple[Any, Any]]) -> SetStates:
    found = dict(first)
    for name, (method, reference) in second.items():
        ours = found.get(name)
        found[name] = (ours[0] + method, ours[1] + reference) if ours else (method, reference)
    return found


@dataclass(slots=True)
class _GatheredFrames:
    names: list[str] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)

    def add(self, pair: str, frames: Sequence[int], vectors: np.ndarray) -> None:
        self.names += [f"{pair} {frame}" for frame in frames]
        self.vectors.append(vectors)


class SetStateBuilder:
    """Adds up the sets of all metrics, pair by pair."""

    def __init__(self) -> None:
        self._states: SetStates = {}
        self._gathered: dict[str, tuple[_GatheredFrames, _GatheredFrames]] = {}

    def add(
        self,
        metric: str,
        pair: str,
        vectors: tuple[np.ndarray, np.ndarray],
        keep: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Of one pair. vectors: (T,D) of the method, (R,D) of the reference; keep: (T,) and (R,) bool, which
        of them count."""
        sides = self._gathered.setdefault(metric, (_GatheredFrames(), _GatheredFrames()))
        for side, some, kept in zip(sides, vectors, keep, strict=True):
            side.add(pair, np.flatnonzero(kept).tolist(), some[kept])
        if max(len(side.names) for side in sides) >= FRAMES_PER_STATE:
            self._flush(metric)

    def _flush(self, metric: str) -> None:
        make = METRICS[metric].set_state
        method, reference = (
            make(side.names, np.concatenate(side.vectors)) for side in self._gathered.pop(metric)
        )
        self._states = add_set_states(self._states, {metric: (method, reference)})

    def finish(self) -> SetStates:
        """Of all that was added."""
        for metric in list(self._gathered):
            self._flush(metric)
        return self._states
