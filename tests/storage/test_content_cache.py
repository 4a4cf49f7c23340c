"""Copies of remote files: never an older state of one, in a private folder with a bound."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from models.weights import find_third_party_weights
from storage import locations, weight_files
from storage.content_cache import ContentCache, cache_folder, writable_cache_folder
from storage.errors import DamagedFile
from storage.families import Artifact
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
        put(locations.weights_path("fsrt_vox", "safetensors"), data)
        put(
            locations.weights_path("fsrt_vox", "json"),
            json.dumps({"sha256": sha256(data).hexdigest()}).encode(),
        )
        assert weight_files.weights_path(store, find_third_party_weights("fsrt_vox")).read_bytes() == data


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
    with pytest.raises(DamagedFile, match=r"model: its sha256 is .* on record is"):
        store.fetch("model", sha256(b"weights").hexdigest())


def test_a_local_file_that_is_not_what_its_record_says_is_damaged(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.write("whole/n/k/model", b"flipped")
    sums = {"model": sha256(b"weights").hexdigest()}
    with pytest.raises(DamagedFile, match="whole/n/k/model differs from its sha256"):
        Artifact(store, "n", "k", "d", "whole/n/k", ("model",), None, sums).path("model")


def test_copies_are_for_their_owner_alone(tmp_path, cache):
    store, folder = remote_store(tmp_path / "bucket"), tmp_path / "bucket"
    (folder / "model").write_bytes(b"weights")
    path = store.fetch("model")
    assert path.is_relative_to(cache)
    assert cache.stat().st_mode & 0o077 == 0


def test_the_least_recently_used_copies_make_room(tmp_path):
    copies = ContentCache(tmp_path / "copies", most=25)

    def add(name):
        with copies.temporary_path() as aside:
            aside.write_bytes(b"0123456789")
            return copies.add(aside, f"digest-{name}", name)

    first, second = add("a"), add("b")
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert copies.find("digest-a", "a") == first  # used last
    third = add("c")
    assert [path.exists() for path in (first, second, third)] == [True, False, True]
    assert not second.parent.exists()


def test_copies_go_to_a_temporary_folder_where_the_cache_takes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "cache").write_text("a file in its place")
    store, folder = remote_store(tmp_path / "bucket"), tmp_path / "bucket"
    (folder / "model").write_bytes(b"weights")
    path = store.fetch("model")
    assert path.read_bytes() == b"weights"
    assert path.is_relative_to(tmp_path / "tmp")
    assert (tmp_path / "tmp" / f"reenact-{os.getuid()}").stat().st_mode & 0o077 == 0


def test_a_temporary_folder_that_others_may_write_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp" / f"reenact-{os.getuid()}").mkdir(parents=True, mode=0o777)
    (tmp_path / "tmp" / f"reenact-{os.getuid()}").chmod(0o777)
    (tmp_path / "cache").symlink_to(tmp_path / "gone" / "cache")
    (tmp_path / "gone").write_text("a file in its place")
    assert writable_cache_folder("fetched").parent.name != f"reenact-{os.getuid()}"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize(("mode", "at"), [(0o755, "reenact-65534/code"), (0o777, "cache/code-65534")])
def test_another_users_cache_is_left_alone(tmp_path, mode, at):
    (tmp_path / "cache" / "code").mkdir(parents=True)
    (tmp_path / "cache").chmod(mode)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):  # pytest makes them for one user alone
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)
    code = (
        "import os, tempfile; from storage.content_cache import writable_cache_folder\n"
        "os.setgid(65534); os.setuid(65534); print(writable_cache_folder('code'))"
    )
    env = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / at}\n"


def test_the_cache_begins_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("REENACT_CACHE", "~/c")
    assert cache_folder() == Path("/home/ann/c")
