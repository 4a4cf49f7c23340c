"""Outputs declared valid for changed code, on the toy project."""

import pytest

from pipelines.errors import UserError
from pipelines.runs.accept import accept_node_outputs


def accepted(project, node):
    planner = project.planner()
    return accept_node_outputs(planner, planner.plan()[node], "the same sum")


def test_accepted_outputs_are_cached_under_the_changed_code(ran):
    ran.edit("helpers", "return thing(x) + thing(x)", "return 2 * thing(x)")
    assert ran.stale()["double"] == 5
    assert "accepted for changed" in accepted(ran, "double")
    assert "double" not in ran.stale()


def test_changed_settings_cannot_be_accepted(ran):
    ran.set("double", times=3)
    with pytest.raises(UserError, match=r"double: more than code changed \(double\.times\)"):
        accepted(ran, "double")


def test_a_cached_node_has_nothing_to_accept(ran):
    with pytest.raises(UserError, match="double is cached: there is nothing to accept"):
        accepted(ran, "double")


def test_a_node_that_never_ran_has_no_output(project):
    with pytest.raises(UserError, match="double has never run"):
        accepted(project, "double")
