"""What is not for any use is imported after the user accepts its licence, and the record says so."""

from __future__ import annotations

import re

import pytest
import torch
from msgspec.structs import replace

from models.weights import THIRD_PARTY_WEIGHTS, find_third_party_weights
from storage import locations, weight_files
from storage.errors import InvalidInput
from storage.files import Store
from storage.weight_licences import accept_licence, describe_licence, needs_acceptance

pytestmark = pytest.mark.usefixtures("quick_imports")


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def file(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    return tmp_path / "x.pt"


@pytest.mark.parametrize(
    ("weights_id", "said"),
    [
        ("fsrt_vox", "come without a licence that covers them: none in the repository (andrerochow/fsrt)"),
        ("headgan_vox", "are for non-commercial use alone: CC BY-NC-SA 4.0 (michaildoukas/headGAN)"),
        ("lsfm", "are for those alone who agreed to the publisher's terms: registration, not to be passed"),
    ],
)
def test_without_acceptance_one_line_tells_the_licence_and_what_to_add(store, file, weights_id, said):
    with pytest.raises(InvalidInput, match=rf"^weights {weights_id} {re.escape(said)}[^\n]*") as caught:
        weight_files.import_weights(store, find_third_party_weights(weights_id), file)
    assert str(caught.value).endswith(", add --accept-licence")
    assert not store.list("weights")


def test_permissive_weights_need_no_acceptance(store, file):
    record = weight_files.import_weights(store, find_third_party_weights("vgg19"), file)
    assert "accepted" not in record


def test_the_record_keeps_what_was_accepted_and_when(store, file):
    weights = find_third_party_weights("headgan_vox")
    weight_files.import_weights(store, weights, file, accept=True)
    record = weight_files.read_import_record(store, weights)
    assert record["licence_class"] == "noncommercial"
    assert record["accepted"]["licence"] == "CC BY-NC-SA 4.0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["accepted"]["time"])


def test_an_acceptance_enters_no_key(store, file):
    """Two imports of the same bytes, accepted at different times, are the same weights."""
    weights = find_third_party_weights("headgan_vox")
    weight_files.import_weights(store, weights, file, accept=True)
    first, record = (
        weight_files.pinned_sha256(store, weights),
        weight_files.read_import_record(store, weights),
    )
    record["accepted"]["time"] = "1999-01-01T00:00:00+00:00"
    store.write_json(locations.weights_path(weights.id, "json"), record)
    assert weight_files.pinned_sha256(store, weights) == first


def test_what_was_accepted_once_is_imported_again_without_asking(store, file):
    weights = find_third_party_weights("headgan_vox")
    first = weight_files.import_weights(store, weights, file, accept=True)
    assert weight_files.import_weights(store, weights, file)["accepted"] == first["accepted"]


def test_another_licence_is_to_be_accepted_anew(store, file):
    weights = find_third_party_weights("headgan_vox")
    weight_files.import_weights(store, weights, file, accept=True)
    with pytest.raises(InvalidInput, match="add --accept-licence"):
        weight_files.import_weights(store, replace(weights, licence="stricter terms"), file)


def test_weights_imported_before_licences_were_asked_for_show_as_not_accepted():
    weights = find_third_party_weights("headgan_vox")
    assert describe_licence(weights, {"sha256": "0" * 64}, imported=True) == "noncommercial, not accepted"


def test_a_file_in_a_wheel_shows_its_class_alone():
    assert describe_licence(find_third_party_weights("dlib_sp68"), {}, imported=False) == "noncommercial"


@pytest.mark.parametrize("accepted", [None, "yes", 1, ["CC BY-NC-SA 4.0"], {"licence": "CC BY-NC-SA 4.0"}])
def test_a_record_that_says_less_than_the_licence_is_no_acceptance(accepted):
    with pytest.raises(InvalidInput, match="add --accept-licence"):
        accept_licence(find_third_party_weights("headgan_vox"), {"accepted": accepted}, accept=False)


def test_all_classes_but_permissive_are_asked_for():
    for one in THIRD_PARTY_WEIGHTS.values():
        assert needs_acceptance(one) == (one.licence_class != "permissive")
