import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipelines.eval import report
from pipelines.eval.report import ReportConfig
from pipelines.eval.shared_frames import Evaluated
from pipelines.figures.html import COLOURS, GREY


@pytest.fixture(scope="session")
def published(evaluated, make_context, make_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    context = make_context(
        node="report",
        config=SimpleNamespace(report=ReportConfig()),
        inputs={"eval.fsrt": make_folder(evaluated.out)},
        out=out,
    )
    report.report(context)
    return context


@pytest.fixture
def page(published):
    return (published.out / "report.html").read_text()


@pytest.fixture
def one(evaluated, make_folder):
    return report.read(make_folder(evaluated.out), 1)


def test_the_page_needs_nothing_from_outside(page):
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "http" not in re.sub(r"data:[^\"']+", "", page)


def test_grid_and_video_are_inside(page):
    assert page.count("data:image/png;base64,") == 1
    assert page.count("data:video/mp4;base64,") == 1


def test_weights_that_are_not_the_published_ones_are_named_beside_the_numbers(page):
    results = page[page.index('id="results"') : page.index('id="spread"')]
    assert "kp detector: random" in results


def test_the_papers_numbers_are_marked_as_theirs_and_kept_apart(page):
    results = page[page.index('id="results"') : page.index('id="spread"')]
    papers = page[page.index('id="published"') : page.index('id="provenance"')]
    assert "0.7576" in papers
    assert "0.7576" not in results
    assert "papers' own figures, not ours" in papers


def test_a_model_without_published_figures_is_named(one):
    rows = report.read_published(["fsrt"])
    assert "at hand for" not in report._published(rows, [one])
    assert "at hand for other." in report._published(rows, [one, called(one, "other", 0.0)])


def test_a_metric_that_could_not_be_computed_says_why(page):
    assert "not computed: in no frame do all methods show a face" in page


def test_keys_of_the_inputs_are_on_the_page(page):
    assert "train.fsrt.warmup" in page
    assert "f" * 32 in page


def test_models_of_two_protocols_stand_in_two_tables(one):
    other = replace(one, summary=dict(one.summary) | {"model": "other", "protocol": "another"})
    text = report._results([one, other])
    assert text.count("<table>") == 2
    assert report._spread([one, other]).count('<div class="charts">') == 2


def called(one: Evaluated, name: str, l1: float) -> Evaluated:
    """The same evaluation under another name and with another L1."""

    def renamed(row):
        mine = row["method"] == one.model
        return (
            dict(row)
            | ({"method": name} if mine else {})
            | ({"value": l1} if mine and row.get("name", row.get("metric")) == "l1" else {})
        )

    return replace(
        one,
        summary=dict(one.summary) | {"model": name},
        records=[renamed(row) for row in one.records],
        clips=[renamed(row) for row in one.clips],
    )


def test_models_of_one_protocol_stand_in_one_table_over_baselines_that_are_there_once(one):
    text = report._results([one, called(one, "other", 0.0)])
    assert text.count("<table>") == 1
    rows = re.findall(r'<tr class="(\w+)"><td[^>]*>([\w ]+)', text)
    assert rows == [("model", "fsrt"), ("model", "other"), ("base", "copy source"), ("base", "codec")]


def test_the_best_of_all_models_and_the_copy_is_marked_and_no_other(one):
    table = report._table([one, called(one, "other", 0.0)])
    of_l1 = [row.split("<td")[2] for row in table.split("<tr")[2:5]]  # fsrt, other, the copied source
    assert [cell.startswith(' class="n best"') for cell in of_l1] == [False, True, False]


def test_clips_that_were_left_out_for_another_model_are_told(one):
    assert "rejected" not in report._results([one])
    lacking = replace(one, summary=dict(one.summary) | {"left_out": {"fit3dmm": 2}})
    assert "scored for none: rejected 2 by fit3dmm" in report._results([lacking])


def test_models_differ_in_colour_and_the_copied_source_is_grey(one):
    text = report._spread([one, called(one, "other", 0.1)])
    assert all(colour in text for colour in (*COLOURS[:2], GREY))
    assert COLOURS[2] not in text


def test_the_verdict_counts_only_what_both_have(one):
    text = report.verdict(one)
    assert re.search(r"beats copying the source frame on \d of 4 metrics", text)
    assert "an indication, not a finding" in text


def test_the_page_is_the_same_again(published, make_context, tmp_path):
    again = make_context(node="report", config=published.config, inputs=published.inputs, out=tmp_path)
    report.report(again)
    assert (tmp_path / "report.html").read_bytes() == (published.out / "report.html").read_bytes()


def test_the_report_is_there_as_data(published):
    data = json.loads((published.out / "report.json").read_text())
    assert data["models"][0]["summary"]["model"] == "fsrt"
    assert {row["model"] for row in data["published"]} == {"fsrt"}


def test_published_numbers_are_part_of_the_key():
    assert set(report.external(None)) == {"published.csv"}


def test_a_value_that_leaves_out_many_frames_is_marked():
    record = {"value": 2.0, "low": None, "high": None, "missing": 10, "n": 90, "undetected": 0, "note": ""}
    assert "10% left out" in report._cell(record, None)
    assert "no face in" not in report._cell(record, None)
    assert "no face in 10%" in report._cell(record | {"undetected": 10}, None)
    assert "left out" not in report._cell(record | {"missing": 3, "n": 97}, None)
