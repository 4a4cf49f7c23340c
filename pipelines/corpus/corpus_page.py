"""The corpus page: tables, charts and pictures of the facts that `corpus.py` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.corpus.statistics import FPS, MAX_REJECT_EXAMPLES, PERCENTILES, CorpusStatistics
from pipelines.figures import picture_grids
from pipelines.figures.html import PageSection, escape_html, render_histogram, render_page, render_table

if TYPE_CHECKING:
    from storage.families import Family

THUMBNAIL_SIZE = 192
DUPLICATE_RECORDING_REJECT_CODE = "duplicate_content"
"""Code of recordings that the list leaves out because their file is another's."""
LANDMARKS_SLIP_REJECT_CODE, NO_FIT_REJECT_CODE = "landmarks_slip", "no_fit"
"""Codes under which keypoints and fit3dmm leave out recordings, and single clips of them."""
MAX_LISTED_RESOLUTIONS = 8
"""Sizes of recordings listed by name."""
MAX_LISTED_SLIPPED_CLIPS = 12
"""Clips whose landmarks slip in the largest shares of their frames, each shown by its worst frame."""
PREVIOUS_FUNNEL_STEP = {
    "usable": "listed", "download": "usable", "clips": "download",
    "keypoints": "clips", "fit3dmm": "keypoints", "speech": "clips",
}  # fmt: skip
"""Step -> the step its losses are counted against."""
CORPUS_PAGE_CHARTS = {
    "Clips": (
        ("Length of a clip", "s", "seconds"),
        ("Clips of an identity", "", "clips_each"),
        ("Square cut out of the recording", "px", "crop"),
        ("Size of the face in the clip", "px", "face"),
        ("Frames with landmarks", "%", "found"),
        ("Sharpness of the face", "", "sharpness"),
        ("Share of the time with sound", "", "audible"),
    ),
    "Recordings": (("Length of a recording", "s", "raw_seconds"), ("Frame rate", "fps", "raw_fps")),
    "Pose": (
        ("Yaw", "°", "yaw"),
        ("Pitch", "°", "pitch"),
        ("Roll", "°", "roll"),
        ("Error of the 3DMM fit", "px", "fit_error"),
    ),
    "Expression": (
        ("Mouth open, in eye distances", "", "mouth"),
        ("Eyes open, in eye distances", "", "eyes"),
    ),
}
FACES_NOT_COMPARED = (
    '<p class="soft">Faces are not compared: <code>identity.net</code> is off, or the run has no landmarks. '
    "Identities are what the source calls them.</p>"
)
POSE_MAP_DEGREES, POSE_MAP_STEP = (75, 45), 5
"""Yaw and pitch that the map of poses reaches, and the side of its cells."""


def clip_thumbnail(families: Mapping[str, Family], key: str, at: int | None = None) -> np.ndarray:
    """A frame of a clip, the middle one by default, with its landmarks -> (S,S,3) uint8."""
    frames = families["clips"]
    number = frames.frame_count(key) // 2 if at is None else at
    frame = frames.frames(key, [number])
    image = picture_grids.to_uint8(picture_grids.resize_frames(frame, THUMBNAIL_SIZE))[0]
    if "keypoints" in families and key in families["keypoints"]:
        points = families["keypoints"].read(key, ["landmarks"])["landmarks"][number]
        picture_grids.overlay_points(image, points * THUMBNAIL_SIZE / frame.shape[1])
    return image


def render_corpus_page(
    facts: CorpusStatistics,
    thumbnails: Sequence[tuple[str, np.ndarray]],
    who_is_who: str = "",
    slipped: Sequence[tuple[str, np.ndarray]] = (),
) -> str:
    """The whole page, one file. `thumbnails`: keys of clips and their pictures. who_is_who: HTML of that
    section; empty = faces were not compared. slipped: keys and pictures of clips whose landmarks slip."""
    clips = facts.stage_counts("clips")
    identities = sum(split.identities for split in facts.splits)
    lead = (
        f'<p class="soft">{facts.recordings:,} recordings of {identities:,} people became {clips.clips:,} '
        f"clips, {format_hours(clips.hours)} of talking faces.</p>"
    )
    tiles = [
        (f"{identities:,}", "identities"),
        (f"{facts.recordings:,}", "recordings"),
        (f"{clips.clips:,}", "clips"),
        (format_hours(clips.hours), "of video at 25 fps"),
    ]
    sections = [
        PageSection("road", "From list to clips", _road(facts)),
        PageSection("rejects", "Rejected", _reject_table(facts)),
        PageSection("splits", "Splits and identities", _split_table(facts) + _identity_table(facts)),
        PageSection("people", "Who is who, by face", who_is_who or FACES_NOT_COMPARED),
        PageSection("duplicates", "Duplicates", _duplicate_table(facts)),
        PageSection("recordings", "Recordings", _size_table(facts) + _charts(facts, "Recordings")),
        PageSection("clips", "Clips", _share(facts) + _charts(facts, "Clips")),
        PageSection("slips", "Landmarks that slip", _slips(facts, slipped)),
        PageSection("pose", "Pose", _charts(facts, "Pose", pose_map_svg(facts.values))),
        PageSection(
            "expression", "Expression", _charts(facts, "Expression") + expression_box_plot(facts.expression)
        ),
        PageSection("samples", "Samples", _thumbnails(thumbnails)),
    ]
    return render_page("The corpus", lead, tiles, sections)


def format_hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:,.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.0f} s"


# --- tables -------------------------------------------------------------------------------------------------
def _road(facts: CorpusStatistics) -> str:
    """Each step as a bar over the recordings listed; what it lost is counted against the step it reads."""
    steps = [("listed", facts.listed, 0, 0.0), ("usable", facts.recordings, 0, 0.0)]
    steps += [(stage.name, stage.ok, stage.clips, stage.hours) for stage in facts.stages]
    kept_by = {name: kept for name, kept, _, _ in steps}
    rows = []
    for name, kept, clips, hours in steps:
        lost = kept_by.get(PREVIOUS_FUNNEL_STEP.get(name, ""), kept) - kept
        bar = f'<div class="bar full" style="width:{100 * kept / max(1, facts.listed):.1f}%"></div>'
        cells = [
            f"{kept:,}",
            f"−{lost:,}" if lost else "",
            f"{clips:,}" if clips else "",
            format_hours(hours),
        ]
        rows.append([escape_html(name), bar, *cells[:3], cells[3] if hours else ""])
    wide = '<span style="display:inline-block;width:280px">recordings</span>'
    return render_table(["step", wide, "", "lost here", "clips", "video"], rows, numbers=(2, 3, 4, 5))


def _reject_table(facts: CorpusStatistics) -> str:
    if facts.rejects:
        rows = [
            [
                escape_html(r.node),
                f'<code style="white-space:nowrap">{escape_html(r.code)}</code>',
                f"{r.count:,}",
                "<br>".join(f'<span class="small">{escape_html(example)}</span>' for example in r.examples),
            ]
            for r in facts.rejects
        ]
        text = render_table(["node", "code", "recordings", "some of them"], rows, numbers=(2,))
    else:
        text = '<p class="soft">No recording was rejected.</p>'
    if facts.dropped:
        lost = ", ".join(
            f"<code>{escape_html(code)}</code> {number:,}" for code, number in facts.dropped.items()
        )
        text += (
            '<p class="soft small">Tracks that made no clip in recordings that made others, of the sampled '
            f"clips: {lost}.</p>"
        )
    for node, code, keys in (
        ("keypoints", LANDMARKS_SLIP_REJECT_CODE, facts.slipped_out),
        ("fit3dmm", NO_FIT_REJECT_CODE, facts.unfitted),
    ):
        if keys:
            some = ", ".join(escape_html(key) for key in keys[:MAX_REJECT_EXAMPLES])
            text += (
                f'<p class="soft small">Clips that {node} left out of recordings in which it kept others: '
                f"<code>{code}</code> {len(keys):,} ({some}).</p>"
            )
    return text


def _split_table(facts: CorpusStatistics) -> str:
    if facts.shared:
        named = escape_html(", ".join(facts.shared[:10]))
        text = f'<div class="note">{len(facts.shared)} identities are in more than one split: {named}</div>'
    else:
        text = '<p class="soft small">Split by identity: no name is in two.</p>'
    rows = [
        [escape_html(s.name), f"{s.identities:,}", f"{s.recordings:,}", f"{s.clips:,}", format_hours(s.hours)]
        for s in facts.splits
    ]
    return text + render_table(
        ["split", "identities", "recordings", "clips", "video"], rows, numbers=(1, 2, 3, 4)
    )


def _identity_table(facts: CorpusStatistics) -> str:
    rows = [
        [
            escape_html(i.name),
            escape_html(", ".join(i.splits)),
            f"{i.recordings:,}",
            f"{i.clips:,}",
            format_hours(i.hours),
        ]
        for i in facts.identities
    ]
    head = "<h3>Identities with the most video</h3>"
    return head + render_table(["identity", "split", "recordings", "clips", "video"], rows, numbers=(2, 3, 4))


def _duplicate_table(facts: CorpusStatistics) -> str:
    copies = sum(r.count for r in facts.rejects if r.code == DUPLICATE_RECORDING_REJECT_CODE)
    left_out = f" {copies:,} more are left out of the list as copies of others." if copies else ""
    if not facts.duplicates:
        return f'<p class="soft">No two of the recordings kept are the same file.{left_out}</p>'
    across = sum(len(d.splits) > 1 for d in facts.duplicates)
    text = f'<div class="note">{across} of them lie in two splits.</div>' if across else ""
    rows = [
        [
            escape_html(", ".join(d.recordings)),
            escape_html(", ".join(d.splits)),
            f"<code>{escape_html(d.digest[:16])}</code>",
        ]
        for d in facts.duplicates
    ]
    text += f'<p class="soft">Recordings of the same bytes under several names.{left_out}</p>'
    return text + render_table(["recordings", "splits", "content"], rows)


def _size_table(facts: CorpusStatistics) -> str:
    total = facts.probed
    if not total:
        return ""
    named = list(facts.resolutions.items())[:MAX_LISTED_RESOLUTIONS]
    rows = [
        [escape_html(size.replace("x", "×")), f"{number:,}", f"{100 * number / total:.0f} %"]
        for size, number in named
    ]
    rest = total - sum(number for _, number in named)
    if rest:
        rows.append(["other", f"{rest:,}", f"{100 * rest / total:.0f} %"])
    transports = ", ".join(f"{number:,} {escape_html(name)}" for name, number in facts.transports.items())
    there = facts.stage_counts("download").ok
    share = (
        f"{total:,} recordings" if total == there else f"{total:,} of {there:,} recordings, drawn at random"
    )
    quiet = f"; {facts.soundless:,} without sound" if facts.soundless else ""
    combed = f"; {facts.interlaced:,} interlaced (clips are deinterlaced)" if facts.interlaced else ""
    text = f'<p class="soft small">As downloaded: {share}; {transports}{quiet}{combed}.</p>'
    return text + render_table(["width × height", "recordings", "share"], rows, numbers=(1, 2))


# --- charts -------------------------------------------------------------------------------------------------
def _share(facts: CorpusStatistics) -> str:
    share = f"{facts.sampled:,} of {facts.stage_counts('clips').clips:,}"
    return (
        f'<p class="soft small">From {share} clips, drawn at random; faces, poses and expressions from '
        "every 5th frame of them.</p>"
    )


def _charts(facts: CorpusStatistics, name: str, more: str = "") -> str:
    some = "".join(
        render_histogram(title, unit, facts.values[of])
        for title, unit, of in CORPUS_PAGE_CHARTS[name]
        if facts.values.get(of)
    )
    if not some:
        return '<p class="soft">Nothing was measured.</p>'
    # as many columns as fit, whether or not there are charts for all: sizes stay alike
    columns = "grid-template-columns:repeat(auto-fill,minmax(310px,1fr))"
    return f'<div class="charts" style="{columns}">{some}{more}</div>'


def _slips(facts: CorpusStatistics, pictures: Sequence[tuple[str, np.ndarray]]) -> str:
    """Share of the frames that are left out as their landmarks depend on the box, and the worst clips."""
    if not facts.slip_frames:
        why = "<code>keypoints.NAME.max_slip</code> is 0, or the run has no landmarks"
        return f'<p class="soft">Not measured: {why}.</p>'
    if facts.slipped_frames:
        share = f"{100 * facts.slipped_frames / facts.slip_frames:.2f} %"
        found = (
            f"In {facts.slipped_frames:,} of {facts.slip_frames:,} frames ({share}), of "
            f"{len(facts.slipped_clips):,} clips, they lie too far apart to be trusted: these frames have "
            "none, and their fits are bridged or do not count."
        )
    else:
        found = f"In none of {facts.slip_frames:,} frames do they lie too far apart to be trusted."
    text = f'<p class="soft small">Landmarks are found twice, from two boxes. {found}</p>'
    if facts.slipped_out:
        text += (
            '<p class="soft small">Clips that are left out besides, as theirs do in more than the share '
            f"<code>keypoints.NAME.max_slipped</code> of their frames: {len(facts.slipped_out):,}.</p>"
        )
    if not pictures:
        return text
    of = {one.key: one for one in facts.slipped_clips}
    figures = "".join(
        f'<figure><img alt="" '
        f'src="{picture_grids.make_data_uri(picture_grids.encode_jpeg(image), "image/jpeg")}">'
        f'<figcaption title="{escape_html(key)}">{_short_key(key)}<br>{of[key].frames:,} of {of[key].of:,} '
        f"frames; this is frame {of[key].worst:,}</figcaption></figure>"
        for key, image in pictures
    )
    return f'{text}<div class="thumbs">{figures}</div>'


def pose_map_svg(values: Mapping[str, Sequence[float]]) -> str:
    """Where heads look: yaw to the right, pitch downwards; a cell's shade is the root of its share."""
    yaw, pitch = np.asarray(values.get("yaw", [])), np.asarray(values.get("pitch", []))
    if not len(yaw):
        return ""
    (wide, tall), step = POSE_MAP_DEGREES, POSE_MAP_STEP
    counts, _, _ = np.histogram2d(
        np.clip(pitch, -tall, tall), np.clip(yaw, -wide, wide),
        bins=(2 * tall // step, 2 * wide // step), range=((-tall, tall), (-wide, wide)),
    )  # fmt: skip
    side, left = 340 / (counts.shape[1] + 2), 26
    shade = np.sqrt(counts / counts.max())
    cells = "".join(
        f'<rect x="{left + c * side:.1f}" y="{r * side:.1f}" width="{side - 0.6:.1f}" '
        f'height="{side - 0.6:.1f}" fill="var(--accent)" opacity="{max(0.05, shade[r, c]):.2f}">'
        f"<title>yaw {c * step - wide} to {(c + 1) * step - wide}, pitch {r * step - tall} to "
        f"{(r + 1) * step - tall}: {int(counts[r, c])}</title></rect>"
        for r, c in np.ndindex(counts.shape)
    )
    height = counts.shape[0] * side
    marks = "".join(
        f'<text x="{left + (value + wide) / step * side:.1f}" y="{height + 14:.1f}" text-anchor="middle">'
        f"{value}</text>"
        for value in (-60, -30, 0, 30, 60)
    )
    marks += "".join(
        f'<text x="{left - 5}" y="{(value + tall) / step * side + 4:.1f}" text-anchor="end">{value}</text>'
        for value in (-30, 0, 30)
    )
    text = "yaw and pitch, degrees, as seen in the picture"
    return (
        f"<figure><figcaption><b>Where heads look</b><br>{text}</figcaption>"
        f'<svg viewBox="0 0 340 {height + 20:.0f}" role="img" aria-label="Where heads look">{cells}{marks}'
        "</svg></figure>"
    )


def expression_box_plot(expression: Sequence[Sequence[float]]) -> str:
    """A bar for each expression coefficient: 5 to 95 %, 25 to 75 % darker, a tick at the median."""
    if not expression:
        return ""
    data = np.asarray(expression)  # (n, PERCENTILES)
    low, high = min(-1.0, data.min()), max(1.0, data.max())
    width, height, left = 1040, 170, 34
    step = (width - left) / len(data)

    def y(value: float) -> float:
        return 8 + (height - 34) * (high - value) / (high - low)

    def bar(i: int, top: float, bottom: float, opacity: float) -> str:
        return (
            f'<rect x="{left + i * step + step * 0.15:.1f}" y="{y(top):.1f}" width="{step * 0.7:.1f}" '
            f'height="{max(0.8, y(bottom) - y(top)):.1f}" fill="var(--accent)" opacity="{opacity}"/>'
        )

    assert data.shape[1] == len(PERCENTILES)
    bars = "".join(
        f"<g><title>coefficient {i + 1}: {p5:.2f} to {p95:.2f}, median {middle:.2f}</title>"
        f"{bar(i, p95, p5, 0.3)}{bar(i, p75, p25, 0.75)}"
        f'<rect x="{left + i * step:.1f}" y="{y(middle) - 1:.1f}" width="{step:.1f}" height="2" '
        'fill="var(--ink)"/></g>'
        for i, (p5, p25, middle, p75, p95) in enumerate(data.tolist())
    )
    levels = [value for value in (-3, -2, -1, 0, 1, 2, 3) if low <= value <= high]
    lines = "".join(
        f'<line x1="{left}" x2="{width}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="var(--line)"/>'
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v}</text>'
        for v in levels
    )
    every = max(1, len(data) // 25)
    names = "".join(
        f'<text x="{left + (i + 0.5) * step:.1f}" y="{height - 8}" text-anchor="middle">{i + 1}</text>'
        for i in range(0, len(data), every)
    )
    return (
        '<figure style="margin-top:22px"><figcaption><b>Expression coefficients of the 3DMM</b><br>'
        "sigmas; light 5 to 95 %, dark 25 to 75 %, tick = median</figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Expression coefficients">'
        f"{lines}{bars}{names}</svg></figure>"
    )


def _thumbnails(thumbnails: Sequence[tuple[str, np.ndarray]]) -> str:
    figures = "".join(
        f'<figure><img alt="" '
        f'src="{picture_grids.make_data_uri(picture_grids.encode_jpeg(image), "image/jpeg")}">'
        f'<figcaption title="{escape_html(key)}">{_short_key(key)}</figcaption></figure>'
        for key, image in thumbnails
    )
    text = '<p class="soft small">Clips drawn at random: middle frames, with the landmarks found.</p>'
    return f'{text}<div class="thumbs">{figures}</div>'


def _short_key(key: str) -> str:
    """identity#recording#start#end -> recording and seconds, for people."""
    _, recording, start, end = key.split("#")
    return f"{escape_html(recording)}<br>{int(start) / FPS:.1f} to {int(end) / FPS:.1f} s"
