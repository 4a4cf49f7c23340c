"""Who is who, on the corpus page: test identities beside the nearest training identity, clips unlike their
own identity, clips that are there twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from pipelines.corpus.identity_check import (
    IDENTITIES_FILE,
    WRONG_NAME,
    CheckSummary,
    ClipRow,
    DuplicateRow,
    PersonRow,
)
from pipelines.corpus.identity_distance import MIN_IDENTITIES
from pipelines.figures import picture_grids
from pipelines.figures.html import escape_html, render_table

MEASURED = (
    "Measured at -3.3 on 150 rendered people, in corpora of 80 and 70: 0.8 in 1,000 pairs of two people are "
    "as near, and of people under two names 93 % are found with a single clip of 1.6 s each, 99 % with two; "
    "of real people no pair is, and all are found."
)
"""By tests/bench/bench_identity_leaks.py, at the threshold that is set by default."""
MAX_LISTED_PEOPLE, MAX_LISTED_CLIPS = 20, 20
MAX_PICTURED = 6
"""Rows of each table that are pictured with pictures."""
PICTURE_WIDTH = 84
DEMOGRAPHIC_NOTE = (
    "The net is dlib's of 2017. It confuses people unlike those it was trained on more often than others; "
    "users report it of East Asian faces. Look at the pictures before you believe a name."
)


class IdentityFindings(Struct, frozen=True, kw_only=True):
    """What the page tells of the node `identity_check`, and of `splits` where it is there."""

    summary: CheckSummary
    identities: list[PersonRow]
    clips: list[ClipRow]
    """Those with an issue."""
    duplicates: list[DuplicateRow]
    moved: list[str] | None
    """Identities moved from test to train; None where leaks are only reported."""

    @property
    def tested(self) -> list[PersonRow]:
        """Test identities, those most like a training identity first."""
        some = [row for row in self.identities if row.split == "test" and row.distance is not None]
        return sorted(some, key=lambda row: (not row.same_as, row.distance, row.identity))

    @property
    def leaks(self) -> list[PersonRow]:
        return [row for row in self.tested if row.same_as]


Picture = Callable[[str], np.ndarray]
"""Key of a clip -> (S,S,3) uint8."""


def render_identity_section(findings: IdentityFindings, picture: Picture) -> str:
    """HTML of the section."""
    summary = findings.summary
    if not summary.enough:
        return (
            f'<p class="soft">Faces of {summary.identities:,} identities were found; to tell who is who, '
            f"{MIN_IDENTITIES} are needed.</p>"
        )
    expected = summary.expected_false_names
    lead = (
        f'<p class="soft small">Faces are compared with <code>{escape_html(summary.net)}</code>. The '
        "distance of two identities tells how much better their clips fit two people than one (a log "
        "likelihood ratio), in standard deviations from the mean of the pairs of this corpus: 0 is the usual "
        f"pair of two people. Up to {summary.threshold:g} two names are taken for one person. Of the "
        f"{summary.compared_pairs:,} pairs here some {expected:,.1f} are as near by chance, if they are "
        f"spread as a Gaussian. {MEASURED} {DEMOGRAPHIC_NOTE}</p>"
    )
    return "".join((
        lead,
        "<h3>Test identities and the nearest training identity</h3>", _leak_note(findings),
        _people_table(findings, picture),
        "<h3>Clips unlike their own identity</h3>", _clip_table(findings, picture),
        "<h3>Clips that are there twice</h3>", _duplicate_table(findings, picture),
    ))  # fmt: skip


def _leak_note(findings: IdentityFindings) -> str:
    leaks = findings.leaks
    if not leaks:
        return '<p class="soft">No test identity is taken for a training identity.</p>'
    named = escape_html(", ".join(f"{row.identity} is {row.same_as}" for row in leaks[:10]))
    if findings.moved is None:
        done = "This is only reported: set <code>data.NAME.leaks</code> to refuse or move"
    else:
        done = f"Moved to the training split: {escape_html(', '.join(findings.moved[:10]))}"
    return (
        f'<div class="note">Test identities that have the face of a training identity: {len(leaks):,} '
        f"({named}). {done}.</div>"
    )


def _people_table(findings: IdentityFindings, picture: Picture) -> str:
    rows = []
    for number, row in enumerate(findings.tested[:MAX_LISTED_PEOPLE]):
        pictured = number < MAX_PICTURED
        rows.append([
            _clip_figure(row.sample_clip, picture) if pictured else "", escape_html(row.identity),
            f"{row.clips:,}", _clip_figure(row.nearest_clip, picture) if pictured else "",
            escape_html(f"{row.nearest} ({row.nearest_corpus})" if row.nearest_corpus else row.nearest),
            f"{row.distance:.2f}",
            f'<span class="tag">is {escape_html(row.same_as)}</span>' if row.same_as else "",
        ])  # fmt: skip
    if not rows:
        return '<p class="soft">One of the splits is empty.</p>'
    headers = ["", "test identity", "clips", "", "nearest training identity", "distance", ""]
    return render_table(headers, rows, numbers=(2, 5)) + _rest(len(findings.tested) - len(rows), "identities")


def _clip_table(findings: IdentityFindings, picture: Picture) -> str:
    if not findings.clips:
        return '<p class="soft">Every clip is like the other clips of its identity.</p>'
    sample = {row.identity: row.sample_clip for row in findings.identities}
    order = sorted(
        findings.clips, key=lambda row: (row.issue != WRONG_NAME, -(row.own_distance or 0), row.clip)
    )
    rows = []
    for number, row in enumerate(order[:MAX_LISTED_CLIPS]):
        own, pictured = row.clip.partition("#")[0], number < MAX_PICTURED
        nearest = escape_html(row.nearest) if row.issue == WRONG_NAME else ""
        other = sample.get(row.nearest, "") if row.issue == WRONG_NAME else ""
        rows.append([
            _clip_figure(row.clip, picture) if pictured else "", f"<code>{escape_html(row.clip)}</code>",
            _clip_figure(sample.get(own, ""), picture) if pictured else "",
            f"{row.own_distance:.2f}" if row.own_distance is not None else "",
            _clip_figure(other, picture) if pictured else "", nearest,
            f"{row.nearest_distance:.2f}" if nearest and row.nearest_distance is not None else "",
        ])  # fmt: skip
    headers = ["", "clip", "its identity", "distance", "", "more like", "distance"]
    return render_table(headers, rows, numbers=(3, 6)) + _rest(len(order) - len(rows), "clips")


def _duplicate_table(findings: IdentityFindings, picture: Picture) -> str:
    if not findings.duplicates:
        return '<p class="soft">No clip moves as a clip of another recording does.</p>'
    split = {row.identity: row.split for row in findings.identities}
    rows = []
    for number, row in enumerate(findings.duplicates[:MAX_LISTED_CLIPS]):
        cells = []
        for key in (row.first, row.second):
            name = f"<code>{escape_html(key)}</code><br>{split.get(key.partition('#')[0], '')}"
            cells += [_clip_figure(key, picture) if number < MAX_PICTURED else "", name]
        rows.append([*cells, f"{row.shift / 25:+.2f} s", f"{100 * row.difference:.1f} %"])
    text = (
        '<p class="soft small">Clips of two recordings whose landmarks move alike, but for the jitter of the '
        "landmarks: one video that was encoded, cropped or cut anew.</p>"
    )
    headers = ["", "clip", "", "clip", "begins later by", "landmarks differ by"]
    table = render_table(headers, rows, numbers=(4, 5))
    return text + table + _rest(len(findings.duplicates) - len(rows), "pairs")


def _clip_figure(key: str, picture: Picture) -> str:
    if not key:
        return ""
    image = picture_grids.make_data_uri(picture_grids.encode_jpeg(picture(key)), "image/jpeg")
    return f'<img alt="" title="{escape_html(key)}" style="width:{PICTURE_WIDTH}px" src="{image}">'


def _rest(count: int, what: str) -> str:
    if count <= 0:
        return ""
    return f'<p class="soft small">{count:,} more {what} stand in the tables beside {IDENTITIES_FILE}.</p>'


def findings_mlflow_metrics(findings: IdentityFindings) -> dict[str, float]:
    """For MLflow: corpus/NAME."""
    found = {
        "leaks": len(findings.leaks),
        "clips_unlike_own_identity": len(findings.clips),
        "near_duplicates": len(findings.duplicates),
    }
    return {f"corpus/{name}": value for name, value in found.items()}
