"""Pairs of clips that a model trains on."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import Struct, field

from pipelines.dataset.clip_pairs import (
    CLIP_PAIR_COLUMNS,
    CLIP_PAIRS_STAGE,
    clip_identity,
    list_clip_pairs,
    make_training_clip_pairs,
)
from pipelines.dataset.recording_table import Person
from pipelines.engine.fingerprint import KeyEnvironment
from pipelines.engine.node import Graph, Node, Read
from pipelines.engine.plan import Planner
from pipelines.engine.runner import Runner
from pipelines.engine.source_code import SourceSymbolIndex
from pipelines.errors import UserError
from pipelines.runs.snapshot import CODE_ROOT, PROJECT_PACKAGES
from pipelines.train.tables import split_rows
from storage.files import Store
from tests.toy_project import InProcess

RECORDINGS = {f"id{i}#rec{i}{c}#000000#000006": f"rec{i}{c}" for i in range(8) for c in "ab"}
PEOPLE = {
    recording: Person(clip_identity(key), "test" if key < "id2" else "train")
    for key, recording in RECORDINGS.items()
}


def sides(rows):
    return {(row["source_clip"], row["driving_clip"]) for row in rows}


def test_a_pair_shows_two_people_of_one_split():
    rows = make_training_clip_pairs(RECORDINGS, PEOPLE, 0, 1)
    assert {row["split"] for row in rows} == {"train", "test"}
    for row in rows:
        people = [PEOPLE[recording] for recording in (row["source_recording"], row["driving_recording"])]
        assert people[0].identity != people[1].identity
        assert {row["split"]} == {one.split for one in people}
        assert row["identity"] == people[0].identity == clip_identity(row["source_clip"])
        assert row["recordings"] == sorted([row["source_recording"], row["driving_recording"]])


def test_each_round_adds_pairs_and_keeps_those_before():
    once, twice = (sides(make_training_clip_pairs(RECORDINGS, PEOPLE, 0, rounds)) for rounds in (1, 2))
    assert once < twice


def test_another_seed_pairs_others():
    assert sides(make_training_clip_pairs(RECORDINGS, PEOPLE, 0, 1)) != sides(
        make_training_clip_pairs(RECORDINGS, PEOPLE, 5, 1)
    )


def test_one_more_clip_changes_two_pairs_of_a_round_at_most():
    whole = sides(make_training_clip_pairs(RECORDINGS, PEOPLE, 0, 1))
    for key in RECORDINGS:
        fewer = {other: recording for other, recording in RECORDINGS.items() if other != key}
        without = sides(make_training_clip_pairs(fewer, PEOPLE, 0, 1))
        assert len(whole - without) <= 2
        assert len(without - whole) <= 1


@pytest.fixture
def context(family, tmp_path):
    """Clips of three people, one of them in the test split; landmarks of all but the first clip."""
    rows = [
        {"id": family.recording_of(key), "identity": clip_identity(key),
         "split": "test" if key.startswith("id2") else "train"}
        for key in family.keys
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "recordings.parquet")
    some = type(family)({key: family.samples[key] for key in family.keys[1:]})
    inputs = {
        "recordings": SimpleNamespace(path=lambda name: tmp_path / name),
        "clips": SimpleNamespace(open_family=lambda: family),
        "keypoints": SimpleNamespace(open_family=lambda: some),
    }  # fmt: skip
    return SimpleNamespace(
        node="clip_pairs.toy", config=SimpleNamespace(seed=0, rounds=3), inputs=inputs, out=tmp_path,
        report_progress=lambda done, total, note: None,
    )  # fmt: skip


def test_clips_that_a_family_lacks_are_in_no_pair(context, family):
    list_clip_pairs(context)
    rows = pq.read_table(context.out / "clip_pairs.parquet").to_pylist()
    used = {row[f"{side}_clip"] for row in rows for side in ("source", "driving")}
    assert used == set(family.keys[1:4])


def test_a_corpus_of_one_person_in_each_split_is_refused(context, family):
    alone = [key for key in family.keys if not key.startswith("id1")]
    context.inputs["keypoints"].open_family = lambda: type(family)(
        {key: family.samples[key] for key in alone}
    )
    with pytest.raises(
        UserError,
        match=r"clip_pairs.toy: no pair among 3 clips that clips, keypoints have: a pair takes clip",
    ):
        list_clip_pairs(context)


# --- in a run -----------------------------------------------------------------------------------------------
class Settings(Struct, frozen=True):
    seed: int = 0
    rounds: int = 1
    runtime: dict[str, str] = field(default_factory=dict)


def list_recordings(ctx):
    rows = [{"id": id, "bucket": 0, "identity": who, "split": split} for id, (who, split) in PEOPLE.items()]
    pq.write_table(pa.Table.from_pylist(rows), ctx.out / "recordings.parquet")


def one_clip(inputs, config, nets, runtime):
    """A clip a recording, whose code is a number of its own."""
    (row,) = inputs["recordings"]
    key = next(key for key, recording in RECORDINGS.items() if recording == row["id"])
    yield {"__key__": key, "codes": np.full((1, 1), list(RECORDINGS).index(key), np.float32)}


def both_codes(inputs, config, nets, runtime):
    (pair,) = inputs["pairs"]
    codes = {sample["__key__"]: sample["codes"] for sample in inputs["clips"]}
    both = np.concatenate([codes[pair["source_clip"]], codes[pair["driving_clip"]]])
    yield {"__key__": pair["id"], "codes": both}


@pytest.fixture
def plans(tmp_path):
    """Of a finished run over recordings, their clips, pairs of these and a family of the pairs."""
    graph, at = Graph(), "tests.dataset.test_clip_pairs"
    # fmt: off
    graph.add(Node(name="recordings", kind="whole", run=f"{at}:list_recordings", table=True,
                   writes=("id", "identity", "split")))
    graph.add(Node(name="clips", kind="keyed", run=f"{at}:one_clip", units="recordings", writes=("codes",),
                   reads={"recordings": Read("recordings", ("identity",))}))
    graph.add(Node(name="pairs", kind="whole", run="pipelines.dataset.clip_pairs:list_clip_pairs",
                   stage=CLIP_PAIRS_STAGE, table=True, writes=CLIP_PAIR_COLUMNS, section="units",
                   reads={name: Read(name) for name in ("recordings", "clips")},
                   config={"units.seed": "seed", "units.rounds": "rounds"}))
    graph.add(Node(name="swap", kind="keyed", run=f"{at}:both_codes", units="pairs", writes=("codes",),
                   reads={"pairs": Read("pairs", ("source_clip", "driving_clip")),
                          "clips": Read("clips", ("codes",), by="recordings")}))
    # fmt: on
    env = KeyEnvironment(SourceSymbolIndex(CODE_ROOT, (*PROJECT_PACKAGES, "tests")))
    planner = Planner(graph, Settings(), Store(str(tmp_path / "store")), env)
    outcome = Runner(planner, InProcess(), "run").run()
    assert not outcome.failed, outcome.failed
    return outcome.plans


def test_a_node_of_pairs_computes_from_both_clips_and_its_rows_are_split_as_they_are(plans):
    table = pq.read_table(plans["pairs"].artifact.path("clip_pairs.parquet")).to_pylist()
    artifacts = {"swap": plans["swap"].artifact, "units.swapped": plans["pairs"].artifact}
    split = split_rows(artifacts, {"swap": ("codes",)}, "units.swapped")
    for name, corpus in split.rows.items():
        rows = [row for row in table if row["split"] == name]
        assert sorted(corpus.keys) == [row["id"] for row in rows]
        for row in rows:
            codes = [list(RECORDINGS).index(row[side]) for side in ("source_clip", "driving_clip")]
            assert corpus.read(row["id"], "codes")[:, 0].tolist() == codes
