"""Stage `download`: one recording as bytes, looked into before anything is computed from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.engine.node import Rejected, Sample
from pipelines.preprocess.media import as_file, probe


def download(inputs: Mapping[str, list[Sample]], config: Any, nets: Mapping[str, Any]) -> list[Sample]:
    """A row of the recordings table -> one sample: video, probe, truth (empty unless synthetic)."""
    row = inputs["recordings"][0]
    video, truth = _fetch(row, nets)
    with as_file(video) as path:
        probed = probe(path, row["id"])
    if not probed["audio_rate"] and config.data.sound == "required":
        raise Rejected("no_sound", f"{row['id']} has no sound; data.sound=optional would give it silence")
    return [{"__key__": row["id"], "video": video, "probe": probed, "truth": truth}]


def _fetch(row: Mapping[str, Any], nets: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    if row["source"] == "synthetic":
        from pipelines.preprocess.sources.synthetic import render

        return render(row, nets["analytic_head"])
    if not row["uri"]:
        raise Rejected("not_in_mirror", f"{row['id']}.mp4 is not in the mirror folder")
    video = Path(row["uri"]).read_bytes()
    found = hashlib.sha256(video).hexdigest()
    if row["sha256"] and found != row["sha256"]:
        # not a property of the recording: the file was replaced while the run was under way
        raise OSError(
            f"{row['uri']} changed since it was listed: sha256 {found}, expected {row['sha256']}; run again"
        )
    return video, {}
