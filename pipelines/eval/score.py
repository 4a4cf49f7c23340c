"""Nodes `score.<method>.<protocol>`: the value of each metric in each generated frame.

Little is reduced here: what the method's own run is logged with, the mean over all real frames that some
metrics take from their features, and the figures of whole sets of frames, whose moments are too large to be
kept. Which frames a comparison rests on, how values are pooled and how sure they are is a matter of the
report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.provenance import describe_provenance
from pipelines.dataset.clip_pairs import clip_identity
from pipelines.eval.features import FRAMES_FEATURE
from pipelines.eval.methods import Method, MethodKind
from pipelines.eval.metrics import METRICS, Metric
from pipelines.eval.metrics.moments import FeatureMoments, feature_moments
from pipelines.eval.pair_family import Family, read_generated_sample_metadata, read_optional_field
from pipelines.eval.records import FrameValues, finite_or_none, own_frame_metric_records

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
MIN_CENTRE_IDENTITIES = 2
"""Of one person alone the mean is that person's own."""
VALUES_FILE, SUMMARY_FILE, RECORDS_FILE = "values.parquet", "summary.json", "metrics.json"
CENTRES_FILE = "centres.json"
"""Metric -> the mean that was taken from its feature, of those that are centred."""
Centres = Mapping[str, "np.ndarray | str"]
"""Metric -> the truth's mean (D,), or what there is none for want of."""


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
    loss_nets: list[str] = field(default_factory=list)
    """Nets that the losses of the model's training used."""


@dataclass(frozen=True, slots=True)
class PairScores:
    """What some pairs give."""

    values: list[FrameValues]
    moments: dict[str, tuple[FeatureMoments, FeatureMoments]]
    """Metric that compares sets -> the method's and the truth's, of frames in which both have the feature."""


def score_method(ctx: NodeContext, method: str, kind: MethodKind, loss_nets: str = "") -> None:
    """The whole node: values.parquet, metrics.json, summary.json and centres.json. Inputs: `generated`,
    `truth`, and of each feature that a metric reads `<feature>` and `truth.<feature>`. loss_nets: names, with
    spaces between them."""
    metrics: tuple[str, ...] = ctx.config.metrics
    families = {role: one.open_family() for role, one in ctx.inputs.items()}
    keys = families["truth"].keys
    centres = truth_feature_means(metrics, families)
    values: list[FrameValues] = []
    moments: dict[str, tuple[FeatureMoments, FeatureMoments]] = {}
    pairs = f"{len(keys):,} pair{'s' * (len(keys) != 1)}"
    ctx.report_progress(0, len(keys), pairs)
    for done in _in_tasks(keys, metrics, families, centres, ctx.resources):
        values += done.values
        moments = _add_moments(moments, done.moments)
        ctx.report_progress(len({one.pair for one in values}), len(keys), pairs)
    values = _with_set_values(values, moments)
    values.sort(key=lambda one: (one.pair, one.metric))
    about = read_generated_sample_metadata(families["generated"])
    trained_with = tuple(loss_nets.split())
    records = own_frame_metric_records(
        values,
        Method(name=method, kind=kind, provenance=about["provenance"], loss_nets=trained_with),
        metrics,
    )
    write_frame_values(ctx.out / VALUES_FILE, values)
    write_json(
        ctx.out / CENTRES_FILE,
        {name: one if isinstance(one, str) else one.tolist() for name, one in centres.items()},
    )
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
        loss_nets=list(trained_with),
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
    centres: Centres,
    resources: Mapping[str, float],
) -> Iterable[PairScores]:
    """In order of the tasks, so that moments are added up in one order."""
    from pipelines.cluster.tasks import run_in_worker

    def task(some: Sequence[str]) -> PairScores:
        return run_in_worker(score_pairs, some, metrics, families, centres, resources=resources)

    with ThreadPoolExecutor(MAX_SUBMITTED_SCORE_TASKS) as pool:
        count = min(MAX_SCORING_TASKS_PER_METHOD, -(-len(keys) // MIN_PAIRS_PER_TASK))
        yield from pool.map(task, [keys[i::count] for i in range(count)])


def truth_feature_means(metrics: Sequence[str], families: Mapping[str, Family]) -> Centres:
    """Of the metrics that are centred: the same for every method of a protocol."""
    found: dict[str, np.ndarray | str] = {}
    for metric in (METRICS[name] for name in metrics if METRICS[name].centred):
        keys = families["truth"].keys
        of_pairs = {key: PairFeatures(key, families, "truth").get(metric) for key in keys}
        if needs := next((one for one in of_pairs.values() if isinstance(one, str)), ""):
            found[metric.name] = needs
            continue
        seen = {key: one[_has_feature(one)] for key, one in of_pairs.items() if not isinstance(one, str)}
        people = {clip_identity(key) for key, one in seen.items() if len(one)}
        if len(people) < MIN_CENTRE_IDENTITIES:
            wanted = f"real frames of at least {MIN_CENTRE_IDENTITIES} people, found {len(people)}"
            found[metric.name] = wanted
            continue
        found[metric.name] = np.concatenate(list(seen.values())).astype(np.float64).mean(0)
    return found


def score_pairs(
    keys: Sequence[str], metrics: Sequence[str], families: Mapping[str, Family], centres: Centres
) -> PairScores:
    """Every metric on some pairs, each frame and feature read once. A pair of which the method has no frames
    counts with all of them."""
    wanted = [METRICS[name] for name in metrics]
    present = set(families["generated"].keys)
    values, moments = [], {}
    for key in keys:
        if key not in present:
            frames = families["truth"].frame_count(key)
            values += [missing_pair_values(metric, key, frames) for metric in wanted]
            continue
        method, truth = PairFeatures(key, families, ""), PairFeatures(key, families, "truth")
        for metric in wanted:
            scored = score_frames(metric, key, method, truth, centres.get(metric.name))
            values.append(scored)
            if metric.of_sets and not scored.needs:
                moments = _add_moments(moments, {metric.name: _moments(metric, scored, method, truth)})
    return PairScores(values, moments)


class PairFeatures:
    """What metrics compare of one pair, each read once: of a method (prefix "") or of the truth."""

    def __init__(self, key: str, families: Mapping[str, Family], prefix: str) -> None:
        self._key, self._families, self._prefix = key, families, prefix
        self._read: dict[tuple[str, str], np.ndarray | str] = {}

    def get(self, metric: Metric, length: int = 0) -> np.ndarray | str:
        """(T,...) of the metric's field, or the id of the weights for want of which there is none. Frames are
        float64 in [0,1]. length: the T that a single picture stands for; 0 = as many as there are."""
        place = (metric.feature, metric.field)
        if place not in self._read:
            self._read[place] = self._load(*place)
        values = self._read[place]
        if not isinstance(values, str) and len(values) == 1 and length:
            return np.broadcast_to(values, (length, *values.shape[1:]))
        return values

    def _load(self, feature: str, name: str) -> np.ndarray | str:
        own = "generated" if feature == FRAMES_FEATURE else feature
        role = f"{self._prefix}.{feature}".removesuffix(f".{FRAMES_FEATURE}") if self._prefix else own
        if needs := read_optional_field(self._families[role], self._key, "needs"):
            return needs["weights"]
        values = self._families[role].read(self._key, [name])[name]
        return values / 255.0 if feature == FRAMES_FEATURE else values


def missing_pair_values(metric: Metric, pair: str, frames: int) -> FrameValues:
    """Of a pair that the method lacks."""
    values = np.full(frames, np.nan)
    return FrameValues(pair=pair, metric=metric.name, values=values, undetected=frames)


def score_frames(
    metric: Metric,
    pair: str,
    method: PairFeatures,
    truth: PairFeatures,
    centre: np.ndarray | str | None = None,
) -> FrameValues:
    """One metric in each frame of one pair. centre: what is taken from the features of both sides."""
    prediction, target = _both_sides(metric, method, truth)
    for features in (prediction, target, centre):
        if isinstance(features, str):
            return FrameValues(
                pair=pair, metric=metric.name, values=np.empty(0), undetected=0, needs=features
            )
    assert not isinstance(prediction, str)
    assert not isinstance(target, str)
    undetected = 0
    if metric.feature != FRAMES_FEATURE:
        undetected = int((~_has_feature(prediction)).sum())
    if centre is not None:
        assert not isinstance(centre, str)
        prediction, target = prediction - centre, target - centre
    values = metric.per_frame(prediction, target)
    return FrameValues(pair=pair, metric=metric.name, values=values, undetected=undetected)


def _both_sides(
    metric: Metric, method: PairFeatures, truth: PairFeatures
) -> tuple[np.ndarray | str, np.ndarray | str]:
    if metric.feature_includes_truth:
        return method.get(metric), method.get(metric)
    target = truth.get(metric)
    return method.get(metric, 0 if isinstance(target, str) else len(target)), target


def _has_feature(features: np.ndarray) -> np.ndarray:
    """(T,...) -> (T,) bool"""
    return np.asarray(np.isfinite(features.reshape(len(features), -1)).all(axis=1))


# --- sets of frames -----------------------------------------------------------------------------------------
def _moments(
    metric: Metric, scored: FrameValues, method: PairFeatures, truth: PairFeatures
) -> tuple[FeatureMoments, FeatureMoments]:
    """Of the frames in which both have the feature."""
    prediction, target = _both_sides(metric, method, truth)
    assert not isinstance(prediction, str)
    assert not isinstance(target, str)
    keep = np.isfinite(scored.values)
    return feature_moments(prediction[keep]), feature_moments(target[keep])


def _add_moments(
    first: Mapping[str, tuple[FeatureMoments, FeatureMoments]],
    second: Mapping[str, tuple[FeatureMoments, FeatureMoments]],
) -> dict[str, tuple[FeatureMoments, FeatureMoments]]:
    found = dict(first)
    for name, (method, truth) in second.items():
        found[name] = (found[name][0] + method, found[name][1] + truth) if name in found else (method, truth)
    return found


def _with_set_values(
    values: Sequence[FrameValues], moments: Mapping[str, tuple[FeatureMoments, FeatureMoments]]
) -> list[FrameValues]:
    """The values of metrics that compare sets, in each row of theirs."""
    of_sets = {
        name: compare(*moments[name]) for name in moments if (compare := METRICS[name].of_sets) is not None
    }
    return [
        replace(one, set_value=finite_or_none(of_sets[one.metric])) if one.metric in of_sets else one
        for one in values
    ]


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
        ("undetected", pa.int64()), ("needs", pa.string()), ("set_value", pa.float64()),
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
