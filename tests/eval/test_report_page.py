import re
from dataclasses import replace

import pytest
from msgspec import structs

from pipelines.eval import report_page
from pipelines.eval.comparison import compute_protocol_results
from pipelines.eval.config import ReportConfig
from pipelines.eval.paper_results import read_paper_results
from pipelines.figures.html import CHART_COLOURS, CHART_GREY
from tests.eval.conftest import DLIB_SP68_SHA256


@pytest.fixture(scope="module")
def one(road):
    return compute_protocol_results("self", road.inputs, ReportConfig(resamples=50, videos=0, grid_pairs=1))


@pytest.fixture(scope="module")
def page(one):
    return report_page.render_report("A title", [one], read_paper_results(["fsrt"]))


@pytest.mark.parametrize(
    ("frames", "lossless", "told", "untold"),
    [
        (
            "JPEG q95 4:2:0, 41 to 47 dB",
            False,
            "compressed once more, as JPEG q95 4:2:0, 41 to 47 dB",
            "lossy",
        ),
        (
            "PNG, lossless",
            True,
            "kept without loss: since then nothing scored has been through a lossy",
            "once",
        ),
    ],
)
def test_the_page_says_beside_the_numbers_what_the_frames_have_been_through(
    one, frames, lossless, told, untold
):
    about = structs.replace(one.about, frames=frames, lossless=lossless)
    results = part(report_page.render_report("A title", [replace(one, about=about)], []), "results", "spread")
    assert told in results.replace("\n", " ")
    assert untold not in results
    assert results.index("Sources, driving frames and ground truth") < results.index("<table")


def part(page, first, last):
    return page[page.index(f'id="{first}"') : page.index(f'id="{last}"')]


def test_weights_that_are_not_the_published_ones_are_named_beside_the_numbers(page):
    assert "kp detector: distilled from dlib landmarks" in part(page, "results", "spread")


def test_the_papers_numbers_are_marked_as_theirs_and_kept_apart(page):
    assert "0.7576" in part(page, "published", "provenance")
    assert "0.7576" not in part(page, "results", "spread")
    assert "papers' own figures, not ours" in part(page, "published", "provenance")


def test_a_model_without_published_figures_is_named(page):
    assert "No published figures are at hand for toy, dark." in page


def test_keys_of_the_inputs_are_on_the_page(page):
    assert "node of truth.landmarks.dlib68" in page
    assert "s" * 32 in page


def test_the_digests_of_the_metrics_weights_are_beside_the_keys(page):
    assert f"dlib_sp68 <code>{DLIB_SP68_SHA256[:12]}</code>" in page


def parts_of_table(names):
    return -(-len(names) // report_page.MAX_METRIC_COLUMNS)


def test_a_table_is_cut_where_it_would_be_wider_than_the_page(one):
    heads = re.findall(r"<thead>.*?</thead>", report_page._table(one, one.metric_names, own=False))
    columns = [head.count("<th") - head.count("<thead") - 1 for head in heads]
    assert sum(columns) == len(one.metric_names)
    assert max(columns) <= report_page.MAX_METRIC_COLUMNS


def test_shared_and_own_frames_have_a_table_each_and_say_which_is_which(one, page):
    results = part(page, "results", "spread")
    assert results.index("The frames that all methods share") < results.index("each method on its own frames")
    incomplete = [name for name in one.metric_names if any(r.name == name and r.missing for r in one.own)]
    assert 0 < len(incomplete) < len(one.metric_names)
    tables = parts_of_table(one.metric_names) + parts_of_table(incomplete)
    assert results.count('<tr class="model">') == 2 * tables


def test_where_no_frame_is_missing_one_table_is_enough(one):
    found = replace(
        one,
        own=[replace(r, missing=0) for r in one.own],
        shared=[replace(r, missing=0) for r in one.shared],
    )
    assert report_page._results(found).count('<tr class="model">') == 2 * parts_of_table(one.metric_names)


def test_baselines_stand_below_the_models(one):
    table = report_page._table(one, one.metric_names, own=False)
    rows = re.findall(r'<tr class="(\w+)"><td[^>]*>([\w ]+)', table)
    every = [("model", "toy"), ("model", "dark"), ("base", "copy source")]
    every += [("base", "warp"), ("base", "codec")]
    assert rows == every * parts_of_table(one.metric_names)


def cells(one, metric, own=False):
    """Model and copied source -> whether that cell is marked as the best."""
    best = report_page._best(one, metric, own, one.models)
    methods = (*one.models, "copy_source")
    return {m: " best" in report_page._cell(one.find_record(metric, m, own), best) for m in methods}


def test_the_best_of_all_models_and_the_copy_is_marked_and_no_other(one):
    assert cells(one, "l1") == {"toy": True, "dark": False, "copy_source": False}


def test_the_only_method_with_faces_is_not_marked_as_the_best(one):
    alone = [
        replace(r, undetected=r.n) if r.name == "akd_l1_dlib" and r.method != "copy_source" else r
        for r in one.own
    ]
    assert not any(cells(replace(one, own=alone), "akd_l1_dlib", own=True).values())


def test_a_metric_that_no_model_has_values_of_has_no_chart(one):
    none = [replace(r, value=None) if r.method in one.models else r for r in one.shared]
    assert report_page._chart(replace(one, shared=none), "l1") == ""


def test_a_method_that_often_shows_no_face_is_never_the_best(one):
    records = [replace(r, value=0.0) if (r.method, r.name) == ("dark", "akd_l1_dlib") else r for r in one.own]
    assert not cells(replace(one, own=records), "akd_l1_dlib", own=True)["dark"]


def test_a_method_that_often_shows_no_face_does_not_beat_the_copy_by_its_landmarks(one):
    text = report_page.model_conclusion(one, "dark")
    assert "AKD (dlib), AKD L2 (dlib), AKD (mesh)" in text
    assert "ID L2 (dlib) are not counted: no value in more than 5% of its frames" in text
    assert "AKD" not in text.partition(";")[0]
    assert "not counted" not in report_page.model_conclusion(one, "toy")


def test_a_model_says_what_kind_of_method_it_is(one):
    summaries = {**one.summaries, "toy": replace(one.summaries["toy"], kind="released")}
    table = report_page._table(replace(one, summaries=summaries), one.metric_names, own=False)
    assert 'toy<span class="ci">its authors&#x27; weights' in table or "its authors' weights" in table
    assert "trained here" in table


def test_a_value_that_leaves_out_many_frames_is_marked(one):
    record = replace(one.find_record("akd_l1_dlib", "toy"), n=90, missing=10, undetected=0)
    assert "10% left out" in report_page._cell(record, None)
    assert "no face in" not in report_page._cell(record, None)
    assert "no face in 10%" in report_page._cell(replace(record, undetected=10), None)
    assert "left out" not in report_page._cell(replace(record, n=97, missing=3), None)


def test_a_metric_that_could_not_be_computed_explains_why(one):
    record = replace(one.shared[0], value=None, note="not computed: needs dlib_sp68")
    assert "not computed: needs dlib_sp68" in report_page._cell(record, None)


def test_a_distance_of_few_frames_says_of_how_many(one):
    record = one.find_record("fd_efflite0", "toy")
    assert (record.n, record.low) == (24, None)
    assert "n = 24" in report_page._cell(record, None)
    assert "n = " not in report_page._cell(replace(record, n=2000), None)


def test_a_value_by_a_net_of_the_models_own_losses_is_marked_and_explained(one):
    assert "†" not in report_page._results(one)
    judged = ("lpips_efflite0_unlearned", "fd_efflite0")

    def trained(records):
        return [
            replace(r, weights_in_loss=["efficientnet_lite0"])
            if r.method == "toy" and r.name in judged
            else r
            for r in records
        ]

    found = replace(one, own=trained(one.own), shared=trained(one.shared))
    text = report_page._results(found)
    assert text.count("†<span") == 2
    assert "judged by a net that its own losses used in training (toy against efficientnet_lite0)" in text
    assert "EffNet distance, FD (EffNet): by a net of its own losses." in report_page.model_conclusion(
        found, "toy"
    )
    assert "own losses" not in report_page.model_conclusion(found, "dark")


def test_a_metric_that_compares_sets_has_no_dots(one):
    assert report_page._chart(one, "fd_efflite0") == ""
    assert report_page._chart(one, "csim_dlib_centred")


def test_two_methods_are_compared_in_a_table_of_their_own(one):
    text = report_page._differences(one.differences)
    assert "toy − copy source" in text
    assert "16 frames" in text


def test_clips_that_were_left_out_for_another_model_are_counted(one):
    assert "rejected" not in report_page._results(one)
    found = replace(one, about=structs.replace(one.about, rejected={"fit3dmm": 2}))
    assert "scored for none: rejected 2 by fit3dmm" in report_page._results(found)


def test_two_protocols_stand_in_two_parts(one):
    other = replace(one, about=structs.replace(one.about, protocol="another"))
    page = report_page.render_report("Two", [one, other], [])
    assert part(page, "results", "spread").count("another") == 1
    assert part(page, "spread", "samples").count('<div class="charts">') == 2


def test_a_protocol_without_metrics_shows_its_samples(one):
    bare = replace(one, own=[], shared=[], differences=[], summaries={}, spread={})
    page = report_page.render_report("Cross", [bare], [])
    assert "No metric of this run applies without a ground truth." in page
    assert 'id="samples"' in page


def test_models_differ_in_colour_and_the_copied_source_is_grey(one):
    text = report_page._spread([one])
    assert all(colour in text for colour in (*CHART_COLOURS[:2], CHART_GREY))
    assert CHART_COLOURS[2] not in text


def test_the_verdict_counts_the_metrics_that_the_model_wins(one):
    text = report_page.model_conclusion(one, "toy")
    won = sum(d.first_is_better for d in one.differences if (d.first, d.second) == ("toy", "copy_source"))
    assert f"(self) beats copying the source on {won} of 17 metrics (L1, PSNR, " in text
    assert "an indication, not a finding" in text
