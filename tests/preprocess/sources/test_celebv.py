import json
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from pipelines.errors import Transient, UserError
from pipelines.preprocess.sources.celebv import (
    CelebvConfig,
    NumberedImage,
    consecutive_runs,
    digest_external_files,
    list_recordings,
    recording_images_to_video,
)
from tests.video_files import RUNTIME

STAT = os.stat(__file__)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A folder a person; image k of a person is one grey, 4 k."""
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))

    def person(name, numbers, pattern="{:06d}.jpg", size=(64, 64)):
        folder = tmp_path / "celebv" / name / "Image"
        folder.mkdir(parents=True, exist_ok=True)
        for n in numbers:
            Pillow.new("RGB", size, (4 * n % 256,) * 3).save(folder / pattern.format(n))
        return folder

    return person


def listed(tmp_path, **more):
    return list_recordings(CelebvConfig(path=str(tmp_path / "celebv"), **{"min_frames": 3, **more}))


def test_numbers_in_a_row_are_a_recording_and_gaps_part_them(corpus, tmp_path):
    corpus("Jack_Ma", [*range(1, 6), *range(8, 12)])
    corpus("Kathleen", range(7, 11))
    rows, rejects = listed(tmp_path)
    assert [row["id"] for row in rows] == [
        "Jack_Ma-000001-000005", "Jack_Ma-000008-000011", "Kathleen-000007-000010",
    ]  # fmt: skip
    assert [row["identity"] for row in rows] == ["Jack_Ma", "Jack_Ma", "Kathleen"]
    assert [t["end"] for row in rows for t in row["tracks"]] == [5, 4, 4]
    assert not rejects


def test_numbers_count_and_not_the_order_of_letters(corpus, tmp_path):
    corpus("Ann", range(8, 13), pattern="frame_{}.png")
    ((row,), _) = listed(tmp_path)
    assert json.loads(row["spec"])["images"] == [f"frame_{n}.png" for n in range(8, 13)]


def test_a_short_run_is_rejected(corpus, tmp_path):
    corpus("Ann", [1, 2, 5, 6, 7])
    rows, (reject,) = listed(tmp_path)
    assert [row["id"] for row in rows] == ["Ann-000005-000007"]
    assert (reject["id"], reject["code"]) == ("Ann-000001-000002", "short_run")


def test_names_without_a_number_and_numbers_twice_are_rejected(corpus, tmp_path):
    folder = corpus("Ann", range(1, 6))
    (folder / "cover.jpg").write_bytes(b"x")
    (folder / "2.jpg").write_bytes(b"x")
    rows, rejects = listed(tmp_path)
    assert sorted(r["code"] for r in rejects) == ["duplicate_row", "malformed_name"]
    assert len(rows) == 1


def test_the_list_of_landmarks_says_which_images_count(corpus, tmp_path):
    folder = corpus("Ann", range(1, 8))
    numbers = " ".join(["12.5"] * 6)
    lines = [f"{numbers} {n:06d}.jpg" for n in range(1, 5)]
    lines += ["1 2 000005.jpg", "x " + numbers[5:] + " 000006.jpg", f"{numbers} 000099.jpg", lines[0]]
    (folder.parent / "all_98pt.txt").write_text("\n".join(lines))
    ((row,), rejects) = listed(tmp_path)
    assert row["id"] == "Ann-000001-000004"
    assert [(r["line"], r["code"]) for r in rejects] == [
        (5, "malformed_row"), (6, "malformed_row"), (7, "no_image"), (8, "duplicate_row"),
    ]  # fmt: skip


def test_a_person_of_a_long_name_has_ids_that_fit_and_stay_apart(corpus, tmp_path):
    corpus("Maximilian_Alexander_the_Third", [*range(5), *range(9, 15)])
    rows, _ = listed(tmp_path)
    assert len({row["id"] for row in rows}) == 2
    assert all(len(row["id"]) <= 32 for row in rows)


def test_digits_of_other_scripts_are_no_number(corpus, tmp_path):
    folder = corpus("Ann", range(1, 6))
    (folder / "\u0661\u0662.jpg").write_bytes(b"x")
    assert [r["code"] for r in listed(tmp_path).rejects] == ["malformed_name"]


@pytest.mark.parametrize(("held_out", "split"), [(True, "test"), (False, "")])
def test_all_persons_can_be_held_out(corpus, tmp_path, held_out, split):
    corpus("Ann", range(5))
    assert listed(tmp_path, held_out=held_out).rows[0]["split"] == split


def test_an_image_that_changed_since_is_no_answer(corpus, tmp_path):
    folder = corpus("Ann", range(1, 5))
    ((row,), _) = listed(tmp_path)
    (folder / "000003.jpg").write_bytes(b"other")
    with pytest.raises(Transient, match="changed since they were listed; run again"):
        recording_images_to_video(row)


def test_external_changes_with_images_and_list(corpus, tmp_path):
    folder = corpus("Ann", range(1, 5))
    config = CelebvConfig(path=str(tmp_path / "celebv"))
    seen = [digest_external_files(config)]
    corpus("Ann", [5])
    seen.append(digest_external_files(config))
    (folder.parent / "all_98pt.txt").write_text("1 2 000001.jpg\n")
    seen.append(digest_external_files(config))
    assert len({json.dumps(one) for one in seen}) == 3


@pytest.mark.parametrize("bad", [{"fps": 0}, {"min_frames": 2000}, {"landmarks": "../x.txt"}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        CelebvConfig(**bad)


def test_no_folder_and_no_persons_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"data\.NAME\.celebv\.path '' is not a folder"):
        list_recordings(CelebvConfig())
    with pytest.raises(UserError, match=r"no folder <person>/Image"):
        list_recordings(CelebvConfig(path=str(tmp_path)))


def test_a_person_whose_name_is_not_utf8_is_one_sentence(corpus, tmp_path):
    os.makedirs(os.path.join(os.fsencode(tmp_path), b"celebv", b"Jos\xe9", b"Image"))
    with pytest.raises(UserError, match=r"folder 'Jos.*' has a name that is not UTF-8; rename it"):
        listed(tmp_path)


@given(st.sets(st.integers(0, 60)), st.integers(1, 12))
def test_runs_are_consecutive_bounded_and_hold_every_image(numbers, longest):
    images = [NumberedImage(n, f"{n}.jpg", STAT) for n in sorted(numbers)]
    found = list(consecutive_runs(images, longest))
    assert [image for run in found for image in run] == images
    for run in found:
        assert len(run) <= longest
        assert [image.number for image in run] == list(range(run[0].number, run[0].number + len(run)))
    for one, other in pairwise(found):
        assert len(one) == longest or other[0].number > one[-1].number + 1


def test_the_download_stage_makes_one_file_of_the_images(corpus, tmp_path):
    from types import SimpleNamespace

    from pipelines.preprocess.download import DownloadConfig, download_video

    corpus("Ann", range(1, 31))
    ((row,), _) = listed(tmp_path)
    config = SimpleNamespace(sound="optional", download=DownloadConfig())
    (sample,) = download_video({"recordings": [{**row, "source": "celebv"}]}, config, {}, RUNTIME)
    assert sample["probe"]["frames"] == 30
    assert (sample["probe"]["width"], sample["probe"]["transport"]) == (64, "local")
