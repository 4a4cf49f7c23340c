import io
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from storage.errors import StoreError, StoreUnreachable
from storage.mirrors import MIRROR_EXTENSIONS, VideoMirror, candidate_file_names


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mirror"
    root.mkdir()
    for name in ("a.mp4", "a.mkv", "-b_1.webm", "c.txt"):
        (root / name).write_bytes(name.encode())
    (root / "d.mp4").mkdir()
    return root


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_gives_its_own_files(folder, scheme):
    mirror = VideoMirror(f"{scheme}{folder}")
    assert mirror.find_video_file_name(["a"]) == "a.mp4"
    assert mirror.fetch("a.mp4", Path("unused")) == folder / "a.mp4"


def test_names_are_tried_in_turn(folder):
    assert VideoMirror(str(folder)).find_video_file_name(["nothing", "-b_1", "a"]) == "-b_1.webm"


def test_file_names_are_the_ids_in_turn_with_each_ending():
    assert candidate_file_names(["a", "../b", "c.mp4", "d"]) == [
        f"{i}.{e}" for i in "ad" for e in MIRROR_EXTENSIONS
    ]


@pytest.mark.parametrize("name", ["c", "d", "", "../mirror/a", "a.mp4", "x" * 201])
def test_what_is_no_video_or_no_id_is_not_found(folder, name):
    assert VideoMirror(str(folder)).find_video_file_name([name]) is None


def test_a_mirror_that_is_gone_is_no_answer(tmp_path):
    with pytest.raises(StoreError, match="is not there"):
        VideoMirror(str(tmp_path / "gone")).find_video_file_name(["a"])


class Elsewhere(fs.FileSystemHandler):
    """An object store as pyarrow sees one: paths, no local files. `short`: it ends early."""

    def __init__(self, files, short=0):
        self.files, self.short, self.asked = files, short, []

    def get_file_info(self, paths):
        self.asked.append(list(paths))
        kinds = {True: fs.FileType.File, False: fs.FileType.NotFound}
        return [fs.FileInfo(p, kinds[p in self.files], size=len(self.files.get(p, b""))) for p in paths]

    def open_input_stream(self, path):

        data = self.files[path]
        return pa.PythonFile(io.BytesIO(data[: len(data) - self.short]), mode="r")

    def get_type_name(self):
        return "elsewhere"

    def normalize_path(self, path):
        return path

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__
    copy_file = create_dir = delete_dir = delete_dir_contents = delete_file = delete_root_dir_contents = None
    get_file_info_selector = move = open_append_stream = open_input_file = open_output_stream = None


@pytest.fixture
def bucket(tmp_path):
    def make(short=0):
        mirror, handler = (
            VideoMirror(str(tmp_path)),
            Elsewhere({"bucket/videos/a.webm": b"bytes" * 100}, short),
        )
        mirror._store.fs, mirror._store.base = fs.PyFileSystem(handler), "bucket/videos"
        mirror._store.local = False
        return mirror, handler

    return make


def test_an_object_store_gives_a_copy_and_is_asked_once_for_all_spellings(bucket, tmp_path):
    mirror, handler = bucket()
    assert mirror.find_video_file_name(["a"]) == "a.webm"
    assert len(handler.asked) == 1
    copy = mirror.fetch("a.webm", tmp_path / "copy")
    assert copy == tmp_path / "copy"
    assert copy.read_bytes() == b"bytes" * 100


def test_a_copy_that_ends_early_is_no_file(bucket, tmp_path):
    mirror, _ = bucket(short=7)
    with pytest.raises(StoreUnreachable, match="493 bytes came of 500"):
        mirror.fetch("a.webm", tmp_path / "copy")
