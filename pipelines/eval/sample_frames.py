"""Nodes `samples.<model>.<protocol>`: the frames that the report shows of a model, taken out of all that were
generated. The report reads no others, so that a caption or a title renders nothing again.

samples.json lists the pairs and says what the frames are of; beside it lie the frames, packed without loss,
<place of the pair>.<column>.pngs. Of a pair that is shown as a video all are kept, of the others the middle
one.

T = driving frames of a pair, S = the scored size, I = a model's own image size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol as Interface

import numpy as np

from pipelines.eval.pair_family import Family, read_generated_sample_metadata, read_optional_field
from pipelines.eval.pair_sampling import spread_evenly
from storage import codecs, frame_codec

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.engine.node import NodeContext

SAMPLE_PAIRS_FILE = "samples.json"
PICTURE_COLUMNS = ("source", "driving", "output")


class ArtifactFileLocator(Interface):
    """What is used of storage.families.Artifact."""

    def path(self, name: str, /) -> Path: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PairFrames:
    """What is shown of one pair."""

    pair: str
    source: np.ndarray
    """(1,S,S,3) uint8: the first source frame."""
    driving: np.ndarray
    """(T,S,S,3) uint8; of a pair without a video the middle one alone, as in `output`."""
    output: np.ndarray
    """(T,S,S,3) uint8: what the model generated."""
    visualization: dict[str, np.ndarray]
    """How the model made the middle frame: title, with its place in front -> (I,I,3) uint8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSampleFrames:
    """What is shown of a model."""

    provenance: dict[str, str]
    """Parts of the model whose weights are not the published ones, and what they are instead."""
    pairs: list[PairFrames]
    """The rows of its grid, from the top."""


def publish_sample_frames(ctx: NodeContext) -> None:
    """The whole node. Inputs: the families `generated`, `driving` and `source` (the copied frame)."""
    families = {role: artifact.open_family() for role, artifact in ctx.inputs.items()}
    generated, config = families["generated"], ctx.config
    pairs = spread_evenly(generated.keys, config.grid_pairs)
    for place, pair in enumerate(pairs):
        columns = zip(PICTURE_COLUMNS, _columns(families, pair, place < config.videos), strict=True)
        for name, frames in columns:
            (ctx.out / f"{place}.{name}.pngs").write_bytes(frame_codec.encode_images(frames, "png").data)
        own = read_optional_field(generated, pair, "visualization")
        (ctx.out / f"{place}.visualization.npz").write_bytes(codecs.encode_npz(own))
    facts = {"pairs": pairs, "provenance": read_generated_sample_metadata(generated)["provenance"]}
    (ctx.out / SAMPLE_PAIRS_FILE).write_bytes(codecs.encode_json(facts))


def read_sample_frames(artifact: ArtifactFileLocator) -> ReportSampleFrames:
    facts = json.loads(artifact.path(SAMPLE_PAIRS_FILE).read_text())
    pairs = []
    for place, pair in enumerate(facts["pairs"]):
        packed = [artifact.path(f"{place}.{name}.pngs").read_bytes() for name in PICTURE_COLUMNS]
        source, driving, output = (frame_codec.decode_frames("pngs", data) for data in packed)
        own = codecs.decode_npz(artifact.path(f"{place}.visualization.npz").read_bytes())
        pairs.append(PairFrames(pair=pair, source=source, driving=driving, output=output, visualization=own))
    return ReportSampleFrames(provenance=facts["provenance"], pairs=pairs)


def _columns(
    families: dict[str, Family], pair: str, moving: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, driving and output frames of a pair."""
    count = families["driving"].frame_count(pair)
    frames = range(count) if moving else [count // 2]
    return (
        families["source"].frames(pair, [0]),
        families["driving"].frames(pair, frames),
        families["generated"].frames(pair, frames),
    )
