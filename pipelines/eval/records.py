"""From the sums of clips to the figures of an evaluation: one record for each metric and method.

A record says all that two values must share to be compared: metric, variant, backend, protocol. And what the
value is to be taken for: the weights of the metric, and those of the model that are not the published ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.eval.methods import BASELINES
from pipelines.eval.metrics import METRICS, Metric, Sums
from pipelines.eval.score import LANDMARK_BACKEND, ClipScore

if TYPE_CHECKING:
    from pipelines.eval.evaluate import EvalConfig


def records(
    scores: Sequence[ClipScore], model: str, protocol: str, config: EvalConfig
) -> list[dict[str, Any]]:
    """One record for each metric and method: the value over all clips, and its bootstrap interval over
    clips."""
    table, labels = [], scores[0].labels
    for name in config.metrics:
        lacks = next((score.lacking[name] for score in scores if name in score.lacking), "")
        for method in (model, *BASELINES):
            states = [score.sums[method, name] for score in scores if (method, name) in score.sums]
            record = _record(METRICS[name], method, states, lacks, protocol, config)
            table.append(record | {"labels": labels if method == model else {}})
    return table


def _record(
    metric: Metric, method: str, states: Sequence[Sums], lacks: str, protocol: str, config: EvalConfig
) -> dict[str, Any]:
    found = measured(metric, states, config.resamples, config.seed)
    undetected = int(sum(getattr(state, "undetected", 0) for state in states))
    note = ""
    if found["value"] is None:
        note = f"not computed: needs {lacks}" if lacks else no_face(method, undetected)
    return found | {
        "name": metric.name,
        "title": metric.title,
        "variant": metric.variant,
        "unit": metric.unit,
        "better": metric.better,
        "method": method,
        "undetected": undetected,
        "clips": len(states),
        "backend": "numpy" if metric.reads == "frames" else LANDMARK_BACKEND,
        "weights": list(metric.needs),
        "protocol": protocol,
        "note": note,
    }


def no_face(method: str, undetected: int) -> str:
    """Why a landmark metric has no value."""
    return f"not computed: in no frame do all methods show a face; {method} lacks it in {undetected}"


def measured(metric: Metric, states: Sequence[Sums], resamples: int, seed: int) -> dict[str, Any]:
    """The states of clips -> value, low, high (None where nothing entered), n and missing, in frames."""
    table = np.array([astuple(state) for state in states], dtype=np.float64)  # (clips, fields)
    total = metric.state.from_array(table.sum(axis=0)) if len(table) else metric.state()
    value = metric.compute(total)
    known = bool(np.isfinite(value))
    low, high = _interval(metric, table, resamples, seed) if known else (None, None)
    return {
        "value": value if known else None,
        "low": low,
        "high": high,
        "n": int(total.n),
        "missing": int(total.missing),
    }


def _interval(
    metric: Metric, table: np.ndarray, resamples: int, seed: int
) -> tuple[float | None, float | None]:
    """95 % percentile interval of the value over clips drawn with replacement; None for a single clip."""
    if len(table) < 2:
        return None, None
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=resamples)
    values = [metric.compute(metric.state.from_array(row)) for row in draws @ table]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def clip_rows(scores: Sequence[ClipScore]) -> list[dict[str, Any]]:
    """The per-clip table: clip, method, metric, value (None: no frame entered), n, missing."""
    return [
        clip_row(score.clip, method, METRICS[name], state)
        for score in scores
        for (method, name), state in sorted(score.sums.items())
    ]


def clip_row(clip: str, method: str, metric: Metric, state: Sums) -> dict[str, Any]:
    value = metric.compute(state)
    row = {"clip": clip, "method": method, "metric": metric.name, "n": int(state.n)}
    return row | {"missing": int(state.missing), "value": value if np.isfinite(value) else None}


def frame_rows(scores: Sequence[ClipScore]) -> list[dict[str, Any]]:
    """The per-frame table of the metrics that compare faces: clip, method, metric and the values of the
    clip's driving frames in order, NaN where the method or the truth shows no face."""
    return [
        {"clip": score.clip, "method": method, "metric": name, "values": values.tolist()}
        for score in scores
        for (method, name), values in sorted(score.each.items())
    ]


def protocol_id(config: EvalConfig, size: int, keys: Sequence[str]) -> str:
    """Everything two values must share to be compared, with a hash of the clip list."""
    clips = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:8]
    most = "all" if config.max_frames is None else f"first {config.max_frames}"
    shown = "" if config.sources == 1 else f"{config.sources} sources from first to last, not scored; "
    return (
        f"{config.protocol}; {shown}{size} px, area-resized, 8 bit; driving frames from 1, "
        f"stride {config.frame_stride}, {most}; {len(keys)} clips that can drive every model, "
        f"list {clips}"
    )


def figures(table: Sequence[Mapping[str, Any]], model: str) -> dict[str, float]:
    """Final figures by MLflow name: eval/psnr_frame for the model, eval/copy_source/psnr_frame for a
    baseline."""
    named = {}
    for record in table:
        if record["value"] is not None:
            owner = "" if record["method"] == model else f"{record['method']}/"
            named[f"eval/{owner}{record['name']}"] = record["value"]
    return named
