import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.preprocess.sources.talkinghead_1kh import (
    Talkinghead1khConfig,
    digest_external_files,
    list_recordings,
    parse_clip_list_row,
    published_clip_name,
)

# name, H, W, S, E, L, T, R, B
PIECE = "--Y9imYnfBw_0001"
LINE = f"{PIECE}, 720, 1280, 0, 271, 504, 63, 792, 351"


@pytest.fixture
def listed(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data_list").mkdir()
    (tmp_path / "mirror").mkdir()

    def read(train="", val="", videos=(), mirror=True):
        for name, text in (("train", train), ("val", val)):
            (tmp_path / "data_list" / f"{name}_video_tubes.txt").write_text(text)
        for name in videos:
            (tmp_path / "mirror" / f"{name}.mp4").write_bytes(name.encode())
        folder = str(tmp_path / "mirror") if mirror else ""
        return Talkinghead1khConfig(lists=str(tmp_path / "data_list"), mirror=folder)

    return read


def test_tubes_of_a_piece_count_its_own_frames_with_the_last_included(listed):
    text = f"{LINE}\n{PIECE},720,1280,300,400,504,63,792,351\n"
    (row,) = list_recordings(listed(text, videos=[PIECE])).rows
    assert (row["id"], row["identity"], row["split"]) == (PIECE, PIECE[:11], "train")
    assert [(t["start"], t["end"], t["fps"]) for t in row["tracks"]] == [(0, 272, 0), (300, 401, 0)]
    assert row["tracks"][0]["box"] == [504, 63, 792, 351]
    assert (row["tracks"][0]["width"], row["tracks"][0]["height"]) == (1280, 720)


def test_the_lists_are_the_splits_and_a_video_in_both_is_tested_on(listed):
    train = f"{LINE}\naaaaaaaaaaa_0000,720,1280,0,9,1,1,9,9\n"
    rows = list_recordings(listed(train, f"{PIECE[:11]}_0007,720,1280,0,9,1,1,9,9\n", mirror=False)).rows
    assert {row["identity"]: row["split"] for row in rows} == {PIECE[:11]: "test", "aaaaaaaaaaa": "train"}


def test_of_a_whole_video_the_minutes_are_searched_anew(listed):
    text = f"{LINE}\n{PIECE[:11]}_0004,720,1280,0,271,504,63,792,351\n"
    (row,) = list_recordings(listed(text, mirror=False)).rows
    assert (row["id"], row["uri"]) == (PIECE[:11], f"youtube:{PIECE[:11]}")
    assert row["tracks"] == []
    assert row["span"] == [55, 305]


def test_a_cut_clip_is_all_face(listed):
    name = f"{PIECE}_S0_E271_L504_T63_R792_B351"
    text = f"{LINE}\n{PIECE},720,1280,300,400,504,63,792,351\n"
    cut, missing = list_recordings(listed(text, videos=[name])).rows
    assert cut["uri"].endswith(f"{name}.mp4")
    assert [(t["start"], t["end"], t["box"]) for t in cut["tracks"]] == [(0, 272, [0, 0, 1, 1])]
    assert missing["uri"] == ""


def test_cut_clips_have_ids_that_fit_and_stay_apart(listed):
    tubes = [f"{PIECE},720,1280,10{n},271,504,63,792,351" for n in range(5)]
    names = [f"{PIECE}_S10{n}_E271_L504_T63_R792_B351" for n in range(5)]
    ids = {row["id"] for row in list_recordings(listed("\n".join(tubes), videos=names)).rows}
    assert len(ids) == 5
    assert all(id.startswith(f"{PIECE}_S10") and len(id) <= 32 for id in ids)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (LINE.replace("_0001", "_1"), "unsafe_id"),
        (LINE.replace("--Y9", "../9"), "unsafe_id"),
        (LINE.replace("_0001", "_\u0660\u0660\u0660\u0661"), "unsafe_id"),
        (LINE.replace(" 0, 271", " 0, \u0662\u0667"), "malformed_row"),
        (LINE.replace(" 271,", ""), "malformed_row"),
        (LINE.replace("271", "2.5"), "malformed_row"),
        (LINE.replace("271", "-3"), "malformed_row"),
        (LINE.replace(" 0, 271", " 272, 271"), "malformed_span"),
        (LINE.replace("792", "1281"), "malformed_box"),
        (LINE.replace("792", "504"), "malformed_box"),
        (LINE, "duplicate_row"),
        ("nonsense", "unsafe_id"),
    ],
)
def test_a_bad_line_is_rejected_with_file_and_line(listed, line, code):
    listing = list_recordings(listed(f"{LINE}\n\n{line}\n", videos=[PIECE]))
    (reject,) = listing.rejects
    assert (reject["code"], reject["line"]) == (code, 3)
    assert reject["file"].endswith("train_video_tubes.txt")
    assert len(listing.rows) == 1


@pytest.mark.parametrize(
    "text",
    [
        LINE.replace("720, 1280", "720.0,1.28e3"),
        f"0,{LINE}",
        f",name,W,H,S,E,L,T,R,B\n0,{PIECE},1280.0,720.0,0,271.0,504,63,792,351.",
    ],
)
def test_what_pandas_wrote_reads_as_what_it_was_made_from(listed, text):
    plain = list_recordings(listed(LINE, videos=[PIECE]))
    assert list_recordings(listed(f"{text}\n")) == plain


def test_tabs_are_one_sentence(listed):
    with pytest.raises(UserError, match=r"train_video_tubes\.txt: tabs part the columns, expected commas"):
        list_recordings(listed(LINE.replace(", ", "\t")))


@given(
    start=st.integers(0, 2000), frames=st.integers(1, 2000), left=st.integers(0, 99), side=st.integers(1, 99)
)
def test_a_line_and_the_name_of_its_clip_say_the_same(start, frames, left, side):
    cells = (start, start + frames - 1, left, 3, left + side, 3 + side)
    name, tube = parse_clip_list_row([PIECE, "400", "400", *map(str, cells)])
    assert tube["end"] - tube["start"] == frames
    assert published_clip_name(name, tube) == f"{PIECE}_S%d_E%d_L%d_T%d_R%d_B%d" % cells


def test_external_is_the_lists_and_the_mirror(listed, tmp_path):
    config = listed(LINE, "")
    before = digest_external_files(config)
    assert set(before) == {"train_video_tubes.txt", "val_video_tubes.txt", "mirror"}
    (tmp_path / "mirror" / "x.mp4").write_bytes(b"x")
    assert digest_external_files(config)["mirror"] != before["mirror"]


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"lists.*train_video_tubes\.txt' is not a file"):
        list_recordings(Talkinghead1khConfig(lists=str(tmp_path)))
