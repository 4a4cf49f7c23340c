"""Why a node of the toy project would run."""

from pipelines.runs.lineage import why


def lines(project, node, unit=None):
    planner = project.planner()
    return list(why(planner, planner.plan(), node, unit))


def test_why_shows_the_changed_line_of_source(ran):
    ran.edit("helpers", "return thing(x) + thing(x)", "return 2 * thing(x)")
    found = lines(ran, "double")
    assert found[0] == "double: stale"
    assert "-    return thing(x) + thing(x)" in found
    assert "+    return 2 * thing(x)" in found


def test_why_follows_the_chain_up_to_what_changed(ran):
    ran.set("double", times=3)
    found = lines(ran, "add")
    assert found[0] == "add: pending"
    assert "double: stale" in found
    assert any("double.times 1 -> 3" in line for line in found)


def test_why_tells_where_a_unit_stands(ran):
    assert any(line.startswith("  unit a: cached, content ") for line in lines(ran, "add", "a"))
    assert "  unit z: not among its units" in lines(ran, "add", "z")
    ran.values({"a": 5, "b": 2, "c": 3, "d": 4, "e": 5})
    assert "  unit a: to be computed" in lines(ran, "double", "a")
