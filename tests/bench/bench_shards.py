"""Reading shards back: bytes a second against the raw tar, and two random frames of a clip.

python -m pytest -m bench -s tests/bench/bench_shards.py
"""

import os
import time
from zlib import crc32

import numpy as np
import pytest
import webdataset

from storage import frame_codec, locations, shards
from storage.families import Family, ManifestRow, UnitRecord, encode_manifest, encode_pack_record
from storage.files import Store

CLIPS, LENGTH, SIDE = 24, 125, 256


def clip(rng: np.random.Generator, at: int) -> dict:
    """5 s of a soft moving pattern with some noise: about the 18 KiB a frame of real clips."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    base = np.stack([np.sin((x + 7 * at) / (19 + c)) + np.cos(y / (23 - c)) for c in range(3)], -1)
    noise = rng.normal(0, 5, (8, SIDE, SIDE, 3))
    images = [np.clip(128 + 50 * np.roll(base, t, 1) + noise[t % 8], 0, 255) for t in range(LENGTH)]
    return {
        "__key__": f"id{at}#rec{at}#000000#{LENGTH:06d}",
        "frames": np.stack(images).astype(np.uint8),
        "sound": rng.normal(0, 0.1, LENGTH * 640).astype(np.float32),
        "boxes": rng.normal(size=(LENGTH, 4)).astype(np.float32),
        "clip": {"at": at},
    }


@pytest.fixture
def family(tmp_path):
    store, rng = Store(str(tmp_path)), np.random.default_rng(0)
    units = []
    with store.scratch_folder() as folder:
        with shards.ShardWriter(folder / "s.tar") as shard:
            for at in range(CLIPS):
                record = shard.add(shards.encode_sample(clip(rng, at)))
                units.append(
                    UnitRecord(unit=f"rec{at}", key=str(at), status="ok", digest="d", samples=(record,))
                )
        store.put(folder / "s.tar", locations.pack_path("clips", "p"))
    store.write(locations.pack_record_path("clips", "p"), encode_pack_record(units))
    store.write(
        locations.manifest_path("clips", "k"), encode_manifest([ManifestRow.of(u, "p") for u in units])
    )
    return Family(store, "clips", "k")


def cpu() -> float:
    return sum(os.times()[:2])


def seconds(work, repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


@pytest.mark.bench
def test_reading_back(family):
    path = family.shard_uris()[0]
    size = os.path.getsize(path)

    def raw() -> None:
        with open(path, "rb") as stream:
            while stream.read(2**20):
                pass

    def members() -> None:
        for key in family.keys:
            place = family._place(key).sample
            for member in place.members:
                family.store.read_range(locations.pack_path("clips", "p"), member.offset, member.size)

    def plain() -> None:
        for _ in webdataset.WebDataset(path, shardshuffle=False):  # pyright: ignore
            pass

    floor = seconds(raw, 5)
    print(f"\n{size / 1e6:.0f} MB, {CLIPS} clips of {LENGTH} frames; raw read {size / floor / 1e6:.0f} MB/s")
    for name, work in (("members by index", members), ("plain webdataset", plain)):
        took = seconds(work, 5)
        print(f"{name:18} {size / took / 1e6:7.0f} MB/s, {floor / took:4.0%} of the raw tar")

    rng, count = np.random.default_rng(1), 400
    picks = [
        (family.keys[rng.integers(CLIPS)], sorted(rng.choice(LENGTH, 2, replace=False))) for _ in range(count)
    ]
    data = {key: family.store.read_range(locations.pack_path("clips", "p"), m.offset, m.size)
            for key in family.keys
            for m in [family._place(key).sample.member_location("frames")]}  # fmt: skip
    begin = cpu()
    for key, pair in picks:
        frame_codec.decode_frames("jpgs", data[key], pair)
    bare = (cpu() - begin) / count
    begin = cpu()
    for key, pair in picks:
        family.frames(key, pair)
    ours = (cpu() - begin) / count
    sizes = np.diff(family._place(picks[0][0]).sample.frame_offsets)
    image, rounds = bytes(int(sizes.mean())), 5000
    begin = cpu()
    for _ in range(rounds):
        crc32(image)
    check = 2 * (cpu() - begin) / rounds
    print(f"two random frames: {1e3 * ours:.2f} ms CPU, of which decoding {1e3 * bare:.2f} ms, "
          f"checking {1e3 * check:.3f} ms")  # fmt: skip
