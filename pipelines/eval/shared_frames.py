"""Models that were scored apart, on the frames that they share.

A landmark metric counts only frames in which every method shows a face, and an evaluation knows one model.
So each value stands on frames of its own: good against that model's baselines, not beside another model. The
evaluations publish the values of single frames; here they are summed again over the frames in which the
truth, the baselines and every model show a face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.eval.metrics import METRICS, Metric
from pipelines.eval.records import clip_row, measured, no_face

Faces = Mapping[tuple[str, str], Mapping[str, np.ndarray]]
"""(method, metric) -> clip -> the value of each driving frame (T,), NaN without a face."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """What one eval node published."""

    summary: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    clips: Sequence[Mapping[str, Any]]
    faces: Faces
    grid: bytes
    videos: Mapping[str, bytes]
    """Clip -> MP4."""

    @property
    def model(self) -> str:
        return self.summary["model"]

    def record(self, metric: str, method: str) -> Mapping[str, Any] | None:
        return next((r for r in self.records if (r["name"], r["method"]) == (metric, method)), None)


def groups(models: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """Those that may stand in one table, by their protocol."""
    found: dict[str, list[Evaluated]] = {}
    for one in models:
        found.setdefault(one.summary["protocol"], []).append(one)
    return found


def on_shared_frames(models: Sequence[Evaluated]) -> list[Evaluated]:
    """The same models, in order; landmark metrics of those that have one protocol over shared frames."""
    shared = {one.model: one for group in groups(models).values() for one in _shared(group)}
    return [shared[one.model] for one in models]


def _shared(group: Sequence[Evaluated]) -> list[Evaluated]:
    kept = {
        name: keep
        for name, metric in METRICS.items()
        if metric.over and len(group) > 1 and (keep := _keep(group, name))
    }
    return [_over(one, kept) for one in group]


def _keep(group: Sequence[Evaluated], metric: str) -> dict[str, np.ndarray]:
    """Clip -> the frames (T,) in which every method of every model has a value. Empty where a model lacks the
    metric altogether: then there is nothing to compare it with.
    """
    tables = [[values for (_, name), values in one.faces.items() if name == metric] for one in group]
    if not all(tables):
        return {}
    every = [table for some in tables for table in some]
    clips = sorted(every[0])
    return {clip: np.logical_and.reduce([np.isfinite(table[clip]) for table in every]) for clip in clips}


def _over(one: Evaluated, kept: Mapping[str, Mapping[str, np.ndarray]]) -> Evaluated:
    """The model's landmark values again, over the kept frames of each metric."""
    records, rows = [], [row for row in one.clips if row["metric"] not in kept]
    for record in one.records:
        name, method = record["name"], record["method"]
        if name not in kept or (method, name) not in one.faces:
            records.append(record)
            continue
        states = _states(METRICS[name], one.faces[method, name], kept[name])
        found = measured(METRICS[name], list(states.values()), one.summary["resamples"], one.summary["seed"])
        note = "" if found["value"] is not None else no_face(method, record["undetected"])
        records.append({**record, **found, "note": note})
        rows += [clip_row(clip, method, METRICS[name], state) for clip, state in states.items()]
    return replace(one, records=records, clips=rows)


def _states(
    metric: Metric, values: Mapping[str, np.ndarray], keep: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    assert metric.over is not None  # only such metrics are kept
    return {clip: metric.over(values[clip], keep[clip]) for clip in sorted(values)}
