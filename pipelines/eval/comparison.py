"""What the report knows of one protocol: every method's values, reduced in three ways, and its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pipelines.eval import input_roles as roles
from pipelines.eval.methods import BASELINE_METHODS, COPY_METHOD, Method
from pipelines.eval.metrics import METRICS
from pipelines.eval.pairs import PAIRS_SUMMARY_FILE, PairsSummary
from pipelines.eval.records import (
    BootstrapSettings,
    FrameValues,
    MethodDifference,
    MetricRecord,
    compare_methods,
    finite_or_none,
    frames_scored_by_all_methods,
    methods_to_share_frames,
    own_frame_metric_records,
    shared_frame_metric_records,
    sum_frames_by_pair,
)
from pipelines.eval.sample_frames import read_sample_frames
from pipelines.eval.sample_pictures import ModelSamples, render_model_samples
from pipelines.eval.score_files import ScoredMethod, read_frame_metric_values, read_scored_method

if TYPE_CHECKING:
    from pipelines.eval.config import ReportConfig
    from storage.families import Artifact


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolResults:
    name: str
    """Of the protocol in the run file."""
    about: PairsSummary
    models: list[str]
    summaries: dict[str, ScoredMethod] = field(default_factory=dict)
    """Of the methods that are scored."""
    own: list[MetricRecord] = field(default_factory=list)
    """Each method on its own frames."""
    shared: list[MetricRecord] = field(default_factory=list)
    """All methods on the frames that all have, of those that have a value in most of their frames."""
    differences: list[MethodDifference] = field(default_factory=list)
    """Two methods on the frames that both have: models with each other, and with the copied source."""
    spread: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """(method, metric) -> the value of each pair, over the shared frames; none of metrics that compare
    sets."""
    samples: dict[str, ModelSamples] = field(default_factory=dict)
    """Of each model."""
    provenance: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of each model: parts that do not carry the published weights."""

    def find_record(self, metric: str, method: str, own: bool = False) -> MetricRecord | None:
        records = self.own if own else self.shared
        return next((r for r in records if (r.name, r.method) == (metric, method)), None)

    @property
    def metric_names(self) -> list[str]:
        """Names in the order of the table of metrics."""
        return [name for name in METRICS if any(r.name == name for r in self.shared)]

    def to_json(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "protocol": self.about.protocol,
            "frames": self.about.frames,
            "rejected": self.about.rejected,
            "models": self.models,
            "provenance": self.provenance,
            "methods": {method: asdict(summary) for method, summary in self.summaries.items()},
            "own": [asdict(record) for record in self.own],
            "shared": [asdict(record) for record in self.shared],
            "differences": [asdict(difference) for difference in self.differences],
        }


def read_protocol_results(inputs: Mapping[str, Artifact], config: ReportConfig) -> list[ProtocolResults]:
    """One for each protocol, in the order in which the graph lists them."""
    return [compute_protocol_results(name, inputs, config) for name in roles.list_input_protocols(inputs)]


def compute_protocol_results(
    name: str, inputs: Mapping[str, Artifact], config: ReportConfig
) -> ProtocolResults:
    about = PairsSummary(
        **json.loads(inputs[roles.report_pairs_input_role(name)].path(PAIRS_SUMMARY_FILE).read_text())
    )
    samples = roles.inputs_by_method(inputs, name, roles.SAMPLES_INPUT)
    scores = roles.inputs_by_method(inputs, name, roles.SCORE_INPUT)
    models, frames = list(samples), {model: read_sample_frames(one) for model, one in samples.items()}
    bootstrap = BootstrapSettings(resamples=config.resamples, seed=config.seed)
    values = {
        method: read_frame_metric_values(scores[method])
        for method in (*models, *BASELINE_METHODS)
        if method in scores
    }
    summaries = {method: read_scored_method(artifact) for method, artifact in scores.items()}
    methods = [
        Method(
            name=name,
            kind=summaries[name].kind,
            provenance=summaries[name].provenance,
            loss_nets=tuple(summaries[name].loss_nets),
            weights=summaries[name].weights,
        )
        for name in values
    ]
    metrics = [
        name for name in METRICS if any(one.metric == name for rows in values.values() for one in rows)
    ]
    return ProtocolResults(
        name=name,
        about=about,
        models=models,
        provenance={model: frames[model].provenance for model in models},
        summaries=summaries,
        own=[
            record
            for method in methods
            for record in own_frame_metric_records(
                values[method.name], method, metrics, about.protocol, bootstrap
            )
        ],
        shared=shared_frame_metric_records(values, methods, metrics, about.protocol, bootstrap),
        differences=_differences(values, models, metrics, bootstrap, summaries),
        spread=_spread(values, metrics),
        samples={
            model: render_model_samples(model, frames[model], about.has_truth, config.videos)
            for model in models
        },
    )


def _differences(
    values: Mapping[str, Sequence[FrameValues]],
    models: Sequence[str],
    metrics: Sequence[str],
    bootstrap: BootstrapSettings,
    summaries: Mapping[str, ScoredMethod],
) -> list[MethodDifference]:
    """Of models that are given the same of what they are to do, and with the copied source."""
    sees = {model: "frames" in summaries[model].driven_by for model in models if model in summaries}
    compared = [method for method in (*models, COPY_METHOD) if method in values]
    found = []
    for name in metrics:
        rows = {method: [one for one in values[method] if one.metric == name] for method in compared}
        for first, second in combinations(compared, 2):
            if second in sees and sees[first] != sees[second]:
                continue
            difference = compare_methods(
                METRICS[name], (first, rows[first]), (second, rows[second]), bootstrap
            )
            found += [difference] if difference else []
    return found


def _spread(
    values: Mapping[str, Sequence[FrameValues]], metrics: Sequence[str]
) -> dict[tuple[str, str], list[float]]:
    found = {}
    for name in (name for name in metrics if not METRICS[name].of_sets):
        table = methods_to_share_frames(
            {method: [one for one in rows if one.metric == name] for method, rows in values.items()}
        )
        keep = frames_scored_by_all_methods(table)
        for method, rows in table.items():
            of_pairs = (
                finite_or_none(METRICS[name].compute(state))
                for state in sum_frames_by_pair(rows, keep).values()
            )
            found[method, name] = [value for value in of_pairs if value is not None]
    return found
