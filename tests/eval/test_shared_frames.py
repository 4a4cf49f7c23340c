"""Landmark values of models that were scored apart, on the frames that they share."""

import numpy as np
import pytest

from pipelines.eval import records, shared_frames
from pipelines.eval.evaluate import EvalConfig
from pipelines.eval.metrics import METRICS
from pipelines.eval.score import COPY, ClipScore, scored

NAMES = ("l1", "akd_l1_dlib")


def finder(faces):
    """A landmark finder that sees a face in some of the frames of a method, in the order it is asked for
    them: model, copied source, truth."""
    calls = iter(faces)

    def landmarks(frames):
        seen = np.asarray(next(calls))[: len(frames)]
        points = np.zeros((len(frames), 68, 2)) + frames.mean((1, 2, 3))[:, None, None]
        points[~seen] = np.nan
        return points

    return landmarks


def evaluated(model, clips, shows_face, protocol="p"):
    """A model that darkens the truth, and shows a face in some frames of each clip."""
    config, scores = EvalConfig(metrics=NAMES, resamples=20), []
    for key, truth in clips.items():
        methods = {
            model: truth // (2 if model == "dim" else 4),
            COPY: np.repeat(truth[:1], len(truth), axis=0),
        }
        every = np.ones(len(truth), bool)
        sums, each = scored(methods, truth, NAMES, finder([shows_face, every, every]))
        scores.append(
            ClipScore(clip=key, frames=len(truth), size=64, labels={}, sums=sums, each=each, lacking={})
        )
    faces = {}
    for row in records.frame_rows(scores):
        faces.setdefault((row["method"], row["metric"]), {})[row["clip"]] = np.array(row["values"])
    return shared_frames.Evaluated(
        summary={"model": model, "protocol": protocol, "resamples": 20, "seed": 0},
        records=[r for r in records.records(scores, model, protocol, config) if r["method"] != "codec"],
        clips=records.clip_rows(scores),
        faces=faces,
        grid=b"",
        videos={},
    )


@pytest.fixture(scope="module")
def apart(clips):
    return [
        evaluated("dim", clips, [True] * 6 + [False] * 3),
        evaluated("dark", clips, [False] * 3 + [True] * 6),
    ]


def test_a_model_alone_keeps_its_frames(apart):
    assert shared_frames.on_shared_frames(apart[:1])[0].records == apart[0].records


def test_models_of_other_protocols_share_no_frames(apart, clips):
    other = evaluated("dark", clips, [False] * 3 + [True] * 6, protocol="q")
    assert [one.records for one in shared_frames.on_shared_frames([apart[0], other])] == [
        apart[0].records,
        other.records,
    ]


def test_both_models_and_the_copy_count_the_frames_in_which_all_show_a_face(apart):
    both = shared_frames.on_shared_frames(apart)
    counted = [r for one in both for r in one.records if r["name"] == "akd_l1_dlib"]
    assert {(r["n"], r["missing"]) for r in counted} == {(18, 36)}  # 3 of 9 frames of 6 clips
    assert {r["undetected"] for one in both for r in one.records if r["method"] == one.model} == {0, 18}


def test_the_baseline_is_one_and_the_same_afterwards(apart):
    before = [one.record("akd_l1_dlib", COPY)["value"] for one in apart]
    after = [one.record("akd_l1_dlib", COPY) for one in shared_frames.on_shared_frames(apart)]
    assert before[0] != before[1]
    assert after[0] == after[1]


def test_the_value_is_the_mean_over_the_shared_frames(apart, clips):
    shared = shared_frames.on_shared_frames(apart)[0].record("akd_l1_dlib", "dim")
    truth = np.concatenate([frames[3:6] for frames in clips.values()])
    gaps = np.abs((truth // 2).mean((1, 2, 3)) - truth.mean((1, 2, 3)))
    assert shared["value"] == pytest.approx(gaps.mean(), abs=0.5)  # enlarged pictures are rounded
    assert shared["low"] < shared["value"] < shared["high"]


def test_metrics_of_whole_frames_stay_as_they_were(apart):
    for before, after in zip(apart, shared_frames.on_shared_frames(apart), strict=True):
        assert before.record("l1", before.model) == after.record("l1", after.model)
        assert [row for row in before.clips if row["metric"] == "l1"] == [
            row for row in after.clips if row["metric"] == "l1"
        ]


def test_without_a_shared_frame_the_value_is_left_out_and_says_why(clips):
    models = [
        evaluated("dim", clips, [True] * 4 + [False] * 5),
        evaluated("dark", clips, [False] * 4 + [True] * 5),
    ]
    found = shared_frames.on_shared_frames(models)[0].record("akd_l1_dlib", "dim")
    assert (found["value"], found["low"], found["n"]) == (None, None, 0)
    assert found["note"] == records.no_face("dim", 30)


def test_the_values_of_frames_sum_to_the_value_of_the_clip(apart, clips):
    metric, one = METRICS["akd_l1_dlib"], apart[0]
    for row in one.clips:
        if row["metric"] == metric.name and row["method"] == "dim":
            values = one.faces["dim", metric.name][row["clip"]]
            assert metric.compute(metric.over(values, np.isfinite(values))) == row["value"]
