import json
import re

import numpy as np
import pytest

from pipelines.eval import corpus


@pytest.fixture(scope="session")
def built(make_context, corpus_inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    context = make_context(node="corpus", config=None, inputs=corpus_inputs, out=out)
    corpus.corpus(context)
    return context


@pytest.fixture
def facts(built):
    return json.loads((built.out / "corpus.json").read_text())


def test_splits_count_people_clips_and_hours(facts):
    train, test = facts["splits"]
    assert (train["name"], train["identities"], train["clips"]) == ("train", 1, 2)
    assert (test["name"], test["identities"], test["clips"]) == ("test", 2, 4)
    assert test["hours"] == pytest.approx(4 * 9 / 25 / 3600)


def test_rejects_are_counted_by_node_and_code_with_an_example(facts):
    assert [(r["node"], r["code"], r["count"]) for r in facts["rejects"]] == [
        ("recordings", "bad_id", 1),
        ("clips", "no_face", 1),
    ]
    assert facts["rejects"][1]["example"] == "rec9: no face in any of 40 frames"


def test_the_road_counts_rows_the_source_lost(facts):
    assert (facts["listed"], facts["recordings"]) == (7, 6)


def test_a_person_in_both_splits_is_called_out(corpus_inputs):
    rows = [{"id": "r1", "identity": "p", "split": "train"}, {"id": "r2", "identity": "p", "split": "test"}]
    stages = {name: corpus_inputs[name] for name in corpus.STAGES}
    clips = corpus_inputs["clips"].family()
    found = corpus.count(rows, [], stages, clips)
    assert found.shared == ["p"]
    assert "1 identities are in more than one split: p" in corpus.render(found, [])


def test_distributions_leave_out_frames_without_a_face(facts):
    assert facts["values"]["found"]["p50"] == pytest.approx(100 * 8 / 9, abs=1e-3)
    assert facts["values"]["crop"]["p50"] == 100


def test_the_page_needs_nothing_from_outside(built):
    text = (built.out / "corpus.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "http" not in re.sub(r"data:[^\"']+", "", text)


def test_the_page_is_the_same_again(built, make_context, tmp_path):
    corpus.corpus(make_context(node="corpus", config=None, inputs=built.inputs, out=tmp_path))
    for name in ("corpus.html", "corpus.json"):
        assert (tmp_path / name).read_bytes() == (built.out / name).read_bytes()


def test_landmarks_are_drawn_where_they_are():
    image = np.full((20, 20, 3), 100, np.uint8)
    corpus.dots(image, np.array([[5.4, 9.2], [np.nan, np.nan]]))
    assert (image[9, 5] == 255).all()
    assert (image[0, 0] == 100).all()
