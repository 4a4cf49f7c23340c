import os
import time

import pytest

from pipelines.errors import Rejected
from pipelines.preprocess.fetch import partial_download
from pipelines.preprocess.fetch.partial_download import (
    FetchedVideo,
    clear_folder,
    load_complete_download,
    lock_download_folder,
    mark_download_complete,
)


def test_the_folder_stays_after_a_fault_and_goes_after_an_answer(tmp_path):
    def broken():
        with lock_download_folder(tmp_path, "a", 1) as folder:
            (folder / "body").write_bytes(b"half")
            raise OSError("network")

    with pytest.raises(OSError, match="network"):
        broken()
    with lock_download_folder(tmp_path, "a", 1) as again:
        assert (again / "body").read_bytes() == b"half"
    assert not list(tmp_path.iterdir())
    with pytest.raises(Rejected), lock_download_folder(tmp_path, "a", 1):
        raise Rejected("removed", "gone")
    assert not list(tmp_path.iterdir())


def test_a_generator_that_is_dropped_keeps_what_it_has(tmp_path):
    def stage():
        with lock_download_folder(tmp_path, "a", 1) as folder:
            (folder / "body").write_bytes(b"all")
            yield folder

    running = stage()
    folder = next(running)
    running.close()
    assert (folder / "body").read_bytes() == b"all"


def test_requests_do_not_share_a_folder(tmp_path):
    with (
        lock_download_folder(tmp_path, ("a", 1080), 1) as one,
        lock_download_folder(tmp_path, ("a", 720), 1) as two,
    ):
        assert one != two


def test_a_complete_file_is_known_again(tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b"video")
    assert load_complete_download(tmp_path) is None
    fetched = FetchedVideo(path, "ytdlp", 2.5, {"format_id": "137+140"}, {"frames": 3})
    mark_download_complete(tmp_path, fetched)
    assert load_complete_download(tmp_path) == fetched
    clear_folder(tmp_path)
    assert load_complete_download(tmp_path) is None


def test_a_mirrors_own_file_is_not_kept(tmp_path):
    mark_download_complete(tmp_path, FetchedVideo(tmp_path / "elsewhere" / "a.mp4", "mirror"))
    assert load_complete_download(tmp_path) is None


def test_what_nobody_came_back_for_is_swept_away(tmp_path):
    for name, days in (("old", 8), ("new", 1)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, times=(time.time() - days * 86_400,) * 2)
    partial_download._sweep.cache_clear()
    with lock_download_folder(tmp_path, "a", 1):
        assert not (tmp_path / "old").exists()
        assert (tmp_path / "new").exists()
