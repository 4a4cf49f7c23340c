from dataclasses import replace

import numpy as np
import pytest

from pipelines.eval import records, score
from pipelines.eval.evaluate import EvalConfig
from pipelines.eval.metrics import METRICS


def score_all(half_way, clips, metrics=("l1", "psnr_frame"), lacking=None):
    scores = []
    for key, frames in clips.items():
        methods, truth = score.drive("toy", half_way, half_way.clip_of(frames), [0], range(1, len(frames)))
        sums = score.score(methods, truth, metrics, None)
        scores.append(
            score.ClipScore(
                clip=key,
                frames=len(truth),
                size=32,
                labels=half_way.labels,
                sums=sums,
                each={},
                lacking=lacking or {},
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
    table = records.records(scores, "toy", "p", config)
    mean = np.mean([METRICS["l1"].compute(s.sums["toy", "l1"]) for s in scores])  # clips of equal length
    assert pick(table, "l1", "toy")["value"] == pytest.approx(mean, rel=1e-12)


def test_every_record_says_what_it_may_be_compared_with(half_way, clips, config):
    table = records.records(score_all(half_way, clips), "toy", "p", config)
    wanted = {"name", "variant", "value", "n", "missing", "backend", "weights", "protocol"}
    assert all(wanted <= set(record) for record in table)
    assert len(table) == 2 * 3  # metrics, and the model beside two baselines


def test_a_record_of_the_model_says_whose_weights_it_has(half_way, clips, config):
    table = records.records(score_all(half_way, clips), "toy", "p", config)
    assert pick(table, "l1", "toy")["labels"] == {"kp_detector": "distilled from dlib landmarks"}
    assert pick(table, "l1", "copy_source")["labels"] == {}


def test_the_interval_holds_the_value_and_is_the_same_each_time(half_way, clips, config):
    scores = score_all(half_way, clips)
    first, second = (pick(records.records(scores, "toy", "p", config), "l1", "toy") for _ in range(2))
    assert first == second
    assert first["low"] < first["value"] < first["high"]


def test_one_clip_has_no_interval(half_way, clips, config):
    one = dict([next(iter(clips.items()))])
    record = pick(records.records(score_all(half_way, one), "toy", "p", config), "l1", "toy")
    assert (record["low"], record["high"]) == (None, None)


def test_the_order_of_clips_does_not_matter(half_way, clips, config):
    scores = score_all(half_way, clips)
    forward, backward = (records.records(s, "toy", "p", config) for s in (scores, scores[::-1]))
    assert pick(forward, "l1", "toy")["value"] == pytest.approx(
        pick(backward, "l1", "toy")["value"], rel=1e-12
    )


def test_a_metric_without_its_net_is_named_not_replaced(half_way, clips):
    config = EvalConfig(metrics=("akd_l1_dlib",))
    scores = score_all(half_way, clips, ("akd_l1_dlib",), {"akd_l1_dlib": "dlib_sp68"})
    record = pick(records.records(scores, "toy", "p", config), "akd_l1_dlib", "toy")
    assert (record["value"], record["note"]) == (None, "not computed: needs dlib_sp68")


def test_figures_name_the_baselines_apart(half_way, clips, config):
    named = records.figures(records.records(score_all(half_way, clips), "toy", "p", config), "toy")
    assert set(named) == {
        f"eval/{o}{m}" for o in ("", "copy_source/", "codec/") for m in ("l1", "psnr_frame")
    }


def test_another_number_of_sources_is_another_protocol(config):
    one = records.protocol_id(config, 64, ["a"])
    assert "sources" not in one
    two = records.protocol_id(replace(config, sources=2), 64, ["a"])
    assert two == one.replace("self_first; ", "self_first; 2 sources from first to last, not scored; ")


def test_another_clip_list_is_another_protocol(config):
    assert records.protocol_id(config, 64, ["a", "b"]) != records.protocol_id(config, 64, ["a", "c"])
