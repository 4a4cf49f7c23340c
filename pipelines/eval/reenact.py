"""Node `eval.<model>`: score a trained model on held-out identities, beside two baselines, and show what it
did.

Protocol `self_first`: the source is frame 0 of a test clip, the driving frames are the others, and only those
are scored; several sources (`sources`) are spread evenly from the first frame to the last. Every method is
scored on the same frames at the model's own resolution: ground truth and source are resized by area averaging
and everything is rounded to 8 bit, as a user would save it. Nothing scored has been through a lossy codec,
except the `codec` baseline, which is just that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipelines.eval import pictures
from pipelines.eval.metrics import METRICS, Metric, Sums
from pipelines.eval.scoring import BASELINES, LANDMARK_BACKEND, ClipScore, caption, column_titles, score_clips

if TYPE_CHECKING:
    from pipelines.engine.node import Context

TASKS = 8
"""Work orders one evaluation is cut into: enough to show progress, few enough that loading the nets is
cheap."""
AT_ONCE = 4
"""Work orders handed to Ray at a time; it runs as many of them as there are processors."""

NO_FACE = "not computed: in no frame do all methods show a face"


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


def evaluate(ctx: Context) -> None:
    """The whole node: metrics.json, clips.parquet, summary.json, grid.png and side_by_side_N.mp4."""
    from pipelines.executor import in_worker

    config: EvalConfig = ctx.config.eval
    runtime = ctx.config.runtime
    model = ctx.node.rsplit(".", 1)[-1]
    checkpoint = checkpoint_of(ctx.inputs, model)
    clips = ctx.inputs["clips"].family()
    split_of = splits(ctx.inputs["recordings"].path("recordings.parquet"))
    keys = test_keys(clips, split_of, config.max_clips, config.sources)
    shown = evenly(keys, config.grid_clips)
    drawn = {key: i < config.videos for i, key in enumerate(shown)}
    device = "cuda" if runtime.use_gpu else "cpu"
    resources = {"cpu": runtime.eval_cpus, "gpu": 1 if runtime.use_gpu else 0}

    def work(chunk: Sequence[str]) -> list[ClipScore]:
        return in_worker(
            score_clips, model, checkpoint, clips, drawn, config, device, chunk, resources=resources
        )

    scores: list[ClipScore] = []
    ctx.progress(0, len(keys), "clips")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for some in pool.map(work, [keys[i::TASKS] for i in range(min(TASKS, len(keys)))]):
            scores += some
            ctx.progress(len(scores), len(keys), "clips")
    publish(ctx, model, sorted(scores, key=lambda s: s.clip), config)


# --- which clips --------------------------------------------------------------------------------------------
def checkpoint_of(inputs: Mapping[str, Any], model: str) -> Any:
    """The artifact of the model's last phase among the inputs, which the graph lists in order."""
    phases = [name for name in inputs if name.startswith(f"train.{model}.")]
    if not phases:
        raise ValueError(f"eval.{model} has no train.{model}.* among its inputs {sorted(inputs)}")
    return inputs[phases[-1]]


def splits(recordings: Path) -> dict[str, str]:
    """recordings.parquet -> recording id: train or test."""
    import pyarrow.parquet as pq

    table = pq.read_table(recordings, columns=["id", "split"])
    return dict(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_keys(clips: Any, split_of: Mapping[str, str], most: int | None, sources: int) -> list[str]:
    """Sorted clips of test identities that have a driving frame besides the sources, at most `most`, evenly
    spread."""
    tested = [k for k in clips.keys if split_of[clips.recording_of(k)] == "test"]
    if not tested:
        raise ValueError(f"none of {len(clips.keys)} clips is in the test split; raise data.test_fraction")
    keys = [k for k in tested if clips.frames_of(k) > sources]
    if not keys:
        raise ValueError(f"none of {len(tested)} test clips has more frames than eval.sources, {sources}")
    return evenly(keys, most or len(keys))


def evenly(keys: Sequence[str], most: int) -> list[str]:
    """At most so many of the keys, in order, from the first to the last: neighbours are often one person."""
    if len(keys) <= most:
        return list(keys)
    return [keys[int(i)] for i in np.linspace(0, len(keys) - 1, most).round()]


# --- from sums to records -----------------------------------------------------------------------------------
def records(
    scores: Sequence[ClipScore], model: str, protocol: str, config: EvalConfig
) -> list[dict[str, Any]]:
    """One record for each metric and method: the value over all clips, and its bootstrap interval over
    clips."""
    table = []
    for name in config.metrics:
        lacks = next((score.lacking[name] for score in scores if name in score.lacking), "")
        for method in (model, *BASELINES):
            states = [score.sums[method, name] for score in scores if (method, name) in score.sums]
            table.append(_record(METRICS[name], method, states, lacks, protocol, config))
    return table


def _record(
    metric: Metric, method: str, states: Sequence[Sums], lacks: str, protocol: str, config: EvalConfig
) -> dict[str, Any]:
    table = np.array([astuple(state) for state in states], dtype=np.float64)  # (clips, fields)
    total = metric.state.from_array(table.sum(axis=0)) if len(table) else metric.state()
    value = metric.compute(total)
    known = bool(np.isfinite(value))
    low, high = _interval(metric, table, config) if known else (None, None)
    undetected = int(getattr(total, "undetected", 0))
    note = ""
    if not known:
        note = f"not computed: needs {lacks}" if lacks else f"{NO_FACE}; {method} lacks it in {undetected}"
    return {
        "name": metric.name,
        "title": metric.title,
        "variant": metric.variant,
        "unit": metric.unit,
        "better": metric.better,
        "method": method,
        "value": value if known else None,
        "low": low,
        "high": high,
        "n": int(total.n),
        "missing": int(total.missing),
        "undetected": undetected,
        "clips": len(states),
        "backend": "numpy" if metric.reads == "frames" else LANDMARK_BACKEND,
        "weights": list(metric.needs),
        "protocol": protocol,
        "note": note,
    }


def _interval(metric: Metric, table: np.ndarray, config: EvalConfig) -> tuple[float | None, float | None]:
    """95 % percentile interval of the value over clips drawn with replacement; None for a single clip."""
    if len(table) < 2:
        return None, None
    rng = np.random.default_rng(config.seed)
    draws = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=config.resamples)
    values = [metric.compute(metric.state.from_array(row)) for row in draws @ table]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def clip_rows(scores: Sequence[ClipScore]) -> list[dict[str, Any]]:
    """The per-clip table: clip, method, metric, value (None: no frame entered), n, missing."""
    rows = []
    for score in scores:
        for (method, name), state in sorted(score.sums.items()):
            value = METRICS[name].compute(state)
            row = {"clip": score.clip, "method": method, "metric": name, "n": int(state.n)}
            rows.append(row | {"missing": int(state.missing), "value": value if np.isfinite(value) else None})
    return rows


def protocol_id(config: EvalConfig, size: int, keys: Sequence[str]) -> str:
    """Everything two values must share to be compared, with a hash of the clip list."""
    clips = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:8]
    most = "all" if config.max_frames is None else f"first {config.max_frames}"
    shown = "" if config.sources == 1 else f"{config.sources} sources from first to last, not scored; "
    return (
        f"{config.protocol}; {shown}{size} px, area-resized, 8 bit; driving frames from 1, "
        f"stride {config.frame_stride}, {most}; {len(keys)} clips, list {clips}"
    )


def figures(table: Sequence[Mapping[str, Any]], model: str) -> dict[str, float]:
    """Final figures by MLflow name: eval/psnr_frame for the model, eval/copy_source/psnr_frame for a
    baseline."""
    named = {}
    for record in table:
        if record["value"] is not None:
            owner = "" if record["method"] == model else f"{record['method']}/"
            named[f"eval/{owner}{record['name']}"] = record["value"]
    return named


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
    frames: int
    grid: list[str]
    """Clips of the grid's rows, from the top."""
    videos: dict[str, str] = field(default_factory=dict)
    """File -> the clip it shows."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Upstream node -> artifact key."""


def publish(ctx: Context, model: str, scores: Sequence[ClipScore], config: EvalConfig) -> None:
    """Write every output of the node and report its final figures."""
    labels, size = scores[0].labels, scores[0].size
    protocol = protocol_id(config, size, [score.clip for score in scores])
    table = records(scores, model, protocol, config)
    _write_json(ctx.out / "metrics.json", table)
    _write_clips(ctx.out / "clips.parquet", clip_rows(scores))
    videos = _draw(ctx.out, model, labels, scores)
    summary = Summary(
        model=model,
        key=ctx.key,
        image_size=size,
        labels=labels,
        protocol=protocol,
        clips=len(scores),
        frames=sum(score.frames for score in scores),
        grid=[score.clip for score in scores if score.cell],
        videos=videos,
        inputs={name: artifact.key for name, artifact in sorted(ctx.inputs.items())},
    )
    _write_json(ctx.out / "summary.json", asdict(summary))
    named = {f"weights.{part}": what for part, what in labels.items()}
    ctx.params({"model": model, "image_size": size, "protocol": protocol} | named)
    ctx.metrics(figures(table, model))


def _draw(out: Path, model: str, labels: Mapping[str, str], scores: Sequence[ClipScore]) -> dict[str, str]:
    """grid.png and the videos -> video file: clip."""
    cells = {score.clip: score.cell for score in scores if score.cell is not None}
    grid = pictures.grid([cell.row for cell in cells.values()], column_titles(model), list(cells))
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


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
