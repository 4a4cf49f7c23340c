from dataclasses import replace

import pytest

from pipelines.eval import report_notes as notes
from pipelines.eval import report_page
from pipelines.eval.comparison import compute_protocol_results
from pipelines.eval.config import ReportConfig


@pytest.fixture(scope="module")
def one(road):
    return compute_protocol_results("self", road.inputs, ReportConfig(grid_pairs=2, videos=1, resamples=50))


def with_records(one, metric, **changes):
    """The same results, but for what the records of one metric say."""
    shared = [replace(record, **changes) if record.name == metric else record for record in one.shared]
    return replace(one, shared=shared)


def test_metrics_without_their_net_are_listed_under_what_is_missing_and_have_no_column(one):
    lacking = with_records(one, "ssim", value=None, needs="some_net", note="not computed: needs some_net")
    assert notes.find_missing_weights(lacking) == {"ssim": "some_net"}
    page = report_page._results(lacking)
    assert "<li>SSIM: needs some_net</li>" in page
    assert "SSIM&nbsp;" not in page.partition("Not computed")[0]


def test_a_metric_that_one_method_alone_lacks_keeps_its_column(one):
    first, *rest = one.shared
    lacking = replace(one, shared=[replace(first, value=None, needs="some_net"), *rest])
    assert notes.find_missing_weights(lacking) == {}


def test_with_every_net_there_is_no_list(one):
    assert notes.not_computed(notes.find_missing_weights(one)) == ""


def test_a_column_says_what_its_frames_are_compared_with_where_that_is_not_the_truth(one):
    assert notes.reference_note(one, "pose_mesh") == ""
    cross = with_records(one, "pose_mesh", reference="driving")
    assert "against the driving frames" in notes.reference_note(cross, "pose_mesh")


def test_copying_the_source_is_no_rival_where_frames_are_compared_with_it(one):
    cross = with_records(one, "id_l2_dlib", reference="source")
    assert notes.copying_is_ideal(cross, "id_l2_dlib")
    cross = with_records(cross, "id_l2_dlib", value=1.0, undetected=0)
    shared = [
        replace(r, value=0.0) if (r.name, r.method) == ("id_l2_dlib", "copy_source") else r
        for r in cross.shared
    ]
    assert report_page._best(replace(cross, shared=shared), "id_l2_dlib", False, cross.models) == 1.0
    assert "ID L2" not in report_page.model_conclusion(replace(cross, shared=shared), "toy")


def test_a_frozen_picture_is_no_rival_where_nothing_is_to_move(one):
    assert notes.copying_is_ideal(one, "id_drift_dlib")
    assert not notes.copying_is_ideal(one, "id_l2_dlib")


# --- who is a rival of whom ---------------------------------------------------------------------------------
def driven(one, **what):
    summaries = {
        name: replace(summary, driven_by=what.get(name, [])) for name, summary in one.summaries.items()
    }
    return replace(one, summaries=summaries)


def test_who_hears_alone_is_not_ranked_with_who_sees_the_driving_frames(one):
    apart = driven(one, toy=["frames", "sound"], dark=["sound"])
    assert notes.groups_of_rivals(apart) == [["toy"], ["dark"]]
    assert notes.groups_of_rivals(driven(one, toy=["frames", "sound"], dark=["frames"])) == [["toy", "dark"]]


def test_what_models_are_given_is_said_where_one_hears(one):
    apart = driven(one, toy=["frames", "sound"], dark=["sound"])
    assert [notes.driven_by_note(apart, model) for model in one.models] == [
        "; given frames and sound", "; given sound"
    ]  # fmt: skip
    assert notes.driven_by_note(driven(one, toy=["frames"], dark=["frames"]), "toy") == ""


def test_frames_that_the_warp_had_no_landmarks_for_are_counted_in_a_line(one):
    about = one.summaries["warp"]
    assert notes.held_poses_note(one) == ""
    held = replace(one, summaries=one.summaries | {"warp": replace(about, frames_without_landmarks=1200)})
    assert "warp: 1,200 driving frames have no landmarks" in notes.held_poses_note(held)
