"""Frames of other code: found by the name of their pair, checked, and stored as ours are."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from models.provenance import ProvenanceKind, provenance_kind
from pipelines.errors import Rejected, UserError
from pipelines.eval import external_frames
from pipelines.eval.config import EvalConfig, ExternalMethodConfig
from pipelines.eval.pairs import ClipPair, pair_file_name
from pipelines.figures import picture_grids
from tests.video_files import write_video


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pair():
    """Of three driving frames."""
    return ClipPair(
        id="ann#rec#000000#000009", source_recording="rec", source_clip="ann#rec#000000#000009",
        source_frames=(0,), driving_recording="rec", driving_clip="ann#rec#000000#000009",
        driving_frames=(1, 2, 3),
    )  # fmt: skip


@pytest.fixture
def root(tmp_path):
    (tmp_path / "frames").mkdir()
    return tmp_path / "frames"


def settings(root):
    return SimpleNamespace(method=ExternalMethodConfig(folder=str(root)), size=32)


def read(root, pair, unit_of):
    (sample,) = external_frames.read_external_frames(unit_of(pair, {}), settings(root), {})
    return sample


def save(root, pair, frames):
    folder = root / pair_file_name(pair.id)
    folder.mkdir()
    for place, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{place:03d}.png")


def grey(*shape):
    return np.full((*shape, 3), 90, np.uint8)


def code_of(root, pair, unit_of):
    with pytest.raises(Rejected) as caught:
        read(root, pair, unit_of)
    return caught.value.code


def test_the_name_of_a_pairs_files_holds_no_hash_sign(pair):
    assert pair_file_name(pair.id) == "ann.rec.000000.000009"
    with pytest.raises(ValueError, match="expected letters"):
        pair_file_name("../../etc")


def test_pictures_are_read_in_order_of_their_names_and_resized(root, pair, unit_of):
    frames = np.stack([grey(64, 64) + 30 * n for n in range(3)]).astype(np.uint8)
    save(root, pair, frames)
    sample = read(root, pair, unit_of)
    expected = picture_grids.to_uint8(picture_grids.resize_frames(frames, 32))
    np.testing.assert_array_equal(sample["frames"].decode(), expected)
    assert sample["__key__"] == pair.id
    assert sample["method"] == {"provenance": {"frames": "made by other code"}, "image_size": 64}
    assert provenance_kind(sample["method"]["provenance"]["frames"]) is ProvenanceKind.EXTERNAL


def test_a_video_is_read_frame_by_frame(root, pair, unit_of):
    write_video(root / f"{pair_file_name(pair.id)}.mp4", grey(3, 64, 64))
    images = read(root, pair, unit_of)["frames"].decode()
    assert images.shape == (3, 32, 32, 3)
    assert abs(int(images.mean()) - 90) <= 3


def test_a_pair_without_files_is_a_row_with_a_reason(root, pair, unit_of):
    assert code_of(root, pair, unit_of) == "missing"


@pytest.mark.parametrize(
    ("frames", "code"),
    [(grey(2, 64, 64), "frame_count"), (grey(3, 64, 48), "not_square"),
     ([grey(64, 64), grey(64, 64), grey(32, 32)], "uneven_images")],
)  # fmt: skip
def test_frames_that_do_not_fit_are_a_row_with_a_reason(root, pair, unit_of, frames, code):
    save(root, pair, frames)
    assert code_of(root, pair, unit_of) == code


def test_a_video_of_another_length_is_a_row_with_a_reason(root, pair, unit_of):
    write_video(root / f"{pair_file_name(pair.id)}.mp4", grey(5, 64, 64))
    assert code_of(root, pair, unit_of) == "frame_count"


def test_two_files_for_one_pair_are_a_row_with_a_reason(root, pair, unit_of):
    save(root, pair, grey(3, 64, 64))
    write_video(root / f"{pair_file_name(pair.id)}.mp4", grey(3, 64, 64))
    assert code_of(root, pair, unit_of) == "ambiguous"


def test_the_key_holds_the_content_of_every_file_and_not_where_they_lie(root, pair, tmp_path):
    save(root, pair, grey(3, 64, 64))
    before = external_frames.digest_external_files(settings(root))
    assert list(before) == [f"ann.rec.000000.000009/00{n}.png" for n in range(3)]
    moved = root.rename(tmp_path / "elsewhere")
    assert external_frames.digest_external_files(settings(moved)) == before
    Image.fromarray(grey(64, 64) + 1).save(moved / pair_file_name(pair.id) / "001.png")
    assert external_frames.digest_external_files(settings(moved)) != before


def list_pairs(root, pair, driving_frames):
    row = f"{pair_file_name(pair.id)},a,0,a,{driving_frames}"
    (root / "pairs.csv").write_text(f"file,source,source_frames,driving,driving_frames\n{row}\n")


def test_frames_that_their_list_says_are_of_another_protocol_are_a_row_with_a_reason(root, pair, unit_of):
    save(root, pair, grey(3, 64, 64))
    list_pairs(root, pair, "1 4 7")
    assert code_of(root, pair, unit_of) == "other_protocol"
    list_pairs(root, pair, "1 2 3")
    assert read(root, pair, unit_of)["frames"].decode().shape == (3, 32, 32, 3)


def test_the_list_is_in_the_key(root, pair):
    save(root, pair, grey(3, 64, 64))
    list_pairs(root, pair, "1 2 3")
    before = external_frames.digest_external_files(settings(root))
    list_pairs(root, pair, "1 4 7")
    assert external_frames.digest_external_files(settings(root)) != before


def test_a_list_that_is_none_of_ours_says_nothing(root, pair, unit_of):
    save(root, pair, grey(3, 64, 64))
    (root / "pairs.csv").write_bytes(b"\xff\x00,\n1,2,3\n")
    assert read(root, pair, unit_of)["frames"].decode().shape == (3, 32, 32, 3)


def test_folders_and_videos_of_no_pair_are_found(root, pair):
    save(root, pair, grey(3, 64, 64))
    (root / "old.pair").mkdir()
    for name in ("more.mp4", "notes.txt", ".hidden.mp4", "pairs.csv"):
        (root / name).touch()
    assert external_frames.find_extra_entries(root, [pair.id]) == ["more.mp4", "old.pair"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"eval\.methods\.NAME\.folder .* is not a folder"):
        external_frames.digest_external_files(settings(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["truth", "codec", "their fsrt", "1st"])
def test_a_name_that_means_something_else_or_is_no_word_is_refused(name):
    with pytest.raises(ValueError, match=rf"methods\.{name}: expected letters"):
        EvalConfig(methods={name: ExternalMethodConfig(folder="/frames")})


def test_a_protocol_that_the_run_lacks_is_refused():
    with pytest.raises(ValueError, match=r"methods\.theirs\.protocols \['cross'\]: expected some of self"):
        EvalConfig(methods={"theirs": ExternalMethodConfig(folder="/frames", protocols=("cross",))})
