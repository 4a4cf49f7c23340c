import numpy as np
import pytest
from msgspec.structs import replace

from pipelines.config import CONFIGS_FOLDER, load_config
from pipelines.errors import UserError
from pipelines.graph import build_graph
from pipelines.preprocess.sources.synthetic import synthesize_speech
from pipelines.preprocess.speech import (
    SpeechFeaturesConfig,
    cast_speech_features,
    encode_speech,
    log_mel_features,
)
from storage.shards import encode_sample
from tests.video_files import RUNTIME


def clip_of(sound, frames):
    return {"__key__": "a#r#000000#000010", "sound": sound, "clip": {"frames": frames}}


def encode_all(clips, nets=None, gpu_share=0.0, **settings):
    runtime = replace(RUNTIME, gpu_share=gpu_share)
    return encode_speech({"clips": clips}, SpeechFeaturesConfig(**settings), nets or {}, runtime)


def encode(sound, frames, **settings):
    return next(iter(encode_all([clip_of(sound, frames)], **settings)))


@pytest.mark.parametrize("samples", [0, 6399, 6400, 9000])
def test_a_row_a_frame_whatever_the_sound(samples):
    speech = encode(np.zeros(samples, np.float32), 10)["speech"]
    assert speech.shape == (10, 320)
    assert speech.dtype == np.float32
    assert np.isfinite(speech).all()


def test_a_click_is_in_its_own_frame():
    sound = np.zeros(6400, np.float32)
    sound[5 * 640 + 320] = 0.8
    loud = encode(sound, 10)["speech"].mean(1)
    assert loud.argmax() == 5


def test_the_columns_of_a_frame_are_in_order_of_time():
    sound = np.zeros(6400, np.float32)
    sound[5 * 640 + 560 :] = 0.1 * np.random.default_rng(0).normal(
        size=6400 - 5 * 640 - 560
    )  # the last 5 ms of frame 5
    first, *_, last = encode(sound, 10)["speech"][5].reshape(4, 80).mean(1)
    assert last > first + 3


def test_context_joins_neighbours():
    sound = np.random.default_rng(0).normal(size=6400).astype(np.float32) * 0.1
    plain, wide = encode(sound, 10)["speech"], encode(sound, 10, context=1)["speech"]
    assert wide.shape == (10, 960)
    np.testing.assert_array_equal(wide[4], np.concatenate([plain[3], plain[4], plain[5]]))
    np.testing.assert_array_equal(wide[0], np.concatenate([plain[0], plain[0], plain[1]]))


def test_the_same_sound_gives_the_same_bytes():
    sound = np.random.default_rng(0).normal(size=6400).astype(np.float32) * 0.1
    assert encode_sample(encode(sound, 10)) == encode_sample(encode(sound, 10))


def test_a_frame_does_not_depend_on_how_long_the_clip_is():
    sound = np.random.default_rng(0).normal(size=6400).astype(np.float32) * 0.1
    short = log_mel_features(sound[:3200], 5, SpeechFeaturesConfig())
    np.testing.assert_allclose(log_mel_features(sound, 10, SpeechFeaturesConfig())[:4], short[:4], rtol=1e-5)


class Encoder:
    """A speech encoder that notes what it is asked."""

    name = "noted"

    def __init__(self):
        self.asked, self.device = [], ""

    def configure_inference(self, how):
        self.device = how.device

    def encode(self, sounds, options):
        self.asked.append(([len(s) for s in sounds], options))
        return [s.reshape(-1, 640).mean(1, keepdims=True) for s in sounds]


def test_a_net_gets_whole_frames_of_several_clips_at_once_in_order():
    encoder = Encoder()
    clips = [clip_of(np.full(n, 0.5, np.float32), 1000) for n in (640_000, 639_000, 700_000)]
    for i, clip in enumerate(clips):
        clip["__key__"] = f"a#r#{i:06d}#{i + 1000:06d}"
    read = []
    samples = encode_all(
        (read.append(c["__key__"]) or c for c in clips), {"wav2vec2_base": encoder},
        encoder="wav2vec2_base", layer=7, align="inside", window_seconds=10.0, overlap_seconds=1.0,
    )  # fmt: skip
    found = [next(samples), next(samples)]
    assert [s["speech"].shape for s in found] == [(1000, 1)] * 2
    found += samples
    assert [s["__key__"] for s in found] == read
    assert [lengths for lengths, _ in encoder.asked] == [[640_000, 640_000], [640_000]]
    assert found[1]["speech"][-1, 0] == 0  # silence behind the end of a sound too short
    options = encoder.asked[0][1]
    assert (options.layer, options.align, options.window, options.context) == (7, "inside", 250, 25)
    assert encoder.device == "cpu"


def test_a_share_of_a_gpu_moves_the_net_there():
    encoder = Encoder()
    list(encode_all([], {"wav2vec2_base": encoder}, gpu_share=0.5, encoder="wav2vec2_base"))
    assert encoder.device == "cuda"


def test_float16_halves_the_bytes_and_costs_half_a_per_mille():
    sound = np.random.default_rng(0).normal(size=64_000).astype(np.float32) * 0.1
    full, half = encode(sound, 100), encode(sound, 100, dtype="float16")
    assert (full["speech"].dtype, half["speech"].dtype) == (np.float32, np.float16)
    error = np.abs(half["speech"].astype(np.float64) - full["speech"])
    assert (error <= 2**-11 * np.abs(full["speech"]) + 2**-25).all()
    assert half["speech"].nbytes * 2 == full["speech"].nbytes


def test_what_float16_cannot_hold_is_an_error_and_no_infinity():
    with pytest.raises(UserError, match="70000 is too large for"):
        cast_speech_features(np.array([[7e4]], np.float32), "float16")


@pytest.mark.parametrize(("align", "frames"), [("centred", range(11, 20)), ("official", range(8, 16))])
def test_headgan_s_vector_of_a_frame_hears_eight_frames_about_it_or_from_it_on(align, frames):
    clip = clip_of(np.zeros(30 * 640, np.float32), 30)
    clip["sound"][15 * 640 + 320] = 0.8
    clip["clip"] |= {"has_sound": True, "recording": "r", "start": 0}
    speech = next(iter(encode_all([clip], encoder="headgan", audio_align=align)))["speech"]
    assert speech.shape == (30, 300)
    energy = speech[:, 1]
    assert np.flatnonzero(energy > 0.01 * energy.max()).tolist() == list(frames)


@pytest.mark.parametrize(
    ("settings", "size"),
    [({}, 320), ({"mels": 40, "context": 1}, 480), ({"encoder": "headgan"}, 300),
     ({"encoder": "wav2vec2_base"}, 768), ({"encoder": "wav2vec2_large"}, 1024)],
)  # fmt: skip
def test_settings_say_how_many_numbers_a_frame_has(settings, size):
    assert SpeechFeaturesConfig(**settings).size == size


@pytest.mark.parametrize(
    "bad",
    [
        {"mels": 0},
        {"window_ms": 100.0},
        {"context": -1},
        {"encoder": "wav2vec2_base", "layer": 13},
        {"window_seconds": 0.5},
        {"overlap_seconds": 7.0},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        SpeechFeaturesConfig(**bad)


@pytest.mark.parametrize(
    ("encoder", "nets", "weights"),
    [("log_mel", (), []), ("headgan", (), []), ("wav2vec2_large", ("wav2vec2_large",), ["wav2vec2_large"])],
)
def test_the_node_asks_for_the_net_that_is_chosen_and_no_other(encoder, nets, weights):
    config = replace(
        load_config(CONFIGS_FOLDER / "run" / "demo.yaml", ["models=[fsrt]", "also=[speech.main]"]).config,
        speech={"main": SpeechFeaturesConfig(encoder=encoder)},
    )
    node = build_graph(config)["speech.main"]
    assert (tuple(node.nets), list(node.weights)) == (nets, weights)
    assert ("transformers" in node.packages) == bool(nets)


def test_features_follow_the_mouth_of_synthetic_speech_better_than_five_frames_off():
    """A synthetic speaker's sound comes from the same syllables as the jaw."""
    at_shift = []
    for seed in range(4):
        speech = synthesize_speech(np.random.default_rng(seed), 250, 150.0)
        loud = log_mel_features(speech.sound, 250, SpeechFeaturesConfig())[:, 20:200].mean(1)
        at_shift.append(
            [np.corrcoef(loud[10 + s : 240 + s], speech.jaw[10:240])[0, 1] for s in range(-10, 11)]
        )
    mean = np.mean(at_shift, axis=0)
    assert mean.argmax() in (9, 10, 11)
    assert mean[10] > max(mean[5], mean[15]) + 0.2
