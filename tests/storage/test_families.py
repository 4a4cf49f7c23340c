"""A family reads what packs hold, by key, in any process."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from storage import locations, shards
from storage.families import (
    Family,
    ManifestRow,
    UnitRecord,
    manifest_bytes,
    pack_record_bytes,
    read_pack_record,
)
from storage.files import Store


@pytest.fixture
def family(tmp_path):
    store = Store(str(tmp_path))
    rows = []
    for pack, unit in (("p1", "r1"), ("p2", "r2")):
        frames = np.full((4, 16, 16, 3), 60 if unit == "r1" else 180, np.uint8)
        sample = {"__key__": f"id#{unit}#000000#000004", "frames": frames, "clip": {"unit": unit}}
        with store.scratch() as folder:
            records = shards.write_shard(folder / "s.tar", [shards.encode_sample(sample)])
            store.put(folder / "s.tar", locations.pack("clips", pack))
        unit_record = UnitRecord(unit=unit, key=f"k{unit}", status="ok", digest="d", samples=tuple(records))
        bad = UnitRecord(unit=f"{unit}-bad", key="k", status="rejected", code="no_face", reason="none seen")
        store.write(locations.pack_record("clips", pack), pack_record_bytes([unit_record, bad]))
        rows += [ManifestRow.of(unit_record, pack), ManifestRow.of(bad, pack)]
    store.write(locations.manifest("clips", "k"), manifest_bytes(rows))
    return Family(store, "clips", "k")


def test_keys_are_sorted_and_know_their_recording(family):
    assert family.keys == ["id#r1#000000#000004", "id#r2#000000#000004"]
    assert family.recording_of(family.keys[1]) == "r2"
    assert family.frames_of(family.keys[0]) == 4


def test_frames_are_read_one_by_one(family):
    frames = family.frames(family.keys[1], [3, 0, 3])
    assert frames.shape == (3, 16, 16, 3)
    assert abs(int(frames.mean()) - 180) < 3


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
    family.store.delete(locations.pack_record("clips", "p2"))
    some = Family(family.store, "clips", "k", frozenset({"r1"}))
    assert some.keys == ["id#r1#000000#000004"]
    assert pickle.loads(pickle.dumps(some)).keys == some.keys


COUNT_THREADS = """
import os, sys
from pathlib import Path
from storage.families import pack_record_bytes, parse_pack_record
before = len(os.listdir("/proc/self/task"))
units = parse_pack_record(Path(sys.argv[1]).read_bytes())
pack_record_bytes(units)
print(len(units), len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_records_need_no_thread_of_arrow(family):
    """One that is alive while the interpreter ends can abort a command that has done its work."""
    record = family.store.fetch(locations.pack_record("clips", "p1"))
    argv = [sys.executable, "-c", COUNT_THREADS, str(record)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["2", "0"]
