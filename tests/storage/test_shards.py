"""Shards: what goes in comes out, the bytes are always the same, and plain webdataset reads them."""

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from storage import frame_codec, shards
from tests.storage.shard_files import write_shard


def clip(key: str, frames: int = 5, seed: int = 0) -> shards.Sample:
    rng = np.random.default_rng(seed)
    smooth = np.linspace(0, 200, 32)[None, :, None, None] + rng.integers(0, 20, (frames, 1, 1, 3))
    images = np.broadcast_to(smooth, (frames, 32, 32, 3)).astype(np.uint8)
    return {
        "__key__": key,
        "frames": np.ascontiguousarray(images),
        "sound": np.sin(np.arange(640 * frames) / 20).astype(np.float32) * 0.5,
        "boxes": rng.normal(size=(frames, 4)).astype(np.float32),
        "clip": {"identity": "a", "fps": 25, "detected": 0.5},
    }


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "a.tar"
    samples = [clip("id1#rec-1#000000#000005"), clip("id1#rec-1#000010#000013", 3, 1)]
    return path, samples, write_shard(path, [shards.encode_sample(s) for s in samples])


def member(path, record, field):
    m = record.member_location(field)
    return shards.decode_field(field, path.read_bytes()[m.offset : m.offset + m.size])


def test_every_member_is_found_by_its_record(shard):
    path, samples, records = shard
    for sample, record in zip(samples, records, strict=True):
        np.testing.assert_array_equal(member(path, record, "boxes"), sample["boxes"])
        assert member(path, record, "clip") == sample["clip"]
        np.testing.assert_allclose(member(path, record, "sound"), sample["sound"], atol=2**-15)
        assert np.abs(member(path, record, "frames").astype(int) - sample["frames"]).mean() < 3


def test_the_bytes_do_not_depend_on_when_they_are_written(shard, tmp_path):
    path, samples, _ = shard
    write_shard(tmp_path / "b.tar", [shards.encode_sample(s) for s in samples])
    assert (tmp_path / "b.tar").read_bytes() == path.read_bytes()


def test_one_frame_is_one_range(shard):
    path, _, records = shard
    data, offsets = path.read_bytes(), records[0].frame_offsets
    all_frames = member(path, records[0], "frames")
    for i in range(records[0].frames):
        np.testing.assert_array_equal(
            frame_codec.decode_image(data[offsets[i] : offsets[i + 1]]), all_frames[i]
        )


def test_plain_webdataset_reads_it(shard):
    path, samples, _ = shard
    read = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [s["__key__"] for s in read] == [s["__key__"] for s in samples]
    assert frame_codec.decode_frames("jpgs", read[0]["frames.jpgs"], [2]).shape == (1, 32, 32, 3)


def test_it_is_what_webdataset_writes(shard, tmp_path):
    path, samples, _ = shard
    encoded = [shards.encode_sample(s) for s in samples]
    with webdataset.TarWriter(str(tmp_path / "b.tar"), encoder=False, mtime=0, user="", group="") as writer:
        for one in encoded:
            writer.write(
                {"__key__": one.key} | {f"{f}.{ext}": data for f, (ext, data) in one.members.items()}
            )
    assert (tmp_path / "b.tar").read_bytes() == path.read_bytes()


def test_a_digest_changes_with_any_byte(shard):
    _, samples, records = shard
    samples[0]["boxes"][0, 0] += 1
    assert shards.encode_sample(samples[0]).digest() != records[0].digest


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "ä", "a b"])
def test_a_key_that_would_break_a_reader_is_refused(key):
    with pytest.raises(ValueError, match="sample key"):
        shards.encode_sample({"__key__": key, "clip": {}})


def test_a_key_given_twice_is_refused(tmp_path):
    twice = [shards.encode_sample({"__key__": "a", "clip": {}})] * 2
    with pytest.raises(ValueError, match="two samples with key a"):
        write_shard(tmp_path / "a.tar", twice)


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=6), elements=st.floats(width=32)))
def test_arrays_keep_every_bit(array):
    back = shards.decode_field("landmarks", shards.encode_field("landmarks", array)[1])
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), arrays.arrays(np.float32, 3), max_size=4)
)
def test_archives_of_arrays_are_the_same_in_any_order(named):
    swapped = dict(reversed(named.items()))
    assert shards.encode_field("truth", named)[1] == shards.encode_field("truth", swapped)[1]
    assert set(shards.decode_field("truth", shards.encode_field("truth", named)[1])) == set(named)


def test_no_array_can_bring_code(tmp_path):
    import io

    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        shards.decode_field("boxes", out.getvalue())


def test_samples_taken_back_leave_no_byte(shard, tmp_path):
    path, samples, records = shard
    with shards.ShardWriter(tmp_path / "b.tar") as writer:
        first = writer.add(shards.encode_sample(samples[0]))
        mark = writer.position()
        writer.add(shards.encode_sample(clip("id1#rec-9#000000#000009", 9, 2)))
        writer.truncate_to(mark)
        second = writer.add(shards.encode_sample(samples[1]))
    assert (tmp_path / "b.tar").read_bytes() == path.read_bytes()
    assert [first, second] == records


def test_a_large_member_goes_from_file_to_shard_to_shard(tmp_path):
    from storage.families import read_encoded_sample
    from storage.files import Store

    data = bytes(range(256)) * 9001
    (tmp_path / "video").write_bytes(data)
    store = Store(str(tmp_path / "store"))
    with store.scratch_folder() as folder:
        (record,) = write_shard(
            folder / "a", [shards.encode_sample({"__key__": "r", "video": tmp_path / "video"})]
        )
        store.put(folder / "a", "packs/download/p.tar")
    copied = read_encoded_sample(store, "download", "p", record)
    assert copied.digest() == record.digest
    (again,) = write_shard(tmp_path / "b.tar", [copied])
    blob = copied.members["video"][1]
    assert isinstance(blob, shards.LazyMember)
    assert again == record
    assert blob.read() == data
    blob.copy_to(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
