"""HTML pages that are one file: style, tables and charts as text, pictures as data URIs, no address
outside."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PAGE_STYLE = """
:root { color-scheme: light dark; --bg:#f6f7f9; --card:#fff; --ink:#1a1d23; --soft:#5c6370;
  --line:#e2e5ea; --accent:#2f6fde; --accent-soft:#2f6fde22; --good:#1d7f4f; --warn:#a15c00;
  --warn-soft:#fff4e0; --grey:#9aa1ad; --teal:#0f8f86; --plum:#9a3fb5; --rust:#c2562d; }
@media (prefers-color-scheme: dark) { :root { --bg:#13151a; --card:#1b1e25; --ink:#e8eaee; --soft:#9ba3b0;
  --line:#2d323c; --accent:#74a4ff; --accent-soft:#74a4ff2b; --good:#5fcf97; --warn:#f0b45c;
  --warn-soft:#352a17; --grey:#6c7482; --teal:#43c5ba; --plum:#cd86e3; --rust:#ee8f68; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--bg); color:var(--ink); 
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1120px; margin:0 auto; padding:40px 24px 72px; }
h1 { font-size:28px; line-height:1.2; margin:0 0 6px; letter-spacing:-.015em; }
h2 { font-size:19px; margin:0 0 4px; letter-spacing:-.01em; }
h3 { font-size:15px; margin:20px 0 6px; }
p { margin:6px 0 12px; max-width:78ch; }
.soft { color:var(--soft); }
.small { font-size:13px; }
section { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:22px 24px;
  margin-top:20px; }
nav { margin:14px 0 0; display:flex; flex-wrap:wrap; gap:6px 18px; }
a { color:var(--accent); text-decoration:none; }
a:hover { text-decoration:underline; }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th,td { padding:8px 12px; text-align:left; border-bottom:1px solid var(--line); vertical-align:top; }
th { font-weight:600; font-size:13px; color:var(--soft); white-space:nowrap; }
tr:last-child td { border-bottom:0; }
td.n,th.n { text-align:right; white-space:nowrap; }
th.n { white-space:normal; }
thead th { vertical-align:bottom; }
.scroll + .scroll { margin-top:16px; }
td .ci { display:block; font-size:12px; font-weight:400; color:var(--soft); }
tr.model td:first-child { font-weight:650; }
tr.base td { color:var(--soft); }
tr.model td:first-child, tr.base td:first-child { min-width:128px; }
p.id { max-width:none; }
tr td.best { color:var(--good); font-weight:650; }
td.why { font-size:12px; color:var(--soft); min-width:104px; }
.tag { display:inline-block; font-size:12px; font-weight:500; padding:1px 8px; border-radius:10px;
  background:var(--warn-soft); color:var(--warn); margin:2px 4px 2px 0; }
.note { border-left:3px solid var(--warn); background:var(--warn-soft); padding:9px 14px; 
  border-radius:0 8px 8px 0; margin:10px 0 14px; font-size:14px; max-width:90ch; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(130px,1fr)); gap:12px;
  margin-top:18px; }
.tile { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:12px 16px; }
.tile b { display:block; font-size:23px; letter-spacing:-.02em; font-variant-numeric:tabular-nums; }
.tile span { color:var(--soft); font-size:13px; }
.charts { display:grid; grid-template-columns:repeat(auto-fit,minmax(310px,1fr)); gap:22px 28px;
  margin-top:12px; }
figure { margin:0; }
figcaption { font-size:13px; color:var(--soft); margin-bottom:4px; }
figcaption b { color:var(--ink); }
svg { display:block; width:100%; height:auto; }
svg text { fill:var(--soft); font-size:11px; }
img,video { max-width:100%; border-radius:8px; display:block; background:#000; }
.media { display:grid; gap:18px; margin-top:12px; }
.thumbs { display:grid; grid-template-columns:repeat(auto-fill,minmax(150px,1fr)); gap:14px;
  margin-top:12px; }
.thumbs img { width:100%; }
.thumbs figcaption { margin:4px 0 0; overflow-wrap:anywhere; font-size:12px; }
code { font:12.5px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; overflow-wrap:anywhere; }
.bar { background:var(--accent-soft); border-radius:5px; height:22px; min-width:3px; }
.bar.full { background:var(--accent); opacity:.85; }
"""


CHART_COLOURS = ("var(--accent)", "var(--teal)", "var(--plum)", "var(--rust)")
"""Of models in charts, one after the other."""
CHART_GREY = "var(--grey)"


@dataclass(frozen=True, slots=True)
class PageSection:
    anchor: str
    heading: str
    body: str


def escape_html(value: object) -> str:
    return html.escape(str(value), quote=True)


def render_page(
    title: str, lead: str, tiles: Sequence[tuple[str, str]], sections: Sequence[PageSection]
) -> str:
    """A whole document. `lead` and section bodies are HTML; titles and tiles are text."""
    links = "".join(f'<a href="#{s.anchor}">{escape_html(s.heading)}</a>' for s in sections)
    boxes = "".join(
        f'<div class="tile"><b>{escape_html(v)}</b><span>{escape_html(name)}</span></div>'
        for v, name in tiles
    )
    parts = "".join(
        f'<section id="{s.anchor}"><h2>{escape_html(s.heading)}</h2>{s.body}</section>\n' for s in sections
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape_html(title)}</title>'
        f'<meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><style>{PAGE_STYLE}</style></head>\n'
        f"<body><main><h1>{escape_html(title)}</h1>{lead}<nav>{links}</nav>"
        f'<div class="tiles">{boxes}</div>\n{parts}</main></body></html>\n'
    )


def render_table(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Cells are HTML; columns listed in `numbers` are set right."""
    kind = ['class="n"' if i in numbers else "" for i in range(len(headers))]
    head = "".join(f"<th {kind[i]}>{text}</th>" for i, text in enumerate(headers))
    body = "".join(
        "<tr>" + "".join(f"<td {kind[i]}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def render_facts(pairs: Mapping[str, str]) -> str:
    """Name and value, one a line; values are HTML."""
    rows = "".join(f"<tr><th>{escape_html(name)}</th><td>{value}</td></tr>" for name, value in pairs.items())
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'


def format_number(value: float, digits: int = 4) -> str:
    """Significant digits without exponents, thousands set apart: 21.53, 0.04213, 12,345."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


# --- charts -------------------------------------------------------------------------------------------------
def render_histogram(title: str, unit: str, values: Sequence[float] | np.ndarray, bins: int = 24) -> str:
    """Counts of values as bars, with median and the 5th to 95th percentile in the caption."""
    data = np.asarray(values, dtype=np.float64)
    data = data[np.isfinite(data)]
    if not len(data):
        return f"<figure><figcaption><b>{escape_html(title)}</b><br>no values</figcaption></figure>"
    low, middle, high = np.percentile(data, [5, 50, 95])
    counts, edges = np.histogram(data, bins=bins)
    width, height, base = 340, 120, 100
    step = width / bins
    tall = 92 * counts / counts.max()
    bars = "".join(
        f'<rect x="{i * step + 0.5:.1f}" y="{base - tall[i]:.1f}" width="{step - 1:.1f}" '
        f'height="{tall[i]:.1f}" rx="1.5" fill="var(--accent)" opacity=".8">'
        f"<title>{edges[i]:.4g} to {edges[i + 1]:.4g}: {counts[i]}</title></rect>"
        for i in range(bins)
    )
    marks = "".join(
        f'<text x="{x}" y="115" text-anchor="{anchor}">{escape_html(f"{value:.4g}")}</text>'
        for x, anchor, value in ((0, "start", edges[0]), (width / 2, "middle", (edges[0] + edges[-1]) / 2),
                                 (width, "end", edges[-1]))
    )  # fmt: skip
    unit = f" {unit}" if unit else ""
    summary = f"median {middle:.3g}{unit}, 5 to 95 %: {low:.3g} to {high:.3g}; {len(data):,} values"
    return (
        f"<figure><figcaption><b>{escape_html(title)}</b><br>{escape_html(summary)}</figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape_html(title)}">'
        f'<line x1="0" x2="{width}" y1="{base}" y2="{base}" stroke="var(--line)"/>'
        f"{bars}{marks}</svg></figure>"
    )


@dataclass(frozen=True, slots=True)
class StripChartRow:
    """One row of a strip chart: a dot for each clip, a tick at the value and a bar over its interval."""

    name: str
    dots: Sequence[float]
    value: float
    low: float | None
    high: float | None
    colour: str


def render_strip_chart(title: str, note: str, rows: Sequence[StripChartRow]) -> str:
    """Rows over one axis, so that methods can be compared at a glance."""
    points = [v for row in rows for v in (*row.dots, row.value) if math.isfinite(v)]
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    left, width, tall = 92, 340, 30

    def at(value: float) -> float:
        return left + 6 + (width - left - 14) * (value - low) / span

    parts = []
    for i, row in enumerate(rows):
        y = 16 + i * tall
        colour = row.colour
        parts.append(f'<text x="0" y="{y + 4}">{escape_html(row.name)}</text>')
        parts += [f'<circle cx="{at(v):.1f}" cy="{y}" r="3" fill="{colour}" opacity=".3"/>' for v in row.dots]
        if row.low is not None and row.high is not None:
            parts.append(
                f'<rect x="{at(row.low):.1f}" y="{y - 3}" width="{max(1.0, at(row.high) - at(row.low)):.1f}" '
                f'height="6" rx="3" fill="{colour}" opacity=".55"/>'
            )
        parts.append(
            f'<rect x="{at(row.value) - 1.5:.1f}" y="{y - 9}" width="3" height="18" rx="1" fill="{colour}"/>'
        )
    bottom = 16 + len(rows) * tall
    axis = (
        f'<text x="{left}" y="{bottom}">{escape_html(format_number(low, 3))}</text>'
        f'<text x="{width}" y="{bottom}" text-anchor="end">{escape_html(format_number(high, 3))}</text>'
    )
    return (
        f"<figure><figcaption><b>{escape_html(title)}</b> {escape_html(note)}</figcaption>"
        f'<svg viewBox="0 0 {width} {bottom + 4}" role="img" aria-label="{escape_html(title)}">'
        f"{''.join(parts)}{axis}</svg></figure>"
    )
