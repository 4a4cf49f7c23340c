import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.preprocess.sources import celebv_hq, celebv_text
from pipelines.preprocess.sources.celebv_hq import CelebvHqConfig
from pipelines.preprocess.sources.celebv_text import CelebvTextConfig
from pipelines.preprocess.sources.common.clip_json import read_clip_json

VIDEO = "M2Ohb0FAaJU"
HQ = {
    "ytb_id": VIDEO,
    "duration": {"start_sec": 81.62, "end_sec": 86.17},
    "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
    "attributes": {
        "appearance": [0, 0, 1],
        "action": [0, 1],
        "emotion": {"sep_flag": False, "labels": "neutral"},
    },
    "version": "v0.1",
}
META = {"appearance_mapping": ["Blurry", "Male", "Young"], "action_mapping": ["blow", "talk"]}


def clip(**over):
    return {**HQ, **over}


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A tree, or text, or bytes -> what the source makes of the file."""
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))

    def read(tree, source="hq", **more):
        text = tree if isinstance(tree, (str, bytes)) else json.dumps(tree, indent=1)
        path = tmp_path / "info.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if source == "hq":
            return celebv_hq.list_recordings(CelebvHqConfig(json=str(path), **more))
        return celebv_text.list_recordings(CelebvTextConfig(json=str(path), **more))

    return read


def one(listing):
    ((row,), rejects) = listing
    assert rejects == []
    return row


# --- CelebV-HQ ----------------------------------------------------------------------------------------------
def test_clips_of_a_video_are_tracks_in_milliseconds(listed):
    later = clip(duration={"start_sec": 3, "end_sec": 6.5})
    row = one(listed({"meta_info": META, "clips": {f"{VIDEO}_0": HQ, f"{VIDEO}_1": later}}))
    assert (row["id"], row["identity"], row["split"], row["uri"]) == (VIDEO, VIDEO, "", f"youtube:{VIDEO}")
    assert [(t["start"], t["end"], t["fps"]) for t in row["tracks"]] == [
        (3000, 6500, 1000.0),
        (81620, 86170, 1000.0),
    ]


def test_a_box_grows_by_a_share_of_the_frame_and_is_cut_there(listed):
    (track,) = one(listed({"clips": {f"{VIDEO}_0": HQ}}))["tracks"]
    assert track["box"] == pytest.approx([0.1764, 0.0, 0.7122, 0.9015])
    assert (track["width"], track["height"]) == (1, 1)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (clip(duration={"start_sec": 81.62, "end_sec": -1}), "malformed_span"),
        (clip(duration={"start_sec": 81.62, "end_sec": 81.62}), "malformed_span"),
        (clip(duration={"start_sec": -1, "end_sec": 5}), "malformed_span"),
        (clip(duration={"start_sec": 1, "end_sec": 1e300}), "malformed_span"),
        (clip(duration={"start_sec": 1}), "malformed_row"),
        (clip(duration=[1, 2]), "malformed_row"),
        (clip(duration={"start_sec": 1, "end_sec": "9"}), "malformed_row"),
        (clip(duration={"start_sec": False, "end_sec": 9}), "malformed_row"),
        (clip(duration={"start_sec": 1, "end_sec": float("nan")}), "malformed_row"),
        (clip(duration={"start_sec": 1, "end_sec": 10**400}), "malformed_row"),
        (clip(bbox={"top": 0, "bottom": 937, "left": 849, "right": 1872}), "malformed_box"),
        (clip(bbox={"top": 0.5, "bottom": 0.5, "left": 0, "right": 1}), "malformed_box"),
        (clip(bbox={"top": 0.5, "bottom": 0.4, "left": 0, "right": 1}), "malformed_box"),
        (clip(bbox={"top": 0, "bottom": 1, "left": -0.9, "right": -0.5}), "malformed_box"),
        (clip(bbox={"top": 0, "bottom": 1, "left": 0}), "malformed_row"),
        (clip(ytb_id="../../passwd"), "unsafe_id"),
        (clip(ytb_id=7), "unsafe_id"),
        ("a clip", "malformed_row"),
        (None, "malformed_row"),
    ],
)
def test_a_bad_clip_is_rejected_with_file_key_and_line(listed, value, code):
    listing = listed({"meta_info": META, "clips": {"bad_0": value, f"{VIDEO}_0": HQ}})
    (reject,) = listing.rejects
    assert (reject["code"], reject["id"]) == (code, "bad_0")
    assert reject["sentence"].startswith("bad_0: ")
    assert reject["file"].endswith("info.json")
    # as json.dumps(indent=1) lays it out: meta_info has 12 lines, then comes "clips"
    assert reject["line"] == 2 + len(json.dumps(META, indent=1).splitlines()) + 1
    assert [row["id"] for row in listing.rows] == [VIDEO]


def test_a_number_of_five_thousand_digits_spoils_its_clip_only(listed):
    text = json.dumps({"clips": {"bad_0": clip(duration=7), f"{VIDEO}_0": HQ}})
    listing = listed(
        text.replace('"duration": 7', f'"duration": {{"start_sec": 1, "end_sec": {"9" * 5000}}}')
    )
    assert [(r["id"], r["code"], r["line"]) for r in listing.rejects] == [("bad_0", "malformed_row", 1)]
    assert [row["id"] for row in listing.rows] == [VIDEO]


def test_a_key_that_is_too_long_for_an_id_is_rejected(listed):
    listing = listed({"clips": {"k" * 33: HQ, f"{VIDEO}_0": HQ}})
    assert [r["code"] for r in listing.rejects] == ["unsafe_id"]


def test_a_clip_listed_twice_is_rejected(listed):
    text = f'{{"clips": {{"{VIDEO}_0": {json.dumps(HQ)},\n"{VIDEO}_0": {json.dumps(HQ)}}}}}'
    listing = listed(text)
    assert [(r["code"], r["line"]) for r in listing.rejects] == [("duplicate_row", 2)]
    assert len(listing.rows[0]["tracks"]) == 1


def test_bytes_that_are_not_utf8_spoil_their_clip_only(listed):
    text = json.dumps({"clips": {"bad": HQ, f"{VIDEO}_0": HQ}}).encode()
    listing = listed(b"\xef\xbb\xbf" + text.replace(b'"bad"', b'"\xff\xfe"'))
    assert [r["code"] for r in listing.rejects] == ["unsafe_id"]
    assert len(listing.rows) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"info\.json, line 1: not JSON: expected '\{'"),
        ("[1, 2]", r"line 1: not JSON: expected '\{'"),
        ('{"clips": {\n"a": {"x": 1},\n"b": {"x": ', r"line 3: not JSON"),
        ('{"clips": {\n"a": {"x": 1}\n"b": 1}}', r"line 3: not JSON: expected '\}'"),
        ('{"clips": {\n\n7: 1}}', r"line 3: not JSON: expected a key"),
        ('{"clips": ' + '{"a":' * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_a_file_that_is_not_json_is_one_sentence_with_its_line(listed, text, message):
    with pytest.raises(UserError, match=message):
        listed(text)


def test_a_mirror_of_cut_clips_gives_a_recording_a_clip(listed, tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / f"{VIDEO}_0.mp4").write_bytes(b"clip")
    rows, _ = listed({"clips": {f"{VIDEO}_0": HQ, f"{VIDEO}_1": HQ}}, mirror=str(tmp_path / "mirror"))
    whole, cut = rows
    assert (cut["id"], cut["identity"]) == (f"{VIDEO}_0", VIDEO)
    assert cut["uri"].endswith(f"{VIDEO}_0.mp4")
    (track,) = cut["tracks"]
    assert (track["start"], track["end"], track["box"]) == (0, 4550, [0, 0, 1, 1])
    assert (whole["id"], whole["uri"]) == (VIDEO, "")  # not in the mirror: rejected at download


def test_a_mirror_of_whole_videos_wins_over_cut_clips(listed, tmp_path):
    (tmp_path / "mirror").mkdir()
    for name in (VIDEO, f"{VIDEO}_0"):
        (tmp_path / "mirror" / f"{name}.mp4").write_bytes(b"video")
    row = one(listed({"clips": {f"{VIDEO}_0": HQ}}, mirror=str(tmp_path / "mirror")))
    assert row["uri"].endswith(f"{VIDEO}.mp4")


# --- CelebV-Text --------------------------------------------------------------------------------------------
TEXT = {
    "ytb_id": "00-30GQl0TM",
    "duration": {"start_frame": 415.29, "end_frame": 420.88},
    "bbox": {"top": 0, "bottom": 1183, "left": 665, "right": 1956},
    "version": "v0.1",
}


@pytest.mark.parametrize("wrapped", [True, False])
def test_with_or_without_the_mapping_clips(listed, wrapped):
    tree = {"00-30GQl0TM_7": TEXT}
    row = one(listed({"clips": tree} if wrapped else tree, "text"))
    (track,) = row["tracks"]
    assert (track["start"], track["end"]) == (415290, 420880)


def test_pixels_are_those_of_the_recording(listed):
    (track,) = one(listed({"00-30GQl0TM_7": TEXT}, "text"))["tracks"]
    assert (track["width"], track["height"], track["box"]) == (0, 0, [665, 0, 1956, 1183])


@pytest.mark.parametrize("edge", [1e6, 1e300, 10**400], ids=["1e6", "1e300", "1e400"])
def test_pixels_that_no_video_has_are_rejected(listed, edge):
    bad = {**TEXT, "bbox": {**TEXT["bbox"], "right": edge}}
    (reject,) = listed({"00-30GQl0TM_7": bad}, "text").rejects
    assert reject["code"] in ("malformed_box", "malformed_row")


def test_shares_are_read_as_in_celebv_hq(listed):
    tree = {"clips": {f"{VIDEO}_0": HQ}}
    assert listed(tree, "text") == listed(tree, "hq")


def test_external_is_the_file_and_the_mirror(listed, tmp_path):
    listed({"clips": {f"{VIDEO}_0": HQ}})
    path = str(tmp_path / "info.json")
    hq = celebv_hq.digest_external_files(CelebvHqConfig(json=path))
    assert hq == celebv_text.digest_external_files(CelebvTextConfig(json=path))
    assert set(hq) == {"info.json", "mirror"}


@pytest.mark.parametrize("json_path", ["", "/nowhere.json"])
def test_no_file_is_one_sentence(json_path):
    with pytest.raises(UserError, match=r"data\.NAME\.celebv_hq\.json '.*' is not a file"):
        celebv_hq.list_recordings(CelebvHqConfig(json=json_path))


# --- the walk through the file ------------------------------------------------------------------------------
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    tree=st.dictionaries(st.text().filter(lambda key: key not in ("clips", "meta_info")), values, max_size=5),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
def test_the_walk_finds_what_json_finds(tmp_path_factory, tree, indent, ascii_only):
    path = tmp_path_factory.mktemp("json") / "any.json"
    for whole in (tree, {"meta_info": {"a": [1]}, "clips": tree}):
        path.write_text(
            json.dumps(whole, indent=indent, ensure_ascii=ascii_only),
            encoding="utf-8",
            errors="surrogatepass",
        )
        if all(ord(c) < 0xD800 or ord(c) > 0xDFFF for c in path.read_text(errors="replace")):
            assert [(key, value) for key, _, value in read_clip_json(path)] == list(tree.items())


def test_a_hundred_megabytes_are_read_in_bounded_time_and_memory(tmp_path):
    path = tmp_path / "big.json"
    padding = "x" * 3300
    with path.open("w") as stream:
        stream.write('{"meta_info": {}, "clips": {')
        for n in range(30_000):
            value = clip(ytb_id=f"{n // 3:011d}", attributes={"note": padding})
            stream.write(f'{"," if n else ""}"{n // 3:011d}_{n % 3}": {json.dumps(value)}')
        stream.write("}}")
    assert path.stat().st_size > 100_000_000
    program = (
        "import re, sys, time\n"
        "from pipelines.preprocess.sources.celebv_hq import CelebvHqConfig, list_recordings\n"
        "begin = time.process_time()\n"
        "listing = list_recordings(CelebvHqConfig(json=sys.argv[1]))\n"
        # not getrusage: its peak begins with that of the process which started this one
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024\n"
        "print(len(listing.rows), len(listing.rejects), time.process_time() - begin, peak)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    path.unlink()
    rows, rejects, seconds, megabytes = done.stdout.split()
    assert (rows, rejects) == ("10000", "0")
    assert float(seconds) < 20
    assert int(megabytes) < 450
