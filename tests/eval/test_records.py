"""Values of frames, reduced over a method's own frames, over two methods' and over all methods'."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from models.perception import NETS, net_on_backend
from models.weights import THIRD_PARTY_WEIGHTS
from pipelines.eval.features import FRAMES_FEATURE, METRIC_FEATURES
from pipelines.eval.methods import Method
from pipelines.eval.metrics import METRICS, FrameSums
from pipelines.eval.records import (
    BootstrapSettings,
    FrameValues,
    add_up_by_identity,
    compare_methods,
    frames_scored_by_all_methods,
    metric_weights_ids,
    own_frame_metric_records,
    shared_frame_metric_records,
    sum_frames_by_pair,
)

TOY = Method(
    name="toy",
    kind="trained",
    provenance={"vgg19": "random"},
    weights={"dlib_sp68": "f" * 64, "vgg19": "e" * 64},
)
BOOTSTRAP = BootstrapSettings(resamples=200, seed=0)
NONE = float("nan")
AKD = METRICS["akd_l1_dlib"]


def values(*pairs, metric="akd_l1_dlib", needs=""):
    return [
        FrameValues(
            pair=f"p{i}",
            metric=metric,
            values=np.array(frames, dtype=np.float64),
            undetected=int(np.isnan(frames).sum()),
            needs=needs,
        )
        for i, frames in enumerate(pairs)
    ]


FIRST = values([1, 2, NONE], [3, 4, 5])
SECOND = values([4, NONE, 6], [7, 8, 9])


def own(rows, metric="akd_l1_dlib", bootstrap=BOOTSTRAP):
    (record,) = own_frame_metric_records(rows, TOY, [metric], "p", bootstrap)
    return record


def shared(**methods):
    named = [Method(name=name, kind="trained") for name in methods]
    records = shared_frame_metric_records(methods, named, ["akd_l1_dlib"], "p", BOOTSTRAP)
    return {record.method: record for record in records}


# --- one method ---------------------------------------------------------------------------------------------
def test_a_method_alone_is_reduced_over_its_own_frames():
    record = own(FIRST)
    assert (record.value, record.n, record.missing, record.undetected) == (3.0, 5, 1, 1)


def test_a_record_names_what_it_may_be_compared_with():
    record = own(FIRST)
    assert (record.frames, record.protocol, record.variant) == ("own", "p", "mean_abs_68x2_256px")
    assert record.backend.startswith("dlib_hog + dlib68")
    assert record.weights == {"dlib_sp68": "f" * 64}  # and not those of other metrics
    assert (record.kind, record.provenance) == ("trained", {"vgg19": "random"})


def test_the_weights_of_features_that_a_feature_is_made_from_are_its_own_too(monkeypatch):
    made_from = structs.replace(METRIC_FEATURES["identity.dlib_resnet"], input_features=("landmarks.dlib68",))
    assert "dlib_sp68" not in metric_weights_ids(METRICS["csim_dlib_centred"])
    monkeypatch.setitem(METRIC_FEATURES, "identity.dlib_resnet", made_from)
    assert "dlib_sp68" in metric_weights_ids(METRICS["csim_dlib_centred"])


def test_the_interval_holds_the_value_and_is_the_same_each_time():
    record = own(FIRST)
    assert record == own(FIRST)
    assert record.low < record.value < record.high


def of_people(rows, *people):
    return [replace(row, identity=person) for row, person in zip(rows, people, strict=True)]


def test_the_interval_is_over_people_and_not_over_their_clips():
    rows = values([1.0, 2.0], [3.0], [8.0])
    one, three = own(of_people(rows, "ann", "ann", "ann")), own(of_people(rows, "ann", "bob", "cis"))
    assert (one.value, one.pairs, one.identities) == (three.value, 3, 1)
    assert (one.low, one.high, three.identities) == (None, None, 3)
    two = own(of_people(rows, "ann", "ann", "bob"))
    assert {two.low, two.high} == {2.0, 8.0}  # each of the two alone


def test_who_has_no_frame_with_a_value_is_nobody_that_an_interval_rests_on():
    rows = of_people(values([1.0, 2.0], [NONE, NONE]), "ann", "bob")
    assert (own(rows).identities, own(rows).low) == (1, None)
    other = of_people(values([3.0, 4.0], [5.0, 6.0]), "ann", "bob")
    found = compare_methods(AKD, ("a", rows), ("b", other), BOOTSTRAP)
    assert found is not None
    assert (found.value, found.low, found.is_significant) == (-2.0, None, False)


def test_the_difference_of_two_methods_is_resampled_over_people_too():
    first, second = (of_people(rows, "ann", "ann") for rows in (FIRST, SECOND))
    found = compare_methods(AKD, ("a", first), ("b", second), BOOTSTRAP)
    assert found is not None
    assert (found.low, found.high) == (None, None)


FRAMES = st.lists(st.floats(0, 9), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.sampled_from("abc"), FRAMES), min_size=1))
def test_people_add_up_to_the_same_as_pairs(pairs):
    rows = of_people(values(*(frames for _, frames in pairs)), *(person for person, _ in pairs))
    by_pair = sum_frames_by_pair(rows)
    people = add_up_by_identity(by_pair, rows)
    assert set(people) == {person for person, _ in pairs}
    whole, parts = (sum(some.values(), FrameSums()) for some in (people, by_pair))
    assert (whole.n, whole.total) == (parts.n, pytest.approx(parts.total))


def test_one_pair_has_no_interval():
    assert (own(FIRST[:1]).low, own(FIRST[:1]).high) == (None, None)


def test_the_order_of_pairs_does_not_matter():
    assert own(FIRST[::-1]) == own(FIRST)


def test_pooled_psnr_pools_the_squared_errors_of_all_pairs():
    rows = values([0.1, 0.2], [0.4], metric="psnr_pooled")
    assert own(rows, "psnr_pooled").value == pytest.approx(-10 * np.log10(0.7 / 3))


def test_a_metric_without_its_net_is_named_not_replaced():
    record = own(values([], [], needs="dlib_sp68"))
    assert (record.value, record.note, record.n) == (None, "not computed: needs dlib_sp68", 0)


def test_no_frame_with_a_face_leaves_the_value_out_and_explains_why():
    record = own(values([NONE, NONE]))
    assert record.value is None
    assert record.note == "not computed: toy has no face in any of its 2 frames"


def test_frames_in_which_only_the_truth_lacks_a_face_are_not_blamed_on_the_method():
    rows = [replace(one, undetected=1) for one in values([NONE, NONE, NONE])]
    assert own(rows).note == (
        "not computed: in no frame do toy and the truth both show a face; toy has no face in 1 of 3"
    )


@pytest.mark.parametrize(("lost", "often"), [(5, False), (6, True)])
def test_more_than_5_percent_without_a_face_is_often(lost, often):
    assert own(values([NONE] * lost + [1.0] * (100 - lost))).often_missing is often


# --- sets of frames -----------------------------------------------------------------------------------------
def of_set(value, *pairs):
    rows = values(*pairs, metric="fd_efflite0")
    return [replace(one, set_value=value) for one in rows]


def fd_records(**methods):
    named = [Method(name=name, kind="trained") for name in methods]
    records = shared_frame_metric_records(methods, named, ["fd_efflite0"], "p", BOOTSTRAP)
    return {record.method: record for record in records}


def test_a_distance_of_sets_has_one_value_and_no_interval():
    record = own(of_set(7.5, [1, 1], [1, 1]), "fd_efflite0")
    assert (record.value, record.low, record.n, record.pairs) == (7.5, None, 4, 2)


def test_sets_of_the_same_frames_stand_in_one_table():
    found = fd_records(a=of_set(7.5, [1, 1]), b=of_set(9.0, [1, 1]))
    assert {name: one.value for name, one in found.items()} == {"a": 7.5, "b": 9.0}


def test_a_set_that_others_have_a_part_of_is_left_out_of_their_table():
    found = fd_records(a=of_set(7.5, [1, 1]), b=of_set(9.0, [1, NONE]))
    assert (found["a"].value, found["b"].value) == (None, 9.0)
    assert found["a"].note.startswith("not computed: compares sets of frames, and all methods have too few")


def test_two_methods_are_compared_by_sets_of_the_same_frames_alone():
    fd = METRICS["fd_efflite0"]
    first, second = of_set(7.5, [1, 1], [1, 1]), of_set(9.0, [1, 1], [1, 1])
    difference = compare_methods(fd, ("a", first), ("b", second), BOOTSTRAP)
    assert (difference.value, difference.low, difference.n) == (-1.5, None, 4)
    assert difference.first_is_better
    assert not difference.is_significant
    part = of_set(9.0, [1, NONE], [1, 1])
    assert compare_methods(fd, ("a", first), ("b", part), BOOTSTRAP) is None


def test_the_weights_that_judge_and_loss_share_are_named():
    rows = of_set(7.5, [1, 1])
    for nets, shared in ((("vgg19",), []), (("vgg19", "efficientnet_lite0"), ["efficientnet_lite0"])):
        method = Method(name="toy", kind="trained", loss_nets=nets)
        (record,) = own_frame_metric_records(rows, method, ["fd_efflite0"], "p", BOOTSTRAP)
        assert record.weights_in_loss == shared


def test_a_loss_by_another_composite_of_the_same_weights_counts():
    method = Method(name="toy", kind="trained", loss_nets=("net3d_mesh468", "dlib_resnet"))
    names = ["akd_l1_dlib", "pose_mesh", "id_l2_dlib"]
    records = own_frame_metric_records([], method, names, "p", BOOTSTRAP)
    assert [one.weights_in_loss for one in records] == [
        [], ["mp_mesh468"], ["mp_mesh468", "dlib_resnet"]
    ]  # fmt: skip


# --- all methods --------------------------------------------------------------------------------------------
def test_all_methods_count_the_frames_in_which_each_has_a_value():
    found = shared(a=FIRST, b=SECOND)
    assert {(r.n, r.missing) for r in found.values()} == {(4, 2)}
    assert (found["a"].value, found["b"].value) == ((1 + 3 + 4 + 5) / 4, (4 + 7 + 8 + 9) / 4)
    assert {r.frames for r in found.values()} == {"shared"}


def test_a_method_that_lacks_the_weights_takes_no_frame_from_the_others():
    found = shared(a=FIRST, b=values([], [], needs="dlib_sp68"))
    assert found["a"].n == 5
    assert found["b"].note == "not computed: needs dlib_sp68"


def test_a_method_without_a_face_in_most_frames_takes_none_from_the_others():
    found = shared(a=FIRST, b=values([NONE, NONE, 6], [NONE, NONE, 9]))
    assert (found["a"].n, found["a"].value) == (5, 3.0)
    assert (found["b"].value, found["b"].n, found["b"].missing) == (None, 0, 6)
    assert found["b"].note == "left out: no face in 4 of 6 frames"


def test_where_all_methods_lack_most_frames_none_is_left_out():
    found = shared(a=values([NONE, NONE, 3]), b=values([NONE, NONE, 6]))
    assert (found["a"].value, found["b"].value) == (3.0, 6.0)


def test_a_pair_that_one_method_lacks_counts_for_none():
    assert set(frames_scored_by_all_methods({"a": FIRST, "b": SECOND[:1]})) == {"p0"}
    assert shared(a=FIRST, b=SECOND[:1])["a"].n == 1


def test_without_a_shared_frame_the_value_is_left_out_and_explains_why():
    found = shared(a=values([1, NONE]), b=values([NONE, 1]))
    assert found["a"].value is None
    assert found["a"].note == "not computed: there is no frame in which all methods show a face"


def test_states_are_in_order_of_the_pairs():
    assert list(sum_frames_by_pair(FIRST[::-1])) == ["p0", "p1"]


# --- two methods --------------------------------------------------------------------------------------------
def test_two_methods_are_compared_on_the_frames_that_both_have():
    difference = compare_methods(AKD, ("a", FIRST), ("b", SECOND), BOOTSTRAP)
    assert difference.n == 4
    assert difference.value == pytest.approx((1 + 3 + 4 + 5) / 4 - (4 + 7 + 8 + 9) / 4)
    assert difference.first_is_better
    assert difference.low <= difference.value <= difference.high


def test_a_difference_that_is_alike_in_all_pairs_is_clear():
    assert compare_methods(AKD, ("a", FIRST), ("b", SECOND), BOOTSTRAP).is_significant
    mixed = values([4, 4], [1, 1]), values([1, 1], [4, 4])
    assert not compare_methods(AKD, ("a", mixed[0]), ("b", mixed[1]), BOOTSTRAP).is_significant


def test_higher_is_better_where_the_metric_says_so():
    ssim = METRICS["ssim"]
    high, low = values([0.9, 0.9], metric="ssim"), values([0.2, 0.3], metric="ssim")
    assert compare_methods(ssim, ("a", high), ("b", low), BOOTSTRAP).first_is_better
    assert not compare_methods(ssim, ("b", low), ("a", high), BOOTSTRAP).first_is_better


def test_methods_that_share_no_frame_are_not_compared():
    assert compare_methods(AKD, ("a", values([1, NONE])), ("b", values([NONE, 1])), BOOTSTRAP) is None


# --- what judges --------------------------------------------------------------------------------------------
def test_metrics_are_judged_by_known_weights_and_by_no_random_net():
    for metric in METRICS.values():
        nets = () if metric.feature == FRAMES_FEATURE else METRIC_FEATURES[metric.feature].nets
        assert not any(net.endswith("_random") for net in nets)
        assert all(net_on_backend(net, "torch") in NETS for net in nets)
        assert set(metric_weights_ids(metric)) <= set(THIRD_PARTY_WEIGHTS)
        assert bool(metric_weights_ids(metric)) == bool(nets), metric.name
