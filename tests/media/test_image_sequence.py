import io

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.errors import Rejected
from pipelines.media.image_sequence import mux_images_to_video


@pytest.fixture
def write(tmp_path):
    """Pictures of these numbers, each of one grey level, 4 times its number."""

    def write(numbers, pattern="{:06d}.jpg", size=(64, 64)):
        files = [tmp_path / pattern.format(number) for number in numbers]
        for number, file in zip(numbers, files, strict=True):
            Image.new("RGB", size, (4 * number,) * 3).save(file)
        return files

    return write


@pytest.mark.parametrize("pattern", ["{:06d}.jpg", "{:06d}.png"])
def test_the_video_shows_the_images_at_their_times(write, pattern):
    files = write(range(1, 31), pattern)
    video = mux_images_to_video(files, 29.97)
    assert video == mux_images_to_video(files, 29.97)
    with av.open(io.BytesIO(video)) as container:
        frames = list(container.decode(video=0))
    greys = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    assert greys == pytest.approx([4 * n for n in range(1, 31)], abs=1.5)
    times = np.array([float(frame.pts * frame.time_base) for frame in frames])
    assert times == pytest.approx(np.arange(30) / 29.97, abs=1e-4)


def test_images_of_two_sizes_are_rejected(write):
    files = [*write(range(1, 5)), *write(range(5, 9), size=(32, 64))]
    with pytest.raises(Rejected, match=r"000005\.jpg is mjpeg 32x64, those before it are mjpeg 64x64"):
        mux_images_to_video(files, 25)


@pytest.mark.parametrize(
    "content",
    [b"no image at all", b"", b"ffconcat version 1.0\nfile 000001.jpg\n"],
    ids=["text", "empty", "list"],
)
def test_what_is_no_image_is_rejected_and_opens_no_other_file(write, content):
    files = write(range(1, 5))
    files[2].write_bytes(content)
    with pytest.raises(Rejected) as caught:
        mux_images_to_video(files, 25)
    assert caught.value.code == "undecodable"


def test_an_image_larger_than_any_camera_makes_is_not_decoded(write, png_head):
    files = write(range(1, 5), "{:06d}.png")
    for file in files:
        file.write_bytes(png_head(13_000, 13_000))
    with pytest.raises(Rejected, match="13,000 x 13,000 pixels, expected at most 64,000,000") as caught:
        mux_images_to_video(files, 25)
    assert caught.value.code == "too_large"
