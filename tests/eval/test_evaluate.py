import json

import pyarrow.parquet as pq
import pytest

from pipelines.eval import evaluate
from pipelines.eval.evaluate import EvalConfig
from pipelines.eval.metrics import METRICS
from pipelines.figures.pictures import read_mp4


def pick(table, name, method):
    return next(r for r in table if (r["name"], r["method"]) == (name, method))


def test_the_last_phase_is_scored():
    inputs = {"clips": "c", "train.toy.keypoints": "k", "train.toy.warmup": "w", "train.other.main": "o"}
    assert evaluate.checkpoint_of(inputs, "toy") == "w"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ("lpips",)}, r"metrics \['lpips'\]: expected some of l1"),
        ({"frame_stride": 0}, "frame_stride 0: expected 1 or more"),
        ({"sources": 0}, "sources 0: expected 1 or more"),
        ({"videos": 9}, "videos 9: expected 0 to grid_clips, 4"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        EvalConfig(**change)


# --- the whole node on a real, untrained net ----------------------------------------------------------------
def test_the_node_publishes_metrics_clips_grid_and_video(evaluated):
    files = sorted(path.name for path in evaluated.out.iterdir())
    assert files == [
        "clips.parquet",
        "frames.parquet",
        "grid.png",
        "metrics.json",
        "side_by_side_0.mp4",
        "summary.json",
    ]
    assert len(read_mp4((evaluated.out / "side_by_side_0.mp4").read_bytes())) == 3


def test_the_node_reports_its_figures_and_the_state_of_the_weights(evaluated):
    assert "eval/psnr_frame" in evaluated.figures
    assert "eval/copy_source/l1" in evaluated.figures
    assert evaluated.facts["weights.kp_detector"] == "random"
    assert evaluated.facts["labels"] == "kp_detector random"
    assert evaluated.seen[-1] == (4, 4)


def test_pictures_without_a_face_leave_akd_uncomputed_and_counted(evaluated):
    table = json.loads((evaluated.out / "metrics.json").read_text())
    record = pick(table, "akd_l1_dlib", "fsrt")
    assert (record["value"], record["n"], record["missing"]) == (None, 0, 12)
    assert record["note"] == "not computed: in no frame do all methods show a face; fsrt lacks it in 12"


def test_the_clip_table_holds_every_clip_method_and_metric(evaluated):
    rows = pq.read_table(evaluated.out / "clips.parquet").to_pylist()
    assert len(rows) == 4 * 3 * len(METRICS)
    assert {row["n"] for row in rows if row["metric"] == "l1"} == {3}


def test_the_node_writes_the_same_bytes_again(evaluated, make_context, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    context = make_context(node="eval.fsrt", config=evaluated.config, inputs=evaluated.inputs, out=again)
    evaluate.evaluate(context, "fsrt")
    for path in evaluated.out.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name
