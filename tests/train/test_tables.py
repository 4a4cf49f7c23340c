"""The tables that a phase samples from: clips, a view of them, codes, several or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.sampler import make_sample
from pipelines.errors import UserError
from pipelines.train.launch import open_training_tables
from tests.train import toy
from tests.train.conftest import FakeArtifact


@pytest.fixture
def context(lab, family) -> Any:
    """Clips; a view that lacks one of them and shows other frames; a code of each clip."""
    keys = family.keys
    view = {key: {"frames": 255 - family.samples[key]["frames"]} for key in keys[1:]}
    codes = {key: {"codes": np.full((1, 4), i, np.float32), "frames": ()} for i, key in enumerate(keys)}
    for name, samples in (("views.ffhq256", view), ("invert", codes)):
        lab.inputs[name] = type(lab.inputs["clips"])(lab.folder, type(family)(samples))
    return lab.context("warmup")


def keys_of(corpus: Any) -> list[str]:
    return [key for keys in corpus.identities for key in keys]


def test_frames_are_those_of_the_family_of_which_they_are_read(context, family):
    reads = {"clips": ("boxes",), "views.ffhq256": ("frames",)}
    train, held_out = open_training_tables(context, {"clips": reads})
    key = keys_of(train["clips"])[0]
    assert keys_of(train["clips"]) == family.keys[1:4]
    np.testing.assert_array_equal(
        train["clips"].clips.frames(key, [2]), 255 - family.samples[key]["frames"][[2]]
    )
    assert held_out is not None
    assert keys_of(held_out["clips"]) == family.keys[4:]


def test_a_phase_that_reads_no_clips_has_their_codes_alone(context, family):
    del context.inputs["clips"]
    train, _ = open_training_tables(context, {"codes": {"invert": ("codes",)}})
    assert list(train) == ["codes"]
    assert keys_of(train["codes"]) == family.keys[:4]
    assert train["codes"].read(family.keys[3], "codes").tolist() == [[3, 3, 3, 3]]
    assert {"data.codes.train.identities": 2, "data.codes.train.clips": 4} in context.seen["params"]


def test_each_table_has_the_rows_of_its_own_families(context, family):
    tables = {"clips": {"views.ffhq256": ("frames",)}, "codes": {"invert": ("codes",)}}
    train, held_out = open_training_tables(context, tables)
    assert keys_of(train["clips"]) == family.keys[1:4]
    assert keys_of(train["codes"]) == family.keys[:4]
    assert held_out is not None
    assert set(held_out) == {"clips", "codes"}


def test_a_phase_that_reads_nothing_samples_from_no_table(context):
    assert open_training_tables(context, {}) == ({}, None)


def test_nothing_is_held_out_where_a_table_has_training_rows_alone(context, family):
    trained = {key: family.samples[key] for key in family.keys[:4]}
    context.inputs["views.ffhq256"].opened = type(family)(trained)
    tables = {"clips": {"clips": ("frames",)}, "views": {"views.ffhq256": ("frames",)}}
    assert open_training_tables(context, tables)[1] is None


def test_a_task_samples_pairs_of_the_clips_of_another_table(context, family):
    """The table of pairs is read in two roles: as the list of its units, and for its columns."""
    source, driving, *others = family.keys
    rows = [
        {"id": "p1", "identity": "id0", "split": "train", "source_clip": source, "driving_clip": driving},
        {"id": "p2", "identity": "id2", "split": "test", "source_clip": others[-1], "driving_clip": source},
    ]
    pq.write_table(pa.Table.from_pylist(rows), context.out / "clip_pairs.parquet")
    table = FakeArtifact(context.out, node="clip_pairs")
    context.inputs |= {"clip_pairs": table, "units.pairs": table}
    reads = {"clips": {"clips": ("frames",)}, "pairs": {"clip_pairs": ("source_clip", "driving_clip")}}
    train, held_out = open_training_tables(context, reads, ("clip_pairs",))
    assert held_out is not None
    assert (keys_of(train["pairs"]), keys_of(held_out["pairs"])) == (["p1"], ["p2"])
    assert {"data.pairs.train.rows": 1} in context.seen["params"]

    class Pairs(toy.Painter):
        def sample(self, rng, tables, training):
            pair = tables["pairs"].pick_clip(rng)
            clips = [tables["clips"][pair.read_field(f"{side}_clip")] for side in ("source", "driving")]
            return {"frames": np.stack([clip.frames([0])[0] for clip in clips])}

    name, sample = make_sample(Pairs(), train, 0, 0, training=True)
    assert name == f"{source}+{driving}+p1"
    np.testing.assert_array_equal(sample["frames"][1], family.samples[driving]["frames"][0])


def test_rows_without_identities_each_have_a_turn(context, family):
    rows = [{"id": f"rec{i}-{c}", "identity": "", "split": "train"} for i in range(3) for c in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), context.out / "seeds.parquet")
    context.inputs["units.codes"] = FakeArtifact(context.out, node="seeds")
    train, _ = open_training_tables(context, {"codes": {"invert": ("codes",)}})
    assert train["codes"].identities == tuple((key,) for key in family.keys)


def test_a_table_without_training_rows_is_refused(context, family):
    context.inputs["invert"].opened = type(family)({key: {} for key in family.keys[4:]})
    with pytest.raises(UserError, match=r"train.fsrt.warmup: table codes has no row to train on"):
        open_training_tables(context, {"codes": {"invert": ("codes",)}})
