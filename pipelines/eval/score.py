"""Nodes `score.<method>.<protocol>`: the value of each metric in each generated frame, or of each pair.

What frames are compared with (their reference) is another method's frames and features: those of the truth,
of the driving frames or of the source.

Little is reduced here: what the method's own run is logged with, the mean over all real frames that some
metrics take from their features, and the figures of whole sets of frames, whose moments are too large to be
kept. Which frames a comparison rests on, how values are pooled and how sure they are is a matter of the
report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.provenance import describe_provenance
from pipelines.dataset.clip_pairs import clip_identity
from pipelines.eval.features import FRAMES_FEATURE, METRIC_FEATURES
from pipelines.eval.methods import (
    DRIVING_METHOD,
    SOURCE_CLIP_METHOD,
    TRUTH_METHOD,
    Method,
    MethodKind,
    Reference,
    reference_method,
)
from pipelines.eval.metrics import METRICS, Metric
from pipelines.eval.metrics.temporal import runs_of_even_steps
from pipelines.eval.pair_family import (
    Family,
    count_frames_without_landmarks,
    read_generated_sample_metadata,
    read_optional_field,
)
from pipelines.eval.pairs import PAIRS_FILE, read_pairs
from pipelines.eval.records import (
    FrameValues,
    MetricRecord,
    finite_or_none,
    metric_weights_ids,
    own_frame_metric_records,
)
from pipelines.eval.score_files import (
    RECORDS_FILE,
    SUMMARY_FILE,
    VALUES_FILE,
    ScoredMethod,
    write_frame_values,
    write_json,
)
from pipelines.eval.set_states import SetStateBuilder, SetStates, add_set_states

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
CENTRES_FILE = "centres.json"
"""Metric -> the mean that was taken from its feature, of those that are centred."""
Centres = Mapping[str, "np.ndarray | str"]
"""Metric -> the mean of real frames (D,), or what there is none for want of."""


@dataclass(frozen=True, slots=True)
class PairScores:
    """What some pairs give."""

    values: list[FrameValues]
    sets: SetStates
    """Of metrics that compare sets: of frames in which both have the feature, or, of frames of another clip,
    of all that have it."""


def score_method(
    ctx: NodeContext,
    method: str,
    kind: MethodKind,
    loss_nets: str = "",
    driven_by: str = "",
    edited: str = "",
    other_sound: str = "",
) -> None:
    """The whole node: values.parquet, metrics.json, summary.json and centres.json. Inputs: `pairs`, their
    table; `generated` and `<feature>` of the method; `truth` or, without one, `driving`; and of each method
    that is a metric's reference `<reference>` and `<reference>.<feature>`. loss_nets, driven_by: names, with
    spaces between them. edited: not empty where heads are not to do what the driving frames do;
    other_sound: where they are to say what another clip says."""
    table = read_pairs(ctx.inputs["pairs"].path(PAIRS_FILE))
    people = {pair.id: clip_identity(pair.source_clip) for pair in table}
    driving_people = {pair.id: clip_identity(pair.driving_clip) for pair in table}
    families = {role: one.open_family() for role, one in ctx.inputs.items() if role != "pairs"}
    has_truth = TRUTH_METHOD in families
    metrics = metrics_of_protocol(ctx.config.metrics, has_truth, not edited, bool(other_sound))
    references = {name: _reference(METRICS[name], TRUTH_METHOD in families) for name in metrics}
    keys = driving_family(families).keys
    centres = driving_feature_means(metrics, families, driving_people)
    numbers = {pair.id: pair.driving_frames for pair in table}
    scores = _with_progress(ctx, keys, (metrics, families, centres, numbers))
    values = [
        replace(one, identity=people[one.pair], reference=references[one.metric])
        for one in _with_set_values(scores.values, scores.sets)
    ]
    values.sort(key=lambda one: (one.pair, one.metric))
    about = read_generated_sample_metadata(families["generated"])
    trained_with = tuple(loss_nets.split())
    held = count_frames_without_landmarks(families["generated"]) if kind == "baseline" else 0
    weights = weights_of_features(ctx.inputs, metrics)
    scored = Method(
        name=method, kind=kind, provenance=about["provenance"], loss_nets=trained_with, weights=weights
    )
    records = own_frame_metric_records(values, scored, metrics)
    write_frame_values(ctx.out / VALUES_FILE, values)
    write_json(ctx.out / CENTRES_FILE, centres_to_json(centres))
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
        driven_by=driven_by.split(),
        weights=weights,
        frames_without_landmarks=held,
    )
    write_json(ctx.out / SUMMARY_FILE, asdict(summary))
    _log(ctx, summary, records)


def _log(ctx: NodeContext, summary: ScoredMethod, records: Sequence[MetricRecord]) -> None:
    """To the node's own run."""
    about_weights = {f"weights.{part}": what for part, what in summary.provenance.items()}
    about_weights |= {f"metric_weights.{one}": sha for one, sha in summary.weights.items()}
    about_weights |= {"provenance": describe_provenance(summary.provenance)} if summary.provenance else {}
    facts = {"method": summary.method, "kind": summary.kind}
    ctx.log_params(facts | {"image_size": summary.image_size, "pairs": summary.pairs} | about_weights)
    ctx.log_metrics({f"eval/{one.name}": one.value for one in records if one.value is not None})


def _with_progress(ctx: NodeContext, keys: Sequence[str], arguments: tuple[Any, ...]) -> PairScores:
    """Of all pairs. arguments: of `score_pairs`, after the keys."""
    values: list[FrameValues] = []
    sets: SetStates = {}
    pairs = f"{len(keys):,} pair{'s' * (len(keys) != 1)}"
    ctx.report_progress(0, len(keys), pairs)
    for done in _in_tasks(keys, arguments, ctx.resources):
        values += done.values
        sets = add_set_states(sets, done.sets)
        ctx.report_progress(len({one.pair for one in values}), len(keys), pairs)
    return PairScores(values, sets)


def _in_tasks(
    keys: Sequence[str], arguments: tuple[Any, ...], resources: Mapping[str, float]
) -> Iterable[PairScores]:
    """In order of the tasks, so that states of sets are added up in one order."""
    from pipelines.cluster.tasks import run_in_worker

    def task(some: Sequence[str]) -> PairScores:
        return run_in_worker(score_pairs, some, *arguments, resources=resources)

    with ThreadPoolExecutor(MAX_SUBMITTED_SCORE_TASKS) as pool:
        count = min(MAX_SCORING_TASKS_PER_METHOD, -(-len(keys) // MIN_PAIRS_PER_TASK))
        yield from pool.map(task, [keys[i::count] for i in range(count)])


def metrics_of_protocol(
    metrics: Sequence[str], has_truth: bool, follows_driving: bool = True, other_sound: bool = False
) -> tuple[str, ...]:
    """Those that apply to pairs with a ground truth, or without, to heads that do, or do not, what the
    driving frames do, and that say, or do not, what those say."""
    return tuple(
        name
        for name in metrics
        if METRICS[name].reference_in(has_truth, follows_driving, other_sound) is not None
    )


def weights_of_features(inputs: Mapping[str, Artifact], metrics: Sequence[str]) -> dict[str, str]:
    """Id -> sha256 of those that the metrics' features were computed with, the references' too."""
    ids = {one for name in metrics for one in metric_weights_ids(METRICS[name])}
    features = {one for name in metrics for one in (METRICS[name].feature, METRICS[name].compared_with[0])}
    return {
        one: sha
        for role, artifact in inputs.items()
        if any(role == feature or role.endswith(f".{feature}") for feature in features)
        for one, sha in artifact.weights.items()
        if one in ids
    }


def _reference(metric: Metric, has_truth: bool) -> Reference:
    """Of a metric that applies."""
    return metric.reference_in(has_truth, follows_driving=not metric.edited_only) or "none"


def driving_family(families: Mapping[str, Family]) -> Family:
    """The frames that there are one of for each that a method should have."""
    return families[TRUTH_METHOD if TRUTH_METHOD in families else DRIVING_METHOD]


def driving_feature_means(
    metrics: Sequence[str], families: Mapping[str, Family], people: Mapping[str, str]
) -> Centres:
    """Of the metrics that are centred: the same for every method of a protocol. people: pair -> who is in its
    driving frames."""
    found: dict[str, np.ndarray | str] = {}
    driving = TRUTH_METHOD if TRUTH_METHOD in families else DRIVING_METHOD
    for metric in (METRICS[name] for name in metrics if METRICS[name].centred):
        keys = families[driving].keys
        of_pairs = {key: PairFeatures(key, families, driving).get(*metric.compared) for key in keys}
        if needs := next((one for one in of_pairs.values() if isinstance(one, str)), ""):
            found[metric.name] = needs
            continue
        seen = {key: one[_has_feature(one)] for key, one in of_pairs.items() if not isinstance(one, str)}
        found_people = {people[key] for key, one in seen.items() if len(one)}
        if len(found_people) < MIN_CENTRE_IDENTITIES:
            wanted = f"real frames of at least {MIN_CENTRE_IDENTITIES} people, found {len(found_people)}"
            found[metric.name] = wanted
            continue
        found[metric.name] = np.concatenate(list(seen.values())).astype(np.float64).mean(0)
    return found


def score_pairs(
    keys: Sequence[str],
    metrics: Sequence[str],
    families: Mapping[str, Family],
    centres: Centres,
    numbers: Mapping[str, Sequence[int]] | None = None,
) -> PairScores:
    """Every metric on some pairs, each frame and feature read once. A pair of which the method has no frames
    counts with all of them. numbers: pair -> which frames of the driving clip its frames are; None = one
    after the other."""
    wanted, has_truth = [METRICS[name] for name in metrics], TRUTH_METHOD in families
    present = set(families["generated"].keys)
    values, sets = [], SetStateBuilder()
    for key in keys:
        if key not in present:
            frames = driving_family(families).frame_count(key)
            values += [missing_pair_values(metric, key, frames) for metric in wanted]
            continue
        method, others = PairFeatures(key, families, ""), {}
        for metric in wanted:
            name = reference_method(_reference(metric, has_truth), has_truth)
            reference = others.setdefault(name, PairFeatures(key, families, name) if name else method)
            if not _is_there(metric, method, reference):
                frames = driving_family(families).frame_count(key)
                values.append(missing_pair_values(metric, key, frames))
                continue
            at = numbers[key] if numbers else None
            scored = score_frames(metric, key, method, reference, centres.get(metric.name), at)
            values.append(scored)
            if metric.of_sets and not scored.needs:
                _add_to_sets(sets, metric, scored, method, reference)
    return PairScores(values, sets.finish())


class PairFeatures:
    """What metrics compare of one pair, each read once: of the method that is scored (prefix "") or of
    another."""

    def __init__(self, key: str, families: Mapping[str, Family], prefix: str) -> None:
        self._key, self._families, self._prefix = key, families, prefix
        self._read: dict[tuple[str, str], np.ndarray | str] = {}

    @property
    def is_other_clip(self) -> bool:
        """Whether its frames are others than those that were to be generated, and not as many."""
        return self._prefix == SOURCE_CLIP_METHOD

    def has(self, feature: str) -> bool:
        """Whether it is there of this pair."""
        return self._key in self._families[self._role(feature)].keys

    def _role(self, feature: str) -> str:
        if not self._prefix:
            return "generated" if feature == FRAMES_FEATURE else feature
        return f"{self._prefix}.{feature}".removesuffix(f".{FRAMES_FEATURE}")

    def get(self, feature: str, field: str) -> np.ndarray | str:
        """(T,...), a row a frame or a window, or the id of the weights for want of which there is none.
        Frames are uint8. A single picture stands for every driving frame."""
        place = (feature, field)
        if place not in self._read:
            self._read[place] = self._load(*place)
        values = self._read[place]
        if isinstance(values, str) or len(values) != 1 or self.is_other_clip:
            return values
        rows = count_rows(feature, driving_family(self._families).frame_count(self._key))
        return np.broadcast_to(values, (rows, *values.shape[1:]))

    def _load(self, feature: str, name: str) -> np.ndarray | str:
        role = self._role(feature)
        if needs := read_optional_field(self._families[role], self._key, "needs"):
            return needs["weights"]
        return self._families[role].read(self._key, [name])[name]


def count_rows(feature: str, frames: int) -> int:
    """Of a feature, of so many frames."""
    return max(1, frames // METRIC_FEATURES[feature].window) if feature != FRAMES_FEATURE else frames


def missing_pair_values(metric: Metric, pair: str, frames: int) -> FrameValues:
    """Of a pair that the method lacks."""
    values = np.full(count_rows(metric.feature, frames) if metric.per_clip is None else 1, np.nan)
    return FrameValues(pair=pair, metric=metric.name, values=values, undetected=len(values))


def score_frames(
    metric: Metric,
    pair: str,
    method: PairFeatures,
    reference: PairFeatures,
    centre: np.ndarray | str | None = None,
    numbers: Sequence[int] | None = None,
) -> FrameValues:
    """One metric in each frame of one pair, or its one value of the pair. centre: what is taken from the
    features of both sides. numbers: which frames of the driving clip these are."""
    prediction, target = _both_sides(metric, method, reference)
    for features in (prediction, target, centre, _frames_too_small(metric, target)):
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
    if metric.per_clip is not None:
        value = metric.per_clip(prediction, target)
        return FrameValues(
            pair=pair, metric=metric.name, values=np.array([value]), undetected=int(np.isnan(value))
        )
    if reference.is_other_clip:
        target = prediction
    runs = runs_of_even_steps(numbers) if metric.temporal and numbers is not None else [slice(None)]
    values = np.concatenate([metric.per_frame(prediction[run], target[run]) for run in runs])
    return FrameValues(pair=pair, metric=metric.name, values=values, undetected=undetected)


def _frames_too_small(metric: Metric, frames: np.ndarray | str) -> str | None:
    """What the metric needs in place of such frames; None where they will do."""
    if not metric.min_frame_size or isinstance(frames, str):
        return None
    size = min(frames.shape[1:3])
    wanted = f"frames of {metric.min_frame_size} px a side or more, these have {size}"
    return wanted if size < metric.min_frame_size else None


def _is_there(metric: Metric, method: PairFeatures, reference: PairFeatures) -> bool:
    """Whether both sides of a pair are: a feature that is read from files may be refused."""
    if metric.feature_includes_truth:
        return method.has(metric.feature)
    return method.has(metric.feature) and reference.has(metric.compared_with[0])


def _both_sides(
    metric: Metric, method: PairFeatures, reference: PairFeatures
) -> tuple[np.ndarray | str, np.ndarray | str]:
    if metric.feature_includes_truth:
        return method.get(*metric.compared), method.get(*metric.compared)
    return method.get(*metric.compared), reference.get(*metric.compared_with)


def _has_feature(features: np.ndarray) -> np.ndarray:
    """(T,...) -> (T,) bool"""
    return np.asarray(np.isfinite(features.reshape(len(features), -1)).all(axis=1))


# --- sets of frames -----------------------------------------------------------------------------------------
def _add_to_sets(
    sets: SetStateBuilder, metric: Metric, scored: FrameValues, method: PairFeatures, reference: PairFeatures
) -> None:
    """The frames in which both have the feature; where those of the reference are of another clip, each
    side's own."""
    prediction, target = _both_sides(metric, method, reference)
    assert not isinstance(prediction, str)
    assert not isinstance(target, str)
    keep = np.isfinite(scored.values)
    theirs = _has_feature(target) if reference.is_other_clip else keep
    sets.add(metric.name, scored.pair, (prediction, target), (keep, theirs))


def _with_set_values(values: Sequence[FrameValues], sets: SetStates) -> list[FrameValues]:
    """The values of metrics that compare sets, in each row of theirs."""
    of_sets = {name: compare(*sets[name]) for name in sets if (compare := METRICS[name].of_sets) is not None}
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


def centres_to_json(centres: Centres) -> dict[str, object]:
    return {name: one if isinstance(one, str) else one.tolist() for name, one in centres.items()}
