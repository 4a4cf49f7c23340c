"""Node `eval.<model>`: score a trained model on held-out identities, beside two baselines, and show what it
did.

Protocol `self_first`: the source is frame 0 of a test clip, the driving frames are the others, and only those
are scored; several sources (`sources`) are spread evenly from the first frame to the last. A model is handed
the stored clip and reads from it what it was trained on: frames, or 3DMM fits and speech features. Which
clips are scored is the same for all models of a run (node `test_clips`, chosen.py).

Every method is scored on the same frames at the model's own resolution: ground truth and source are resized
by area averaging and everything is rounded to 8 bit, as a user would save it. Nothing scored has been through
a lossy codec, except the `codec` baseline, which is just that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.provenance import told
from models.spec import load_spec
from pipelines.dataset.clips import open_clips
from pipelines.eval.captions import caption
from pipelines.eval.clip_list import TestClips, evenly, read_chosen
from pipelines.eval.metrics import METRICS
from pipelines.eval.records import clip_rows, figures, frame_rows, protocol_id, records
from pipelines.eval.score import ClipScore, score_clips
from pipelines.figures import pictures

if TYPE_CHECKING:
    from pipelines.engine.node import Context

TASKS = 8
"""Work orders one evaluation is cut into: enough to show progress, few enough that loading the nets is
cheap."""
OPTIONAL = {"fit3dmm": ("id_frames",)}
"""Fields that a model reads by other settings than the default ones, which this node does not see."""
AT_ONCE = 4
"""Work orders handed to Ray at a time; it runs as many of them as there are processors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    metrics: tuple[str, ...] = tuple(METRICS)
    """Names from pipelines/eval/metrics."""
    checkpoint: Literal["last", "best"] = "last"
    """Of the model's last phase: its last step, or the step of the best validation PSNR."""
    protocol: Literal["self_first"] = "self_first"
    """self_first: frame 0 of a clip is the source, the others drive and are scored."""
    sources: int = 1
    """Frames of a clip that are shown to the model as sources, whatever it was trained with: 1 the first, 2
    first and last, 3 first, middle and last. The papers do not say which; none of them is scored.
    """
    max_clips: int | None = None
    """Test clips scored, spread evenly over all of them in key order; None = every one."""
    frame_stride: int = 1
    """Score every n-th driving frame."""
    max_frames: int | None = None
    """Driving frames scored of one clip, from its start; None = all."""
    grid_clips: int = 4
    """Rows of the sample grid."""
    videos: int = 2
    """Side-by-side MP4s, of the first clips of the grid."""
    resamples: int = 1000
    """Bootstrap resamples over clips behind each 95 % interval."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ValueError(f"metrics {list(self.metrics)}: expected some of {', '.join(METRICS)}")
        for name in ("max_clips", "max_frames", "frame_stride", "resamples", "sources"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: expected 1 or more")
        if self.grid_clips < 1:
            raise ValueError(f"grid_clips {self.grid_clips}: expected 1 or more")
        if not 0 <= self.videos <= self.grid_clips:
            raise ValueError(f"videos {self.videos}: expected 0 to grid_clips, {self.grid_clips}")


def evaluate(ctx: Context, model: str) -> None:
    """The whole node: metrics.json, clips.parquet, frames.parquet, summary.json, grid.png and
    side_by_side_N.mp4."""
    from pipelines.cluster.tasks import run_in_worker

    config: EvalConfig = ctx.config.eval
    runtime = ctx.runtime
    checkpoint = checkpoint_of(ctx.inputs, model)
    chosen = read_chosen(ctx.inputs["test_clips"])
    spec = load_spec(model)
    reads = {node: fields for node, fields in spec.driving_reads(spec.config()).items() if node in ctx.inputs}
    clips, _ = open_clips(
        ctx.inputs, {node: (*fields, *OPTIONAL.get(node, ())) for node, fields in reads.items()}
    )
    store = ctx.inputs["clips"].family().store
    keys, shown = chosen.clips, evenly(chosen.clips, config.grid_clips)
    drawn = {key: i < config.videos for i, key in enumerate(shown)}
    device = "cuda" if runtime.use_gpu else "cpu"
    resources = {"cpu": runtime.eval_cpus, "gpu": 1 if runtime.use_gpu else 0}

    def work(chunk: Sequence[str]) -> list[ClipScore]:
        return run_in_worker(
            score_clips, model, checkpoint, clips, store, drawn, config, device, chunk, resources=resources
        )

    scores: list[ClipScore] = []
    ctx.progress(0, len(keys), "clips")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for some in pool.map(work, [keys[i::TASKS] for i in range(min(TASKS, len(keys)))]):
            scores += some
            ctx.progress(len(scores), len(keys), "clips")
    publish(ctx, model, sorted(scores, key=lambda s: s.clip), chosen, config)


def checkpoint_of(inputs: Mapping[str, Any], model: str) -> Any:
    """The artifact of the model's last phase among the inputs, which the graph lists in order."""
    phases = [name for name in inputs if name.startswith(f"train.{model}.")]
    if not phases:
        raise ValueError(f"eval.{model} has no train.{model}.* among its inputs {sorted(inputs)}")
    return inputs[phases[-1]]


# --- files --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """summary.json: what the report says about a model besides its numbers."""

    model: str
    key: str
    image_size: int
    labels: dict[str, str]
    protocol: str
    clips: int
    left_out: dict[str, int]
    """Node -> test clips that it lacks and that are not scored, of this or another model of the run."""
    frames: int
    resamples: int
    seed: int
    """Of the intervals."""
    grid: list[str]
    """Clips of the grid's rows, from the top."""
    columns: list[str]
    """Titles of the grid's columns, from the left."""
    videos: dict[str, str] = field(default_factory=dict)
    """File -> the clip it shows."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Upstream node -> artifact key."""


def publish(
    ctx: Context, model: str, scores: Sequence[ClipScore], chosen: TestClips, config: EvalConfig
) -> None:
    """Write every output of the node and report its final figures."""
    labels, size = scores[0].labels, scores[0].size
    protocol = protocol_id(config, size, [score.clip for score in scores])
    table = records(scores, model, protocol, config)
    _write_json(ctx.out / "metrics.json", table)
    _write_clips(ctx.out / "clips.parquet", clip_rows(scores))
    _write_frames(ctx.out / "frames.parquet", frame_rows(scores))
    videos = _draw(ctx.out, model, labels, scores)
    summary = Summary(
        model=model,
        key=ctx.key,
        image_size=size,
        labels=labels,
        protocol=protocol,
        clips=len(scores),
        left_out=chosen.left_out,
        frames=sum(score.frames for score in scores),
        resamples=config.resamples,
        seed=config.seed,
        grid=[score.clip for score in scores if score.cell],
        columns=next(score.cell.titles for score in scores if score.cell),
        videos=videos,
        inputs={name: artifact.key for name, artifact in sorted(ctx.inputs.items())},
    )
    _write_json(ctx.out / "summary.json", asdict(summary))
    named = {f"weights.{part}": what for part, what in labels.items()}
    named |= {"labels": told(labels)} if labels else {}
    left_out = {f"left_out.{node}": count for node, count in chosen.left_out.items()}
    ctx.params({"model": model, "image_size": size, "protocol": protocol} | named | left_out)
    ctx.metrics(figures(table, model))


def _draw(out: Path, model: str, labels: Mapping[str, str], scores: Sequence[ClipScore]) -> dict[str, str]:
    """grid.png and the videos -> video file: clip."""
    cells = {score.clip: score.cell for score in scores if score.cell is not None}
    titles = next(iter(cells.values())).titles
    grid = pictures.grid([cell.row for cell in cells.values()], titles, list(cells))
    foot = pictures.text_strip(caption(model, labels), grid.shape[1], 20, pictures.MUTED)
    (out / "grid.png").write_bytes(pictures.png(np.concatenate([grid, foot])))
    videos = {}
    for clip, cell in cells.items():
        if cell.video:
            name = f"side_by_side_{len(videos)}.mp4"
            (out / name).write_bytes(cell.video)
            videos[name] = clip
    return videos


def _write_clips(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, counts = ("clip", "method", "metric"), ("n", "missing")
    columns = (
        [(n, pa.string()) for n in texts] + [(n, pa.int64()) for n in counts] + [("value", pa.float64())]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), path, compression="zstd")


def _write_frames(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [(name, pa.string()) for name in ("clip", "method", "metric")]
    schema = pa.schema([*columns, ("values", pa.list_(pa.float64()))])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
