"""Families of other units than recordings: a bank of seeds that a phase learns from, pairs of clips."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from models import MODELS
from models.errors import InvalidSettings
from pipelines.config import RunConfig, load_config, settings_class_names
from pipelines.engine.fingerprint import KeyEnvironment
from pipelines.engine.node import Graph
from pipelines.engine.plan import Planner
from pipelines.engine.runner import Runner, RunOutcome
from pipelines.engine.source_code import SourceSymbolIndex
from pipelines.graph import build_graph
from pipelines.runs.session import NON_NUMERIC_MODULES, NUMERIC_STORAGE_MODULES
from pipelines.runs.snapshot import CODE_ROOT, PROJECT_PACKAGES
from storage.files import Store
from tests.toy_project import InProcess
from tests.train import tiny_bank

RUN = """
use: [data/synthetic, cluster/local]
models: [tiny]
tiny: {precision: fp32}
eval: {protocols: {self: null}}
runtime: {train_workers: 0, train_cpus: 1, log_every: 1}
"""
NODES = {"train.tiny.generator", "seeds.tiny", "bank.tiny", "train.tiny.directions"}


SPEC = tiny_bank.SPEC


@pytest.fixture(scope="module")
def configured(tmp_path_factory) -> Iterator[Callable[..., RunConfig]]:
    """Settings -> the config of a run of the tiny model, with these values of its spec changed."""
    path = tmp_path_factory.mktemp("bank") / "run.yaml"
    path.write_text(RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", "tests.train.tiny_bank:SPEC")

        def of(*sets: str, **changes: Any) -> RunConfig:
            patch.setattr(tiny_bank, "SPEC", replace(SPEC, **changes))
            return load_config(path, sets).config

        yield of


@pytest.fixture(scope="module")
def planner(configured, tmp_path_factory) -> Callable[..., Planner]:
    """Settings -> the plan of a run, in one store."""
    store = Store(str(tmp_path_factory.mktemp("bank") / "store"))
    code = SourceSymbolIndex(
        CODE_ROOT,
        (*PROJECT_PACKAGES, "tests"),
        NON_NUMERIC_MODULES,
        NUMERIC_STORAGE_MODULES,
        settings_class_names(type(configured())),
    )

    def of(*sets: str) -> Planner:
        config = configured(*sets)
        return Planner(build_graph(config), config, store, KeyEnvironment(code, tool=lambda name: name))

    return of


@pytest.fixture(scope="module")
def ran(planner) -> tuple[RunOutcome, dict[str, Any]]:
    return run(planner())


def run(planner: Planner) -> tuple[RunOutcome, dict[str, Any]]:
    """What happened, and the facts that training recorded."""
    events: list[dict[str, Any]] = []
    outcome = Runner(planner, InProcess(), "run", emit=events.append).run(NODES)
    assert not outcome.failed, outcome.failed
    recorded = (event["values"] for event in events if event["type"] == "params")
    return outcome, {name: value for values in recorded for name, value in values.items()}


# --- seeds --------------------------------------------------------------------------------------------------
def test_a_phase_learns_from_a_bank_of_seeds_and_is_validated_on_the_blocks_held_out(ran):
    outcome, facts = ran
    assert set(outcome.executed) == NODES
    assert (facts["data.bank.train.rows"], facts["data.bank.test.rows"]) == (8, 4)
    (block,) = (row.row for row in outcome.plans["seeds.tiny"].units.values() if row.row["split"] == "test")
    log = outcome.plans["train.tiny.directions"].artifact.path("metrics.jsonl").read_text().splitlines()
    figures = {name: value for line in map(json.loads, log) for name, value in line.items()}
    assert block["first"] <= figures["held_out/first"]
    assert figures["held_out/last"] < block["first"] + block["count"]


def test_more_blocks_compute_the_new_ones_alone(ran, planner):
    before, _ = ran
    after, facts = run(planner("tiny.bank.blocks=4"))
    assert set(after.executed) == {"seeds.tiny", "bank.tiny", "train.tiny.directions"}
    assert facts["data.bank.train.rows"] + facts["data.bank.test.rows"] == 16
    packs = [set(outcome.plans["bank.tiny"].packs) for outcome in (before, after)]
    assert packs[0] < packs[1]


def test_a_plan_knows_blocks_that_are_not_listed_yet(planner):
    assert planner("tiny.bank.blocks=5").plan(NODES)["bank.tiny"].counts["units"] == 5


def test_a_bank_depends_on_no_corpus(configured):
    graph = build_graph(configured("data.test.source=synthetic", "eval.data=test"))
    assert "bank.tiny" in graph.nodes
    assert "recordings" not in {graph[name].stage for name in graph.upstream("train.tiny.directions")}


# --- pairs of clips -----------------------------------------------------------------------------------------
def graph_of_pairs(configured: Callable[..., RunConfig]) -> Graph:
    def reads(config, phase):
        return {"clips": ("frames",), "clip_pairs": ("source_clip", "driving_clip"), "swap": ("codes",)}

    task = replace(tiny_bank.TASK, tables={"pairs": ("clip_pairs",), "swapped": ("swap",)})
    tasks = dict.fromkeys(tiny_bank.PHASES, task)
    return build_graph(configured(reads=reads, tasks=tasks))


def test_a_node_of_pairs_reads_the_recordings_of_both_clips(configured):
    node = graph_of_pairs(configured)["swap.tiny"]
    assert node.units == "clip_pairs.tiny"
    assert {role: (read.node, read.by) for role, read in node.reads.items()} == {
        "clip_pairs": ("clip_pairs.tiny", ""), "keypoints": ("keypoints.main", "recordings"),
    }  # fmt: skip


def test_only_clips_that_all_families_have_are_paired(configured):
    reads = graph_of_pairs(configured)["clip_pairs.tiny"].reads
    assert {role: read.node for role, read in reads.items()} == {
        "recordings": "recordings", "clips": "clips", "keypoints": "keypoints.main",
    }  # fmt: skip


def test_a_phase_reads_the_table_of_units_of_each_table_that_it_samples_from(configured):
    reads = graph_of_pairs(configured)["train.tiny.generator"].reads
    assert {role: read.node for role, read in reads.items()} == {
        "recordings": "recordings", "clips": "clips", "clip_pairs": "clip_pairs.tiny", "swap": "swap.tiny",
        "units.pairs": "clip_pairs.tiny", "units.swapped": "clip_pairs.tiny",
    }  # fmt: skip


# --- what cannot work ---------------------------------------------------------------------------------------
def of_bank(**changes: Any) -> dict[str, Any]:
    return {"nodes": lambda config: {"bank": replace(tiny_bank.BANK, **changes), "swap": tiny_bank.SWAP}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (of_bank(units="seed"), "units of node 'bank' are 'seed', which is no table; known: recordings, "),
        (
            of_bank(settings=("seed", "bank")),
            "node 'bank' depends on bank, and so on bank.blocks, how many blocks it has: with m",
        ),
        (of_bank(reads={}), "node 'bank' reads nothing of its own units; add seeds to its reads"),
        (
            of_bank(reads={"seeds": ("first",), "clips": ("frames",)}),
            "node 'bank' has the units of seeds and reads clips, whose units are those of recordings; ",
        ),
        (
            {"driving_reads": lambda config: {"bank": ("codes",)}},
            "driving_reads names bank, whose units are those of seeds; a model is driven with families of cl",
        ),
        (
            {"reads": lambda config, phase: (
                {"clips": ("frames",), "bank": ("codes",)} if phase.name == "directions" else {}
             ),
             "tasks": dict.fromkeys(tiny_bank.PHASES, tiny_bank.TASK)},
            r"several units in table clips: clips \(of recordings\), bank \(of seeds\); name those",
        ),
        (
            {"nodes": lambda config: {"seeds": tiny_bank.BANK}},
            "'seeds' is the name of a node and of a table of units; rename one",
        ),
        (
            {"unit_tables": {"pairs": SPEC.unit_tables["clip_pairs"]}},
            "spec of tiny names a node pairs, as a stage is; rename it",
        ),
    ],
)  # fmt: skip
def test_units_that_lead_nowhere_are_refused_when_the_graph_is_built(configured, changes, message):
    with pytest.raises(InvalidSettings, match=message):
        build_graph(configured(**changes))


def test_a_bank_without_blocks_is_refused_by_the_setting(configured):
    with pytest.raises(
        InvalidSettings, match=r"tiny.bank.blocks 0: expected a whole number from 1 on, the bl"
    ):
        build_graph(configured("tiny.bank.blocks=0"))


def test_a_table_of_a_setting_that_there_is_not_is_refused():
    tables: Any = {"seeds": replace(SPEC.unit_tables["seeds"], blocks="bank.count")}
    with pytest.raises(
        InvalidSettings, match=r"unit_tables.seeds depends on 'bank.count', but Config has no"
    ):
        replace(SPEC, unit_tables=tables)
