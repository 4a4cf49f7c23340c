"""Two drivers on one run: each unit is computed once, and a dead driver's packs are taken over."""

import threading

import pytest

from pipelines.engine.runner import Runner
from storage import leases, locations
from tests.toy_project import InProcess

PATIENT = leases.LeaseTimings(poll=0.02)
HASTY = leases.LeaseTimings(ttl=1.0, poll=0.02)


def driver(project, name, lease=PATIENT):
    return Runner(project.planner(), InProcess(), name, lease=lease)


def claims_left(project):
    return [entry.name for entry in project.store.walk("leases")]


@pytest.fixture
def slow(project):
    """Each unit takes a moment, so that two drivers meet."""
    project.values({k: i for i, k in enumerate("abcdefgh")})
    project.edit("nodes", "def log(node, unit):", "def log(node, unit):\n    import time; time.sleep(0.05)")
    return project


def test_two_drivers_at_once_compute_each_unit_once(slow):
    runners, outcomes = [driver(slow, name) for name in ("first", "second")], []
    threads = [threading.Thread(target=lambda one=one: outcomes.append(one.run())) for one in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [outcome.failed for outcome in outcomes] == [{}, {}]
    units = [line for line in slow.did() if line.split()[0] in ("double", "add", "side")]
    assert len(units) == len(set(units)) == 24
    first, second = (outcome.plans for outcome in outcomes)
    assert {n: p.artifact.digest for n, p in first.items()} == {
        n: p.artifact.digest for n, p in second.items()
    }
    assert claims_left(slow) == []


def test_a_dead_drivers_pack_is_taken_over(project):
    """It died on another machine: its claim is there and does not change."""
    driver(project, "zero").run({"listing"})
    pack = project.plan()["side"].jobs[0].key
    facts = {"holder": "elsewhere:7", "run": "dead", "ticket": 1, "holding": True, "beat": 3}
    project.store.write_json(f"{locations.leases_folder('side')}/{pack}@dead.json", facts)
    outcome = driver(project, "next", HASTY).run()
    assert not outcome.failed
    assert [line for line in project.did() if line.startswith("side")] == [f"side {u}" for u in "abcde"]
    assert claims_left(project) == []


def test_what_another_driver_publishes_meanwhile_is_taken_as_it_is(slow):
    driver(slow, "zero").run({"listing"})
    late = driver(slow, "late")
    plans = late.planner.plan()
    early = driver(slow, "early")
    assert not early.run({"listing", "side"}).failed
    slow.did()
    late._keyed(plans["side"], plans)
    assert slow.did() == []


def test_a_forced_node_is_computed_though_its_packs_stand(slow):
    assert not driver(slow, "first").run().failed
    slow.did()
    runner = Runner(slow.planner(force=frozenset({"side"})), InProcess(), "second", lease=PATIENT)
    assert runner.run().executed == ["side"]
    assert len(slow.did()) == 8
