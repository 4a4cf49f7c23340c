"""Node `corpus`: a page about the data, and its facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.corpus.corpus_page import MAX_LISTED_SLIPPED_CLIPS, clip_thumbnail, render_corpus_page
from pipelines.corpus.identity_check import (
    read_clip_rows,
    read_duplicate_rows,
    read_identity_rows,
    read_summary,
)
from pipelines.corpus.identity_section import (
    IdentityFindings,
    findings_mlflow_metrics,
    render_identity_section,
)
from pipelines.corpus.leaks import read_checked_splits, read_moved_identities
from pipelines.corpus.statistics import (
    CORPUS_STATISTICS_STAGES,
    MAX_SAMPLED_CLIPS,
    THUMBNAIL_COUNT,
    clips_left_out,
    compute_corpus_statistics,
    corpus_mlflow_metrics,
    count_dropped_tracks,
    find_slipped_clips,
    measure_clips,
    read_sampled_probes,
    subsample_keys,
    summarize_statistics,
)
from pipelines.dataset.recording_table import read_recordings, read_rejects

if TYPE_CHECKING:
    from pipelines.dataset.recording_table import Recording
    from pipelines.engine.node import NodeContext
    from storage.families import Artifact


def make_corpus_page(ctx: NodeContext) -> None:
    """The whole node: corpus.html and corpus.json."""
    rows, rejects = read_recordings(ctx.inputs["recordings"]), read_rejects(ctx.inputs["recordings"])
    if "splits" in ctx.inputs:
        split = read_checked_splits(ctx.inputs["splits"])
        moved: list[Recording] = [{**row, "split": split[row["id"]]} for row in rows]
        rows = moved
    artifacts = {name: ctx.inputs[name] for name in CORPUS_STATISTICS_STAGES if name in ctx.inputs}
    families = {name: artifact.open_family() for name, artifact in artifacts.items() if name != "download"}
    clips = families["clips"]
    probed = read_sampled_probes(artifacts["download"]) if "download" in artifacts else {}
    facts = compute_corpus_statistics(rows, rejects, artifacts, clips, probed)
    keys = subsample_keys(clips.keys, MAX_SAMPLED_CLIPS)
    values, expression = measure_clips(families, keys, ctx.report_progress)
    slip_frames, slipped = (
        find_slipped_clips(families["keypoints"], keys) if "keypoints" in families else (0, [])
    )
    facts = replace(
        facts,
        slip_frames=slip_frames,
        slipped_frames=sum(one.frames for one in slipped),
        slipped_clips=slipped,
        values=facts.values | values,
        expression=expression,
        dropped=count_dropped_tracks(clips, keys),
        unfitted=(
            clips_left_out(families.get("keypoints", clips), families["fit3dmm"])
            if "fit3dmm" in families
            else []
        ),
        slipped_out=clips_left_out(clips, families["keypoints"]) if "keypoints" in families else [],
    )
    thumbnails = [(key, clip_thumbnail(families, key)) for key in subsample_keys(clips.keys, THUMBNAIL_COUNT)]
    findings = read_identity_findings(ctx.inputs)
    who = render_identity_section(findings, lambda key: clip_thumbnail(families, key)) if findings else ""
    worst = [
        (one.key, clip_thumbnail(families, one.key, one.worst)) for one in slipped[:MAX_LISTED_SLIPPED_CLIPS]
    ]
    (ctx.out / "corpus.html").write_text(render_corpus_page(facts, thumbnails, who, worst))
    text = json.dumps(
        summarize_statistics(facts), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    (ctx.out / "corpus.json").write_text(text + "\n")
    if slip_frames:
        share = f"landmarks slip in {facts.slipped_frames:,} of {slip_frames:,} frames"
        if facts.slipped_out:
            share += f"; clips left out as theirs do too often: {len(facts.slipped_out):,}"
        ctx.report_progress(len(keys), len(keys), f"{len(keys):,} clips, {share}")
    ctx.log_metrics(corpus_mlflow_metrics(facts) | (findings_mlflow_metrics(findings) if findings else {}))


def read_identity_findings(inputs: Mapping[str, Artifact]) -> IdentityFindings | None:
    """What `identity_check` found, and `splits` did; None where faces are not compared."""
    if "identity_check" not in inputs:
        return None
    check = inputs["identity_check"]
    return IdentityFindings(
        summary=read_summary(check),
        identities=read_identity_rows(check),
        clips=read_clip_rows(check),
        duplicates=read_duplicate_rows(check),
        moved=read_moved_identities(inputs["splits"]) if "splits" in inputs else None,
    )
