"""The report as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.eval import report_notes as notes
from pipelines.eval.captions import BASELINE_TEXTS, scored_frames_caption
from pipelines.eval.comparison import ProtocolResults
from pipelines.eval.methods import BASELINE_METHODS, COPY_METHOD
from pipelines.eval.metrics import METRICS
from pipelines.eval.records import (
    MAX_UNSCORED_SHARE,
    MethodDifference,
    MetricRecord,
    metric_backend,
    metric_lack,
)
from pipelines.figures.html import (
    CHART_COLOURS,
    CHART_GREY,
    PageSection,
    StripChartRow,
    escape_html,
    format_number,
    render_facts,
    render_page,
    render_strip_chart,
    render_table,
)
from pipelines.figures.picture_grids import make_data_uri

METHOD_KIND_TEXTS = {
    "trained": "trained here", "released": "its authors' weights", "external": "frames of other code",
    "baseline": "",
}  # fmt: skip
FEW_PAIRS = 30
"""Pairs below which a comparison is called an indication."""

INTERVALS_NOTE = """<p class="soft small">95 % bootstrap interval over people in small print. Green: the best
of models and copied source, of those that lack a value in at most 5 % of their frames.</p>"""
SHARED_FRAMES_NOTE = """<p class="soft small">The frames that all methods share: values in this table were
measured on the same frames in the same way. ⚠: frames left out because one of the methods shows no face in
them. A method that shows none in more than half of its frames is left out itself.</p>"""
UNPAIRED_NOTE = """<p class="soft small">Where frames are left out: each method on its own frames, beside the
share in which it shows no face. Two values in this table may rest on different frames.</p>"""
PAIRED_NOTE = """<p class="soft small">Two methods on the frames that both have: the first less the second,
with its interval. Bold: the interval leaves out zero.</p>"""
DOTS_NOTE = """<p class="soft small">Each dot is a pair, the tick the value over all, the bar its interval, on
the frames that all methods share. The ground truth through the codec is left out: it is far better than the
others and would flatten them.</p>"""
MAX_METRIC_COLUMNS = 6
"""Of a table as wide as the page."""
FEW_FRAMES_OF_SET = 2000
"""Frames below which a distance of sets says how many it rests on."""
PAPER_RESULTS_NOTE = """<div class="note">These are the papers' own figures, not ours. They were measured on
other data, at another training scale and with other detectors and metric variants than the results above, so
no difference between the two tables says which model is better.</div>"""
LANDMARK_JITTER_NOTE = """<p class="soft small">dlib's landmarks are whole pixels and jitter by 0.5 to 1 px:
that much distance is the detector's own.</p>"""


def render_report(
    title: str, comparisons: Sequence[ProtocolResults], published: Sequence[Mapping[str, str]]
) -> str:
    models = list(dict.fromkeys(model for one in comparisons for model in one.models))
    lead = "".join(
        f'<p class="soft">{model_conclusion(one, model)}</p>'
        for one in comparisons
        if one.shared
        for model in one.models
    )
    summaries = [summary for one in comparisons for summary in one.summaries.values()]
    pairs = max((summary.pairs for summary in summaries), default=0)
    frames = max((summary.frames for summary in summaries), default=0)
    tiles = [
        (str(len(models)), "model" if len(models) == 1 else "models"),
        (f"{pairs:,}", "held-out pairs"),
        (f"{frames:,}", "frames scored"),
        (str(len({r.name for one in comparisons for r in one.shared})), "metrics"),
    ]
    sections = [
        PageSection("results", "Results", "".join(map(_results, comparisons))),
        PageSection("spread", "Pair by pair", _spread(comparisons)),
        PageSection("samples", "Samples", "".join(map(_samples, comparisons))),
        PageSection("published", "What the papers report", _published(published, models)),
        PageSection("provenance", "Where the numbers come from", "".join(map(_provenance, comparisons))),
        PageSection("metrics", "How to read the metrics", _glossary(comparisons)),
    ]
    return render_page(title, lead, tiles, [section for section in sections if section.body])


def model_conclusion(one: ProtocolResults, model: str) -> str:
    """In one sentence: on how many metrics the model beats copying the source, on the frames that both
    have."""
    against = [
        d for d in one.differences
        if (d.first, d.second) == (model, COPY_METHOD) and not notes.copying_is_ideal(one, d.metric)
    ]  # fmt: skip
    missing = [name for name in one.metric_names if _often_missing(one, name, model)]
    won = [METRICS[d.metric].title for d in against if d.first_is_better and d.metric not in missing]
    lost = [METRICS[d.metric].title for d in against if not d.first_is_better and d.metric not in missing]
    text = (
        f"<b>{escape_html(model)}</b> ({escape_html(one.name)}) beats copying the source on {len(won)} of "
        f"{len(won) + len(lost)} metrics"
    )
    text += f" ({escape_html(', '.join(won))})" if won else ""
    text += f" and does not on {escape_html(', '.join(lost))}" if won and lost else ""
    titles = ", ".join(METRICS[name].title for name in missing)
    limit = f"{MAX_UNSCORED_SHARE:.0%}"
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        text += f"; {escape_html(titles)} {verb} not counted: no value in more than {limit} of its frames"
    pairs = one.summaries[model].pairs
    few = (
        f" On {pairs} pair{'s' * (pairs != 1)} that is an indication, not a finding."
        if pairs < FEW_PAIRS
        else ""
    )
    own_loss = [METRICS[d.metric].title for d in against if _is_in_loss(one, d.metric, model)]
    bias = f" {escape_html(', '.join(own_loss))}: by a net of its own losses." if own_loss else ""
    return f"{text}.{bias}{few} {_tags(one.provenance.get(model, {}))}"


def _is_in_loss(one: ProtocolResults, metric: str, method: str) -> bool:
    record = one.find_record(metric, method, own=True)
    return record is not None and bool(record.weights_in_loss)


def _often_missing(one: ProtocolResults, metric: str, method: str) -> bool:
    record = one.find_record(metric, method, own=True)
    return record is not None and record.often_missing


def _tags(provenance: Mapping[str, str]) -> str:
    """The state of the weights, beside every number they touched."""
    return "".join(
        f'<span class="tag">{escape_html(part.replace("_", " "))}: {escape_html(what)}</span>'
        for part, what in provenance.items()
    )


# --- tables -------------------------------------------------------------------------------------------------
def _results(one: ProtocolResults) -> str:
    """A protocol's tables: all methods on shared frames, each on its own, and two by two."""
    about = one.about
    head = f"<h3>{escape_html(one.name)}</h3>"
    head += f'<p class="small id"><code>{escape_html(about.protocol)}</code></p>'
    head += f'<p class="soft small">{escape_html(scored_frames_caption(about.frames, about.lossless))}</p>'
    if not one.shared:
        nothing = "No metric of this run applies without a ground truth."
        return f'{head}<p class="soft small">{nothing}</p>{notes.rejected_clips_note(one)}'
    missing = notes.find_missing_weights(one)
    computed = [name for name in one.metric_names if name not in missing]
    parts = [head, INTERVALS_NOTE, SHARED_FRAMES_NOTE, _table(one, computed, own=False)]
    parts.append(notes.not_computed(missing))
    incomplete = {record.name for record in (*one.own, *one.shared) if record.missing}
    if names := [name for name in computed if name in incomplete]:
        parts += [UNPAIRED_NOTE, _table(one, names, own=True)]
    if one.differences:
        parts += [PAIRED_NOTE, _differences(one.differences)]
    below = (notes.loss_net_note, notes.held_poses_note, notes.rejected_clips_note)
    return "".join([*parts, *(note(one) for note in below)])


def _table(one: ProtocolResults, names: Sequence[str], own: bool) -> str:
    """As many tables as it takes: what lies beyond the page's edge is not seen."""
    return "".join(
        _part_of_table(one, own, names[start : start + MAX_METRIC_COLUMNS])
        for start in range(0, len(names), MAX_METRIC_COLUMNS)
    )


def _part_of_table(one: ProtocolResults, own: bool, names: Sequence[str]) -> str:
    heads = ["method"]
    for name in names:
        metric = METRICS[name]
        unit = f" [{metric.unit}]" if metric.unit and metric.unit != "[0,1]" else ""
        arrow = f"{escape_html(unit)}&nbsp;{'↑' if metric.better == 'up' else '↓'}"
        heads.append(f"{escape_html(metric.title)}{arrow}{notes.reference_note(one, name)}")
    groups = notes.groups_of_rivals(one)
    rows = []
    for model in one.models:
        rivals = next(group for group in groups if model in group)
        cells = "".join(_cell(one.find_record(n, model, own), _best(one, n, own, rivals)) for n in names)
        tags = _tags(one.provenance.get(model, {}))
        given = notes.driven_by_note(one, model)
        kind = f'<span class="ci">{METHOD_KIND_TEXTS[one.summaries[model].kind]}{given}</span>'
        rows.append(f'<tr class="model"><td>{escape_html(model)}{kind}{tags}</td>{cells}</tr>')
    for method, meaning in BASELINE_TEXTS.items():
        if method not in one.summaries:
            continue
        cells = "".join(
            _cell(
                one.find_record(n, method, own),
                _best(one, n, own, one.models)
                if method == COPY_METHOD and not notes.copying_is_ideal(one, n)
                else None,
            )
            for n in names
        )
        rows.append(
            f'<tr class="base"><td '
            f'title="{escape_html(meaning)}">{escape_html(method.replace("_", " "))}</td>{cells}</tr>'
        )
    head = "".join(f'<th class="n">{h}</th>' if i else f"<th>{h}</th>" for i, h in enumerate(heads))
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _best(one: ProtocolResults, name: str, own: bool, models: Sequence[str]) -> float | None:
    """Of some models and the copied source that have a value in nearly all frames; None where fewer than two
    have. The copied source does not count where frames are compared with the source."""
    rivals = models if notes.copying_is_ideal(one, name) else (COPY_METHOD, *models)
    records = [one.find_record(name, method, own) for method in rivals]
    values = [r.value for r in records if r and r.value is not None and not r.often_missing]
    if len(values) < 2:
        return None
    return max(values) if METRICS[name].better == "up" else min(values)


def _cell(record: MetricRecord | None, best: float | None) -> str:
    """best: the value that is marked."""
    if record is None:
        return '<td class="n">–</td>'
    if record.value is None:
        return f'<td class="why">{escape_html(record.note)}</td>'
    lines = (
        []
        if record.low is None or record.high is None
        else [f"{format_number(record.low)} – {format_number(record.high)}"]
    )
    frames = max(1, record.missing + record.n)
    if record.missing / frames > MAX_UNSCORED_SHARE:
        lines.append(f"⚠ {record.missing / frames:.0%} left out")
    if record.often_missing:
        lines.append(f"{metric_lack(METRICS[record.name])} in {record.undetected / frames:.0%}")
    if METRICS[record.name].of_sets and record.n < FEW_FRAMES_OF_SET:
        lines.append(f"n = {record.n:,}")
    small = "".join(f'<span class="ci">{line}</span>' for line in lines)
    marked = " best" if record.value == best and not record.often_missing else ""
    mark = notes.LOSS_NET_MARK if record.weights_in_loss else ""
    return f'<td class="n{marked}">{format_number(record.value)}{mark}{small}</td>'


def _differences(differences: Sequence[MethodDifference]) -> str:
    """As many tables as it takes."""
    names = list(dict.fromkeys(d.metric for d in differences))
    parts = [names[start : start + MAX_METRIC_COLUMNS] for start in range(0, len(names), MAX_METRIC_COLUMNS)]
    return "".join(_differences_in([d for d in differences if d.metric in part]) for part in parts)


def _differences_in(differences: Sequence[MethodDifference]) -> str:
    names = list(dict.fromkeys(d.metric for d in differences))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for one in differences:
        text = f"{one.value:+.4g}"
        text = f"<b>{text}</b>" if one.is_significant else text
        if one.low is not None and one.high is not None:
            text += f'<span class="ci">{one.low:+.3g} – {one.high:+.3g}</span>'
        lines.setdefault((one.first, one.second), {})[one.metric] = (
            f"{text}<span class='ci'>{one.n:,} {METRICS[one.metric].counts}</span>"
        )
    body = [
        [escape_html(f"{first} − {second}".replace("_", " ")), *(cells.get(name, "–") for name in names)]
        for (first, second), cells in lines.items()
    ]
    heads = ["methods", *(escape_html(METRICS[name].title) for name in names)]
    return render_table(heads, body, numbers=range(1, 1 + len(names)))


# --- charts and pictures ------------------------------------------------------------------------------------
def _spread(comparisons: Sequence[ProtocolResults]) -> str:
    parts = []
    for one in comparisons:
        if charts := [chart for name in one.metric_names if (chart := _chart(one, name))]:
            if len(comparisons) > 1:
                parts.append(f"<h3>{escape_html(one.name)}</h3>")
            parts.append(f'<div class="charts">{"".join(charts)}</div>')
    return DOTS_NOTE + "".join(parts) if parts else ""


def _chart(one: ProtocolResults, name: str) -> str:
    """One metric: a row for each model, then the copied source; none of a metric without values of pairs, or
    in which no model has one."""
    if METRICS[name].of_sets:
        return ""
    rows = [
        _strip(one, name, model, CHART_COLOURS[i % len(CHART_COLOURS)]) for i, model in enumerate(one.models)
    ]
    if not any(rows):
        return ""
    found = [row for row in (*rows, _strip(one, name, COPY_METHOD, CHART_GREY)) if row]
    metric = METRICS[name]
    direction = "higher is better" if metric.better == "up" else "lower is better"
    return render_strip_chart(metric.title, direction, found) if found else ""


def _strip(one: ProtocolResults, name: str, method: str, colour: str) -> StripChartRow | None:
    record = one.find_record(name, method)
    if record is None or record.value is None:
        return None
    dots = one.spread.get((method, name), [])
    return StripChartRow(method.replace("_", " "), dots, record.value, record.low, record.high, colour)


def _samples(one: ProtocolResults) -> str:
    return "".join(_samples_of(one, model) for model in one.models if model in one.samples)


def _samples_of(one: ProtocolResults, model: str) -> str:
    samples = one.samples[model]
    videos = "".join(
        f'<figure><video controls loop muted playsinline src="{make_data_uri(data, "video/mp4")}"></video>'
        f"<figcaption><code>{escape_html(pair)}</code></figcaption></figure>"
        for pair, data in samples.videos.items()
    )
    own = ", ".join(samples.titles[2:-2] if one.about.has_truth else samples.titles[2:-1])
    between = f" In between, what the model shows of its own work: {escape_html(own)}." if own else ""
    error = " The error is shown brightened." if one.about.has_truth else ""
    grid = (
        f'<figure><img alt="{escape_html(", ".join(samples.titles))}" '
        f'src="{make_data_uri(samples.grid, "image/png")}">'
        f"<figcaption>Middle frame of pairs of held-out identities, as scored.{error}{between}"
        "</figcaption></figure>"
    )
    tags = _tags(one.provenance.get(model, {}))
    name = f" ({escape_html(one.name)})"
    return f'<h3>{escape_html(model)}{name} {tags}</h3><div class="media">{grid}{videos}</div>'


# --- words --------------------------------------------------------------------------------------------------
def _published(rows: Sequence[Mapping[str, str]], models: Sequence[str]) -> str:
    silent = [model for model in models if not any(row["model"] == model for row in rows)]
    text = f'<p class="soft small">No published figures are at hand for {escape_html(", ".join(silent))}.</p>'
    if not rows:
        return text
    names = list(dict.fromkeys(row["metric"] for row in rows))
    arrows = {row["metric"]: "↑" if row["direction"] == "up" else "↓" for row in rows}
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        place = (row["model"], row["method"], row["setting"], f"{row['paper']}, {row['table']}")
        lines.setdefault(place, {})[row["metric"]] = row["value"]
    body = [
        [*map(escape_html, place), *(values.get(name, "–") for name in names)]
        for place, values in lines.items()
    ]
    heads = ["model", "variant", "setting", "source", *(f"{name}&nbsp;{arrows[name]}" for name in names)]
    return (
        PAPER_RESULTS_NOTE
        + render_table(heads, body, numbers=range(4, 4 + len(names)))
        + (text if silent else "")
    )


def _provenance(one: ProtocolResults) -> str:
    return "".join(_provenance_of(one, model) for model in one.models if model in one.summaries)


def _provenance_of(one: ProtocolResults, model: str) -> str:
    summary = one.summaries[model]
    keys = "<br>".join(
        f"{escape_html(name)} <code>{escape_html(key)}</code>" for name, key in summary.inputs.items()
    )
    used = {name: sha for record in one.own if record.method == model for name, sha in record.weights.items()}
    texts = [f"{escape_html(name)} <code>{escape_html(used[name][:12])}</code>" for name in sorted(used)]
    rows = {
        "weights of the model": _tags(summary.provenance) or "every part carries the published weights",
        "weights of the metrics (sha256)": "<br>".join(texts) or "none",
        "protocol": f"<code>{escape_html(one.about.protocol)}</code>",
        "frames of the clips": escape_html(one.about.frames),
        "scored": f"{summary.pairs:,} pairs, {summary.frames:,} frames",
        "rendered at": f"{summary.image_size} px",
        "scores": f"<code>{escape_html(summary.key)}</code>",
        "made from": keys,
    }
    command = f"<code>reenact why RUN.yaml score.{escape_html(model)}.{escape_html(one.name)}</code>"
    trace = f'<p class="soft small">{command} explains what each key is made of.</p>'
    return f"<h3>{escape_html(model)} ({escape_html(one.name)})</h3>{render_facts(rows)}{trace}"


def _glossary(comparisons: Sequence[ProtocolResults]) -> str:
    names = [name for name in METRICS if any(name in one.metric_names for one in comparisons)]
    if not names:
        return ""
    rows = [
        [
            escape_html(METRICS[name].title),
            escape_html(METRICS[name].meaning),
            f"<code>{escape_html(METRICS[name].variant)}</code>",
            escape_html(metric_backend(METRICS[name])),
        ]
        for name in names
    ]
    baselines = "".join(
        f"<p><b>{escape_html(name.replace('_', ' '))}</b>: {escape_html(BASELINE_TEXTS[name])}.</p>"
        for name in BASELINE_METHODS
    )
    return (
        render_table(["metric", "meaning", "variant", "computed with"], rows)
        + baselines
        + LANDMARK_JITTER_NOTE
    )
