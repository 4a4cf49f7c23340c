"""Node `corpus`: a page about the data, and its facts as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.corpus.page import render, thumbnail
from pipelines.corpus.statistics import (
    SAMPLED,
    STAGES,
    THUMBNAILS,
    clips_without_fit,
    corpus_metrics,
    count_corpus,
    count_dropped,
    measure,
    probes,
    sample_keys,
    summary,
)
from pipelines.dataset.recording_table import read_recordings, read_rejects

if TYPE_CHECKING:
    from pipelines.engine.node import Context


def corpus(ctx: Context) -> None:
    """The whole node: corpus.html and corpus.json."""
    rows, rejects = read_recordings(ctx.inputs["recordings"]), read_rejects(ctx.inputs["recordings"])
    artifacts = {name: ctx.inputs[name] for name in STAGES if name in ctx.inputs}
    families = {name: artifact.family() for name, artifact in artifacts.items() if name != "download"}
    clips = families["clips"]
    probed = probes(artifacts["download"]) if "download" in artifacts else {}
    facts = count_corpus(rows, rejects, artifacts, clips, probed)
    keys = sample_keys(clips.keys, SAMPLED)
    values, expression = measure(families, keys, ctx.progress)
    facts = replace(
        facts,
        values=facts.values | values,
        expression=expression,
        dropped=count_dropped(clips, keys),
        unfitted=clips_without_fit(clips, families["fit3dmm"]) if "fit3dmm" in families else [],
    )
    thumbnails = [(key, thumbnail(families, key)) for key in sample_keys(clips.keys, THUMBNAILS)]
    (ctx.out / "corpus.html").write_text(render(facts, thumbnails))
    text = json.dumps(summary(facts), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (ctx.out / "corpus.json").write_text(text + "\n")
    ctx.metrics(corpus_metrics(facts))
