"""Nodes `score.<method>.<protocol>`: the value of each metric in each generated frame.

Nothing is reduced here but what the method's own run is logged with: which frames a comparison rests on, how
values are pooled and how sure they are is a matter of the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.provenance import describe_provenance
from pipelines.eval.features import FRAMES_FEATURE, METRIC_FEATURES
from pipelines.eval.methods import Method, MethodKind
from pipelines.eval.metrics import METRICS, Metric
from pipelines.eval.pair_family import Family, read_generated_sample_metadata, read_optional_field
from pipelines.eval.records import FrameValues, own_frame_metric_records

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext
    from storage.families import Artifact

MAX_SCORING_TASKS_PER_METHOD = 8
"""Tasks that one scoring is cut into, at most: enough to show progress, few enough that starting them costs
little."""
MIN_PAIRS_PER_TASK = 4
"""At least so many, where there are: a few small frames take less time than the start of a worker."""
MAX_SUBMITTED_SCORE_TASKS = 4
"""Tasks handed to Ray at a time; it runs as many of them as there are processors."""
VALUES_FILE, SUMMARY_FILE, RECORDS_FILE = "values.parquet", "summary.json", "metrics.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredMethod:
    """summary.json: what the report says about a method besides its values."""

    method: str
    """What it is, whatever the run calls it."""
    kind: MethodKind
    key: str
    provenance: dict[str, str]
    """Parts of the model whose weights are not the published ones, and what they are instead."""
    image_size: int | None
    """Side of the pictures that the model renders; None of baselines."""
    pairs: int
    frames: int
    inputs: dict[str, str] = field(default_factory=dict)
    """Upstream node -> artifact key."""


def score_method(ctx: NodeContext, method: str, kind: MethodKind) -> None:
    """The whole node: values.parquet, metrics.json and summary.json. Inputs: `generated`, `truth`, and of
    each feature that a metric reads `<feature>` and `truth.<feature>`."""
    metrics: tuple[str, ...] = ctx.config.metrics
    families = {role: one.open_family() for role, one in ctx.inputs.items()}
    keys = families["truth"].keys
    values: list[FrameValues] = []
    ctx.report_progress(0, len(keys), "pairs")
    for done in _in_tasks(keys, metrics, families, ctx.resources):
        values += done
        ctx.report_progress(len({one.pair for one in values}), len(keys), "pairs")
    values.sort(key=lambda one: (one.pair, one.metric))
    about = read_generated_sample_metadata(families["generated"])
    records = own_frame_metric_records(
        values, Method(name=method, kind=kind, provenance=about["provenance"]), metrics
    )
    write_frame_values(ctx.out / VALUES_FILE, values)
    write_json(ctx.out / RECORDS_FILE, [asdict(record) for record in records])
    summary = ScoredMethod(
        method=method,
        kind=kind,
        key=ctx.key,
        provenance=about["provenance"],
        image_size=about["image_size"],
        pairs=len(families["generated"].keys),
        frames=count_scored_frames(values),
        inputs={artifact.node: artifact.key for artifact in ctx.inputs.values()},
    )
    write_json(ctx.out / SUMMARY_FILE, asdict(summary))
    weights = {f"weights.{part}": what for part, what in summary.provenance.items()}
    weights |= {"provenance": describe_provenance(summary.provenance)} if summary.provenance else {}
    ctx.log_params(
        {"method": method, "kind": kind, "image_size": summary.image_size, "pairs": summary.pairs} | weights
    )
    ctx.log_metrics({f"eval/{one.name}": one.value for one in records if one.value is not None})


def _in_tasks(
    keys: Sequence[str],
    metrics: Sequence[str],
    families: Mapping[str, Family],
    resources: Mapping[str, float],
) -> Iterable[list[FrameValues]]:
    from pipelines.cluster.tasks import run_in_worker

    def task(some: Sequence[str]) -> list[FrameValues]:
        return run_in_worker(score_pairs, some, metrics, families, resources=resources)

    with ThreadPoolExecutor(MAX_SUBMITTED_SCORE_TASKS) as pool:
        count = min(MAX_SCORING_TASKS_PER_METHOD, -(-len(keys) // MIN_PAIRS_PER_TASK))
        yield from pool.map(task, [keys[i::count] for i in range(count)])


def score_pairs(
    keys: Sequence[str], metrics: Sequence[str], families: Mapping[str, Family]
) -> list[FrameValues]:
    """Every metric on some pairs, each frame and feature read once. A pair of which the method has no frames
    counts with all of them."""
    wanted = [METRICS[name] for name in metrics]
    present = set(families["generated"].keys)
    found = []
    for key in keys:
        if key not in present:
            frames = families["truth"].frame_count(key)
            found += [missing_pair_values(metric, key, frames) for metric in wanted]
            continue
        method, truth = PairFeatures(key, families, ""), PairFeatures(key, families, "truth")
        found += [score_frames(metric, key, method, truth) for metric in wanted]
    return found


class PairFeatures:
    """What metrics compare of one pair, each read once: of a method (prefix "") or of the truth."""

    def __init__(self, key: str, families: Mapping[str, Family], prefix: str) -> None:
        self._key, self._families, self._prefix = key, families, prefix
        self._read: dict[str, np.ndarray | str] = {}

    def get(self, feature: str, length: int = 0) -> np.ndarray | str:
        """(T,...), or the id of the weights for want of which there is none. Frames are float64 in [0,1].
        length: the T that a single picture stands for; 0 = as many as there are."""
        if feature not in self._read:
            self._read[feature] = self._load(feature, length)
        return self._read[feature]

    def _load(self, feature: str, length: int) -> np.ndarray | str:
        own = "generated" if feature == FRAMES_FEATURE else feature
        role = f"{self._prefix}.{feature}".removesuffix(f".{FRAMES_FEATURE}") if self._prefix else own
        if needs := read_optional_field(self._families[role], self._key, "needs"):
            return needs["weights"]
        name = FRAMES_FEATURE if feature == FRAMES_FEATURE else METRIC_FEATURES[feature].field
        values = self._families[role].read(self._key, [name])[name]
        if len(values) == 1 and length:
            values = np.broadcast_to(values, (length, *values.shape[1:]))
        return values / 255.0 if feature == FRAMES_FEATURE else values


def missing_pair_values(metric: Metric, pair: str, frames: int) -> FrameValues:
    """Of a pair that the method lacks."""
    values = np.full(frames, np.nan)
    return FrameValues(pair=pair, metric=metric.name, values=values, undetected=frames)


def score_frames(metric: Metric, pair: str, method: PairFeatures, truth: PairFeatures) -> FrameValues:
    """One metric in each frame of one pair."""
    target = truth.get(metric.feature)
    prediction = method.get(metric.feature, 0 if isinstance(target, str) else len(target))
    for features in (prediction, target):
        if isinstance(features, str):
            return FrameValues(
                pair=pair, metric=metric.name, values=np.empty(0), undetected=0, needs=features
            )
    assert not isinstance(prediction, str)
    assert not isinstance(target, str)
    undetected = 0
    if metric.feature != FRAMES_FEATURE:
        undetected = int((~np.isfinite(prediction.reshape(len(prediction), -1)).all(axis=1)).sum())
    values = metric.per_frame(prediction, target)
    return FrameValues(pair=pair, metric=metric.name, values=values, undetected=undetected)


def count_scored_frames(values: Sequence[FrameValues]) -> int:
    """Frames of all pairs, however many metrics were computed."""
    lengths: dict[str, int] = {}
    for one in values:
        lengths[one.pair] = max(lengths.get(one.pair, 0), len(one.values))
    return sum(lengths.values())


# --- files --------------------------------------------------------------------------------------------------
def write_frame_values(path: Path, values: Sequence[FrameValues]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([
        ("pair", pa.string()), ("metric", pa.string()), ("values", pa.list_(pa.float64())),
        ("undetected", pa.int64()), ("needs", pa.string()),
    ])  # fmt: skip
    rows = [{**asdict(one), "values": one.values.tolist()} for one in values]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def read_frame_metric_values(artifact: Artifact) -> list[FrameValues]:
    import pyarrow.parquet as pq

    rows = pq.read_table(artifact.path(VALUES_FILE)).to_pylist()
    return [FrameValues(**{**row, "values": np.array(row["values"], dtype=np.float64)}) for row in rows]


def read_scored_method(artifact: Artifact) -> ScoredMethod:
    return ScoredMethod(**json.loads(artifact.path(SUMMARY_FILE).read_text()))


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
