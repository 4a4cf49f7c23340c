"""The tables that a phase samples from: clips, a view of them, codes, several or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.errors import UserError
from pipelines.train.launch import open_tables


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
    train, held_out = open_tables(context, {"clips": reads})
    key = keys_of(train["clips"])[0]
    assert keys_of(train["clips"]) == family.keys[1:4]
    np.testing.assert_array_equal(
        train["clips"].clips.frames(key, [2]), 255 - family.samples[key]["frames"][[2]]
    )
    assert held_out is not None
    assert keys_of(held_out["clips"]) == family.keys[4:]


def test_a_phase_that_reads_no_clips_has_their_codes_alone(context, family):
    del context.inputs["clips"]
    train, _ = open_tables(context, {"codes": {"invert": ("codes",)}})
    assert list(train) == ["codes"]
    assert keys_of(train["codes"]) == family.keys[:4]
    assert train["codes"].read(family.keys[3], "codes").tolist() == [[3, 3, 3, 3]]
    assert {"data.codes.train.identities": 2, "data.codes.train.clips": 4} in context.seen["params"]


def test_each_table_has_the_rows_of_its_own_families(context, family):
    tables = {"clips": {"views.ffhq256": ("frames",)}, "codes": {"invert": ("codes",)}}
    train, held_out = open_tables(context, tables)
    assert keys_of(train["clips"]) == family.keys[1:4]
    assert keys_of(train["codes"]) == family.keys[:4]
    assert held_out is not None
    assert set(held_out) == {"clips", "codes"}


def test_a_phase_that_reads_nothing_samples_from_no_table(context):
    assert open_tables(context, {}) == ({}, None)


def test_nothing_is_held_out_where_a_table_has_training_rows_alone(context, family):
    trained = {key: family.samples[key] for key in family.keys[:4]}
    context.inputs["views.ffhq256"].opened = type(family)(trained)
    tables = {"clips": {"clips": ("frames",)}, "views": {"views.ffhq256": ("frames",)}}
    assert open_tables(context, tables)[1] is None


def test_a_table_without_training_rows_is_refused(context, family):
    context.inputs["invert"].opened = type(family)({key: {} for key in family.keys[4:]})
    with pytest.raises(UserError, match=r"train.fsrt.warmup: table codes has no row to train on"):
        open_tables(context, {"codes": {"invert": ("codes",)}})
