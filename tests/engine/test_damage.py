"""A file that is cut short, garbled or gone costs the node it belongs to: it is built again, and named."""

import pytest
from msgspec.structs import replace

from pipelines.runs.plan_table import print_plan_table
from storage import locations
from storage.families import encode_pack_record, read_pack_record


def first(project, top, node, ending):
    return next(e.name for e in project.store.walk(f"{top}/{node}") if e.name.endswith(ending))


def planned(project):
    """States and warnings."""
    planner, lines = project.planner(), []
    plans = planner.plan()
    print_plan_table(plans, lines.append, planner.readable.damaged)
    warnings = [line for line in lines if line.startswith("warning: counted as not there: ")]
    return {name: plan.state for name, plan in plans.items()}, warnings


@pytest.mark.parametrize("length", [0, 600, -1])
@pytest.mark.parametrize("node", ["double", "add"])
def test_a_shard_cut_short_is_built_again(ran, node, length):
    before = ran.bytes()
    path = first(ran, "packs", node, ".tar")
    ran.store.write(path, ran.store.read(path)[:length])
    plan = ran.plan()[node]
    assert plan.state == "stale"
    assert "of a missing or damaged object" in " ".join(plan.reasons)
    assert ran.run().executed == [node]
    assert ran.bytes() == before


GARBLED = [
    ("manifests", "add", ".parquet", b"PAR1"),
    ("manifests", "add", ".parquet", b""),
    ("whole", "total", "record.json", b"{"),
    ("whole", "total", "record.json", b"{}"),
    ("whole", "total", "record.json", b'{"digest": "d", "sizes": [], "sha256": {}}'),
    ("whole", "listing", "record.json", b"\xff"),
]


@pytest.mark.parametrize(("top", "node", "ending", "data"), GARBLED)
def test_a_garbled_record_costs_its_node_alone(ran, top, node, ending, data):
    before, path = ran.bytes(), first(ran, top, node, ending)
    ran.store.write(path, data)
    states, (warning,) = planned(ran)
    assert path in warning
    assert states[node] == "stale"
    assert states["side"] == "cached" or node == "listing"
    assert ran.run().executed == [node]
    assert planned(ran) == (dict.fromkeys(states, "cached"), [])
    assert {n: d for n, d in ran.bytes().items() if "record" not in n} == {
        n: d for n, d in before.items() if "record" not in n
    }


def test_a_garbled_pack_record_costs_its_pack(ran):
    before, path = ran.bytes(), first(ran, "packs", "add", ".parquet")
    ran.store.write(path, b"nothing")
    ran.store.delete(first(ran, "manifests", "add", ".parquet"))
    states, warnings = planned(ran)
    assert states["add"] == "stale"
    assert any(path in warning for warning in warnings)
    ran.did()
    assert not ran.run().failed
    assert len(ran.did()) < 5
    assert ran.bytes() == before


@pytest.mark.parametrize("data", [b"", b"[]", b'{"fingerprint": 3, "run_id": "r", "scheme": 1}'])
def test_a_garbled_key_file_is_as_none(ran, data):
    ran.store.write(f"{locations.node_keys_folder('add')}/later.json", data)
    ran.set("add", amount=11)
    plan = ran.plan()["add"]
    assert plan.reasons[0].startswith("config add.amount 10 -> 11")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}"])
def test_a_garbled_accept_declares_nothing(ran, data):
    for entry in ran.store.walk("keys/add"):
        ran.store.write(
            locations.accepted_key_path("add", entry.name.split("/")[-1].removesuffix(".json")), data
        )
    states, (warning,) = planned(ran)
    assert set(states.values()) == {"cached"}
    assert "accepts/add/" in warning


def test_a_table_of_other_bytes_is_made_again(ran):
    path = first(ran, "whole", "listing", "listing.parquet")
    data = bytearray(ran.store.read(path))
    data[len(data) // 2] ^= 1
    ran.store.write(path, bytes(data))
    states, (warning,) = planned(ran)
    assert path in warning
    assert states["listing"] == "stale"
    assert ran.run().executed == ["listing"]


def test_a_unit_that_an_older_pack_holds_damaged_is_computed_again(ran):
    """One more unit regroups its bucket: the others are copied, if they are what was written."""
    ran.values({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "i": 6})  # i shares the bucket of a and e
    buckets = ran.plan()["listing"].buckets
    assert buckets["i"] == buckets["a"]
    for entry in ran.store.walk("packs/side"):
        if entry.name.endswith(".tar"):
            data = bytearray(ran.store.read(entry.name))
            data[512] ^= 1  # the first member's first byte
            ran.store.write(entry.name, bytes(data))
    ran.did()
    assert not ran.run().failed
    assert {"side a", "side i"} <= set(ran.did())


def test_a_pack_built_again_since_is_as_its_own_record_says(ran):
    """By another run, in other seconds: its record has another length than an older manifest says."""
    path = first(ran, "packs", "add", ".parquet")
    key = path.split("/")[-1].removesuffix(".parquet")
    units = [replace(unit, seconds=unit.seconds / 7) for unit in read_pack_record(ran.store, "add", key)]
    record = encode_pack_record([*units, replace(units[0], unit="none", key="none", samples=())])
    assert len(record) != len(ran.store.read(path))
    ran.store.write(path, record)
    assert ran.plan()["add"].reasons == ["manifest missing"]
    ran.did()
    assert ran.run().executed == ["add"]
    assert ran.did() == []
    assert ran.plan()["add"].state == "cached"
