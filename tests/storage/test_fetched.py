"""Copies of remote files: never an older state of one, in a private folder with a bound."""

import json
import os
from hashlib import sha256

import pytest

from storage import locations, weights
from storage.errors import Damaged
from storage.families import Artifact
from storage.fetched import Copies
from storage.files import Store
from tests.storage.remote import remote_store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fetched"


@pytest.fixture(params=["no ETag", "S3"])
def elsewhere(request, tmp_path):
    """A store, and what puts an object there, as another machine does: as old as the one before."""
    if request.param == "S3":
        server = request.getfixturevalue("bucket")
        return Store(server.uri), lambda path, data: server.bucket.update({f"prefix/{path}": data})
    folder = tmp_path / "bucket"

    def put(path, data):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
        os.utime(folder / path, (1, 1))

    return remote_store(folder), put


def test_an_object_of_equal_size_and_time_but_other_content_is_read_again(elsewhere):
    store, put = elsewhere
    put("best", b"step  6")
    assert store.fetch("best").read_bytes() == b"step  6"
    put("best", b"step 12")
    assert store.fetch("best").read_bytes() == b"step 12"


def test_a_copy_in_use_keeps_its_content(elsewhere):
    store, put = elsewhere
    put("best", b"step  6")
    first = store.fetch("best")
    put("best", b"step 12")
    store.fetch("best")
    assert first.read_bytes() == b"step  6"


def test_an_object_of_the_same_etag_is_read_once(bucket):
    store = Store(bucket.uri)
    store.write("model", b"weights")
    first = store.fetch("model")
    first.write_bytes(b"a mark")
    assert store.fetch("model").read_bytes() == b"a mark"


def test_weights_imported_again_are_the_new_ones(elsewhere):
    store, put = elsewhere
    for data in (b"first", b"later"):
        put(locations.weights("fsrt_vox", "safetensors"), data)
        put(locations.weights("fsrt_vox", "json"), json.dumps({"sha256": sha256(data).hexdigest()}).encode())
        assert weights.path_of(store, "fsrt_vox").read_bytes() == data


def test_what_a_record_knows_by_digest_is_read_once(elsewhere):
    store, put = elsewhere
    put("whole/model", b"weights")
    sums = {"model": sha256(b"weights").hexdigest()}
    artifact = Artifact(store, "n", "k", "d", "whole", ("model",), None, sums)
    first = artifact.path("model")
    store.delete("whole/model")
    assert artifact.path("model") == first


def test_a_remote_file_that_is_not_what_its_record_says_is_damaged(tmp_path):
    store, folder = remote_store(tmp_path / "bucket"), tmp_path / "bucket"
    (folder / "model").write_bytes(b"flipped")
    with pytest.raises(Damaged, match=r"model: its sha256 is .* on record is"):
        store.fetch("model", sha256(b"weights").hexdigest())


def test_a_local_file_that_is_not_what_its_record_says_is_damaged(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.write("whole/n/k/model", b"flipped")
    sums = {"model": sha256(b"weights").hexdigest()}
    with pytest.raises(Damaged, match="whole/n/k/model differs from its sha256"):
        Artifact(store, "n", "k", "d", "whole/n/k", ("model",), None, sums).path("model")


def test_copies_are_for_their_owner_alone(tmp_path, cache):
    store, folder = remote_store(tmp_path / "bucket"), tmp_path / "bucket"
    (folder / "model").write_bytes(b"weights")
    path = store.fetch("model")
    assert path.is_relative_to(cache)
    assert cache.stat().st_mode & 0o077 == 0


def test_the_least_recently_used_copies_make_room(tmp_path):
    copies = Copies(tmp_path / "copies", most=25)

    def add(name):
        with copies.aside() as aside:
            aside.write_bytes(b"0123456789")
            return copies.add(aside, f"digest-{name}", name)

    first, second = add("a"), add("b")
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert copies.find("digest-a", "a") == first  # used last
    third = add("c")
    assert [path.exists() for path in (first, second, third)] == [True, False, True]
    assert not second.parent.exists()
