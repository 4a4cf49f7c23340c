"""Node `report`: one page that compares the evaluated models with each other, with baselines and with the
papers.

Values stand in one table only where metric variant, backend and protocol agree. The papers' numbers have a
table of their own: they come from other data and other detectors, and are there for orientation.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.eval.captions import BASELINE_TEXTS
from pipelines.eval.methods import COPY
from pipelines.eval.metrics import METRICS
from pipelines.eval.shared_frames import Evaluated, groups, on_shared_frames
from pipelines.figures.html import COLOURS, GREY, Section, Strip, esc, facts, number, page, strips, table
from pipelines.figures.pictures import data_uri

if TYPE_CHECKING:
    from pipelines.engine.node import Context

PUBLISHED = Path(__file__).parent / "published.csv"
MISSING_SHARE = 0.05
"""A value that leaves out more frames than this is marked."""

INTERVALS = """<p class="soft small">95 % bootstrap interval over clips in small print. Green: the best of
models and copied source. Values in one table were measured on the same frames in the same way. ⚠: frames left
out because one of the methods shows no face in them.</p>"""
DOTS = """<p class="soft small">Each dot is a clip, the tick the value over all, the bar its interval. The
ground truth through the codec is left out: it is far better than the others and would flatten them.</p>"""
CAVEAT = """<div class="note">These are the papers' own figures, not ours. They were measured on other data,
at another training scale and with other detectors and metric variants than the results above, so no
difference between the two tables says which model is better.</div>"""
JITTER = """<p class="soft small">Landmark distances leave out frames in which any method of the table
shows no face. dlib's landmarks are whole pixels and jitter by 0.5 to 1 px: that much distance is the
detector's own.</p>"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    title: str = "Face reenactment, compared"
    """Heading of the page."""
    videos: int = 2
    """Side-by-side videos embedded for each model; each adds its size to the page."""

    def __post_init__(self) -> None:
        if self.videos < 0:
            raise ValueError(f"videos {self.videos}: expected 0 or more")


def external(config: Any) -> dict[str, str]:
    """The file of published numbers -> its digest, for the node's key."""
    return {PUBLISHED.name: hashlib.sha256(PUBLISHED.read_bytes()).hexdigest()}


def report(ctx: Context) -> None:
    """The whole node: report.html and report.json."""
    config: ReportConfig = ctx.config.report
    models = [
        read(artifact, config.videos) for name, artifact in ctx.inputs.items() if name.startswith("eval.")
    ]
    models = on_shared_frames(sorted(models, key=lambda one: one.model))
    published = read_published([one.model for one in models])
    (ctx.out / "report.html").write_text(render(config.title, models, published))
    whole = {
        "models": [{"summary": one.summary, "records": list(one.records)} for one in models],
        "published": published,
        "baselines": BASELINE_TEXTS,
    }
    text = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (ctx.out / "report.json").write_text(text + "\n")


def read(artifact: Any, most_videos: int) -> Evaluated:
    import pyarrow.parquet as pq

    summary = json.loads(artifact.path("summary.json").read_text())
    names = sorted(summary["videos"])[:most_videos]
    faces: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for row in pq.read_table(artifact.path("frames.parquet")).to_pylist():
        values = np.array(row["values"], dtype=np.float64)
        faces.setdefault((row["method"], row["metric"]), {})[row["clip"]] = values
    return Evaluated(
        summary=summary,
        records=json.loads(artifact.path("metrics.json").read_text()),
        clips=pq.read_table(artifact.path("clips.parquet")).to_pylist(),
        faces=faces,
        grid=artifact.path("grid.png").read_bytes(),
        videos={summary["videos"][name]: artifact.path(name).read_bytes() for name in names},
    )


def read_published(models: Sequence[str]) -> list[dict[str, str]]:
    """Rows of published.csv about these models: model, paper, table, method, setting, metric, direction,
    value."""
    with PUBLISHED.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["model"] in models]


# --- the page -----------------------------------------------------------------------------------------------
def render(title: str, models: Sequence[Evaluated], published: Sequence[Mapping[str, str]]) -> str:
    lead = "".join(f'<p class="soft">{verdict(one)}</p>' for one in models)
    clips, frames = (max(one.summary[name] for one in models) for name in ("clips", "frames"))
    tiles = [
        (str(len(models)), "model" if len(models) == 1 else "models"),
        (f"{clips:,}", "held-out clips"),
        (f"{frames:,}", "frames scored"),
        (str(len({r["name"] for one in models for r in one.records})), "metrics"),
    ]
    sections = [
        Section("results", "Results", _results(models)),
        Section("spread", "Clip by clip", _spread(models)),
        Section("samples", "Samples", "".join(map(_samples, models))),
        Section("published", "What the papers report", _published(published, models)),
        Section("provenance", "Where the numbers come from", "".join(map(_provenance, models))),
        Section("metrics", "How to read the metrics", _glossary(models)),
    ]
    return page(title, lead, tiles, [section for section in sections if section.body])


def verdict(one: Evaluated) -> str:
    """In one sentence: on how many metrics the model beats copying the source, told apart from mere noise."""
    pairs = [(one.record(name, one.model), one.record(name, COPY)) for name in METRICS]
    known = [(m, c) for m, c in pairs if m and c and m["value"] is not None and c["value"] is not None]
    won = [m["title"] for m, c in known if _better(m, c)]
    lost = [m["title"] for m, c in known if not _better(m, c)]
    text = f"<b>{esc(one.model)}</b> beats copying the source frame on {len(won)} of {len(known)} metrics"
    text += f" ({esc(', '.join(won))})" if won else ""
    text += f" and does not on {esc(', '.join(lost))}" if won and lost else ""
    clips = one.summary["clips"]
    few = f" On {clips} clip{'s' * (clips != 1)} that is an indication, not a finding." if clips < 30 else ""
    return f"{text}.{few} {_tags(one)}"


def _better(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a["value"] > b["value"] if a["better"] == "up" else a["value"] < b["value"]


def _tags(one: Evaluated) -> str:
    """The state of the weights, beside every number they touched."""
    labels = one.summary["labels"].items()
    return "".join(
        f'<span class="tag">{esc(part.replace("_", " "))}: {esc(what)}</span>' for part, what in labels
    )


def _results(models: Sequence[Evaluated]) -> str:
    """A table for each protocol: models above, the baselines measured on the same frames below."""
    parts = []
    for protocol, group in groups(models).items():
        parts.append(f'<p class="small id"><code>{esc(protocol)}</code></p>{_table(group)}{_left_out(group)}')
    return INTERVALS + "".join(parts)


def _left_out(group: Sequence[Evaluated]) -> str:
    """One list of clips serves all models: what that cost."""
    lacking = group[0].summary["left_out"]
    if not lacking:
        return ""
    told = ", ".join(f"{count} by {node}" for node, count in lacking.items())
    text = f"Test clips that one of the models cannot be driven with are scored for none: rejected {told}."
    return f'<p class="soft small">{esc(text)}</p>'


def _table(group: Sequence[Evaluated]) -> str:
    names = [name for name in METRICS if any(r["name"] == name for r in group[0].records)]
    heads = ["method"]
    for name in names:
        metric = METRICS[name]
        unit = f" [{metric.unit}]" if metric.unit and metric.unit != "[0,1]" else ""
        heads.append(f"{esc(metric.title)}{esc(unit)} {'↑' if metric.better == 'up' else '↓'}")
    best = {name: _best(group, name) for name in names}
    rows = []
    for one in group:
        cells = "".join(_cell(one.record(n, one.model), best[n]) for n in names)
        rows.append(f'<tr class="model"><td>{esc(one.model)}<br>{_tags(one)}</td>{cells}</tr>')
    one = group[0]  # the same frames, hence the same baselines, for every model of the group
    for method, meaning in BASELINE_TEXTS.items():
        cells = "".join(_cell(one.record(n, method), best[n] if method == COPY else None) for n in names)
        rows.append(
            f'<tr class="base"><td title="{esc(meaning)}">{esc(method.replace("_", " "))}</td>{cells}</tr>'
        )
    head = "".join(f'<th class="n">{h}</th>' if i else f"<th>{h}</th>" for i, h in enumerate(heads))
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _best(group: Sequence[Evaluated], name: str) -> float | None:
    """Of the models and the copied source; None where nothing was measured beside something else."""
    records = [group[0].record(name, COPY), *(one.record(name, one.model) for one in group)]
    values = [record["value"] for record in records if record and record["value"] is not None]
    if len(values) < 2:
        return None
    return max(values) if METRICS[name].better == "up" else min(values)


def _cell(record: Mapping[str, Any] | None, best: float | None) -> str:
    """best: the value that is marked."""
    if record is None:
        return '<td class="n">–</td>'
    if record["value"] is None:
        return f'<td class="why">{esc(record["note"])}</td>'
    lines = [] if record["low"] is None else [f"{number(record['low'])} – {number(record['high'])}"]
    frames = max(1, record["missing"] + record["n"])
    if record["missing"] / frames > MISSING_SHARE:
        lines.append(f"⚠ {record['missing'] / frames:.0%} left out")
    if record["undetected"] / frames > MISSING_SHARE:
        lines.append(f"no face in {record['undetected'] / frames:.0%}")
    small = "".join(f'<span class="ci">{line}</span>' for line in lines)
    marked = " best" if record["value"] == best else ""
    return f'<td class="n{marked}">{number(record["value"])}{small}</td>'


def _spread(models: Sequence[Evaluated]) -> str:
    by_protocol = groups(models)
    parts = []
    for protocol, group in by_protocol.items():
        if charts := [chart for name in METRICS if (chart := _chart(group, name))]:
            if len(by_protocol) > 1:
                parts.append(f'<p class="small id"><code>{esc(protocol)}</code></p>')
            parts.append(f'<div class="charts">{"".join(charts)}</div>')
    return DOTS + "".join(parts) if parts else ""


def _chart(group: Sequence[Evaluated], name: str) -> str:
    """One metric: a row for each model, then the copied source."""
    rows = [_strip(one, name, one.model, COLOURS[i % len(COLOURS)]) for i, one in enumerate(group)]
    rows = [row for row in (*rows, _strip(group[0], name, COPY, GREY)) if row]
    metric = METRICS[name]
    said_of = "higher is better" if metric.better == "up" else "lower is better"
    return strips(metric.title, said_of, rows) if rows else ""


def _strip(one: Evaluated, name: str, method: str, colour: str) -> Strip | None:
    record = one.record(name, method)
    if record is None or record["value"] is None:
        return None
    wanted = [c["value"] for c in one.clips if (c["method"], c["metric"]) == (method, name)]
    dots = [value for value in wanted if value is not None]
    return Strip(method.replace("_", " "), dots, record["value"], record["low"], record["high"], colour)


def _samples(one: Evaluated) -> str:
    videos = "".join(
        f'<figure><video controls loop muted playsinline src="{data_uri(data, "video/mp4")}"></video>'
        f"<figcaption><code>{esc(clip)}</code></figcaption></figure>"
        for clip, data in one.videos.items()
    )
    columns = one.summary["columns"]
    own = ", ".join(columns[2:-2])
    told = f" In between, what the model shows of its own work: {esc(own)}." if own else ""
    grid = (
        f'<figure><img alt="{esc(", ".join(columns))}" src="{data_uri(one.grid, "image/png")}">'
        f"<figcaption>Middle frame of clips of held-out identities, at {one.summary['image_size']} px "
        f"as scored. The error is shown brightened.{told}</figcaption></figure>"
    )
    return f'<h3>{esc(one.model)} {_tags(one)}</h3><div class="media">{grid}{videos}</div>'


def _published(rows: Sequence[Mapping[str, str]], models: Sequence[Evaluated]) -> str:
    silent = [one.model for one in models if not any(row["model"] == one.model for row in rows)]
    told = f'<p class="soft small">No published figures are at hand for {esc(", ".join(silent))}.</p>'
    if not rows:
        return told
    names = list(dict.fromkeys(row["metric"] for row in rows))
    arrows = {row["metric"]: "↑" if row["direction"] == "up" else "↓" for row in rows}
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        place = (row["model"], row["method"], row["setting"], f"{row['paper']}, {row['table']}")
        lines.setdefault(place, {})[row["metric"]] = row["value"]
    body = [[*map(esc, place), *(values.get(name, "–") for name in names)] for place, values in lines.items()]
    heads = ["model", "variant", "setting", "source", *(f"{name} {arrows[name]}" for name in names)]
    return CAVEAT + table(heads, body, numbers=range(4, 4 + len(names))) + (told if silent else "")


def _provenance(one: Evaluated) -> str:
    summary = one.summary
    labels = _tags(one) or "every part carries the published weights"
    keys = "<br>".join(f"{esc(name)} <code>{esc(key)}</code>" for name, key in summary["inputs"].items())
    needs = sorted({w for record in one.records for w in record["weights"]})
    pairs = {
        "weights of the model": labels,
        "weights of the metrics": esc(", ".join(needs) or "none"),
        "protocol": f"<code>{esc(summary['protocol'])}</code>",
        "scored": f"{summary['clips']:,} clips, {summary['frames']:,} frames at {summary['image_size']} px",
        "evaluation": f"<code>{esc(summary['key'])}</code>",
        "made from": keys,
    }
    command = f"<code>reenact why RUN.yaml eval.{esc(one.model)}</code>"
    trace = f'<p class="soft small">{command} says what each key is made of.</p>'
    return f"<h3>{esc(one.model)}</h3>{facts(pairs)}{trace}"


MEANING = {
    "l1": "mean absolute difference of RGB values in [0,1]",
    "psnr_frame": "peak signal-to-noise ratio, mean over frames; identical frames count as 100 dB",
    "psnr_pooled": "the same from the squared error pooled over all frames, which is always a little lower",
    "ssim": "structural similarity with an 11-tap Gaussian window, per RGB channel, border dropped",
    "akd_l1_dlib": "mean absolute coordinate difference of 68 landmarks, in pixels of a 256 px frame",
    "akd_l2_dlib": "mean Euclidean distance of the same landmarks",
}


def _glossary(models: Sequence[Evaluated]) -> str:
    names = [name for name in METRICS if any(r["name"] == name for one in models for r in one.records)]
    backend = {r["name"]: r["backend"] for one in models for r in one.records}
    rows = [
        [
            esc(METRICS[name].title),
            esc(MEANING.get(name, "")),
            f"<code>{esc(METRICS[name].variant)}</code>",
            esc(backend[name]),
        ]
        for name in names
    ]
    baselines = "".join(
        f"<p><b>{esc(m.replace('_', ' '))}</b>: {esc(what)}.</p>" for m, what in BASELINE_TEXTS.items()
    )
    return table(["metric", "meaning", "variant", "computed with"], rows) + baselines + JITTER
