"""The store on a local folder: publication is all or nothing, and its faults are named."""

import errno
import os
import threading
from pathlib import Path

import pytest
from pyarrow.fs import FileInfo, FileType

from storage import locations
from storage.errors import DamagedFile, InvalidInput, StoreError, StoreUnreachable
from storage.files import Store
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
    assert store.list_folders("nothing") == []


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
    with pytest.raises(InvalidInput, match="cannot be part of a path"):
        locations.pack_path(name, "key")


def test_secrets_of_a_uri_are_not_shown():
    assert public_uri("s3://key:secret@host:9000/bucket/x?session=1") == "s3://host:9000/bucket/x"


def test_an_uri_and_a_path_name_the_same_store(tmp_path):
    Store(str(tmp_path)).write("refs/a.json", b"1")
    assert Store(Path(tmp_path).as_uri()).read("refs/a.json") == b"1"


def test_what_another_driver_deleted_meanwhile_is_gone_as_well(store):
    class Faster:
        """Deletes a file just before it is deleted."""

        def get_file_info(self, path):
            return FileInfo(path, FileType.File)

        def delete_file(self, path):
            raise FileNotFoundError(errno.ENOENT, "No such file", path)

    store.fs = Faster()
    store.delete("whole/n/k/a")


def test_two_drivers_may_delete_one_folder(store):
    for i in range(200):
        store.write_json(f"work/n/{i}/a", {})
    errors: list[BaseException] = []

    def clear() -> None:
        try:
            Store(store.uri).delete_tree("work")
        except BaseException as error:  # noqa: BLE001 (raised below)
            errors.append(error)

    threads = [threading.Thread(target=clear) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.walk("work") == []


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 6"), StoreUnreachable),
        (OSError("AWS Error ACCESS_DENIED during GetObject operation"), StoreError),
        (PermissionError(errno.EACCES, "Permission denied"), StoreError),
        (OSError(errno.EROFS, "Read-only file system"), StoreError),
    ],
)
def test_what_a_file_system_says_is_one_of_our_errors_and_names_the_file(store, said, kind):
    class Broken:
        def open_input_file(self, path):
            raise said

    store.fs = Broken()
    with pytest.raises(kind, match=r"cannot read refs/a\.json in store"):
        store.read("refs/a.json")


def test_what_is_not_there_stays_file_not_found(store):
    with pytest.raises(FileNotFoundError):
        store.read("refs/a.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_a_garbled_small_file_is_damaged_and_named(store, data):
    store.write("refs/a.json", data)
    with pytest.raises(DamagedFile, match=r"refs/a\.json"):
        store.read_json("refs/a.json", "artifacts")


def test_deleting_in_a_bucket_what_is_not_there_is_no_error(bucket):
    store = Store(bucket.uri)
    store.write("work/n/k/a", b"1")
    for path in ("work/n/k/a", "work/n/k/a", "nothing"):
        store.delete(path)
    store.write("work/n/k/b", b"1")
    for path in ("work", "work", "nothing"):
        store.delete_tree(path)
    assert store.walk("") == []
