"""The validator: shards of ours and of plain webdataset pass, and each kind of fault is one line."""

import io
import tarfile

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.shards.validate import validate_shard
from storage import frame_codec, shards
from storage.families import UnitRecord, encode_pack_record
from tests.storage.shard_files import write_shard

KEYS = ("ann#rec1#000000#000004", "bob#rec2#000000#000004")


def sample(key, count=4, **changed):
    rng = np.random.default_rng(len(key))
    return {
        "__key__": key,
        "frames": rng.integers(0, 255, (count, 16, 16, 3), dtype=np.uint8),
        "sound": rng.uniform(-0.5, 0.5, 640 * count).astype(np.float32),
        "boxes": rng.uniform(0, 9, (count, 4)).astype(np.float32),
        "clip": {"identity": key.split("#")[0], "frames": count},
    } | changed


def written(path, samples):
    """A shard with its index beside it."""
    records = write_shard(path, [shards.encode_sample(s) for s in samples])
    unit = UnitRecord(unit="u", key="k", status="ok", samples=tuple(records))
    path.with_suffix(".parquet").write_bytes(encode_pack_record([unit]))
    return path


@pytest.fixture
def shard(tmp_path):
    return written(tmp_path / "a.tar", [sample(key) for key in KEYS])


def rewritten(path, change):
    """The same tar with its list of (TarInfo, bytes) changed."""
    with tarfile.open(path) as tar:
        held = [(info, tar.extractfile(info).read()) for info in tar]
    out = path.with_name("changed.tar")
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in change(held):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out


def renamed(held, old, new):
    for info, _ in held:
        info.name = info.name.replace(old, new)
    return held


# --- what passes --------------------------------------------------------------------------------------------
def test_a_shard_of_ours_passes_with_its_index(shard):
    report = validate_shard(shard)
    assert report.faults == []
    assert (report.samples, report.indexed) == (2, True)


@pytest.mark.parametrize("codec", list(frame_codec.FRAMES_EXTENSION_BY_CODEC))
def test_every_way_to_store_frames_passes(tmp_path, codec):
    images = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    stored = frame_codec.encode_images(images, codec)
    assert validate_shard(written(tmp_path / "a.tar", [sample(KEYS[0], frames=stored)])).faults == []


def test_a_plain_webdataset_loop_reads_what_passes(shard):
    assert not validate_shard(shard).faults
    plain = webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False)
    found = list(plain)
    assert [one["__key__"] for one in found] == list(KEYS)
    for one, key in zip(found, KEYS, strict=True):
        made = sample(key)
        assert frame_codec.decode_frames("jpgs", one["frames.jpgs"]).shape == made["frames"].shape
        np.testing.assert_array_equal(np.load(io.BytesIO(one["boxes.npy"])), made["boxes"])


def test_what_plain_webdataset_wrote_passes(tmp_path):
    path = tmp_path / "theirs.tar"
    with path.open("wb") as stream, webdataset.TarWriter(stream, encoder=False, mtime=0) as writer:
        for key in KEYS:
            members = shards.encode_sample(sample(key)).members
            writer.write({"__key__": key} | {f"{f}.{ext}": data for f, (ext, data) in members.items()})
    report = validate_shard(path)
    assert report.faults == []
    assert not report.indexed


# --- what does not ------------------------------------------------------------------------------------------
def both_mixed(held):
    half = len(held) // 2
    return [pair for both in zip(held[:half], held[half:], strict=True) for pair in both]


def stamped(held):
    held[0][0].mtime = 1_700_000_000
    return held


FAULTS = {
    "apart": (both_mixed, "members are not together"),
    "stamped": (stamped, "mtime 1700000000"),
    "twice": (lambda held: [*held[:1], *held], "ann#rec1#000000#000004.boxes.npy: twice"),
    "name": (lambda held: renamed(held, ".boxes.npy", ".npy"), "expected KEY.FIELD.EXTENSION"),
    "key": (lambda held: renamed(held, "ann#", "a nn#"), "has other characters"),
    "field": (lambda held: renamed(held, ".boxes.", ".boxen."), "unknown field 'boxen'"),
    "extension": (lambda held: renamed(held, ".boxes.npy", ".boxes.npz"), "expected npy"),
    "bytes": (
        lambda held: [(info, b"junk" if "boxes" in info.name else data) for info, data in held],
        "ann#rec1#000000#000004.boxes: cannot be decoded",
    ),
    "frames": (
        lambda held: [(info, data[:40] if "frames" in info.name else data) for info, data in held],
        "ann#rec1#000000#000004.frames: cannot be decoded",
    ),
    "folder": (lambda held: [*held, (folder("odd"), b"")], "not a plain file"),
}  # fmt: skip


def folder(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize("kind", list(FAULTS))
def test_a_fault_is_told(shard, kind):
    change, said = FAULTS[kind]
    assert any(said in fault for fault in validate_shard(rewritten(shard, change)).faults)


def test_fields_of_different_length_are_told(tmp_path):
    path = written(tmp_path / "a.tar", [sample(KEYS[0], boxes=np.zeros((3, 4), np.float32))])
    assert validate_shard(path).faults == [
        f"{KEYS[0]}: fields of different length: boxes 3, frames 4, clip.frames 4"
    ]


def test_sound_of_another_length_is_told(tmp_path):
    path = written(tmp_path / "a.tar", [sample(KEYS[0], sound=np.zeros(640, np.float32))])
    assert validate_shard(path).faults == [f"{KEYS[0]}: sound of 640 samples, expected 2,560"]


@pytest.mark.parametrize("cut", [100, 10_240, 12_000])
def test_a_truncated_shard_is_told(shard, cut):
    data = shard.read_bytes()
    shard.write_bytes(data[:-cut])
    faults = validate_shard(shard).faults
    assert any("truncated" in fault for fault in faults)


def test_an_empty_file_and_no_tar_are_told(tmp_path):
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "text.tar").write_bytes(b"hello" * 2048)
    for name in ("empty.tar", "text.tar"):
        assert validate_shard(tmp_path / name).faults


# --- the index ----------------------------------------------------------------------------------------------
def test_one_changed_byte_does_not_have_the_digest_of_the_index(shard):
    data = bytearray(shard.read_bytes())
    at = data.index(b"\x93NUMPY") + 128 + 5
    data[at] ^= 1
    shard.write_bytes(bytes(data))
    assert validate_shard(shard).faults == [f"{KEYS[0]}: its bytes do not have the digest of the index"]


def test_an_index_of_another_shard_is_told(shard, tmp_path):
    other = written(tmp_path / "other.tar", [sample(KEYS[1]), sample("cy#rec3#000000#000004")])
    other.with_suffix(".parquet").replace(shard.with_suffix(".parquet"))
    faults = validate_shard(shard).faults
    assert f"{KEYS[0]}: in the shard, not in the index" in faults
    assert "cy#rec3#000000#000004: in the index, not in the shard" in faults
    assert any("the index says" in fault for fault in faults)


def test_an_index_that_cannot_be_read_is_told(shard):
    shard.with_suffix(".parquet").write_bytes(b"PAR1 no PAR1")
    assert any("cannot be read" in fault for fault in validate_shard(shard).faults)


def test_the_command_ends_with_1_and_a_line_a_fault(shard, tmp_path):
    fine = CliRunner().invoke(main, ["shards", "validate", str(shard)])
    assert (fine.exit_code, fine.output) == (0, f"{shard}: ok, 2 samples, with its index\n")
    shard.write_bytes(shard.read_bytes()[:-10_240])
    cut = CliRunner().invoke(main, ["shards", "validate", str(shard)])
    assert cut.exit_code == 1
    assert cut.output.splitlines()[0].startswith(f"{shard}: truncated")


def test_a_raw_recording_is_opened_and_not_only_counted(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    video = frame_codec.encode_images(images, "h264").data
    for data, fine in ((video, True), (video[:300], False)):
        path = written(tmp_path / "raw.tar", [{"__key__": "rec1", "video": data, "probe": {"width": 64}}])
        assert (not validate_shard(path).faults) == fine


def test_a_text_in_place_of_a_recording_opens_no_file_that_it_lists(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    (tmp_path / "own.mp4").write_bytes(frame_codec.encode_images(images, "h264").data)
    monkeypatch.chdir(tmp_path)
    listing = b"ffconcat version 1.0\nfile own.mp4\n"
    path = written(tmp_path / "raw.tar", [{"__key__": "rec1", "video": listing, "probe": {"width": 64}}])
    assert validate_shard(path).faults
