"""What stands beside and under the report's tables: what frames are compared with, what is not computed, and
what a value is to be doubted for."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.eval.comparison import ProtocolResults
from pipelines.eval.methods import COPY_METHOD, WARP_METHOD
from pipelines.eval.metrics import METRICS
from pipelines.eval.records import REFERENCE_TEXTS
from pipelines.figures.html import escape_html

LOSS_NET_MARK = "†"
"""Beside values by a net that a loss of the model's training used."""


def find_missing_weights(one: ProtocolResults) -> dict[str, str]:
    """Metric that no method has a value of for want of a net -> what is missing."""
    found: dict[str, set[str]] = {}
    for record in one.shared:
        found.setdefault(record.name, set()).add(record.needs)
    return {name: needs.pop() for name, needs in found.items() if len(needs) == 1 and needs != {""}}


def not_computed(missing: Mapping[str, str]) -> str:
    """Metrics without their nets, in a line for each thing that is missing: never replaced by others."""
    lines: dict[str, list[str]] = {}
    for name, needs in missing.items():
        lines.setdefault(needs, []).append(METRICS[name].title)
    items = "".join(
        f"<li>{escape_html(', '.join(titles))}: needs {escape_html(needs)}</li>"
        for needs, titles in lines.items()
    )
    if not items:
        return ""
    lead = "Not computed (<code>reenact weights import ID FILE</code> brings weights in):"
    return f'<p class="soft small">{lead}</p><ul class="soft small">{items}</ul>'


def copying_is_ideal(one: ProtocolResults, metric: str) -> bool:
    """Whether frames are compared with the source picture, which copying it cannot but match; or are best
    where nothing moves."""
    record = one.find_record(metric, COPY_METHOD)
    return METRICS[metric].best_when_still or (record is not None and record.reference == "source")


def reference_note(one: ProtocolResults, metric: str) -> str:
    """What a column's frames are compared with, where that is not the truth."""
    record = next((record for record in one.shared if record.name == metric), None)
    if record is None or record.reference in ("truth", "none"):
        return ""
    reference = record.reference
    return f'<span class="ci">against {escape_html(REFERENCE_TEXTS[reference])}</span>'


def groups_of_rivals(one: ProtocolResults) -> list[list[str]]:
    """Models that are given the same of what they are to do: who hears alone is not ranked with who sees the
    driving frames."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for model in one.models:
        sees = "frames" in one.summaries[model].driven_by
        groups.setdefault(("frames",) if sees else ("sound",), []).append(model)
    return list(groups.values())


def driven_by_note(one: ProtocolResults, model: str) -> str:
    """What a model is given, where one of the protocol's hears."""
    if not any("sound" in one.summaries[other].driven_by for other in one.models):
        return ""
    return f"; given {escape_html(' and '.join(one.summaries[model].driven_by))}"


def loss_net_note(one: ProtocolResults) -> str:
    """Which models were trained against which of the nets that judge them."""
    found: dict[str, dict[str, None]] = {}
    for record in one.own:
        if record.weights_in_loss:
            found.setdefault(record.method, {}).update(dict.fromkeys(record.weights_in_loss))
    if not found:
        return ""
    models = "; ".join(f"{model} against {', '.join(weights)}" for model, weights in found.items())
    text = (
        f"{LOSS_NET_MARK} judged by a net that its own losses used in training ({models}): a model "
        "may have learnt to please that net, so look for another metric that agrees."
    )
    return f'<p class="soft small">{escape_html(text)}</p>'


def held_poses_note(one: ProtocolResults) -> str:
    """Frames of the landmark warp that there was nothing to warp by for."""
    about = one.summaries.get(WARP_METHOD)
    if about is None or not about.frames_without_landmarks:
        return ""
    text = (
        f"{WARP_METHOD}: {about.frames_without_landmarks:,} driving frames have no landmarks; they show the "
        "pose of the last frame that has some."
    )
    return f'<p class="soft small">{escape_html(text)}</p>'


def rejected_clips_note(one: ProtocolResults) -> str:
    """One list of pairs serves all models: what that cost."""
    if not one.about.rejected:
        return ""
    counts = ", ".join(f"{count} by {node}" for node, count in one.about.rejected.items())
    text = f"Test clips that one of the models cannot be driven with are scored for none: rejected {counts}."
    return f'<p class="soft small">{escape_html(text)}</p>'
