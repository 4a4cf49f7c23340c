import os

import pytest

from pipelines.errors import UserError
from pipelines.preprocess.sources.common.video_folder import scan_video_folder


@pytest.fixture
def folder(tmp_path):
    for name in ("v.mp4", "a/v.mkv", "a/b/w.webm", ".trash/x.mp4", "notes.txt", "y.mp4/z.mp4"):
        path = tmp_path / "mirror" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "mirror"


def test_videos_are_found_by_name_at_any_depth(folder):
    mirror = scan_video_folder(str(folder), "data.mirror")
    assert set(mirror.files) == {"v", "w", "z"}
    assert mirror.locate_file_or_youtube("v")["uri"] == str(folder / "a" / "v.mkv")  # the first by path


def test_what_is_not_there_has_no_place_even_if_youtube_may_have_it(folder):
    assert (
        scan_video_folder(str(folder), "data.mirror").locate_file_or_youtube("gone", "abcdefghijk")["uri"]
        == ""
    )


def test_without_a_mirror_only_a_youtube_id_is_a_place():
    mirror = scan_video_folder("", "data.mirror")
    assert mirror.locate_file_or_youtube("x", "-bcdefghijk")["uri"] == "youtube:-bcdefghijk"
    assert mirror.locate_file_or_youtube("x", "../efghijk")["uri"] == ""


def test_the_digest_sees_new_changed_and_renamed_files(folder):
    seen = {scan_video_folder(str(folder), "m").digest_listing()}
    (folder / "new.mp4").write_bytes(b"x")
    seen.add(scan_video_folder(str(folder), "m").digest_listing())
    os.utime(folder / "new.mp4", ns=(1, 1))
    seen.add(scan_video_folder(str(folder), "m").digest_listing())
    (folder / "new.mp4").rename(folder / "new.avi")
    seen.add(scan_video_folder(str(folder), "m").digest_listing())
    assert len(seen) == 4


def test_linked_files_and_folders_count_and_circles_end(folder, tmp_path):
    (tmp_path / "other" / "more").mkdir(parents=True)
    (tmp_path / "other" / "more" / "far2.ts").write_bytes(b"x")
    os.symlink(tmp_path / "other" / "more", folder / "linked")
    (tmp_path / "other" / "far.mp4").write_bytes(b"x")
    os.symlink(tmp_path / "other" / "far.mp4", folder / "near.mp4")
    os.symlink(folder, folder / "loop")
    os.symlink(tmp_path / "nowhere.mp4", folder / "broken.mp4")
    assert set(scan_video_folder(str(folder), "m").files) == {"v", "w", "z", "near", "far2"}


def test_a_rarer_kind_of_video_does_not_take_the_place_of_a_usual_one(folder):
    (folder / "a" / "b" / "0").mkdir()
    for name in ("a/b/w.3gp", "0.flv"):
        (folder / name).write_bytes(b"x")
    files = scan_video_folder(str(folder), "m").files
    assert (files["w"][0].name, files["0"][0].name) == ("w.webm", "0.flv")


def test_a_name_that_is_not_utf8_is_passed_by(folder):
    with open(os.path.join(os.fsencode(folder), b"\xff.mp4"), "wb") as stream:
        stream.write(b"x")
    assert set(scan_video_folder(str(folder), "m").files) == {"v", "w", "z"}


def test_no_folder_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"data\.x\.mirror '.*gone' is not a folder"):
        scan_video_folder(str(tmp_path / "gone"), "data.x.mirror")
