"""What is stale after an edit, and the reason told. Property: exactly the affected nodes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipelines.engine.node import Graph, Node, Read, UsedCheckpoints
from pipelines.engine.node_plan import NodePlan
from pipelines.errors import UserError
from pipelines.runs.plan_table import print_plan_table

EVERYTHING = {"double", "add", "total", "report", "side"}


def states(project):
    return {name: plan.state for name, plan in project.plan().items()}


def test_comments_docstrings_and_formatting_are_not_code(ran):
    ran.edit("helpers", "# a comment", "# another comment,\n    # longer")
    ran.edit("helpers", '"""Deep."""', '"""Deeper."""')
    ran.edit("nodes", '"""Adds."""', '"""Sums up."""')
    ran.edit("nodes", "def unrelated():\n    return 1", "def unrelated( ) :\n\n    return  1")
    assert set(states(ran).values()) == {"cached"}


def test_a_helper_two_imports_away_makes_its_users_stale_and_says_which_symbol(ran):
    ran.edit("helpers", "    return x\n", "    return x + 0\n")
    plans = ran.plan()
    assert plans["double"].state == "stale"
    assert plans["double"].reasons == [f"code {ran.package}.helpers.thing"]
    assert plans["add"].state == "pending"
    assert "after double (may cut off)" in plans["add"].reasons[-1]
    assert plans["side"].state == "cached"


@pytest.mark.parametrize("edit", [("nodes", "return 1", "return 2"), ("helpers", "return 0", "return 9")])
def test_an_unrelated_function_in_the_same_file_changes_nothing(ran, edit):
    ran.edit(*edit)
    assert set(states(ran).values()) == {"cached"}


def test_a_module_constant_is_code(ran):
    ran.edit("nodes", "OFFSET = 0", "OFFSET = 1")
    assert ran.plan()["add"].reasons == [f"code {ran.package}.nodes.OFFSET"]
    assert ran.plan()["double"].state == "cached"


def test_a_config_value_is_told_with_old_and_new(ran):
    ran.set("add", amount=11)
    plans = ran.plan()
    assert plans["add"].reasons == ["config add.amount 10 -> 11"]
    found = {name: plans[name].state for name in ("double", "side", "total")}
    assert found == {"double": "cached", "side": "cached", "total": "pending"}


def test_weights_are_told(ran):
    ran.weights["net"] = "w2"
    assert ran.plan()["double"].reasons == ["weights net"]


def test_a_revert_finds_everything_cached_again(ran):
    ran.set("add", amount=11)
    ran.run()
    ran.set("add", amount=10)
    assert set(states(ran).values()) == {"cached"}


def test_a_new_input_is_told_and_the_rest_counted(ran):
    ran.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6})
    plans = ran.plan()
    assert plans["listing"].reasons == ["1 of 6 inputs new: f"]
    assert plans["double"].reasons[0] == "1 of 6 units new"
    assert plans["double"].counts == {"units": 6, "cached": 5, "stale": 1, "pending": 0, "rejected": 0}
    assert plans["add"].counts["pending"] == 1


def test_a_changed_input_is_told(ran):
    ran.values({"a": 7, "b": 2, "c": 3, "d": 4, "e": 5})
    plans = ran.plan()
    assert plans["listing"].reasons == ["1 of 5 inputs changed: a"]
    assert plans["double"].reasons[0] == "1 of 5 units changed"


def test_planning_writes_nothing(ran):
    before = [(e.name, e.mtime) for e in ran.store.walk("")]
    ran.set("add", amount=12)
    ran.plan()
    assert [(e.name, e.mtime) for e in ran.store.walk("")] == before


EDITS = {  # edit -> the nodes that execute when it is run
    "amount": (lambda p, n: p.set("add", amount=100 + n), {"add", "total", "report"}),
    "times": (lambda p, n: p.set("double", times=100 + n), {"double", "add", "total", "report"}),
    "steps": (lambda p, n: p.set("total", steps=100 + n), {"total", "report"}),
    "runtime": (lambda p, n: setattr(p, "config", p.config), set()),
    "value": (lambda p, n: p.values({"a": 9 + n, "b": 2, "c": 3, "d": 4, "e": 5}), {"listing", *EVERYTHING}),
    "weights": (lambda p, n: p.weights.update(net=f"w{100 + n}"), {"double"}),
}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(EDITS)), min_size=1, max_size=4))
def test_any_sequence_of_edits_executes_exactly_what_they_touch(new_project, names):
    project = new_project()
    project.run()
    for n, name in enumerate(names):
        edit, touched = EDITS[name]
        edit(project, n)
        planned = {node for node, plan in project.plan().items() if plan.state != "cached"}
        executed = set(project.run().executed)
        assert executed <= planned
        assert executed == touched


def test_columns_of_the_plan_stand_under_their_heads():
    """Whatever a node is called; a second reason stands under the first."""
    long = Node(name="train.headgan.adversarial_and_more", run="a:b", kind="whole")
    plans = {
        long.name: NodePlan(long, "stale", ["code a", "code b"], counts={"units": 1}),
        "clips": NodePlan(replace(long, name="clips"), "cached"),
    }
    lines: list[str] = []
    print_plan_table(plans, lines.append)
    head, first, second, other = lines
    assert first.index("stale") == other.index("cached") == head.index("state")
    assert first.index("code a") == second.index("code b") == head.index("reason")


def test_a_keyed_node_over_an_input_without_units_is_an_error_of_the_graph(project):
    graph = project.graph()
    with pytest.raises(
        ValueError, match="keyed node 'each' has the units of 'total', which publishes no table"
    ):
        graph.add(Node(name="each", kind="keyed", run="a:b", units="total", reads={"total": Read("total")}))


def test_a_forced_keyed_node_says_that_it_is_forced(ran):
    assert ran.plan(force=frozenset({"add"}))["add"].reasons == ["forced"]


def test_a_used_file_that_was_not_published_is_the_users_to_mend(ran, monkeypatch):
    """Whether it is depends on what its node found, so that the graph cannot know."""

    def graph() -> Graph:
        made = plain()
        use = UsedCheckpoints(f"{ran.package}.nodes:log", {"net": ("total", "best.txt")}, "set that to last")
        made.add(Node(name="each", kind="keyed", run=f"{ran.package}.nodes:add", units="listing",
                      reads={"double": Read("double", ("clip",))}, uses={"model": use}))  # fmt: skip
        return made

    plain = ran.graph
    monkeypatch.setattr(ran, "graph", graph)
    sentence = "each uses best.txt of total, which published none; set that to last"
    with pytest.raises(UserError, match=sentence):
        ran.plan()
    outcome = ran.run()
    assert (str(outcome.error), outcome.exit_code) == (sentence, 2)
