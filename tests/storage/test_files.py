"""The store on a local folder: publication is all or nothing, and its faults are named."""

import errno
import os
from pathlib import Path

import pytest

from storage import locations
from storage.files import Store, StoreError
from storage.uris import public_uri


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_what_is_written_is_read_back(store):
    store.write("refs/a.json", b"123456")
    assert store.read("refs/a.json") == b"123456"
    assert store.read_range("refs/a.json", 2, 3) == b"345"
    assert [e.name for e in store.list("refs")] == ["a.json"]


def test_a_folder_that_is_not_there_is_empty(store):
    assert store.list("nothing") == []
    assert store.folders("nothing") == []


def test_a_failed_write_leaves_no_object_and_no_rest(store, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="the disk is full"):
        store.write("refs/a.json", b"1")
    assert store.walk("") == []


def test_a_folder_nobody_may_write_is_told_before_any_work():
    with pytest.raises(StoreError, match=r"cannot write tmp.* in store"):
        Store("/proc/reenact").check_writable()


def test_a_store_survives_pickling(store):
    import pickle

    store.write("refs/a.json", b"1")
    assert pickle.loads(pickle.dumps(store)).read("refs/a.json") == b"1"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\0b", "-option", "x" * 300, "a..b"])
def test_a_path_part_is_refused_rather_than_repaired(name):
    with pytest.raises(ValueError, match="cannot be part of a path"):
        locations.pack(name, "key")


def test_secrets_of_a_uri_are_not_shown():
    assert public_uri("s3://key:secret@host:9000/bucket/x?session=1") == "s3://host:9000/bucket/x"


def test_an_uri_and_a_path_name_the_same_store(tmp_path):
    Store(str(tmp_path)).write("refs/a.json", b"1")
    assert Store(Path(tmp_path).as_uri()).read("refs/a.json") == b"1"
