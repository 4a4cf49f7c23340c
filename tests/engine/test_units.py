"""Which units a keyed node has, and what each of them reads."""

import pytest

from pipelines.engine.node import Node, Read
from pipelines.engine.units import UnitInputs, UpstreamUnit

PAIRS = Node(
    name="generate", kind="keyed", run="m:f", units="pairs", rows={"split": ("test",)},
    reads={"pairs": Read("pairs", ("source",)), "clips": Read("clips", ("frames",), by="recordings")},
)  # fmt: skip


def row(recordings, split="test", source="a"):
    return UpstreamUnit(None, row={"recordings": recordings, "split": split, "source": source})


@pytest.fixture
def units():
    return {
        "pairs": {"p1": row(["a", "b"]), "p2": row(["a"], split="train"), "p3": row(["a", "gone"])},
        "clips": {"a": UpstreamUnit("digest a"), "b": UpstreamUnit("digest b")},
    }


def test_units_are_the_rows_asked_for_of_which_everything_is_there(units):
    assert list(UnitInputs(PAIRS, units)) == ["p1"]


def test_a_unit_reads_the_units_that_its_row_names(units):
    inputs = UnitInputs(PAIRS, units)
    assert [one for one, _ in inputs.input_units("p1", PAIRS.reads["clips"])] == ["a", "b"]
    assert inputs.input_digests("p1")["clips"] == ["digest a", "digest b"]


def test_only_the_fields_that_are_read_count(units):
    before = UnitInputs(PAIRS, units).input_digests("p1")
    units["pairs"]["p1"] = row(["a", "b"], source="other")
    assert UnitInputs(PAIRS, units).input_digests("p1")["pairs"] != before["pairs"]
    units["pairs"]["p1"] = UpstreamUnit(None, row={**units["pairs"]["p1"].row, "source": "a", "note": 1})
    assert UnitInputs(PAIRS, units).input_digests("p1") == before


def test_a_digest_is_open_while_an_input_is_not_computed(units):
    units["clips"]["b"] = UpstreamUnit(None)
    assert UnitInputs(PAIRS, units).input_digests("p1") is None
