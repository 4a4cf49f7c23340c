"""`reenact animate`: frames, times and sound of the driving video, rendered and pasted back."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from models.reenactor import MotionTransfer
from pipelines.animate.face import cut_portrait
from pipelines.errors import UserError
from pipelines.media.still_image import read_picture
from tests.animate.stand_ins import (
    CLIPS,
    SIDE,
    Mirror,
    frames_of,
    sound_of,
    times_of,
)


@pytest.mark.parametrize("name", ["ntsc", "uneven", "silent"])
def test_frames_and_times_are_those_of_the_driving_video(make, videos, name):
    out, result = make(videos[name])
    wanted, found = times_of(videos[name]), times_of(out)
    assert result.frames == len(wanted[0]) == len(found[0])
    assert [float(t) for t in found[0]] == pytest.approx([float(t) for t in wanted[0]], abs=1e-9)
    assert float(found[1]) == pytest.approx(float(wanted[1]), abs=1e-9)


def test_an_odd_rate_stays_the_exact_fraction(make, videos):
    for name in ("ntsc", "matroska"):  # Matroska rounds times to milliseconds
        out, result = make(videos[name])
        with av.open(str(out)) as container:
            assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        assert result.rate == "30000/1001 frames/s"


def test_an_uneven_video_is_said_to_be_uneven(make, videos):
    assert make(videos["uneven"])[1].rate.endswith("on average")


@pytest.mark.parametrize("name", ["ntsc", "uneven", "matroska"])
def test_sound_is_copied_bit_by_bit(make, videos, name):
    out, result = make(videos[name])
    wanted, found = sound_of(videos[name]), sound_of(out)
    assert found[0] == wanted[0]
    assert found[1] == pytest.approx(wanted[1], abs=1e-3)
    assert result.sound == "sound copied (aac)"


def test_sound_that_mp4_does_not_take_is_encoded_and_said(make, videos):
    out, result = make(videos["pcm"])
    assert result.sound == "sound encoded as AAC (was pcm_s16le)"
    with av.open(str(out)) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    crossings = np.flatnonzero((sound[:-1] < 0) & (sound[1:] >= 0))
    assert len(sound) / 44_100 == pytest.approx(0.8, abs=0.03)
    assert np.median(np.diff(crossings)) == pytest.approx(44_100 / 220, abs=1)


def test_without_sound_there_is_none(make, videos):
    out, result = make(videos["silent"])
    assert result.sound == "no sound"
    with av.open(str(out)) as container:
        assert not container.streams.audio


def test_a_stream_that_starts_late_keeps_picture_and_sound_together(make, videos):
    out, _ = make(videos["transport"])
    lead = float(times_of(videos["transport"])[0][0])
    assert float(times_of(out)[0][0]) == pytest.approx(lead, abs=1e-4)
    with av.open(str(out)) as container:
        assert container.start_time == pytest.approx(0, abs=1_000)


def test_the_driving_face_is_what_the_model_sees(make, videos, moving):
    pictures = frames_of(make(videos["silent"])[0])
    assert pictures.shape == (20, SIDE, SIDE, 3)
    # the square stands still while the face moves through it
    assert np.abs(pictures[0].astype(int) - pictures[19]).mean() > 4
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 4


def test_the_same_inputs_give_the_same_bytes(make, videos):
    one, other = (make(videos["ntsc"], name=f"{n}.mp4", model=Mirror(batch=n))[0] for n in (8, 3))
    assert one.read_bytes() == other.read_bytes()


def test_the_file_says_that_it_is_synthetic_and_plays_before_it_is_all_there(make, videos):
    tags = {"comment": "Synthetic media", "digitalSourceType": "x", "reenact.provenance": "y"}
    out, _ = make(videos["silent"], tags=tags)
    with av.open(str(out)) as container:
        assert tags.items() <= container.metadata.items()
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_an_error_half_way_is_passed_on(make, videos):
    class Failing(Mirror):
        def render(self, scene, motion):
            if len(self.drawn) >= 16:
                raise RuntimeError("out of memory")
            return super().render(scene, motion)

    with pytest.raises(RuntimeError, match="out of memory"):
        make(videos["ntsc"], model=Failing())


def test_relative_motion_starts_at_the_first_frame(make, videos):
    pictures = frames_of(make(videos["silent"], transfer=MotionTransfer(motion="relative"))[0]).astype(int)
    assert np.abs(pictures[0] - 128).mean() < 2
    assert np.abs(pictures[19] - 128).mean() > 3


def test_motion_that_the_model_cannot_transfer_is_refused_before_any_work(make, tmp_path):
    with pytest.raises(ValueError, match="a mirror has no scale"):
        make(tmp_path / "not there.mp4", transfer=MotionTransfer(motion="relative", adapt_scale=True))


def test_a_picture_drives_one_frame(make, source, nets):
    out, result = make(source, name="out.png", tags={"reenact.edits": "none"})
    assert (result.frames, result.size, result.sound) == (1, (SIDE, SIDE), "no sound")
    picture = Image.open(out)
    assert picture.text["reenact.edits"] == "none"
    crop = cut_portrait(read_picture(source).pixels, CLIPS, nets.detector).crop
    small = crop.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
    np.testing.assert_allclose(np.asarray(picture), small, atol=1)


def test_a_picture_may_become_a_video_of_one_frame(make, source):
    out, result = make(source)
    assert (result.frames, result.seconds, result.rate) == (1, 0.04, "25 frames/s")
    assert frames_of(out).shape == (1, SIDE, SIDE, 3)


def test_a_video_does_not_fit_into_a_picture(make, videos):
    with pytest.raises(UserError, match=r"20 frames drive, and out\.png holds one; name it \.mp4"):
        make(videos["silent"], name="out.png")


def test_without_anything_that_drives_there_is_nothing_to_make(make):
    with pytest.raises(UserError, match="nothing drives: give --driving, or an edit"):
        make(None)


def test_pasting_back_changes_the_square_alone(make, videos, source):
    out, result = make(videos["silent"], paste_back=True)
    whole = np.asarray(Image.open(source).convert("RGB")).astype(int)
    pictures = frames_of(out).astype(int)
    assert result.size == (320, 300)
    assert np.abs(pictures[5, 260:, :] - whole[260:, :]).mean() < 3  # below the square: the codec's loss
    assert np.abs(pictures[5, 80:160, 110:190] - whole[80:160, 110:190]).mean() > 5
