"""Shards that are dropped on purpose: nothing runs for them until a node reads them again."""

import pytest

from pipelines.engine.dropped_shards import drop_shards, find_droppable_packs

NODES = ("listing", "double", "add", "side", "total", "report")


def shards(project, node):
    return [e.name for e in project.store.walk(f"packs/{node}") if e.name.endswith(".tar")]


def records(project, node):
    entries = project.store.walk(f"packs/{node}")
    return {e.name: project.store.read(e.name) for e in entries if e.name.endswith(".parquet")}


@pytest.fixture
def lean(project):
    """A toy project that was run, and dropped the shards of `add`."""
    project.drops = {"add"}
    outcome = project.run()
    assert not outcome.failed, outcome.failed
    project.did()
    return project


def test_shards_are_dropped_once_all_that_reads_them_is_there(lean):
    assert not shards(lean, "add")
    assert records(lean, "add")
    assert shards(lean, "double")


def test_nothing_runs_for_shards_that_were_dropped(lean):
    assert {name: plan.state for name, plan in lean.plan().items()} == dict.fromkeys(NODES, "cached")
    assert lean.run().executed == []


def test_the_setting_is_in_no_key(lean):
    lean.drops = set()
    assert lean.run().executed == []
    assert not shards(lean, "add")


def test_a_node_that_reads_them_again_has_them_made_again_and_no_more(lean):
    before, published = records(lean, "add"), lean.bytes()
    lean.set("total", steps=9)
    plan = lean.plan()["add"]
    assert (plan.state, plan.reasons) == ("stale", ["5 of 5 units dropped, read again by total"])
    outcome = lean.run()
    assert not outcome.failed, outcome.failed
    assert outcome.executed == ["add", "total", "report"]
    assert lean.did() == ["add a", "add b", "add c", "add d", "add e", "report", "total"]
    assert records(lean, "add") == before
    assert not shards(lean, "add")
    assert lean.bytes().keys() >= published.keys()


def test_what_was_made_again_is_what_was_dropped(ran):
    before = ran.bytes()
    ran.drops = {"add"}
    ran.run()
    assert not shards(ran, "add")
    ran.drops = set()
    ran.set("total", steps=9)
    ran.run()
    assert {name: ran.bytes()[name] for name in before} == before


def test_what_they_are_made_from_is_made_again_first_where_it_was_dropped_too(project):
    project.drops = {"double", "add"}
    project.run()
    project.did()
    assert not shards(project, "double")
    project.set("total", steps=9)
    plans = project.plan()
    assert plans["double"].reasons == ["5 of 5 units dropped, read again by add"]
    assert project.run().executed == ["double", "add", "total", "report"]


def test_of_a_keyed_reader_only_the_packs_that_its_new_units_read_are_made_again(project):
    """Packs of `double` hold one unit; what `add` made of the others is copied."""
    project.drops = {"double"}
    project.run()
    project.did()
    project.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6})
    assert not project.run().failed
    assert project.did() == ["add f", "double f", "report", "side f", "total"]


def test_a_new_unit_has_each_other_one_made_again_once(lean):
    lean.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6})
    assert not lean.run().failed
    assert lean.did() == [*(f"add {unit}" for unit in "abcdef"), "double f", "report", "side f", "total"]


def test_a_run_without_the_nodes_that_read_them_drops_nothing(project):
    project.drops = {"add"}
    project.run("listing", "double", "add")
    assert shards(project, "add")


def test_what_was_kept_so_far_can_be_dropped_when_the_setting_changes(ran):
    ran.drops = {"add"}
    planner = ran.planner()
    ((stage, packs),) = find_droppable_packs(planner.graph, planner.plan())
    sizes = sum(ran.store.file_infos([name])[0].size for name in shards(ran, "add"))
    assert drop_shards(ran.store, stage, packs) == sizes > 0
    assert drop_shards(ran.store, stage, packs) == 0
    assert ran.run().executed == []


def test_a_node_that_gives_other_content_when_it_runs_again_is_named(project, monkeypatch):
    project.edit("nodes", "+ OFFSET", "+ OFFSET + int(__import__('os').environ.get('TOY_OFFSET', '0'))")
    project.drops = {"add"}
    project.run()
    project.set("total", steps=9)
    monkeypatch.setenv("TOY_OFFSET", "1")
    warnings = [e for e in project.run().events if e["type"] == "warning"]
    assert [(one["node"], one["text"].partition(";")[0]) for one in warnings] == [
        ("add", "made again it is not what was dropped")
    ]
    assert project.run().executed == []


def test_a_shard_that_is_gone_without_a_mark_is_damage(lean):
    for entry in lean.store.walk("packs/add"):
        if entry.name.endswith(".dropped"):
            lean.store.delete(entry.name)
    assert "of a missing or damaged object" in " ".join(lean.plan()["add"].reasons)
