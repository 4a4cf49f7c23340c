"""Node `corpus`: a page about the data: what was lost on the way, who is in which split, what the clips look
like.

Counts come from every record; distributions and thumbnails from at most SAMPLED clips, evenly spread.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.eval import pictures
from pipelines.eval.page import Section, esc, histogram, page, table
from pipelines.eval.reenact import evenly

if TYPE_CHECKING:
    from pipelines.engine.node import Context

FPS = 25
SAMPLED = 400
"""Clips whose landmarks and poses are read for the distributions."""
THUMBNAILS = 12
THUMBNAIL_SIZE = 192
STAGES = ("download", "clips", "keypoints", "fit3dmm", "speech")
READS = {
    "usable": "listed", "download": "usable", "clips": "download",
    "keypoints": "clips", "fit3dmm": "keypoints", "speech": "clips",
}  # fmt: skip
"""Step -> the step its losses are counted against."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A keyed node's manifest, counted."""

    name: str
    ok: int
    rejected: int
    clips: int
    hours: float
    """Of frames in its shards; 0 where it stores none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    name: str
    identities: int
    recordings: int
    clips: int
    hours: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    node: str
    code: str
    count: int
    example: str
    """One unit and its reason, as recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Everything the page says, without its pictures; corpus.json."""

    listed: int
    """Rows of the source, those rejected there included."""
    recordings: int
    stages: list[Stage]
    splits: list[Split]
    shared: list[str]
    """Identities in more than one split; must be empty."""
    rejects: list[Reject]
    sampled: int
    values: dict[str, list[float]] = field(default_factory=dict)
    """Distributions by name; see `measure`."""

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


def corpus(ctx: Context) -> None:
    """The whole node: corpus.html and corpus.json."""
    rows = _table(ctx.inputs["recordings"], "recordings.parquet")
    refused = _table(ctx.inputs["recordings"], "rejects.parquet")
    clips = ctx.inputs["clips"].family()
    facts = count(rows, refused, {n: ctx.inputs[n] for n in STAGES if n in ctx.inputs}, clips)
    families = {name: ctx.inputs[name].family() for name in STAGES if name in ctx.inputs}
    facts = replace(facts, values=measure(families, evenly(clips.keys, SAMPLED), ctx.progress))
    shown = [(key, thumbnail(families, key)) for key in evenly(clips.keys, THUMBNAILS)]
    (ctx.out / "corpus.html").write_text(render(facts, shown))
    text = json.dumps(summary(facts), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (ctx.out / "corpus.json").write_text(text + "\n")
    kept = facts.stage("clips")
    ctx.metrics(
        {"corpus/recordings": facts.recordings, "corpus/clips": kept.clips, "corpus/hours": kept.hours}
    )


def _table(artifact: Any, name: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(artifact.path(name)).to_pylist() if name in artifact.files else []


# --- facts --------------------------------------------------------------------------------------------------
def count(
    rows: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, Any]],
    artifacts: Mapping[str, Any],
    clips: Any,
) -> Corpus:
    """Recordings, their rejects, the keyed artifacts by node and the clips' family -> counts."""
    manifests = {name: artifact.manifest() for name, artifact in artifacts.items()}
    frames = {row.unit: row.frames for row in manifests["clips"] if row.status == "ok"}
    stages = [
        Stage(
            name=name,
            ok=sum(row.status == "ok" for row in manifest),
            rejected=sum(row.status == "rejected" for row in manifest),
            clips=sum(row.clips for row in manifest) if name != "download" else 0,
            hours=sum(frames.get(r.unit, 0) for r in manifest if r.status == "ok") / FPS / 3600,
        )
        for name, manifest in manifests.items()
    ]
    held: dict[str, set[str]] = {}
    for row in rows:
        held.setdefault(row["identity"], set()).add(row["split"])
    return Corpus(
        listed=len(rows) + len(refused),
        recordings=len(rows),
        stages=stages,
        splits=_splits(rows, clips),
        shared=sorted(identity for identity, splits in held.items() if len(splits) > 1),
        rejects=_rejects(refused, manifests),
        sampled=min(len(clips.keys), SAMPLED),
    )


def _splits(rows: Sequence[Mapping[str, Any]], clips: Any) -> list[Split]:
    by_recording: dict[str, list[str]] = {}
    for key in clips.keys:
        by_recording.setdefault(clips.recording_of(key), []).append(key)
    found = []
    for name in sorted({row["split"] for row in rows}, reverse=True):  # train before test
        mine = [row for row in rows if row["split"] == name]
        keys = [key for row in mine for key in by_recording.get(row["id"], [])]
        found.append(
            Split(
                name=name,
                identities=len({row["identity"] for row in mine}),
                recordings=len(mine),
                clips=len(keys),
                hours=sum(clips.frames_of(key) for key in keys) / FPS / 3600,
            )
        )
    return found


def _rejects(refused: Sequence[Mapping[str, Any]], manifests: Mapping[str, Sequence[Any]]) -> list[Reject]:
    """Counted by node and code, in the order of the road, the commonest first."""
    said = [("recordings", row["code"], f"{row['id']}: {row['sentence']}") for row in refused]
    said += [
        (name, row.code, f"{row.unit}: {row.reason}")
        for name, manifest in manifests.items()
        for row in manifest
        if row.status == "rejected"
    ]
    counts = Counter((node, code) for node, code, _ in said)
    example = {(node, code): text for node, code, text in reversed(said)}
    order = ["recordings", *STAGES]
    return [
        Reject(node=node, code=code, count=counts[node, code], example=example[node, code])
        for node, code in sorted(counts, key=lambda one: (order.index(one[0]), -counts[one], one[1]))
    ]


def measure(families: Mapping[str, Any], keys: Sequence[str], progress: Any) -> dict[str, list[float]]:
    """Distributions over sampled clips: one value a clip, or one a frame (every 5th) for faces and poses."""
    values: dict[str, list[float]] = {
        name: [] for name in ("seconds", "crop", "face", "yaw", "pitch", "roll", "fit_error", "found")
    }
    for i, key in enumerate(keys):
        clip = families["clips"].read(key, ["crop"])
        values["seconds"].append(len(clip["crop"]) / FPS)
        values["crop"] += np.diff(clip["crop"][::5, [0, 2]]).ravel().tolist()
        if "keypoints" in families and key in families["keypoints"]:
            landmarks = families["keypoints"].read(key, ["landmarks"])["landmarks"]
            seen = np.isfinite(landmarks).all(axis=(1, 2))
            values["found"].append(100 * float(seen.mean()))
            extent = np.ptp(landmarks[seen][::5], axis=1)  # (n,2)
            values["face"] += np.sqrt(extent.prod(axis=1)).tolist()
        if "fit3dmm" in families and key in families["fit3dmm"]:
            fit = families["fit3dmm"].read(key, ["angles", "fit_error"])
            seen = np.isfinite(fit["fit_error"])
            for column, name in enumerate(("pitch", "yaw", "roll")):
                values[name] += fit["angles"][seen][::5, column].tolist()
            values["fit_error"] += fit["fit_error"][seen][::5].tolist()
        progress(i + 1, len(keys), "clips")
    return values


def summary(facts: Corpus) -> dict[str, Any]:
    """The facts with each distribution as percentiles."""
    found = asdict(facts)
    found["values"] = {
        name: {f"p{p:02d}": round(float(np.percentile(data, p)), 4) for p in (5, 25, 50, 75, 95)}
        for name, data in facts.values.items()
        if data
    }
    return found


# --- pictures -----------------------------------------------------------------------------------------------
def thumbnail(families: Mapping[str, Any], key: str) -> np.ndarray:
    """The middle frame of a clip with its landmarks -> (S,S,3) uint8."""
    frames = families["clips"]
    middle = frames.frames_of(key) // 2
    frame = frames.frames(key, [middle])
    image = pictures.to_uint8(pictures.resize(frame, THUMBNAIL_SIZE))[0]
    if "keypoints" in families and key in families["keypoints"]:
        points = families["keypoints"].read(key, ["landmarks"])["landmarks"][middle]
        dots(image, points * THUMBNAIL_SIZE / frame.shape[1])
    return image


def dots(image: np.ndarray, points: np.ndarray) -> None:
    """Draw (n,2) pixel positions into (H,W,3) uint8 in place: white on a dark rim; NaN ones are left out."""
    for x, y in points[np.isfinite(points).all(axis=1)].astype(int):
        for reach, colour in ((2, (20, 30, 60)), (1, (255, 255, 255))):
            rows = slice(max(0, y - reach + 1), max(0, y + reach))
            columns = slice(max(0, x - reach + 1), max(0, x + reach))
            image[rows, columns] = colour


# --- the page -----------------------------------------------------------------------------------------------
def render(facts: Corpus, shown: Sequence[tuple[str, np.ndarray]]) -> str:
    clips = facts.stage("clips")
    identities = sum(split.identities for split in facts.splits)
    lead = (
        f'<p class="soft">{facts.recordings:,} recordings of {identities:,} people became {clips.clips:,} '
        f"clips, {_hours(clips.hours)} of talking faces.</p>"
    )
    tiles = [
        (f"{identities:,}", "identities"),
        (f"{facts.recordings:,}", "recordings"),
        (f"{clips.clips:,}", "clips"),
        (_hours(clips.hours), "of video at 25 fps"),
    ]
    sections = [
        Section("road", "From list to clips", _road(facts)),
        Section("splits", "Splits", _split_table(facts)),
        Section("rejects", "Rejected", _reject_table(facts)),
        Section("shape", "What the clips are like", _charts(facts)),
        Section("samples", "Samples", _thumbnails(shown)),
    ]
    return page("The corpus", lead, tiles, sections)


def _hours(hours: float) -> str:
    return (
        f"{hours:,.1f} h"
        if hours >= 1
        else f"{hours * 60:,.1f} min"
        if hours >= 1 / 60
        else f"{hours * 3600:.0f} s"
    )


def _road(facts: Corpus) -> str:
    """Each step as a bar over the recordings listed; what it lost is counted against the step it reads."""
    steps = [("listed", facts.listed, 0, 0.0), ("usable", facts.recordings, 0, 0.0)]
    steps += [(stage.name, stage.ok, stage.clips, stage.hours) for stage in facts.stages]
    kept_by = {name: kept for name, kept, _, _ in steps}
    rows = []
    for name, kept, clips, hours in steps:
        lost = kept_by.get(READS.get(name, ""), kept) - kept
        bar = f'<div class="bar full" style="width:{100 * kept / max(1, facts.listed):.1f}%"></div>'
        cells = [f"{kept:,}", f"−{lost:,}" if lost else "", f"{clips:,}" if clips else "", _hours(hours)]
        rows.append([esc(name), bar, *cells[:3], cells[3] if hours else ""])
    wide = '<span style="display:inline-block;width:280px">recordings</span>'
    return table(["step", wide, "", "lost here", "clips", "video"], rows, numbers=(2, 3, 4, 5))


def _split_table(facts: Corpus) -> str:
    warning = ""
    if facts.shared:
        named = esc(", ".join(facts.shared[:10]))
        warning = (
            f'<div class="note">{len(facts.shared)} identities are in more than one split: {named}</div>'
        )
    rows = [
        [esc(s.name), f"{s.identities:,}", f"{s.recordings:,}", f"{s.clips:,}", _hours(s.hours)]
        for s in facts.splits
    ]
    said = (
        '<p class="soft small">Split by identity: no person is in both.</p>' if not facts.shared else warning
    )
    return said + table(["split", "identities", "recordings", "clips", "video"], rows, numbers=(1, 2, 3, 4))


def _reject_table(facts: Corpus) -> str:
    if not facts.rejects:
        return '<p class="soft">Nothing was rejected.</p>'
    rows = [
        [
            esc(r.node),
            f"<code>{esc(r.code)}</code>",
            f"{r.count:,}",
            f'<span class="small">{esc(r.example)}</span>',
        ]
        for r in facts.rejects
    ]
    return table(["node", "code", "recordings", "one of them"], rows, numbers=(2,))


def _charts(facts: Corpus) -> str:
    charts = [
        ("Length of a clip", "s", "seconds"),
        ("Square cut out of the recording", "px", "crop"),
        ("Size of the face in the clip", "px", "face"),
        ("Frames with landmarks", "%", "found"),
        ("Yaw", "°", "yaw"),
        ("Pitch", "°", "pitch"),
        ("Roll", "°", "roll"),
        ("Error of the 3DMM fit", "px", "fit_error"),
    ]
    drawn = "".join(histogram(title, unit, facts.values.get(name, [])) for title, unit, name in charts)
    share = f"{facts.sampled:,} of {facts.stage('clips').clips:,}"
    return f'<p class="soft small">From {share} clips, evenly spread.</p><div class="charts">{drawn}</div>'


def _thumbnails(shown: Sequence[tuple[str, np.ndarray]]) -> str:
    figures = "".join(
        f'<figure><img alt="" src="{pictures.data_uri(pictures.jpeg(image), "image/jpeg")}">'
        f"<figcaption>{esc(key)}</figcaption></figure>"
        for key, image in shown
    )
    said = '<p class="soft small">Middle frames, with the landmarks found.</p>'
    return f'{said}<div class="thumbs">{figures}</div>'
