import os
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.preprocess.sources.common.source_tracks import scale_track_box
from pipelines.preprocess.sources.voxceleb import (
    VoxcelebConfig,
    digest_external_files,
    list_recordings,
    split_utterance_tracks,
)

VIDEO = "-aB_c123456"
HEAD = (
    "Identity  : \t{person}\nReference : \t{video}\nOffset    : \t-1\nFV Conf   : \t20.698{more}\n"
    "ASD Conf  : \t7.275\n\nFRAME \tX \tY \tW \tH \n"
)


def first_set(frames, person="id10092", video=VIDEO, step=0):
    """A file as VoxCeleb1 writes it: pixels at 360 lines, each value followed by a blank."""
    lines = [f"{n:06d} \t{245 + step * k} \t90 \t109 \t108 \n" for k, n in enumerate(frames)]
    return HEAD.format(person=person, video=video, more="") + "".join(lines)


def second_set(frames, person="id00017", video=VIDEO):
    """A file as VoxCeleb2 writes it: shares of the frame, and a second value of FV Conf."""
    lines = [f"{n:06d} \t0.319 \t0.067 \t0.424 \t0.753 \n" for n in frames]
    return HEAD.format(person=person, video=video, more="\t(1)") + "".join(lines)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))

    def file(text, name, root="vox"):
        path = tmp_path / root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / root)

    return file


def listed(root, **more):
    return list_recordings(VoxcelebConfig(txt=(root,), **more))


def test_utterances_of_a_video_are_tracks_of_one_recording(write):
    write(first_set(range(500, 620)), f"txt/id10092/{VIDEO}/00002.txt")
    root = write(first_set(range(92, 239)), f"txt/id10092/{VIDEO}/00001.txt")
    (row,) = listed(root).rows
    assert (row["id"], row["identity"], row["uri"]) == (VIDEO, "id10092", f"youtube:{VIDEO}")
    assert [(t["start"], t["end"], t["fps"]) for t in row["tracks"]] == [(92, 239, 25.0), (500, 620, 25.0)]


def test_pixels_of_the_first_set_scale_with_the_height(write):
    root = write(first_set(range(100)), f"txt/id10092/{VIDEO}/00001.txt")
    (row,) = listed(root, grow=0.0).rows
    # 4:3 and 16:9 copies: 720 lines are twice 360, whatever the width
    for width in (960, 1280):
        assert scale_track_box(row["tracks"][0], width, 720) == [490, 180, 708, 396]


def test_whole_pixels_that_were_written_as_floats_stay_pixels(write):
    text = first_set(range(100))
    root = write(text, f"txt/id10092/{VIDEO}/00001.txt")
    other = write(
        text.replace(" \t90 \t109 ", ".0 \t90. \t1.09e2 "), f"txt/id10092/{VIDEO}/00001.txt", "float"
    )
    assert listed(other).rows == listed(root).rows


def test_shares_of_the_second_set_scale_with_both_sides(write):
    root = write(second_set(range(100)), f"txt/id00017/{VIDEO}/00001.txt")
    (row,) = listed(root, grow=0.0).rows
    box = scale_track_box(row["tracks"][0], 1280, 720)
    assert box == pytest.approx([0.319 * 1280, 0.067 * 720, 0.743 * 1280, 0.82 * 720])
    assert box[2] - box[0] == pytest.approx(box[3] - box[1], rel=0.01)  # square at 16:9


def test_the_box_is_the_union_which_is_yet_to_grow(write):
    root = write(first_set(range(10), step=2), f"txt/id10092/{VIDEO}/00001.txt")
    (row,) = listed(root, grow=0.1).rows
    # 245 to 245 + 9 * 2 + 109 across
    assert (row["tracks"][0]["box"], row["tracks"][0]["grow"]) == ([245, 90, 372, 198], 0.1)


@pytest.mark.parametrize(
    ("name", "text", "split"),
    [
        (f"txt/id10270/{VIDEO}/00001.txt", first_set(range(9), "id10270"), "test"),
        (f"txt/id10309/{VIDEO}/00001.txt", first_set(range(9), "id10309"), "test"),
        (f"txt/id10310/{VIDEO}/00001.txt", first_set(range(9), "id10310"), "train"),
        (f"test/txt/id10310/{VIDEO}/00001.txt", first_set(range(9), "id10310"), "train"),
        (f"vox2_test_txt/txt/id00017/{VIDEO}/00001.txt", second_set(range(9)), "test"),
        (f"dev/txt/id00017/{VIDEO}/00001.txt", second_set(range(9)), "train"),
        (f"test/dev/txt/id00017/{VIDEO}/00001.txt", second_set(range(9)), "train"),
        (f"latest/txt/id00017/{VIDEO}/00001.txt", second_set(range(9)), ""),
    ],
)
def test_published_splits_are_kept(write, name, text, split):
    (row,) = listed(write(text, name)).rows
    assert row["split"] == split


@pytest.mark.parametrize(("folder", "split"), [("test/txt", "test"), ("dev/txt", "train"), ("test/vc2", "")])
def test_the_folder_given_says_which_set_it_is(write, tmp_path, folder, split):
    write(second_set(range(9)), f"{folder}/id00017/{VIDEO}/00001.txt")
    (row,) = listed(str(tmp_path / "vox" / folder)).rows
    assert row["split"] == split


def test_the_list_of_test_persons_splits_the_second_set(write, tmp_path):
    for person, video in (("id00017", "a" * 11), ("id00018", "b" * 11)):
        root = write(second_set(range(9), person, video), f"txt/{person}/{video}/00001.txt")
    (tmp_path / "test.txt").write_text("id00018 f\nnobody\n")
    listing = listed(root, test_persons=str(tmp_path / "test.txt"))
    assert {row["identity"]: row["split"] for row in listing.rows} == {"id00017": "train", "id00018": "test"}
    assert [(r["line"], r["code"]) for r in listing.rejects] == [(2, "malformed_row")]


def test_an_archive_lists_what_its_folder_lists(write, tmp_path):
    root = write(second_set(range(30)), f"txt/id00017/{VIDEO}/00001.txt", "vox2_dev_txt")
    write(second_set(range(40, 90)), f"txt/id00017/{VIDEO}/00002.txt", "vox2_dev_txt")
    with zipfile.ZipFile(tmp_path / "vox2_dev_txt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("00001.txt", "00002.txt"):
            path = tmp_path / "vox2_dev_txt" / "txt" / "id00017" / VIDEO / name
            archive.write(path, f"txt/id00017/{VIDEO}/{name}")
        archive.writestr("../../evil/x.txt", "x")
    packed = listed(str(tmp_path / "vox2_dev_txt.zip"))
    assert packed.rows == listed(root).rows
    assert packed.rows[0]["split"] == "train"
    assert [r["code"] for r in packed.rejects] == ["malformed_name"]


def test_a_damaged_member_of_an_archive_is_one_reject(tmp_path, write):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:  # stored: the bytes can be found and spoilt
        archive.writestr(f"id00017/{VIDEO}/00001.txt", second_set(range(30)))
        archive.writestr(f"id00017/{VIDEO}/00002.txt", second_set(range(40, 70)))
    path.write_bytes(path.read_bytes().replace(b"000050 \t0.319", b"000050 \t0.999"))
    listing = listed(str(path))
    assert [len(row["tracks"]) for row in listing.rows] == [1]
    assert [r["code"] for r in listing.rejects] == ["unreadable"]


def test_persons_of_one_video_are_recordings_of_their_own(write):
    for person in ("id00017", "id00018"):
        root = write(second_set(range(9), person), f"txt/{person}/{VIDEO}/00001.txt")
    assert [row["id"] for row in listed(root).rows] == [f"{VIDEO}-id00017", f"{VIDEO}-id00018"]


def test_line_ends_and_a_missing_last_one_do_not_matter(write):
    text = first_set(range(50))
    plain = write(text, f"txt/id10092/{VIDEO}/00001.txt", "a")
    other = write(text.replace("\n", "\r\n").rstrip(), f"txt/id10092/{VIDEO}/00001.txt", "b")
    assert listed(plain).rows == listed(other).rows


GOOD = first_set(range(20))


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "malformed_header", 0),
        (GOOD.replace("FRAME", "TIME"), "malformed_header", 0),
        (GOOD.replace(VIDEO, "another_one"), "wrong_reference", 1),
        (HEAD.format(person="id10092", video=VIDEO, more=""), "no_frames", 0),
        (GOOD.replace("000003 \t245", "000003 \t"), "malformed_row", 11),
        (GOOD.replace("000003 \t245", "000003 \tleft"), "malformed_row", 11),
        (GOOD.replace("000003", "000002"), "malformed_row", 11),
        (GOOD.replace("000003", "0003.5"), "malformed_row", 11),
        (GOOD.replace("000003 \t245", "000003 \t1e999"), "malformed_row", 11),
        (GOOD.replace("000003 \t245", "000003 \t" + "9" * 5000), "malformed_row", 11),
        (GOOD.replace("000003", "9" * 5000), "malformed_row", 11),
        (GOOD.replace("000003 \t245 \t90 \t109", "000003 \t245 \t90 \t0"), "malformed_box", 11),
        (GOOD.replace("000003 \t245", "000003 \t9999"), "malformed_box", 11),
        (GOOD.replace("000003 \t245", "000003 \t-245"), "malformed_box", 11),
        (second_set(range(20)).replace("000003 \t0.319", "000003 \t245"), "malformed_box", 11),
        (second_set(range(20)).replace("0.753", "75.3"), "malformed_box", 8),
        (GOOD.encode().replace(b"000003 \t245", b"000003 \t\xff\xfe"), "malformed_row", 11),
        (b"\x00\xff" * 40, "malformed_header", 0),
    ],
)
def test_a_malformed_file_is_rejected_with_its_line(write, text, code, line):
    write(GOOD, f"txt/id10092/{VIDEO}/00001.txt")
    root = write(text, f"txt/id10092/{VIDEO}/00002.txt")
    listing = listed(root)
    assert [(r["code"], r["line"]) for r in listing.rejects] == [(code, line)]
    assert listing.rejects[0]["file"].endswith("00002.txt")
    assert len(listing.rows[0]["tracks"]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "id10092/short/00001.txt",
        f"ann/{VIDEO}/00001.txt",
        f"id\u0661\u0662\u0663\u0664\u0665/{VIDEO}/00001.txt",
        f"id10092/{VIDEO}/\u0660\u0660\u0660\u0660\u0661.txt",
        "notes.txt",
    ],
)
def test_a_file_of_another_name_is_rejected(write, name):
    assert [r["code"] for r in listed(write(GOOD, f"txt/{name}")).rejects] == ["malformed_name"]


def test_a_name_that_is_not_utf8_is_rejected_in_text_that_can_be_written(write, tmp_path):
    root = write(GOOD, f"txt/id10092/{VIDEO}/00001.txt")
    with open(os.path.join(os.fsencode(root), b"caf\xe9.txt"), "wb") as stream:
        stream.write(b"x")
    (reject,) = listed(root).rejects
    assert (reject["code"], reject["file"].encode()[-8:]) == ("malformed_name", b"caf?.txt")


def test_an_utterance_listed_twice_is_rejected(write, tmp_path):
    roots = [write(GOOD, f"txt/id10092/{VIDEO}/00001.txt", root) for root in ("a", "b")]
    listing = list_recordings(VoxcelebConfig(txt=tuple(roots)))
    assert [r["code"] for r in listing.rejects] == ["duplicate_row"]
    assert len(listing.rows[0]["tracks"]) == 1


def test_a_mirror_gives_the_file(write, tmp_path):
    root = write(GOOD, f"txt/id10092/{VIDEO}/00001.txt")
    write(b"video", f"deep/{VIDEO}.webm", "mirror")
    (row,) = listed(root, mirror=str(tmp_path / "mirror")).rows
    assert row["uri"] == str(tmp_path / "mirror" / "deep" / f"{VIDEO}.webm")
    assert '"bytes": 5' in row["spec"]


@pytest.mark.parametrize(
    ("change", "names"),
    [("txt", 1), ("mirror", 1), ("persons", 1), ("nothing", 0)],
)
def test_external_changes_with_what_is_read(write, tmp_path, change, names):
    root = write(GOOD, f"txt/id10092/{VIDEO}/00001.txt")
    write(b"video", "x.mp4", "mirror")
    (tmp_path / "test.txt").write_text("id00018\n")
    config = VoxcelebConfig(
        txt=(root,), mirror=str(tmp_path / "mirror"), test_persons=str(tmp_path / "test.txt")
    )
    before = digest_external_files(config)
    if change == "txt":
        write(GOOD + "000020 \t1 \t1 \t9 \t9\n", f"txt/id10092/{VIDEO}/00001.txt")
    elif change == "mirror":
        write(b"more video", "x.mp4", "mirror")
    elif change == "persons":
        (tmp_path / "test.txt").write_text("id00018\nid00019\n")
    after = digest_external_files(config)
    assert sum(before[name] != after[name] for name in before) == names


@pytest.mark.parametrize("txt", [(), ("nowhere",), (__file__,)])
def test_what_is_neither_folder_nor_archive_is_one_sentence(txt):
    with pytest.raises(UserError, match=r"data\.NAME\.voxceleb\.txt"):
        list_recordings(VoxcelebConfig(txt=txt))


# --- the rule of the standard crop --------------------------------------------------------------------------
def boxes_of(steps):
    """Squares of side 100 whose left edges follow the steps."""
    left = np.cumsum(steps).astype(float)
    return np.stack([left, np.zeros_like(left), left + 100, np.full_like(left, 100)], axis=1)


def test_a_track_ends_where_its_first_box_is_left():
    boxes = boxes_of([0] + [10] * 19)
    spans = [ends for ends, _ in split_utterance_tracks(np.arange(20), boxes, VoxcelebConfig())]
    # overlap of squares shifted by s is (100 - s) / (100 + s): under 0.25 from 60 on, exactly a quarter at 60
    assert spans == [(0, 7), (7, 14), (14, 20)]


def test_a_missing_frame_ends_a_track():
    frames = np.array([5, 6, 7, 10, 11])
    assert [ends for ends, _ in split_utterance_tracks(frames, boxes_of([0] * 5), VoxcelebConfig())] == [
        (5, 8),
        (10, 12),
    ]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.floats(-60, 60), min_size=1, max_size=60),
    zoom=st.sampled_from([2.0**-9, 0.5, 2.0, 4096.0]),  # exact in binary: the rule sees the same numbers
    longest=st.integers(1, 30),
)
def test_tracks_cover_the_utterance_once_and_do_not_depend_on_the_unit(steps, zoom, longest):
    config = VoxcelebConfig(max_frames=longest)
    boxes = boxes_of(steps)
    tracks = list(split_utterance_tracks(np.arange(len(boxes)), boxes, config))
    assert [n for (start, end), _ in tracks for n in range(start, end)] == list(range(len(boxes)))
    assert all(end - start <= longest for (start, end), _ in tracks)
    for (start, end), box in tracks:
        assert (boxes[start:end, :2] >= np.array(box[:2]) - 1e-6).all()
        assert (boxes[start:end, 2:] <= np.array(box[2:]) + 1e-6).all()
    for (ends, box), (other_ends, other) in zip(
        tracks, split_utterance_tracks(np.arange(len(boxes)), boxes * zoom, config), strict=True
    ):
        assert ends == other_ends
        assert np.array(other) == pytest.approx(np.array(box) * zoom)
