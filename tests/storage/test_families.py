"""A family reads what packs hold, by key, in any process."""

import pickle
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from storage import families, locations, shards
from storage.errors import DamagedFile, StoreUnreachable
from storage.families import (
    PACK_SCHEMA,
    Family,
    ManifestRow,
    UnitRecord,
    decode_parquet,
    encode_manifest,
    encode_pack_record,
    read_node_manifest,
    read_pack_manifest,
    read_pack_record,
    read_sample,
)
from storage.files import Store
from tests.storage.shard_files import write_shard


@pytest.fixture
def family(tmp_path):
    store = Store(str(tmp_path))
    rows = []
    for pack, unit in (("p1", "r1"), ("p2", "r2")):
        frames = np.full((4, 16, 16, 3), 60 if unit == "r1" else 180, np.uint8)
        sample = {"__key__": f"id#{unit}#000000#000004", "frames": frames, "clip": {"unit": unit}}
        with store.scratch_folder() as folder:
            records = write_shard(folder / "s.tar", [shards.encode_sample(sample)])
            store.put(folder / "s.tar", locations.pack_path("clips", pack))
        unit_record = UnitRecord(unit=unit, key=f"k{unit}", status="ok", digest="d", samples=tuple(records))
        bad = UnitRecord(unit=f"{unit}-bad", key="k", status="rejected", code="no_face", reason="none seen")
        store.write(locations.pack_record_path("clips", pack), encode_pack_record([unit_record, bad]))
        rows += [ManifestRow.of(unit_record, pack), ManifestRow.of(bad, pack)]
    store.write(locations.manifest_path("clips", "k"), encode_manifest(rows))
    return Family(store, "clips", "k")


def test_keys_are_sorted_and_know_their_recording(family):
    assert family.keys == ["id#r1#000000#000004", "id#r2#000000#000004"]
    assert family.recording_of(family.keys[1]) == "r2"
    assert family.frame_count(family.keys[0]) == 4


def test_frames_are_read_one_by_one(family):
    frames = family.frames(family.keys[1], [3, 0, 3])
    assert frames.shape == (3, 16, 16, 3)
    assert abs(int(frames.mean()) - 180) < 3


def test_neighbouring_frames_are_one_read_and_no_others_are_read(family, monkeypatch):
    asked, opened = [], families.open_shard

    @contextmanager
    def counting(*where):
        with opened(*where) as stream:

            def read_at(size, offset):
                asked.append((offset, size))
                return stream.read_at(size, offset)

            yield SimpleNamespace(read_at=read_at)

    monkeypatch.setattr(families, "open_shard", counting)
    (offsets,) = [
        r.samples[0].frame_offsets for r in read_pack_record(family.store, "clips", "p2") if r.samples
    ]
    family.frames(family.keys[1], [3, 0, 1])
    assert asked == [(offsets[0], offsets[2] - offsets[0]), (offsets[3], offsets[4] - offsets[3])]


def test_a_shard_that_another_run_has_just_dropped_is_a_failure_that_may_pass(family):
    family.store.delete(locations.pack_path("clips", "p2"))
    for read in (family.read, lambda key: family.frames(key, [0])):
        with pytest.raises(FileNotFoundError):
            read(family.keys[1])
    family.store.write(locations.drop_mark_path("clips", "p2"), b"")
    for read in (family.read, lambda key: family.frames(key, [0])):
        with pytest.raises(StoreUnreachable, match="dropped by another run"):
            read(family.keys[1])


def test_only_the_fields_asked_for_are_read(family):
    assert set(family.read(family.keys[0], ["clip"])) == {"__key__", "clip"}


def test_a_family_travels_to_other_processes(family):
    assert pickle.loads(pickle.dumps(family)).keys == family.keys


@pytest.mark.parametrize("call", [lambda f: f.frames(f.keys[0], [4]), lambda f: f.read("nobody")])
def test_what_is_not_there_is_told(family, call):
    with pytest.raises(ValueError, match=r"frame 4 asked for, the clip has 4|no sample 'nobody' among 2"):
        call(family)


def test_a_record_comes_back_whole(family):
    (ok, bad) = read_pack_record(family.store, "clips", "p1")
    assert (bad.status, bad.code, bad.reason) == ("rejected", "no_face", "none seen")
    assert ok.frames == 4
    assert replace(ok, samples=()) == UnitRecord(unit="r1", key="kr1", status="ok", digest="d")


def test_of_some_units_only_their_packs_are_read(family):
    family.store.delete(locations.pack_record_path("clips", "p2"))
    some = Family(family.store, "clips", "k", frozenset({"r1"}))
    assert some.keys == ["id#r1#000000#000004"]
    assert pickle.loads(pickle.dumps(some)).keys == some.keys


COUNT_THREADS = """
import os, sys
from pathlib import Path
from storage.families import encode_pack_record, parse_pack_record
before = len(os.listdir("/proc/self/task"))
units = parse_pack_record(Path(sys.argv[1]).read_bytes())
encode_pack_record(units)
print(len(units), len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_records_need_no_thread_of_arrow(family):
    """One that is alive while the interpreter ends can abort a command that has done its work."""
    record = family.store.fetch(locations.pack_record_path("clips", "p1"))
    argv = [sys.executable, "-c", COUNT_THREADS, str(record)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["2", "0"]


def flip(store, path, at):
    """One bit of a published file."""
    data = bytearray(store.read(path))
    data[at] ^= 1
    store.write(path, bytes(data))


def test_a_flipped_bit_in_a_frame_is_not_decoded_and_the_message_names_file_and_frame(family):
    key, path = family.keys[0], locations.pack_path("clips", "p1")
    at = family._places[key].sample.frame_offsets[2]
    flip(family.store, path, at + 300)
    assert len(family.frames(key, [0, 1, 3])) == 3
    with pytest.raises(DamagedFile, match=rf"{path}: frame 2 of {key} is not as written; delete the file"):
        family.frames(key, [0, 2])


@pytest.mark.parametrize("field", ["frames", "clip"])
def test_a_flipped_bit_in_a_member_is_not_decoded(family, field):
    key, path = family.keys[0], locations.pack_path("clips", "p1")
    member = family._places[key].sample.member_location(field)
    flip(family.store, path, member.offset + member.size - 1)
    with pytest.raises(DamagedFile, match=rf"{path}: {key}\.{field} is not as written"):
        family.read(key)


def test_a_truncated_shard_is_damaged_not_an_end_of_data(family):
    key, path = family.keys[0], locations.pack_path("clips", "p1")
    end = family._places[key].sample.frame_offsets[-1]
    family.store.write(path, family.store.read(path)[: end - 10])
    with pytest.raises(DamagedFile, match=rf"{path}: frame 3 of {key}: \d+ of its \d+ bytes are there"):
        family.frames(key, [3])


def test_a_large_member_is_checked_while_it_is_copied(tmp_path):
    store = Store(str(tmp_path))
    sample = shards.encode_sample({"__key__": "a#b", "video": b"v" * 3_000_000})
    with store.scratch_folder() as folder:
        (record,) = write_shard(folder / "s.tar", [sample])
        store.put(folder / "s.tar", locations.pack_path("download", "p"))
    flip(store, locations.pack_path("download", "p"), record.member_location("video").offset + 2_500_000)
    video = read_sample(store, "download", "p", record)["video"]
    with pytest.raises(DamagedFile, match=r"packs/download/p\.tar: 3000000 bytes at \d+ are not as written"):
        video.copy_to(tmp_path / "copy")


def test_records_without_checksums_are_read_as_before(family):
    path = locations.pack_record_path("clips", "p1")
    table = decode_parquet(family.store.read(path))
    rows = table.to_pylist()
    for row in rows:
        for sample in row["samples"]:
            del sample["frame_crcs"]
            for member in sample["members"]:
                del member["crc"]
    old = pa.schema([
        *(field for field in PACK_SCHEMA if field.name != "samples"),
        ("samples", pa.list_(pa.struct([
            ("key", pa.string()), ("digest", pa.string()), ("frame_offsets", pa.list_(pa.int64())),
            ("members", pa.list_(pa.struct([("field", pa.string()), ("offset", pa.int64()),
                                            ("size", pa.int64()), ("extension", pa.string())]))),
        ]))),
    ])  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=old), family.store.full_path(path))
    assert family.frames(family.keys[0], [0, 3]).shape == (2, 16, 16, 3)
    assert family.read(family.keys[0])["clip"] == {"unit": "r1"}


def test_a_shard_is_as_long_as_its_record_tells(family):
    for pack in ("p1", "p2"):
        (row, _) = read_pack_manifest(family.store, "clips", pack)
        assert row.shard_bytes == len(family.store.read(locations.pack_path("clips", pack)))
        assert row.record_bytes == len(family.store.read(locations.pack_record_path("clips", pack)))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"nothing of the kind"])
def test_a_record_that_cannot_be_read_is_damaged_and_named(family, data):
    for path, read in ((locations.pack_record_path("clips", "p1"), read_pack_record),
                       (locations.manifest_path("clips", "p1"), read_node_manifest)):  # fmt: skip
        family.store.write(path, data)
        with pytest.raises(DamagedFile, match=rf"^{path} cannot be read"):
            read(family.store, "clips", "p1")
