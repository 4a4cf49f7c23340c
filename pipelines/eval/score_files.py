"""What a scoring publishes, as files: values of frames, and what the report says of the method besides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.eval.methods import MethodKind
from pipelines.eval.records import FrameValues

if TYPE_CHECKING:
    from storage.families import Artifact

VALUES_FILE, SUMMARY_FILE, RECORDS_FILE = "values.parquet", "summary.json", "metrics.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredMethod:
    """summary.json: what the report says about a method besides its values."""

    method: str
    """What it is, whatever the run calls it."""
    kind: MethodKind
    key: str
    provenance: dict[str, str]
    """Parts of the model whose weights are not the published ones, and what they are instead."""
    image_size: int | None
    """Side of the pictures that the model renders; None of baselines."""
    pairs: int
    frames: int
    inputs: dict[str, str] = field(default_factory=dict)
    """Upstream node -> artifact key."""
    loss_nets: list[str] = field(default_factory=list)
    """Nets that the losses of the model's training used."""
    driven_by: list[str] = field(default_factory=list)
    """What the method is given of what it is to do: frames, sound or both; nothing, of a baseline."""
    weights: dict[str, str] = field(default_factory=dict)
    """Of those that the features were computed with: id -> sha256."""
    frames_without_landmarks: int = 0
    """Of the landmark warp: frames that show the pose of another."""


def write_frame_values(path: Path, values: Sequence[FrameValues]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([
        ("pair", pa.string()), ("identity", pa.string()), ("metric", pa.string()), ("reference", pa.string()),
        ("values", pa.list_(pa.float64())),
        ("undetected", pa.int64()), ("needs", pa.string()), ("set_value", pa.float64()),
    ])  # fmt: skip
    rows = [{**asdict(one), "values": one.values.tolist()} for one in values]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def read_frame_metric_values(artifact: Artifact) -> list[FrameValues]:
    import pyarrow.parquet as pq

    rows = pq.read_table(artifact.path(VALUES_FILE)).to_pylist()
    return [FrameValues(**{**row, "values": np.array(row["values"], dtype=np.float64)}) for row in rows]


def read_scored_method(artifact: Artifact) -> ScoredMethod:
    return ScoredMethod(**json.loads(artifact.path(SUMMARY_FILE).read_text()))


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
