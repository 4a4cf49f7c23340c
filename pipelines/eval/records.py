"""From values of frames to the figures of a comparison: one record for each metric and method.

A record says all that two values must share to be compared: metric, variant, backend, protocol and frames.
And what the value is to be taken for: the weights of the metric, and those of the model that are not the
published ones.

Three sets of frames answer three questions. A method's own frames (all in which it and the truth have a
value): how good is it where it works, beside how often it does not. The frames that two methods share: which
of them is better. The frames that all methods of a protocol share: all in one table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from models.perception import NETS, net_on_backend
from pipelines.eval.features import FRAMES_FEATURE, METRIC_FEATURES, with_input_features
from pipelines.eval.methods import Method, MethodKind, Reference
from pipelines.eval.metrics import METRICS, FrameSums, Metric, sum_frame_values

FrameSelection = Literal["own", "shared"]
REFERENCE_TEXTS: dict[Reference, str] = {
    "truth": "the truth", "driving": "the driving frames", "source": "the source",
    "source_clip": "the source's clip", "none": "nothing",
}  # fmt: skip
MAX_UNSCORED_SHARE = 0.05
"""A method without a value in more of its frames than this is marked, and never the best."""
MAX_UNDETECTED_SHARE = 0.5
"""A method that lacks what a metric compares in more of its frames than this takes no frame from the others:
it is left out of the frames that all share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameValues:
    """One metric of one method in every driving frame of one pair, or its one value of that pair."""

    pair: str
    metric: str
    values: np.ndarray
    """(T,) float64, NaN in frames where the method or the reference lacks what the metric compares; (1,) of a
    metric that has one value for each pair."""
    undetected: int
    """Frames (or 1, the pair) in which the method lacks it."""
    identity: str = ""
    """Of the source."""
    reference: Reference = "truth"
    """What the frames were compared with."""
    needs: str = ""
    """Id of the weights, or what else, for want of which there are no values."""
    set_value: float | None = None
    """Of a metric that compares sets: its value over the frames of all pairs in which the method and the
    truth have the feature; the same in each row. `values` then says which these are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRecord:
    """A value, and what it may be compared with."""

    name: str
    title: str
    variant: str
    unit: str
    better: Literal["up", "down"]
    method: str
    kind: MethodKind
    """Of the method."""
    reference: Reference = "truth"
    """What the frames were compared with: another one in protocols without a ground truth."""
    frames: FrameSelection
    """own: the frames of this method; shared: those in which all methods of the protocol have a value."""
    value: float | None
    low: float | None = None
    high: float | None = None
    """95 % bootstrap interval over identities (of the sources); None for a single one, and of metrics that
    compare sets."""
    identities: int = 0
    """How many people the interval rests on."""
    n: int
    """Frames that entered."""
    missing: int
    """Frames left out."""
    undetected: int
    """Frames in which this method lacks what the metric compares, whatever the others do."""
    pairs: int
    backend: str
    weights: dict[str, str] = field(default_factory=dict)
    """That it was computed with: id -> sha256, as the keys of the features held it then."""
    weights_in_loss: list[str] = field(default_factory=list)
    """Ids of the metric's weights that a loss of the method's training used too: alone, the value is no
    evidence."""
    protocol: str = ""
    note: str = ""
    """Why there is no value."""
    needs: str = ""
    """Id of the weights, or what else, for want of which there is none."""
    counts: Literal["frames", "windows", "pairs"] = "frames"
    """What `n`, `missing` and `undetected` are of."""
    lack: str = "no face"
    """What is said of those without a value."""
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def often_missing(self) -> bool:
        return self.undetected > MAX_UNSCORED_SHARE * (self.n + self.missing)


@dataclass(frozen=True, kw_only=True, slots=True)
class BootstrapSettings:
    """How an interval is found."""

    resamples: int
    seed: int


MethodValues = Mapping[str, Sequence[FrameValues]]
"""Method -> its values of one metric, a row a pair, in order of the pairs."""


def own_frame_metric_records(
    values: Sequence[FrameValues],
    method: Method,
    metrics: Sequence[str],
    protocol: str = "",
    bootstrap: BootstrapSettings | None = None,
) -> list[MetricRecord]:
    """One record for each metric, over the method's own frames."""
    found = []
    for name in metrics:
        rows = [one for one in values if one.metric == name]
        found.append(_record(METRICS[name], method, rows, None, protocol, bootstrap))
    return found


def shared_frame_metric_records(
    values: Mapping[str, Sequence[FrameValues]],
    methods: Sequence[Method],
    metrics: Sequence[str],
    protocol: str,
    bootstrap: BootstrapSettings,
) -> list[MetricRecord]:
    """One record for each metric and method, over the frames in which all methods have a value: all that have
    one in most of their frames, the others' records have none. values: name of a method -> its values of all
    metrics."""
    found = []
    for name in metrics:
        table = {method: [one for one in rows if one.metric == name] for method, rows in values.items()}
        compared = methods_to_share_frames(table)
        keep = frames_scored_by_all_methods(compared)
        for method in methods:
            if method.name in compared:
                found.append(_record(METRICS[name], method, compared[method.name], keep, protocol, bootstrap))
            else:
                found.append(_left_out(METRICS[name], method, table[method.name], protocol))
    return found


def methods_to_share_frames(table: MethodValues) -> MethodValues:
    """Without those that lack what the metric compares in most of their frames: one blurred model would leave
    the others nothing to be compared on. All, where that is true of all."""
    seldom = {
        method for method, rows in table.items()
        if sum(one.undetected for one in rows) > MAX_UNDETECTED_SHARE * _frame_count(rows)
    }  # fmt: skip
    return {method: rows for method, rows in table.items() if method not in seldom} or table


def _frame_count(rows: Sequence[FrameValues]) -> int:
    return sum(len(one.values) for one in rows)


def _left_out(metric: Metric, method: Method, rows: Sequence[FrameValues], protocol: str) -> MetricRecord:
    """Of a method that is left out of the shared frames: none of them, and why."""
    record = _record(metric, method, rows, {}, protocol, None)
    frames = _frame_count(rows)
    note = f"left out: {metric_lack(metric)} in {record.undetected} of {frames} {metric.counts}"
    return replace(record, missing=frames, note=note)


def frames_scored_by_all_methods(table: MethodValues) -> dict[str, np.ndarray]:
    """Pair -> the frames (T,) in which every method has a value. Methods that lack the metric altogether, for
    want of weights, do not count; pairs that one of the others lacks are left out."""
    present = [
        {one.pair: np.isfinite(one.values) for one in rows}
        for rows in table.values()
        if rows and not any(one.needs for one in rows)
    ]
    if not present:
        return {}
    pairs = sorted(set.intersection(*(set(frames) for frames in present)))
    return {pair: np.logical_and.reduce([frames[pair] for frames in present]) for pair in pairs}


def _record(
    metric: Metric,
    method: Method,
    rows: Sequence[FrameValues],
    keep: Mapping[str, np.ndarray] | None,
    protocol: str,
    bootstrap: BootstrapSettings | None,
) -> MetricRecord:
    needs = next((one.needs for one in rows if one.needs), "")
    by_pair = sum_frames_by_pair(rows, keep)
    states = [state for state in add_up_by_identity(by_pair, rows).values() if state.n]
    total = sum(states, FrameSums())
    value = _value(metric, rows, total)
    undetected = sum(one.undetected for one in rows)
    low, high = (None, None)
    if value is not None and bootstrap is not None and not metric.of_sets:
        low, high = bootstrap_interval(metric, states, bootstrap)
    note = "" if value is not None else _why_missing(metric, method.name, rows, needs, keep is not None)
    ids = metric_weights_ids(metric)
    in_loss = {one for net in method.loss_nets for one in NETS[net].weights}
    return MetricRecord(
        name=metric.name,
        title=metric.title,
        variant=metric.variant,
        unit=metric.unit,
        better=metric.better,
        method=method.name,
        kind=method.kind,
        reference=rows[0].reference if rows else "truth",
        frames="own" if keep is None else "shared",
        value=value,
        low=low,
        high=high,
        n=int(total.n),
        missing=int(total.missing),
        undetected=undetected,
        pairs=len(by_pair),
        identities=len(states),
        backend=metric_backend(metric),
        weights={one: method.weights[one] for one in ids if one in method.weights},
        weights_in_loss=[one for one in ids if one in in_loss],
        protocol=protocol,
        note=note,
        needs=needs,
        counts=metric.counts,
        lack=metric_lack(metric),
        provenance=dict(method.provenance),
    )


def _value(metric: Metric, rows: Sequence[FrameValues], sums: FrameSums) -> float | None:
    """Over the frames that the sums are of. That of a metric of sets stands for all frames of a method, or
    for none."""
    if metric.of_sets is None:
        return finite_or_none(metric.compute(sums))
    every = sum(int(np.isfinite(one.values).sum()) for one in rows)
    return rows[0].set_value if rows and sums.n == every else None


def sum_frames_by_pair(
    rows: Sequence[FrameValues], keep: Mapping[str, np.ndarray] | None = None
) -> dict[str, FrameSums]:
    """Pair -> the sums of its frames: of those to keep, or of all that have a value. In order of the pairs:
    the bootstrap draws by place."""
    found: dict[str, FrameSums] = {}
    for one in sorted(rows, key=lambda one: one.pair):
        if one.needs or (keep is not None and one.pair not in keep):
            continue
        found[one.pair] = sum_frame_values(one.values, None if keep is None else keep[one.pair])
    return found


def add_up_by_identity(by_pair: Mapping[str, FrameSums], rows: Sequence[FrameValues]) -> dict[str, FrameSums]:
    """Identity of the source -> the sums of its pairs, in order: clips of one person are alike, so that
    people, and not clips, are what another sample would have others of."""
    people = {one.pair: one.identity or one.pair for one in rows}
    found: dict[str, FrameSums] = {}
    for pair in sorted(by_pair, key=lambda pair: (people[pair], pair)):
        found[people[pair]] = found.get(people[pair], FrameSums()) + by_pair[pair]
    return found


def bootstrap_interval(
    metric: Metric, states: Sequence[FrameSums], bootstrap: BootstrapSettings
) -> tuple[float | None, float | None]:
    """95 % percentile interval of the value over identities, a state each, drawn with replacement; None for a
    single one."""
    table = np.array([(one.n, one.missing, one.total) for one in states], dtype=np.float64)
    if len(table) < 2:
        return None, None
    values = [metric.compute(FrameSums(*map(float, row))) for row in _resampled(table, bootstrap)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _resampled(table: np.ndarray, bootstrap: BootstrapSettings) -> np.ndarray:
    """(identities, sums) -> (resamples, sums): of as many of them, drawn with replacement."""
    rng = np.random.default_rng(bootstrap.seed)
    count = len(table)
    return rng.multinomial(count, np.full(count, 1 / count), size=bootstrap.resamples) @ table


# --- two methods --------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, slots=True)
class MethodDifference:
    """How much better one method is than another, on the frames that both have."""

    metric: str
    first: str
    second: str
    value: float
    """Of the first less that of the second, in the metric's unit."""
    low: float | None
    high: float | None
    """95 % bootstrap interval over identities."""
    n: int
    """Frames that both have, or pairs, of metrics that have one value of each."""

    @property
    def first_is_better(self) -> bool:
        return self.value > 0 if METRICS[self.metric].better == "up" else self.value < 0

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out no difference at all."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def compare_methods(
    metric: Metric, first: tuple[str, Sequence[FrameValues]], second: tuple[str, Sequence[FrameValues]],
    bootstrap: BootstrapSettings,
) -> MethodDifference | None:  # fmt: skip
    """Two methods, each by its name and its values of one metric; None where they share no frame, or of a
    metric of sets not all frames."""
    keep = frames_scored_by_all_methods(dict([first, second]))
    ours, theirs = (add_up_by_identity(sum_frames_by_pair(rows, keep), rows) for _, rows in (first, second))
    n = int(sum(state.n for state in ours.values()))
    if not n or set(ours) != set(theirs):
        return None
    sides = ((first[1], ours), (second[1], theirs))
    over_all = [_value(metric, rows, sum(sums.values(), FrameSums())) for rows, sums in sides]
    if over_all[0] is None or over_all[1] is None:
        return None
    value = over_all[0] - over_all[1]
    low = high = None
    pairs = zip(ours.values(), theirs.values(), strict=True)
    table = np.array([(a.n, a.total, b.total) for a, b in pairs if a.n], dtype=np.float64)
    if len(table) > 1 and not metric.of_sets:
        resampled = [
            _difference(metric, FrameSums(n=row[0], total=row[1]), FrameSums(n=row[0], total=row[2]))
            for row in _resampled(table, bootstrap)
        ]
        low, high = (float(one) for one in np.nanpercentile(resampled, [2.5, 97.5]))
    return MethodDifference(
        metric=metric.name, first=first[0], second=second[0], value=value, low=low, high=high, n=n
    )


def _difference(metric: Metric, first: FrameSums, second: FrameSums) -> float:
    return metric.compute(first) - metric.compute(second)


# --- words --------------------------------------------------------------------------------------------------
def finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _why_missing(metric: Metric, method: str, rows: Sequence[FrameValues], needs: str, shared: bool) -> str:
    if needs:
        return f"not computed: needs {needs}"
    if metric.of_sets:
        others = "all methods have" if shared else f"{method} has"
        return f"not computed: compares sets of frames, and {others} too few of the protocol's"
    if shared and metric.per_clip is not None:
        return "not computed: there is no pair of which all methods have a value"
    if shared:
        return "not computed: there is no frame in which all methods show a face"
    count, undetected = _frame_count(rows), sum(one.undetected for one in rows)
    lack = f"{method} has {metric_lack(metric)} in"
    if undetected == count:
        return f"not computed: {lack} any of its {count} {metric.counts}"
    other = REFERENCE_TEXTS[rows[0].reference if rows else "truth"]
    together = f"in no {metric.counts.removesuffix('s')} do {method} and {other} both show a face"
    return f"not computed: {together}; {lack} {undetected} of {count}"


def metric_lack(metric: Metric) -> str:
    """What is said of frames without a value."""
    of_feature = "no frame" if metric.feature == FRAMES_FEATURE else METRIC_FEATURES[metric.feature].lack
    return metric.lack or of_feature


def metric_backend(metric: Metric) -> str:
    places = [metric.feature, *([metric.reference_feature] if metric.reference_feature else [])]
    return ", ".join("numpy" if one == FRAMES_FEATURE else METRIC_FEATURES[one].backend for one in places)


def metric_weights_ids(metric: Metric) -> list[str]:
    """Ids of the weights that the metric's features, and those that these are made from, are computed with,
    whatever their nets run in."""
    compared = dict.fromkeys((metric.feature, metric.compared_with[0]))
    features = with_input_features(name for name in compared if name != FRAMES_FEATURE)
    nets = (NETS[net_on_backend(net, "torch")] for name in features for net in METRIC_FEATURES[name].nets)
    return list(dict.fromkeys(weights for net in nets for weights in net.weights))
