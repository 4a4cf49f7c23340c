"""What a run ends with: the figures of every evaluated model beside its baselines, and where to find more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.provenance import describe_provenance
from pipelines.engine.node_plan import NodePlan
from pipelines.eval.methods import BASELINE_METHODS
from storage.families import Artifact
from storage.uris import format_store_option

METHOD_KIND_LABELS = {"trained": "ours", "released": "released", "external": "external"}
"""Kind of a method that is no baseline -> what stands behind its name."""
Record = dict[str, Any]
Records = list[Record]
"""Of one protocol (pipelines.eval.records.MetricRecord)."""


def summary_lines(store_uri: str, plans: Mapping[str, NodePlan]) -> Iterator[str]:
    """Tables of figures, the pages, and how to open MLflow."""
    report = plans.get("report")
    tables = _by_protocol(report.artifact) if report and report.artifact else _by_method(plans)
    for name, records, frames in tables:
        head = [f"protocol {name}"] if len(tables) > 1 else []
        about = [f"  frames of the clips: {frames}"] if frames else []
        yield "\n" + "\n".join([*head, *format_score_table(records), *about])
    if report and report.artifact:
        yield f"\nreport  {report.artifact.uri('report.html')}"
    if (corpus := plans.get("corpus")) and corpus.artifact:
        yield f"corpus  {corpus.artifact.uri('corpus.html')}"
    yield f"MLflow  reenact ui{format_store_option(store_uri)}   # then open http://127.0.0.1:5000"


def _by_protocol(report: Artifact) -> list[tuple[str, Records, str]]:
    """All methods of a protocol, each on its own frames: a method that shows no face anywhere takes nothing
    from the others. The report has the frames that all of them share too. Before them the protocol's name,
    after them what the frames of the clips have been through."""
    protocols = json.loads(report.path("report.json").read_text())["protocols"]
    return [(name, one["own"], one.get("frames", "")) for name, one in protocols.items() if one["own"]]


def _by_method(plans: Mapping[str, NodePlan]) -> list[tuple[str, Records, str]]:
    """Each method alone, of a run that does not go as far as the report."""
    found: list[tuple[str, Records, str]] = []
    for name, plan in plans.items():
        if name.startswith("score.") and plan.artifact:
            records = json.loads(plan.artifact.path("metrics.json").read_text())
            _, method, protocol = name.split(".")
            own = [record | {"method": method} for record in records]  # as the run calls it
            found.append((protocol, own, ""))
    return found


def format_score_table(records: Records) -> list[str]:
    """Records of one protocol -> metric, the models, the baselines; below, which weights of a model are not
    the published ones, which metrics leave out frames, which judge a model by a net of its own losses (*),
    and which net one lacks.
    """
    found = {(r["name"], r["method"]): r for r in records}
    methods = dict.fromkeys(method for _, method in found)
    models, baselines = ([m for m in methods if (m in BASELINE_METHODS) == known] for known in (False, True))
    kinds = {r["method"]: r["kind"] for r in records}
    titles = [
        *(f"{model} ({METHOD_KIND_LABELS[kinds[model]]})" for model in models),
        *(m.replace("_", "-") for m in baselines),
    ]
    names = dict.fromkeys(name for name, _ in found)
    width = max(16, *(len(name) + 1 for name in names)) if names else 16
    lines = ["".join([f"{'metric':<{width}}", *(f"{title:>20}" for title in titles)])]
    for name in names:
        cells = [found.get((name, method)) for method in (*models, *baselines)]
        lines.append("".join([f"{name:<{width}}", *(f"{_cell(c):>20}" for c in cells)]))
    return [*lines, *_notes(list(found.values()), models)]


def _notes(records: Records, models: Sequence[str]) -> list[str]:
    """What stands below the table; metrics of which the same is to be said share a line."""
    about_models = [
        f"  {r['method']}: {describe_provenance(r['provenance'])}" for r in records if r.get("provenance")
    ]
    about_metrics: dict[str, dict[str, None]] = {}
    methods_of: dict[tuple[str, str, str], list[str]] = {}
    for r in records:
        if r.get("missing") and r["value"] is not None:
            count = f"over {r['n']} of {r['n'] + r['missing']} {r.get('counts', 'frames')}"
            lack = f"there is {r.get('lack', 'no face')} in"
            why = lack if r.get("undetected", 1) else "it has no value of"
            methods_of.setdefault((r["name"], count, why), []).append(r["method"])
    for (name, count, why), methods in methods_of.items():
        text = f"{count} of {', '.join(methods)}, {why} the others"
        about_metrics.setdefault(text, {})[name] = None
    trained_through: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if weights := r.get("weights_in_loss"):
            trained_through.setdefault((r["name"], ", ".join(weights)), []).append(r["method"])
    for (name, weights), methods in trained_through.items():
        text = f"* the losses of {' and '.join(methods)} use {weights} too"
        about_metrics.setdefault(text, {})[name] = None
    for r in records:
        if r["value"] is None and (r["method"] in models or not models):
            about_metrics.setdefault(r["note"], {})[r["name"]] = None
    return [
        *dict.fromkeys(about_models),
        *(f"  {', '.join(names)}: {text}" for text, names in about_metrics.items()),
    ]


def _cell(record: Record | None) -> str:
    if record is None:
        return "-"
    if record["value"] is None:
        return "not computed"
    return f"{record['value']:.4f}{'*' if record.get('weights_in_loss') else ''}"
