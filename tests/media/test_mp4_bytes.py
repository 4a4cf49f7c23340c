import io

import av
import numpy as np
import pytest

from pipelines.media.mp4_bytes import decode_mp4, encode_mp4, reencode_frames
from tests.moving_square import moving_square


def test_the_same_frames_give_the_same_mp4_bytes():
    frames = moving_square(
        6, 66
    )  # a side that is no multiple of 16, where x264's defaults vary from call to call
    held = [encode_mp4(frames)]
    for size in range(20):  # other memory each time
        held.append(bytes(50_000 * size + 1))
        assert encode_mp4(frames) == held[0]


def test_an_mp4_returns_every_frame_nearly_unchanged():
    frames = moving_square()
    back = decode_mp4(encode_mp4(frames))
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 4


@pytest.mark.parametrize("size", [33, 64])
def test_the_codec_trip_keeps_the_shape_even_of_odd_frames(size):
    frames = moving_square(3, size)
    assert reencode_frames(frames).shape == frames.shape


def test_sound_runs_beside_the_frames():
    sound = np.sin(np.arange(25 * 640) / 10).astype(np.float32) / 2
    with av.open(io.BytesIO(encode_mp4(moving_square(25), sound=sound))) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(heard) == pytest.approx(len(sound), abs=2048)
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.1)
