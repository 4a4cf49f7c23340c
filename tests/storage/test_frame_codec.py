import numpy as np
import pytest
import webdataset

from storage import frame_codec, locations, shards
from storage.errors import DamagedFile
from storage.families import Family, ManifestRow, UnitRecord, encode_manifest, encode_pack_record
from storage.files import Store
from tests.storage.shard_files import write_shard


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
    extension, data = frame_codec.encode_frames(frame_codec.encode_images(images, codec))
    whole = frame_codec.decode_frames(extension, data)
    np.testing.assert_array_equal(
        frame_codec.decode_frames(extension, data, [17, 3, 3, 29, 0]), whole[[17, 3, 3, 29, 0]]
    )


@pytest.mark.parametrize(("codec", "least"), [("jpeg", 38), ("png", np.inf), ("h264", 36)])
def test_what_a_codec_keeps(images, codec, least):
    with np.errstate(divide="ignore"):
        assert psnr(frame_codec.encode_images(images, codec).decode(), images) >= least


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264"])
def test_same_images_same_bytes(images, codec):
    one, two = (frame_codec.encode_images(images.copy(), codec) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264"])
def test_a_stream_that_overwrites_its_frame_gives_the_bytes_of_the_array(images, codec):
    def stream():
        frame = np.empty_like(images[0])
        for image in images:
            frame[:] = image
            yield frame
            frame[:] = 0

    streamed = frame_codec.encode_images(stream(), codec)
    assert streamed == frame_codec.encode_images(images, codec)
    assert len(streamed) == 30


def test_an_array_becomes_jpeg_95_and_what_is_encoded_stays(images):
    stored = frame_codec.encode_images(images, "jpeg", 95)
    assert frame_codec.encode_frames(images) == frame_codec.encode_frames(stored) == ("jpgs", stored.data)


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264"])
def test_encoded_frames_are_shown_as_a_reader_sees_them(images, codec):
    stored = frame_codec.encode_images(images, codec)
    np.testing.assert_array_equal(stored.decode(), frame_codec.decode_frames(stored.extension, stored.data))
    np.testing.assert_array_equal(stored.decode([4, 2]), stored.decode()[[4, 2]])


def test_quality_is_smaller_or_larger(images):
    sizes = [len(frame_codec.encode_images(images, "jpeg", quality).data) for quality in (50, 80, 95)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("codec", ["jpeg", "png", "h264"])
def test_a_family_reads_each_codec(images, codec, tmp_path):
    store = Store(str(tmp_path))
    sample = shards.encode_sample({"__key__": "a#b", "frames": frame_codec.encode_images(images, codec)})
    with store.scratch_folder() as folder:
        records = write_shard(folder / "s.tar", [sample])
        store.put(folder / "s.tar", locations.pack_path("clips", "p"))
    unit = UnitRecord(unit="b", key="k", status="ok", digest="d", samples=tuple(records))
    store.write(locations.pack_record_path("clips", "p"), encode_pack_record([unit]))
    store.write(locations.manifest_path("clips", "k"), encode_manifest([ManifestRow.of(unit, "p")]))
    family = Family(store, "clips", "k")
    assert family.frame_count("a#b") == 30
    whole = family.read("a#b")["frames"]
    np.testing.assert_array_equal(family.frames("a#b", [28, 1]), whole[[28, 1]])
    (read,) = webdataset.WebDataset(family.shard_uris()[0], shardshuffle=False)
    extension = frame_codec.FRAMES_EXTENSION_BY_CODEC[codec]
    np.testing.assert_array_equal(frame_codec.decode_frames(extension, read[f"frames.{extension}"]), whole)


def test_a_frame_whose_header_tells_of_too_many_pixels_is_not_decoded(png_head):
    tile = np.zeros((16, 16, 3), np.uint8)
    jpeg = bytearray(frame_codec._jpeg(tile, 90))
    at = jpeg.index(b"\xff\xc0") + 5  # start of frame: marker, length, precision, height, width
    jpeg[at : at + 4] = (9_000).to_bytes(2, "big") * 2
    for data in (jpeg, png_head(9_000, 9_000)):
        with pytest.raises(DamagedFile, match="9,000 x 9,000 pixels, expected at most 8,192 a side"):
            frame_codec.decode_image(bytes(data))


def test_a_text_in_place_of_a_video_opens_no_file_that_it_lists(images, tmp_path, monkeypatch):
    extension, data = frame_codec.encode_frames(frame_codec.encode_images(images, "h264"))
    (tmp_path / "own.mp4").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    listing = b"ffconcat version 1.0\nfile own.mp4\n"
    for read in (frame_codec.decode_frames, frame_codec.frame_byte_offsets):
        with pytest.raises(ValueError, match="Invalid data"):
            read(extension, listing)
