"""The table and the notes that a run ends with."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from pipelines.engine.node import Node
from pipelines.engine.node_plan import NodePlan
from pipelines.eval.methods import BASELINE_METHODS
from pipelines.runs.summary import format_score_table, summary_lines
from storage.families import Artifact


def record(method: str, value: float | None = 1.0, note: str = "", **provenance: str) -> dict[str, Any]:
    about = {"method": method, "kind": "baseline" if method in BASELINE_METHODS else "trained"}
    return about | {"name": "l1", "value": value, "note": note, "provenance": provenance}


def test_the_closing_table_says_which_weights_are_not_the_published_ones():
    trained = record("fsrt", vgg19="random", kp_detector="distilled"), record("headgan", tokens="none")
    lines = format_score_table([*trained, record("copy_source")])
    assert lines[0].split() == ["metric", "fsrt", "(ours)", "headgan", "(ours)", "copy-source"]
    assert lines[2:] == ["  fsrt: kp_detector distilled, vgg19 random", "  headgan: tokens none"]


def test_below_a_protocols_table_stands_what_its_frames_have_been_through(tmp_path):
    own = [record("fsrt"), record("copy_source")]
    protocols = {"self": {"own": own, "frames": "PNG, lossless"}, "cross": {"own": [], "frames": "x"}}
    (tmp_path / "report.json").write_text(json.dumps({"protocols": protocols}))
    artifact = SimpleNamespace(path=lambda name: tmp_path / name, uri=lambda name: name)
    plan = NodePlan(
        Node(name="report", kind="whole", run="a:b"), "cached", artifact=cast("Artifact", artifact)
    )
    table = next(summary_lines("store", {"report": plan}))
    assert table.splitlines()[-1] == "  frames of the clips: PNG, lossless"


def test_the_head_of_a_column_says_what_the_method_is():
    kinds = {"a": "trained", "b": "released", "c": "external"}
    heads = format_score_table([record(name) | {"kind": kind} for name, kind in kinds.items()])[0]
    assert heads.split() == ["metric", "a", "(ours)", "b", "(released)", "c", "(external)"]


def test_a_table_of_published_weights_says_nothing():
    assert len(format_score_table([record("fsrt")])) == 2


def test_a_metric_that_lacks_its_net_says_so():
    lines = format_score_table([record("fsrt", None, "not computed: needs dlib_sp68")])
    assert lines[2:] == ["  l1: not computed: needs dlib_sp68"]


def test_a_metric_that_a_baseline_lacks_says_so_where_no_model_stands_beside_it():
    lines = format_score_table([record("copy_source", None, "not computed: needs mp_face_short")])
    assert lines[2:] == ["  l1: not computed: needs mp_face_short"]


def test_a_metric_that_leaves_out_frames_says_how_many():
    some = [record(method) | {"n": 16, "missing": 76} for method in ("fsrt", "copy_source")]
    lines = format_score_table([*some, record("headgan") | {"n": 92, "missing": 0}])
    assert lines[2:] == ["  l1: over 16 of 92 frames of fsrt, copy_source, there is no face in the others"]


def test_metrics_of_which_the_same_is_to_be_said_share_a_line():
    note = "not computed: needs mp_iris"
    lines = format_score_table([record("fsrt", None, note) | {"name": name} for name in ("a_mesh", "b_mesh")])
    assert lines[3:] == [f"  a_mesh, b_mesh: {note}"]


def test_a_value_by_a_net_of_the_models_own_losses_is_marked_and_explained():
    judged = record("fsrt") | {"name": "fd_efflite0", "weights_in_loss": ["efficientnet_lite0"]}
    other = record("toy") | {"name": "fd_efflite0", "weights_in_loss": []}
    lines = format_score_table([judged, other])
    assert lines[1].split() == ["fd_efflite0", "1.0000*", "1.0000"]
    assert lines[2:] == ["  fd_efflite0: * the losses of fsrt use efficientnet_lite0 too"]


def test_models_trained_through_the_same_net_share_a_line():
    judged = {"name": "fd", "weights_in_loss": ["efficientnet_lite0"]}
    lines = format_score_table([record("fsrt") | judged, record("headgan") | judged])
    assert lines[2:] == ["  fd: * the losses of fsrt and headgan use efficientnet_lite0 too"]


def test_a_long_name_of_a_metric_does_not_touch_its_values():
    lines = format_score_table([record("fsrt", 12345.6) | {"name": "lpips_efflite0_unlearned"}])
    assert lines[1].split() == ["lpips_efflite0_unlearned", "12345.6000"]
