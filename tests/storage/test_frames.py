import numpy as np
import pytest
import webdataset

from storage import frames, locations, shards
from storage.families import Family, ManifestRow, UnitRecord, manifest_bytes, pack_record_bytes
from storage.files import Store


@pytest.fixture(scope="module")
def images():
    """30 frames of a soft moving pattern, (30,64,48,3) uint8."""
    y, x = np.mgrid[0:64, 0:48]
    waves = [[np.sin((x + 2 * t) / 9 + c) + np.cos(y / 11 - t / 7) for c in range(3)] for t in range(30)]
    return np.round(127 + 60 * np.moveaxis(np.array(waves), 1, -1)).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264"])
def test_some_frames_are_those_of_the_whole(images, codec):
    extension, data = frames.encode(frames.Frames(images, codec))
    whole = frames.decode(extension, data)
    np.testing.assert_array_equal(frames.decode(extension, data, [17, 3, 3, 29, 0]), whole[[17, 3, 3, 29, 0]])


@pytest.mark.parametrize(("codec", "least"), [("jpeg", 38), ("png", np.inf), ("h264", 36)])
def test_what_a_codec_keeps(images, codec, least):
    with np.errstate(divide="ignore"):
        assert psnr(frames.decode(*frames.encode(frames.Frames(images, codec))), images) >= least


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264"])
def test_same_images_same_bytes(images, codec):
    one, two = (frames.encode(frames.Frames(images.copy(), codec)) for _ in range(2))
    assert one == two


def test_quality_is_smaller_or_larger(images):
    sizes = [len(frames.encode(frames.Frames(images, "jpeg", quality))[1]) for quality in (50, 80, 95)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264"])
def test_a_family_reads_each_codec(images, codec, tmp_path):
    store = Store(str(tmp_path))
    sample = shards.encode_sample({"__key__": "a#b", "frames": frames.Frames(images, codec)})
    with store.scratch() as folder:
        records = shards.write_shard(folder / "s.tar", [sample])
        store.put(folder / "s.tar", locations.pack("clips", "p"))
    unit = UnitRecord(unit="b", key="k", status="ok", digest="d", samples=tuple(records))
    store.write(locations.pack_record("clips", "p"), pack_record_bytes([unit]))
    store.write(locations.manifest("clips", "k"), manifest_bytes([ManifestRow.of(unit, "p")]))
    family = Family(store, "clips", "k")
    assert family.frames_of("a#b") == 30
    whole = family.read("a#b")["frames"]
    np.testing.assert_array_equal(family.frames("a#b", [28, 1]), whole[[28, 1]])
    (read,) = webdataset.WebDataset(family.shard_uris()[0], shardshuffle=False)
    extension = frames.EXTENSIONS[codec]
    np.testing.assert_array_equal(frames.decode(extension, read[f"frames.{extension}"]), whole)
