"""Audio features at the times of the driving frames."""

from fractions import Fraction

import numpy as np
import pytest
from msgspec.structs import replace

from models.headgan import released
from models.headgan.network import Generator
from models.headgan.spec import SPEC
from models.loading import load_reenactor
from pipelines import media
from pipelines.animate.render import AnimateOptions, required_perception_nets
from pipelines.animate.sound import (
    audio_features_at,
    compute_speech_features,
    feature_row_indices,
    silence_features,
    trained_speech_config,
)
from pipelines.errors import UserError
from pipelines.media.encoding import FrameTimeline, read_timeline
from pipelines.preprocess.speech import SpeechFeaturesConfig, encode_speech
from tests.animate.stand_ins import HEADGAN_CLIPS, NET
from tests.video_files import RUNTIME


def test_features_are_those_of_the_stage_on_the_frame_clock(talks, headgan, nets):
    path = talks["talk"]
    probed, settings = media.probe_file(path), trained_speech_config(headgan)
    times = read_timeline(path, probed["start"])
    heard = audio_features_at(path, probed, times, headgan, nets, print)
    clip = {"frames": 16, "has_sound": True}
    stage = {"__key__": "k", "sound": media.read_sound(path, probed, 0, 16), "clip": clip}
    (stored,) = encode_speech({"clips": [stage]}, settings, {}, RUNTIME)
    assert heard.shape == (16, 300)
    np.testing.assert_allclose(heard, stored["speech"], atol=1e-6)
    assert heard[:, :84].std(0).max() > 0.01


def test_another_rate_hears_the_row_that_its_frame_lies_in(talks, headgan, nets):
    path = talks["ntsc"]
    probed, settings = media.probe_file(path), trained_speech_config(headgan)
    times = read_timeline(path, probed["start"])
    rows = feature_row_indices(times, 99)
    assert rows.tolist() == [int((t + 0.5) * 1001 / 30000 * 25) for t in range(16)]
    heard = audio_features_at(path, probed, times, headgan, nets, print)
    sound = media.read_sound(path, probed, 0, 14)
    np.testing.assert_array_equal(heard, compute_speech_features(sound, settings, nets)[rows])


def test_rows_follow_uneven_times():
    times = FrameTimeline(Fraction(1, 100), (0, 3, 9, 20), 24, Fraction(25), False)
    assert feature_row_indices(times, 6).tolist() == [0, 1, 3, 5]


def test_without_sound_silence_is_heard_and_said(
    make_headgan, talks, messages, rendered, headgan, nets, bust
):
    make_headgan(talks["silent"])
    assert any("silent.mp4: no sound: the model hears silence" in text for text in messages)
    make_headgan(bust, "still.png")
    quiet = silence_features(1, headgan, nets)
    assert quiet.any()
    for motion in rendered:
        np.testing.assert_array_equal(motion["audio"], np.tile(quiet, (len(motion["audio"]), 1)))


def test_released_weights_which_learned_with_letters_say_that_they_hear_none(
    talks, nets, messages, tmp_path, monkeypatch
):
    from safetensors.torch import save_file

    small = replace(NET, residual=True, mask=True)
    monkeypatch.setattr(released, "official_architecture", lambda: small)
    save_file(
        released.to_published_tensors(Generator(small).state_dict())["headgan_vox"],
        tmp_path / "g.safetensors",
    )
    checkpoint = released.load_released({"headgan_vox": tmp_path / "g.safetensors"})
    net = load_reenactor(SPEC, {"renderer": checkpoint})
    probed = media.probe_file(talks["talk"])
    times = read_timeline(talks["talk"], probed["start"])
    audio_features_at(talks["talk"], probed, times, net, nets, messages.append)
    assert messages == [f"{talks['talk']}: no transcript: the model, which learned with letters, hears none"]


def test_what_a_checkpoint_tells_of_its_encoder_is_checked(headgan, monkeypatch):
    assert trained_speech_config(headgan) == SpeechFeaturesConfig(encoder="headgan")
    wrong = {
        "does not name": {},
        "encoder": {"encoder": "../x"},
        "mels 999": {"encoder": "log_mel", "mels": 999},
    }
    for told, hears in wrong.items():
        monkeypatch.setattr(headgan, "speech_settings", hears)
        with pytest.raises(UserError, match=told):
            trained_speech_config(headgan)
    monkeypatch.setattr(headgan, "speech_settings", {"encoder": "headgan", "transcripts": "/etc/passwd"})
    assert trained_speech_config(headgan).transcripts == ""
    monkeypatch.setattr(headgan, "speech_settings", {"encoder": "wav2vec2_base"})
    options = AnimateOptions(clips=HEADGAN_CLIPS)
    assert required_perception_nets(headgan, options, "dlib68").keys() == {
        "detector", "analytic_head", "landmarker", "wav2vec2_base"
    }  # fmt: skip
