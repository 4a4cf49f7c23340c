from types import SimpleNamespace

import pytest

from pipelines.eval import comparison
from pipelines.eval.comparison import compute_protocol_results, read_protocol_results
from pipelines.eval.config import ReportConfig
from pipelines.eval.records import BootstrapSettings
from pipelines.eval.score_files import read_frame_metric_values
from tests.eval.stand_in_features import ROAD_METRICS

CONFIG = ReportConfig(resamples=50, videos=1, grid_pairs=2)


@pytest.fixture(scope="module")
def one(road):
    return compute_protocol_results("self", road.inputs, CONFIG)


def test_models_and_baselines_have_a_record_of_each_metric_both_ways(one):
    assert one.models == ["toy", "dark"]
    for records in (one.own, one.shared):
        assert len(records) == 5 * len(ROAD_METRICS)
        assert {record.protocol for record in records} == {one.about.protocol}


def test_a_method_keeps_its_own_frames_and_shares_those_of_the_worst(one):
    own = {m: one.find_record("akd_l1_dlib", m, own=True).n for m in ("toy", "dark", "copy_source", "codec")}
    assert own == {"toy": 24, "dark": 16, "copy_source": 24, "codec": 24}
    assert {one.find_record("akd_l1_dlib", m).n for m in own} == {16}


def test_metrics_of_frames_are_the_same_on_own_and_shared_frames(one):
    for method in ("toy", "dark", "codec"):
        assert one.find_record("ssim", method).value == one.find_record("ssim", method, own=True).value


def test_models_are_compared_with_each_other_and_with_the_copy(one):
    pairs = {(d.first, d.second) for d in one.differences}
    assert pairs == {("toy", "dark"), ("toy", "copy_source"), ("dark", "copy_source")}
    assert {d.metric for d in one.differences} == set(ROAD_METRICS)


def test_every_pair_has_a_dot(one):
    assert len(one.spread["toy", "l1"]) == 4


def test_each_model_has_samples_and_no_baseline_has(one):
    assert {model: len(samples.videos) for model, samples in one.samples.items()} == {"toy": 1, "dark": 1}
    assert len(one.samples["toy"].pairs) == 2


def test_a_protocol_without_a_truth_has_pictures_and_no_figures(road):
    inputs = {role: one for role, one in road.inputs.items() if not role.endswith("score")}
    about = inputs["self/pairs"].path("about.json").read_text()
    without_truth = about.replace('"has_truth": true', '"has_truth": false')

    class Rewritten(type(inputs["self/pairs"])):
        def path(self, name):
            return self

        def read_text(self):
            return without_truth

    inputs["self/pairs"] = Rewritten(inputs["self/pairs"].root)
    found = compute_protocol_results("self", inputs, CONFIG)
    assert (found.shared, found.own, found.differences) == ([], [], [])
    assert set(found.samples) == {"toy", "dark"}


def test_two_protocols_are_two_comparisons(road):
    twice = {**road.inputs, **{role.replace("self/", "again/"): one for role, one in road.inputs.items()}}
    assert [one.name for one in read_protocol_results(twice, CONFIG)] == ["self", "again"]


def test_who_hears_alone_is_not_compared_with_who_sees_but_each_with_the_copy(road):
    inputs = road.inputs
    summaries = {name: SimpleNamespace(driven_by=what) for name, what in
                 {"toy": ["frames", "sound"], "dark": ["sound"]}.items()}  # fmt: skip
    values = {name: read_frame_metric_values(inputs[f"self/{name}/score"]) for name in
              ("toy", "dark", "copy_source")}  # fmt: skip
    bootstrap = BootstrapSettings(resamples=20, seed=0)
    found = comparison._differences(values, ["toy", "dark"], ["l1"], bootstrap, summaries)
    assert [(d.first, d.second) for d in found] == [("toy", "copy_source"), ("dark", "copy_source")]
