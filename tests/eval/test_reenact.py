import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.eval import reenact, scoring
from pipelines.eval.metrics import METRICS
from pipelines.eval.pictures import read_mp4
from pipelines.eval.reenact import EvalConfig


def score_all(half_way, clips, metrics=("l1", "psnr_frame"), lacking=None):
    scores = []
    for key, frames in clips.items():
        methods, truth = scoring.drive("toy", half_way, frames)
        sums = scoring.score(methods, truth, metrics, None)
        scores.append(
            scoring.ClipScore(
                clip=key, frames=len(truth), size=32, labels=half_way.labels, sums=sums, lacking=lacking or {}
            )
        )
    return scores


@pytest.fixture
def config():
    return EvalConfig(metrics=("l1", "psnr_frame"), resamples=200)


def pick(table, name, method):
    return next(r for r in table if (r["name"], r["method"]) == (name, method))


def test_a_record_holds_the_value_over_all_clips(half_way, clips, config):
    scores = score_all(half_way, clips)
    table = reenact.records(scores, "toy", "p", config)
    mean = np.mean([METRICS["l1"].compute(s.sums["toy", "l1"]) for s in scores])  # clips of equal length
    assert pick(table, "l1", "toy")["value"] == pytest.approx(mean, rel=1e-12)


def test_every_record_says_what_it_may_be_compared_with(half_way, clips, config):
    table = reenact.records(score_all(half_way, clips), "toy", "p", config)
    wanted = {"name", "variant", "value", "n", "missing", "backend", "weights", "protocol"}
    assert all(wanted <= set(record) for record in table)
    assert len(table) == 2 * 3  # metrics, and the model beside two baselines


def test_the_interval_holds_the_value_and_is_the_same_each_time(half_way, clips, config):
    scores = score_all(half_way, clips)
    first, second = (pick(reenact.records(scores, "toy", "p", config), "l1", "toy") for _ in range(2))
    assert first == second
    assert first["low"] < first["value"] < first["high"]


def test_one_clip_has_no_interval(half_way, clips, config):
    one = dict([next(iter(clips.items()))])
    record = pick(reenact.records(score_all(half_way, one), "toy", "p", config), "l1", "toy")
    assert (record["low"], record["high"]) == (None, None)


def test_the_order_of_clips_does_not_matter(half_way, clips, config):
    scores = score_all(half_way, clips)
    forward, backward = (reenact.records(s, "toy", "p", config) for s in (scores, scores[::-1]))
    assert pick(forward, "l1", "toy")["value"] == pytest.approx(
        pick(backward, "l1", "toy")["value"], rel=1e-12
    )


def test_a_metric_without_its_net_is_named_not_replaced(half_way, clips):
    config = EvalConfig(metrics=("akd_l1_dlib",))
    scores = score_all(half_way, clips, ("akd_l1_dlib",), {"akd_l1_dlib": "dlib_sp68"})
    record = pick(reenact.records(scores, "toy", "p", config), "akd_l1_dlib", "toy")
    assert (record["value"], record["note"]) == (None, "not computed: needs dlib_sp68")


def test_figures_name_the_baselines_apart(half_way, clips, config):
    named = reenact.figures(reenact.records(score_all(half_way, clips), "toy", "p", config), "toy")
    assert set(named) == {
        f"eval/{o}{m}" for o in ("", "copy_source/", "codec/") for m in ("l1", "psnr_frame")
    }


def test_only_test_identities_are_scored(make_family, clips, recordings):
    keys = reenact.test_keys(
        make_family(clips), reenact.splits(recordings.path("recordings.parquet")), None, 1
    )
    assert {key.split("#")[0] for key in keys} == {"id1", "id2"}


def test_fewer_clips_are_spread_over_all_of_them(make_family, clips, recordings):
    keys = reenact.test_keys(make_family(clips), reenact.splits(recordings.path("recordings.parquet")), 2, 1)
    assert [key.split("#")[0] for key in keys] == ["id1", "id2"]


def test_no_test_clip_is_an_error_that_says_what_to_raise(make_family, clips):
    with pytest.raises(ValueError, match=r"data\.test_fraction"):
        reenact.test_keys(make_family(clips), {f"rec{i}": "train" for i in range(6)}, None, 1)


def test_the_last_phase_is_scored():
    inputs = {"clips": "c", "train.toy.keypoints": "k", "train.toy.warmup": "w", "train.other.main": "o"}
    assert reenact.checkpoint_of(inputs, "toy") == "w"


def test_clips_with_no_frame_left_to_drive_are_not_scored(make_family, clips):
    split_of = {f"rec{i}": "test" for i in range(6)}
    assert len(reenact.test_keys(make_family(clips), split_of, None, 8)) == 6  # of 9 frames each
    with pytest.raises(ValueError, match=r"none of 6 test clips has more frames than eval\.sources, 9"):
        reenact.test_keys(make_family(clips), split_of, None, 9)


def test_another_number_of_sources_is_another_protocol(config):
    one = reenact.protocol_id(config, 64, ["a"])
    assert "sources" not in one
    two = reenact.protocol_id(replace(config, sources=2), 64, ["a"])
    assert two == one.replace("self_first; ", "self_first; 2 sources from first to last, not scored; ")


def test_another_clip_list_is_another_protocol(config):
    assert reenact.protocol_id(config, 64, ["a", "b"]) != reenact.protocol_id(config, 64, ["a", "c"])


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
    assert files == ["clips.parquet", "grid.png", "metrics.json", "side_by_side_0.mp4", "summary.json"]
    assert len(read_mp4((evaluated.out / "side_by_side_0.mp4").read_bytes())) == 3


def test_the_node_reports_its_figures_and_the_state_of_the_weights(evaluated):
    assert "eval/psnr_frame" in evaluated.figures
    assert "eval/copy_source/l1" in evaluated.figures
    assert evaluated.facts["weights.kp_detector"] == "random"
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
    reenact.evaluate(context)
    for path in evaluated.out.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name
