import time

import pytest

from pipelines.errors import UserError
from pipelines.preprocess.sources.voxceleb_csv import (
    VoxcelebCsvConfig,
    digest_external_files,
    list_recordings,
)

HEAD = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "-aB_c.mp4").write_bytes(b"video")

    def config(text):
        (tmp_path / "meta.csv").write_text(text)
        return VoxcelebCsvConfig(csv=str(tmp_path / "meta.csv"), mirror=str(folder))

    return config


def test_lines_of_a_video_become_the_tracks_of_one_recording(mirror):
    lines = "-aB_c,300,400,10-20-110-120,25,640,360,train,id1\n-aB_c,0,100,5-6-105-106,25,640,360,train,id1\n"
    (row,) = list_recordings(mirror(HEAD + lines)).rows
    assert (row["id"], row["identity"], row["split"]) == ("-aB_c", "id1", "train")
    assert [t["start"] for t in row["tracks"]] == [0, 300]
    assert row["tracks"][0]["box"] == [5, 6, 105, 106]
    assert row["uri"].endswith("mirror/-aB_c.mp4")


def test_persons_of_one_video_are_recordings_of_their_own(mirror):
    lines = "v,0,9,1-2-3-4,25,64,36,train,id1\nv,0,9,5-2-9-4,25,64,36,test,id2\n"
    rows = list_recordings(mirror(HEAD + lines)).rows
    assert [(r["id"], r["split"]) for r in rows] == [("v-id1", "train"), ("v-id2", "test")]


def test_a_long_video_and_person_make_an_id_that_fits(mirror):
    lines = [f"{'v' * 30},0,9,1-2-3-4,25,64,36,train,{'p' * 30}{n}\n" for n in range(2)]
    ids = {row["id"] for row in list_recordings(mirror(HEAD + "".join(lines))).rows}
    assert len(ids) == 2
    assert all(len(id) == 32 for id in ids)


def test_a_video_that_is_not_in_the_mirror_has_no_uri(mirror):
    (row,) = list_recordings(mirror(HEAD + "gone,0,9,1-2-3-4,25,64,36,train,id1\n")).rows
    assert row["uri"] == ""


def test_without_a_mirror_videos_are_on_youtube(mirror):
    config = mirror(HEAD + "-aB_c123456,0,9,1-2-3-4,25,64,36,train,id1\nv,0,9,1-2-3-4,25,64,36,train,id1\n")
    rows = list_recordings(VoxcelebCsvConfig(csv=config.csv)).rows
    assert {row["id"]: row["uri"] for row in rows} == {"-aB_c123456": "youtube:-aB_c123456", "v": ""}


def test_a_mirror_may_hold_other_kinds_of_video(mirror, tmp_path):
    (tmp_path / "mirror" / "v.WEBM").write_bytes(b"video")
    (row,) = list_recordings(mirror(HEAD + "v,0,9,1-2-3-4,25,64,36,train,id1\n")).rows
    assert row["uri"].endswith("mirror/v.WEBM")


def test_the_taichi_list_has_no_persons(mirror):
    text = HEAD.replace(",person_id", "") + "v,0,90,1-2-30-34,29.97,64,36,train\n"
    (row,) = list_recordings(mirror(text)).rows
    assert (row["identity"], row["tracks"][0]["fps"]) == ("v", 29.97)


def test_bytes_that_are_not_utf8_spoil_their_line_only(mirror, tmp_path):
    config = mirror("")
    lines = b"ok,0,9,1-2-3-4,25,64,36,train,id1\n\xff\xfe\x00,0,9,1-2-3-4,25,64,36,train,id1\n"
    (tmp_path / "meta.csv").write_bytes(b"\xef\xbb\xbf" + HEAD.encode() + lines)
    listing = list_recordings(config)
    assert [row["id"] for row in listing.rows] == ["ok"]
    assert [(r["code"], r["line"]) for r in listing.rejects] == [("unsafe_id", 3)]
    listing.rejects[0]["id"].encode()  # what is left can be written down


def test_an_open_quote_does_not_swallow_the_next_lines(mirror):
    line = "v,{},9,1-2-3-4,25,64,36,train,id1\n"
    listing = list_recordings(mirror(HEAD + line.format('"0') + line.format('"x') + line.format(5)))
    assert [t["start"] for t in listing.rows[0]["tracks"]] == [0, 5]
    assert [r["line"] for r in listing.rejects] == [3]


def test_what_pandas_wrote_reads_as_what_it_was_made_from(mirror):
    plain = (
        HEAD + "v,3657,3994,624-48-1018-553,25,1280,720,train,id1\nw,3467,3576,6-4-98-55,25,1280,720,test,7\n"
    )
    head = ",person_id,video_id,start,end,bbox,fps,note,width,height,partition\r\n"
    lines = (
        '0,id1,v,3657.0,3.994e3,624.0-48.0-1018.0-553.0,25.0,"",1280.0,720.,train\r\n'
        '1,7.0,w, +3467 ,3576.0,"6-4-98-55",25,x,1280,720.0,test\r\n'
    )
    assert list_recordings(mirror(f"\ufeff{head}{lines}")) == list_recordings(mirror(plain))


def test_a_row_with_half_a_frame_or_an_empty_cell_is_rejected_by_its_video(mirror):
    line = "{},0,{},1-2-30-34,25.0,64,36,train,{}\n"
    text = line.format("a", "90.5", "p") + line.format("b", "", "p") + line.format("c", "NaN", "p")
    listing = list_recordings(mirror("n," + HEAD + "".join(f"0,{row}\n" for row in text.split()) + "0," +
                                line.format("d", 90, "nan") + "0," + line.format("ok", 90, "p")))  # fmt: skip
    assert [row["id"] for row in listing.rows] == ["ok"]
    assert [(r["id"], r["code"], r["line"]) for r in listing.rejects] == [
        (video, "malformed_row", number) for number, video in enumerate("abcd", 2)
    ]
    assert "'90.5' is not a whole number" in listing.rejects[0]["sentence"]


def test_semicolons_are_one_sentence(mirror):
    with pytest.raises(UserError, match=r"meta\.csv: semicolons part the columns, expected commas"):
        list_recordings(mirror(HEAD.replace(",", ";") + "v;0;9;1-2-3-4;25;64;36;train;id1\n"))


def test_crop_vox_names_are_read(mirror):
    text = HEAD.replace(",person_id", "") + "v#id7,0,9,1-2-3-4,25,64,36,train\n"
    (row,) = list_recordings(mirror(text)).rows
    assert (row["id"], row["identity"]) == ("v", "id7")


def test_a_box_that_ends_outside_the_frame_is_cut_there(mirror):
    (row,) = list_recordings(mirror(HEAD + "v,0,9,1-2-30-50,25,64,36,train,id1\n")).rows
    assert row["tracks"][0]["box"] == [1, 2, 30, 36]


def test_a_person_in_both_partitions_goes_to_test(mirror):
    same, other = "v,0,9,1-2-3-4,25,64,36,{},id1\n", "w,0,9,1-2-3-4,25,64,36,train,id1\n"
    lines = same.format("train") + same.format("test") + other
    assert {r["split"] for r in list_recordings(mirror(HEAD + lines)).rows} == {"test"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("v,0,9,1-2-3,25,64,36,train,id1", "malformed_box"),
        ("v,0,9,30-2-3-4,25,64,36,train,id1", "malformed_box"),
        ("v,0,9,70-2-900-4,25,64,36,train,id1", "malformed_box"),
        ("../v,0,9,1-2-3-4,25,64,36,train,id1", "unsafe_id"),
        ("v,0,9,1-2-3-4,25,64,36,train,a/b", "unsafe_id"),
        (f"{'v' * 33},0,9,1-2-3-4,25,64,36,train,id1", "unsafe_id"),
        (f"v,0,9,1-2-3-4,25,64,36,train,{'p' * 33}", "unsafe_id"),
        ("v,x,9,1-2-3-4,25,64,36,train,id1", "malformed_row"),
        ("v,0,5000000000,1-2-3-4,25,64,36,train,id1", "malformed_row"),
        (f"v,0,{'9' * 5000},1-2-3-4,25,64,36,train,id1", "malformed_row"),
        ("v,0,9,1-2-3-4,25,99999999999,36,train,id1", "malformed_row"),
        ("v,0,9,1-2-3-4,25,64,99999999999,train,id1", "malformed_row"),
        (f"v,0,9,1-2-3-{'9' * 5000},25,64,36,train,id1", "malformed_box"),
        ("v,9,9,1-2-3-4,25,64,36,train,id1", "malformed_row"),
        ("v,0,9,1-2-3-4,25,64,36,dev,id1", "malformed_row"),
        ("v,0,9,1-2-3-4", "malformed_row"),
        ("ok,0,9,1-2-3-4,25,64,36,train,id1", "duplicate_row"),
    ],
)
def test_a_bad_line_is_rejected_with_file_and_line(mirror, line, code):
    listing = list_recordings(mirror(f"{HEAD}ok,0,9,1-2-3-4,25,64,36,train,id1\n{line}\n"))
    (reject,) = listing.rejects
    assert (reject["code"], reject["line"]) == (code, 3)
    assert reject["file"].endswith("meta.csv")
    assert [row["id"] for row in listing.rows] == ["ok"]


def test_a_missing_column_is_named_with_those_found(mirror):
    with pytest.raises(UserError, match=r"meta\.csv: no column bbox; found video_id, start, end, box"):
        list_recordings(mirror(HEAD.replace("bbox", "box") + "v,0,9,1-2-3-4,25,64,36,train,id1\n"))


def test_external_changes_with_the_mirror(mirror, tmp_path):
    config = mirror(HEAD)
    before = digest_external_files(config)
    (tmp_path / "mirror" / "new.mp4").write_bytes(b"x")
    after = digest_external_files(config)
    assert {name for name in before if before[name] != after[name]} == {"mirror"}


def test_twenty_thousand_lines_load_in_two_seconds(mirror):
    lines = [
        f"v{i % 3442},{i},{i + 200},624-48-1018-553,25,1280,720,train,id{i % 435}\n" for i in range(20_075)
    ]
    config = mirror(HEAD + "".join(lines))
    begin = time.process_time()
    list_recordings(config)
    assert time.process_time() - begin < 2
