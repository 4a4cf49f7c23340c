"""Which nodes hold what `reenact pairs` writes, and what is said where they do not."""

from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.errors import UserError
from pipelines.runs.published_pairs import PublishedPairs, choose_protocol
from pipelines.runs.session import open_session

MICRO = Path(__file__).parents[1] / "e2e/micro.yaml"
TWO = ("eval.protocols.cross.kind=cross_reenactment",)


@pytest.fixture
def open_micro(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    return lambda *sets: open_session(MICRO, sets)


def test_the_only_protocol_needs_no_name():
    assert choose_protocol(load_config(MICRO).config, None) == "self"


@pytest.mark.parametrize("wanted", [None, "other"])
def test_one_of_several_protocols_must_be_named(wanted):
    with pytest.raises(UserError, match="expected one of self, cross"):
        choose_protocol(load_config(MICRO, TWO).config, wanted)


def test_driving_frames_are_the_truth_where_there_is_one(open_micro):
    session = open_micro(*TWO)
    assert PublishedPairs(session, "self", None).input_nodes == {
        "source_clips": "views.truth", "driving": "generate.truth.self", "sound_clips": "clips",
    }  # fmt: skip
    assert PublishedPairs(session, "cross", None).input_nodes["driving"] == "generate.driving.cross"


def test_a_method_that_the_protocol_lacks_is_refused_with_those_it_has(open_micro):
    with pytest.raises(UserError, match=r"--method toy: protocol self has truth, copy_source, warp, codec"):
        PublishedPairs(open_micro(), "self", "toy")


def test_what_is_not_published_is_told_with_the_command_that_makes_it(open_micro):
    published = PublishedPairs(open_micro(), "self", "codec")
    with pytest.raises(UserError, match=r"generate\.codec\.self is not published .* first `make it`"):
        published.artifact(published.method_node, lambda node: "make it")
