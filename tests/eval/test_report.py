import json
import re
from types import SimpleNamespace

import pytest

from pipelines.eval import report
from pipelines.eval.config import ReportConfig


@pytest.fixture(scope="module")
def published(road, make_context, tmp_path_factory):
    context = make_context(
        node="report",
        config=SimpleNamespace(report=ReportConfig(resamples=50, videos=1)),
        inputs=road.inputs,
        out=tmp_path_factory.mktemp("report"),
    )
    report.make_report(context)
    return context


@pytest.fixture
def page(published):
    return (published.out / "report.html").read_text()


def test_the_page_needs_nothing_from_outside(page):
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "http" not in re.sub(r"data:[^\"']+", "", page)


def test_a_grid_and_a_video_of_each_model_are_inside(page):
    assert page.count("data:image/png;base64,") == 2
    assert page.count("data:video/mp4;base64,") == 2


def test_the_page_is_the_same_again(published, make_context, tmp_path):
    again = make_context(node="report", config=published.config, inputs=published.inputs, out=tmp_path)
    report.make_report(again)
    assert (tmp_path / "report.html").read_bytes() == (published.out / "report.html").read_bytes()


def test_the_report_is_there_as_data(published):
    data = json.loads((published.out / "report.json").read_text())
    one = data["protocols"]["self"]
    assert one["models"] == ["toy", "dark"]
    assert {record["method"] for record in one["shared"]} == {"toy", "dark", "copy_source", "warp", "codec"}


def test_what_the_frames_have_been_through_is_said_in_the_data_and_to_the_run(published):
    data = json.loads((published.out / "report.json").read_text())["protocols"]["self"]
    assert data["frames"] == "JPEG q95 4:2:0, 41 to 47 dB"
    assert data["frames"] in data["protocol"]
    assert {record["protocol"] for record in data["shared"]} == {data["protocol"]}
    assert published.facts["self/frames"] == data["frames"]


def test_figures_of_the_shared_frames_go_to_the_run(published):
    assert {"self/toy/l1", "self/copy_source/akd_l1_dlib"} <= set(published.figures)
