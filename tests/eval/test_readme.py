"""pipelines/eval/README.md holds to what is there."""

import re
from pathlib import Path
from typing import get_args

import pytest

from pipelines.eval.metrics import DEFAULT_METRICS, METRICS
from pipelines.eval.protocols import ProtocolKind
from pipelines.eval.records import metric_weights_ids

README = (Path(__file__).parents[2] / "pipelines/eval/README.md").read_text()
ROWS = {
    cells[0].split("`")[1]: cells
    for line in README.partition("## Metrics")[2].partition("## What")[0].splitlines()
    if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0].startswith("`")
}


def test_the_table_has_every_metric_in_order():
    assert list(ROWS) == list(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_line_says_what_the_metric_needs_and_what_it_is_a_value_of(name):
    metric, (head, unit, of, _, default, needs) = METRICS[name], ROWS[name]
    assert head.endswith("↑" if metric.better == "up" else "↓")
    assert unit == metric.unit
    assert of == ("set" if metric.of_sets else "pair" if metric.per_clip else "frame")
    assert (default == "yes") == (name in DEFAULT_METRICS)
    assert re.findall(r"`(\w+)`", needs) == metric_weights_ids(metric)


def test_every_metric_that_is_computed_by_default_has_a_line_of_what_it_sees():
    seen = README.partition("## What each metric sees")[2].partition("## To add")[0]
    assert re.findall(r"^\| `(\w+)` \|", seen, re.M) == list(DEFAULT_METRICS)


@pytest.mark.parametrize("kind", get_args(ProtocolKind))
def test_every_kind_of_protocol_is_in_the_table(kind):
    assert f"| `{kind}`" in README
