import json
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from pipelines.eval import score, score_files
from pipelines.eval.features import METRIC_FEATURES
from pipelines.eval.metrics import METRICS, sum_frame_values
from pipelines.eval.set_states import add_set_states
from tests.eval.conftest import DLIB_SP68_SHA256
from tests.eval.stand_in_features import ROAD_METRICS

FEATURE = "landmarks.dlib68"


def families_of(road, method="toy"):
    return {
        "generated": road.generated[method],
        "truth": road.generated["truth"],
        **road.features[method],
        **{f"truth.{name}": family for name, family in road.features["truth"].items()},
    }


def means_of(metrics, families):
    people = {key: key.split("#")[0] for key in families["truth"].keys}
    return score.driving_feature_means(metrics, families, people)


def rows_of(road, method, metric):
    rows = score_files.read_frame_metric_values(road.inputs[f"self/{method}/score"])
    return [row for row in rows if row.metric == metric]


def value(road, method, metric):
    rows = rows_of(road, method, metric)
    return METRICS[metric].compute(
        sum((sum_frame_values(row.values) for row in rows), start=sum_frame_values(np.empty(0)))
    )


def test_every_pair_has_a_value_of_each_metric_in_each_frame(road):
    rows = score_files.read_frame_metric_values(road.inputs["self/toy/score"])
    assert len(rows) == 4 * len(ROAD_METRICS)
    assert {len(row.values) for row in rows} == {6}


def test_a_model_half_way_to_the_truth_halves_the_l1_of_copying(road):
    assert value(road, "toy", "l1") == pytest.approx(value(road, "copy_source", "l1") / 2, rel=0.15)


def test_the_codec_baseline_is_nearer_the_truth_than_any_model(road):
    assert value(road, "codec", "psnr_frame") > value(road, "toy", "psnr_frame")


def test_a_picture_that_stands_for_all_frames_is_compared_with_each(road):
    frames = road.generated["copy_source"].read(road.generated["copy_source"].keys[0])["frames"]
    assert len(frames) == 1
    assert {len(row.values) for row in rows_of(road, "copy_source", "ssim")} == {6}


def test_frames_without_a_face_have_no_landmark_value_and_are_counted(road):
    for row in rows_of(road, "dark", "akd_l1_dlib"):
        assert np.isfinite(row.values).tolist() == [False, True, True] * 2
        assert row.undetected == 2


def test_a_feature_without_its_weights_is_named_not_replaced(road, kept_family):
    families = families_of(road)
    key = families["generated"].keys[0]
    families[FEATURE] = kept_family([{"__key__": key, "needs": {"weights": "dlib_sp68"}}])
    (found,) = score.score_pairs([key], ["akd_l1_dlib"], families, {}).values
    assert (found.needs, len(found.values)) == ("dlib_sp68", 0)


def test_each_frame_and_feature_is_read_once(road):
    asked = []

    class Counting:
        def __init__(self, role, family):
            self.role, self.family, self.keys = role, family, family.keys

        def fields(self, key):
            return self.family.fields(key)

        def read(self, key, fields=None):
            asked.append((self.role, *fields))
            return self.family.read(key, fields)

    families = {role: Counting(role, family) for role, family in families_of(road).items()}
    score.score_pairs(families["generated"].keys[:1], list(ROAD_METRICS), families, {})
    assert len(asked) == len(set(asked))
    assert {("generated", "frames"), ("truth", "frames"), (FEATURE, "landmarks")} <= set(asked)
    assert ("imagenet.efficientnet_lite0", "map_distance") in asked
    assert ("truth.imagenet.efficientnet_lite0", "map_distance") not in asked


def test_a_pair_that_the_method_lacks_counts_as_missing_with_all_of_its_frames(road, kept_family):
    families = families_of(road)
    first, second, *_ = families["truth"].keys
    families["generated"] = kept_family([{"__key__": first, **families["generated"].read(first)}])
    rows = score.score_pairs([first, second], ["l1", "akd_l1_dlib"], families, {}).values
    lost = [row for row in rows if row.pair == second]
    assert [(row.metric, row.undetected, np.isfinite(row.values).sum()) for row in lost] == [
        ("l1", 6, 0), ("akd_l1_dlib", 6, 0)
    ]  # fmt: skip


@pytest.mark.parametrize(("pairs", "sizes"), [(3, [3]), (9, [3, 3, 3]), (80, [10] * 8)])
def test_few_pairs_are_few_tasks(pairs, sizes, monkeypatch):
    monkeypatch.setattr(score, "score_pairs", lambda keys, *_: list(keys))
    keys = [str(n) for n in range(pairs)]
    tasks = list(score._in_tasks(keys, (), {}))
    assert [len(task) for task in tasks] == sizes
    assert sorted(key for task in tasks for key in task) == sorted(keys)


def test_frames_that_a_metric_cannot_be_computed_of_say_what_it_needs(road):
    families = families_of(road)
    (found,) = score.score_pairs(families["generated"].keys[:1], ["ms_ssim"], families, {}).values
    assert (found.needs, len(found.values)) == ("frames of 176 px a side or more, these have 32", 0)


def test_frames_that_are_left_out_between_two_part_what_moves(road):
    families = families_of(road)
    key = families["generated"].keys[0]
    names = ["flicker", "jitter_mesh", "ssim"]
    for numbers, without in (
        ([1, 2, 3, 4, 5, 6], {"flicker": [0], "jitter_mesh": [0, 1], "ssim": []}),
        ([1, 3, 5, 9, 11, 13], {"flicker": [0, 3], "jitter_mesh": [0, 1, 3, 4], "ssim": []}),
    ):
        rows = score.score_pairs([key], names, families, {}, {key: numbers}).values
        assert {row.metric: np.flatnonzero(np.isnan(row.values)).tolist() for row in rows} == without
        assert {row.undetected for row in rows} == {0}


# --- centres and sets ---------------------------------------------------------------------------------------
def test_the_centre_is_the_mean_of_the_truths_frames_that_have_the_feature(road):
    families = families_of(road, "dark")
    family = families["truth.identity.dlib_resnet"]
    vectors = np.concatenate([family.read(key)["embedding"] for key in family.keys])
    (centre,) = means_of(list(ROAD_METRICS), families).values()
    assert centre == pytest.approx(vectors.astype(np.float64).mean(0), rel=1e-12)
    assert means_of(["l1"], families) == {}


def test_a_centred_cosine_is_that_of_what_the_features_differ_in_from_the_mean(road):
    families = families_of(road)
    centres = means_of(["csim_dlib_centred"], families)
    key = families["truth"].keys[0]
    (found,) = score.score_pairs([key], ["csim_dlib_centred"], families, centres).values
    a, b = (
        families[role].read(key)["embedding"].astype(np.float64) - centres["csim_dlib_centred"]
        for role in ("identity.dlib_resnet", "truth.identity.dlib_resnet")
    )
    expected = [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)]
    assert found.values == pytest.approx(expected, abs=1e-12)


def test_of_one_person_nothing_is_centred_and_the_note_says_so(road, kept_family):
    families = families_of(road)
    one = [key for key in families["truth"].keys if key.startswith("id1")]
    families["truth"] = kept_family([families["truth"].read(key) for key in one])
    centres = means_of(["csim_dlib_centred"], families)
    assert centres == {"csim_dlib_centred": "real frames of at least 2 people, found 1"}
    rows = score.score_pairs(one, ["csim_dlib_centred"], families, centres).values
    assert {row.needs for row in rows} == set(centres.values())


def test_the_centre_of_a_metric_without_its_net_names_the_weights(road, kept_family):
    families = families_of(road)
    missing = [{"__key__": key, "needs": {"weights": "dlib_resnet"}} for key in families["truth"].keys]
    families["truth.identity.dlib_resnet"] = kept_family(missing)
    assert means_of(["csim_dlib_centred"], families) == {"csim_dlib_centred": "dlib_resnet"}


def test_states_of_pairs_add_up_to_those_of_all(road):
    families = families_of(road, "dark")
    keys, name = families["truth"].keys, "fd_efflite0"
    whole = score.score_pairs(keys, [name], families, {}).sets
    parts: dict = {}
    for key in keys:
        parts = add_set_states(parts, score.score_pairs([key], [name], families, {}).sets)
    for one, other in zip(whole[name], parts[name], strict=True):
        assert one.n == other.n == 24
        assert one.outer == pytest.approx(other.outer, rel=1e-12)


def test_a_distance_of_sets_stands_in_each_of_its_rows(road):
    found = {method: {row.set_value for row in rows_of(road, method, "fd_efflite0")}
             for method in ("toy", "dark")}  # fmt: skip
    (toy,), (dark,) = found.values()
    assert 0 < toy < dark
    assert {row.set_value for row in rows_of(road, "toy", "l1")} == {None}


def test_the_mean_that_was_taken_is_kept_with_the_run(road):
    kept = json.loads((road.scores["toy"].out / score.CENTRES_FILE).read_text())
    assert [(name, len(mean)) for name, mean in kept.items()] == [("csim_dlib_centred", 16 * 3)]


# --- pairs without a truth ---
@pytest.fixture
def cross_families(road, kept_family):
    """As if the copied source were of another clip than the driving frames, with three frames of its own."""
    families = families_of(road)
    own = {name: family for name, family in families.items() if not name.startswith("truth")}
    others = {"driving": "truth", "copy_source": "copy_source", "source_clip": "dark"}
    for role, method in others.items():
        own |= {role: road.generated[method]}
        own |= {f"{role}.{name}": family for name, family in road.features[method].items()}
    feature = "imagenet.efficientnet_lite0"
    short = [{key: value[:3] if key != "__key__" else value for key, value in
              own[f"source_clip.{feature}"].read(one).items()} for one in own["generated"].keys]  # fmt: skip
    return own | {f"source_clip.{feature}": kept_family(short)}


def test_metrics_that_need_a_truth_do_not_apply_without_one():
    assert score.metrics_of_protocol(["l1", "pose_mesh", "csim_dlib_centred"], has_truth=False) == (
        "pose_mesh", "csim_dlib_centred"
    )  # fmt: skip


def test_identity_is_compared_with_the_source_and_pose_with_the_driving_frames(cross_families):
    key = cross_families["generated"].keys[0]
    names = ["id_l2_dlib", "pose_mesh"]
    identity, pose = score.score_pairs([key], names, cross_families, {}).values
    source = cross_families["copy_source.identity.dlib_resnet"].read(key)["embedding"].astype(float)
    own = cross_families["identity.dlib_resnet"].read(key)["embedding"].astype(float)
    assert identity.values == pytest.approx(np.linalg.norm(own - source, axis=1), abs=1e-12)
    driving = cross_families["driving.landmarks.mesh468_iris"].read(key)["angles"].astype(float)
    angles = cross_families["landmarks.mesh468_iris"].read(key)["angles"].astype(float)
    assert pose.values == pytest.approx(np.abs(angles - driving).mean(1), abs=1e-12)


def test_sets_are_compared_with_the_frames_of_the_sources_clip_however_many_these_are(cross_families):
    keys = cross_families["generated"].keys
    found = score.score_pairs(keys, ["fd_efflite0_b15"], cross_families, {})
    ours, theirs = found.sets["fd_efflite0_b15"]
    assert (ours.n, theirs.n) == (24, 12)
    assert {len(row.values) for row in found.values} == {6}


def test_a_metric_of_edited_heads_says_that_it_compares_with_nothing(road, make_context, tmp_path):
    """As of a protocol of frontalised heads, whose rows are read by the report."""
    toy = road.scores["toy"]
    inputs = {role: one for role, one in toy.inputs.items() if not role.startswith("truth.")}
    inputs |= {"driving": inputs.pop("truth")}
    config = SimpleNamespace(metrics=("are_mesh",))
    score.score_method(
        make_context(node=toy.node, config=config, inputs=inputs, out=tmp_path),
        "toy",
        "trained",
        edited="yes",
    )
    (row, *_) = json.loads((tmp_path / score_files.RECORDS_FILE).read_text())
    assert (row["name"], row["reference"]) == ("are_mesh", "none")
    assert row["value"] is not None


# --- metrics of whole clips ---
@pytest.fixture
def clip_metric(monkeypatch):
    def largest_change(prediction, target):
        return float("nan") if np.isnan(prediction).any() else float(np.abs(prediction - target).max())

    one = replace(METRICS["pose_mesh"], name="of_clip", per_clip=largest_change)
    monkeypatch.setitem(METRICS, "of_clip", one)
    return one


def test_a_metric_of_clips_has_one_value_for_each_pair(road, clip_metric):
    keys = road.generated["toy"].keys
    rows = score.score_pairs(keys, ["of_clip"], families_of(road), {}).values
    assert [(len(row.values), row.undetected) for row in rows] == [(1, 0)] * 4
    assert clip_metric.counts == "pairs"


def test_a_pair_without_that_value_is_missing_once(road, clip_metric, kept_family):
    families = families_of(road, "dark")
    key = families["truth"].keys[0]
    (found,) = score.score_pairs([key], ["of_clip"], families, {}).values
    assert (np.isnan(found.values).tolist(), found.undetected) == ([True], 1)
    families["generated"] = kept_family([])
    (lost,) = score.score_pairs([key], ["of_clip"], families, {}).values
    assert (np.isnan(lost.values).tolist(), lost.undetected) == ([True], 1)


# --- another feature of the reference, and features of windows ---
def test_a_metric_may_compare_another_feature_of_the_reference(road, monkeypatch, kept_family):
    """As a mouth with the sound beside it, which has no feature of the method's own."""
    one = replace(
        METRICS["pose_mesh"], name="mouth", field="landmarks", reference_feature="sound",
        reference_field="openness", per_frame=lambda points, sound: points[:, 0, 0] - sound[:, 0],
    )  # fmt: skip
    monkeypatch.setitem(METRICS, "mouth", one)
    families = families_of(road)
    key = families["truth"].keys[0]
    sound = np.arange(6, dtype=np.float32)[:, None]
    families["truth.sound"] = kept_family([{"__key__": key, "openness": sound}])
    (found,) = score.score_pairs([key], ["mouth"], families, {}).values
    points = families["landmarks.mesh468_iris"].read(key)["landmarks"].astype(float)
    assert found.values == pytest.approx(points[:, 0, 0] - sound[:, 0], abs=1e-12)
    families["truth.sound"] = kept_family([{"__key__": key, "needs": {"weights": "a_net"}}])
    assert score.score_pairs([key], ["mouth"], families, {}).values[0].needs == "a_net"


@pytest.mark.parametrize(("window", "rows"), [(2, 3), (4, 1), (9, 1)])
def test_a_feature_of_windows_has_a_value_for_each_of_a_clip_and_one_at_least(
    road, monkeypatch, window, rows
):
    feature = METRIC_FEATURES["landmarks.mesh468_iris"]
    monkeypatch.setitem(METRIC_FEATURES, "landmarks.mesh468_iris", replace(feature, window=window))
    families = families_of(road, "copy_source")
    key = families["truth"].keys[0]
    picture = score.PairFeatures(key, families, "").get("landmarks.mesh468_iris", "openness")
    assert len(picture) == rows  # of 6 frames
    lost = score.missing_pair_values(METRICS["blink_iris"], key, 6)
    assert (len(lost.values), lost.undetected) == (rows, rows)
    assert METRICS["blink_iris"].counts == "windows"


# --- the node -----------------------------------------------------------------------------------------------
def test_the_node_reports_its_figures_and_the_state_of_the_weights(road):
    toy = road.scores["toy"]
    assert toy.figures["eval/l1"] == pytest.approx(value(road, "toy", "l1"), rel=1e-12)
    assert toy.facts["weights.kp_detector"] == "distilled from dlib landmarks"
    assert toy.facts["provenance"] == "kp_detector distilled from dlib landmarks"
    assert toy.seen[-1] == (4, 4)
    assert "provenance" not in road.scores["codec"].facts


def test_every_record_bears_the_digest_of_the_weights_it_was_computed_with(road):
    records = json.loads(road.inputs["self/toy/score"].path("metrics.json").read_text())
    found = {one["name"]: one["weights"] for one in records}
    assert found["akd_l1_dlib"] == {"dlib_sp68": DLIB_SP68_SHA256}
    assert found["l1"] == {}
    assert score_files.read_scored_method(road.inputs["self/toy/score"]).weights == found["akd_l1_dlib"]


def test_the_summary_counts_pairs_and_frames_and_names_the_inputs(road):
    summary = score_files.read_scored_method(road.inputs["self/toy/score"])
    assert (summary.method, summary.kind, summary.image_size) == ("toy", "trained", 32)
    assert (summary.pairs, summary.frames) == (4, 24)
    assert f"node of truth.{FEATURE}" in summary.inputs


def test_records_of_the_node_are_over_its_own_frames(road):
    records = json.loads((road.scores["dark"].out / score_files.RECORDS_FILE).read_text())
    akd = next(r for r in records if r["name"] == "akd_l1_dlib")
    assert (akd["frames"], akd["n"], akd["missing"], akd["undetected"]) == ("own", 16, 8, 8)


def test_each_row_says_who_the_source_is_and_what_it_was_compared_with(road):
    rows = rows_of(road, "toy", "l1")
    assert [(row.identity, row.reference) for row in rows] == [
        (row.pair.split("#")[0], "truth") for row in rows
    ]


def test_the_node_writes_the_same_bytes_again(road, make_context, tmp_path):
    toy = road.scores["toy"]
    score.score_method(
        make_context(node=toy.node, config=toy.config, inputs=toy.inputs, out=tmp_path), "toy", "trained"
    )
    for path in toy.out.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
