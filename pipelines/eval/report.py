"""Node `make_report`: one page that compares the methods of each protocol with each other, with baselines and
with the papers.

Values stand in one table only where metric variant, backend, protocol and frames agree. The papers' numbers
have a table of their own: they come from other data and other detectors, and are there for orientation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.eval.captions import BASELINE_TEXTS
from pipelines.eval.comparison import ProtocolResults, read_protocol_results
from pipelines.eval.paper_results import read_paper_results
from pipelines.eval.report_page import render_report

if TYPE_CHECKING:
    from pipelines.engine.node import NodeContext
    from pipelines.eval.config import ReportConfig


def make_report(ctx: NodeContext) -> None:
    """The whole node: report.html and report.json. Inputs: see comparison.py."""
    config: ReportConfig = ctx.config.report
    comparisons = read_protocol_results(ctx.inputs, config)
    published = read_paper_results(compared_models(comparisons))
    (ctx.out / "report.html").write_text(render_report(config.title, comparisons, published))
    data = {
        "protocols": {one.name: one.to_json() for one in comparisons},
        "published": published,
        "baselines": BASELINE_TEXTS,
    }
    text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (ctx.out / "report.json").write_text(text + "\n")
    ctx.log_params({f"{one.name}/frames": one.about.frames for one in comparisons})
    ctx.log_metrics(
        {
            f"{one.name}/{record.method}/{record.name}": record.value
            for one in comparisons
            for record in one.shared
            if record.value is not None
        }
    )


def compared_models(comparisons: Sequence[ProtocolResults]) -> list[str]:
    return list(dict.fromkeys(model for one in comparisons for model in one.models))
