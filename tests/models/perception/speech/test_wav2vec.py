"""wav2vec 2.0 in its real file format, two blocks deep: against transformers, against golden figures, and on
the frame clock."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Model

from models.errors import InvalidFile, InvalidSettings
from models.perception.interfaces import SpeechEncoderOptions
from models.perception.speech import wav2vec
from storage.weights_import import convert_checkpoint_to_safetensors

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "wav2vec.json").read_text())
VARIANTS = ("group_postln", "layer_stable")  # of base and large; of large-lv60
FRAME = wav2vec.SAMPLES_PER_FRAME
INSIDE = SpeechEncoderOptions(align="inside")


def configured(variant, **changed):
    return Wav2Vec2Config(**{**GOLDEN[variant]["config"], "mask_time_prob": 0.05, **changed})


def imported(net, folder, normalise=True):
    """net -> a folder as published -> the one file that an import makes of it."""
    net.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return converted(folder)


def converted(folder):
    names = ("config.json", "preprocessor_config.json")
    convert_checkpoint_to_safetensors(
        folder / "model.safetensors", folder / "imported.safetensors", [folder / n for n in names]
    )
    return folder / "imported.safetensors"


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """The same random net: as transformers loads it from its folder, and as ours."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp(request.param)
    path = imported(Wav2Vec2Model(configured(request.param)), folder)
    theirs = Wav2Vec2Model.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
    return theirs.eval(), wav2vec.load_wav2vec2(path, "wav2vec2_base")


@pytest.fixture(scope="module")
def ours(pair):
    return pair[1]


def voice(frames, seed=0):
    """Noise whose loudness wanders -> (640 frames,) float32."""
    rng = np.random.default_rng(seed)
    loudness = np.interp(np.arange(frames * FRAME), np.arange(frames) * FRAME, rng.uniform(0, 0.3, frames))
    return (loudness * rng.standard_normal(frames * FRAME)).astype(np.float32)


def library(net, values, layer):
    """Input values (n,) -> (tokens, D) by transformers' own forward."""
    with torch.no_grad():
        out = net(torch.from_numpy(values)[None], output_hidden_states=True)
    return (out.last_hidden_state if layer == -1 else out.hidden_states[layer])[0].numpy()


# --- the same numbers ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_features_are_interpolated_hidden_states_of_the_library(pair, layer):
    theirs, ours = pair
    sound = voice(12)
    values = Wav2Vec2FeatureExtractor()(sound, sampling_rate=16_000)["input_values"][0]
    tokens = library(theirs, np.pad(values, (0, 80)).astype(np.float32), layer)  # (24,32)
    [found] = ours.encode([sound], SpeechEncoderOptions(layer=layer))
    np.testing.assert_allclose(found, 0.625 * tokens[0::2] + 0.375 * tokens[1::2], atol=1e-5)


def chirp_filled(variant):
    """The golden's net: weights by formula."""
    net = Wav2Vec2Model(Wav2Vec2Config(**GOLDEN[variant]["config"]))
    state = net.state_dict()
    for i, name in enumerate(sorted(state)):
        k = np.arange(state[name].numel(), dtype=np.int64)
        s = np.sin(2 * np.pi * ((k * k) % 10007) / 10007 + i)
        if state[name].ndim > 1:
            s *= 1.5 / np.sqrt(state[name].numel() / state[name].shape[0])
        else:
            s = 1 + 0.1 * s if name.endswith("weight") else 0.05 * s
        state[name] = torch.from_numpy(s.astype(np.float32)).reshape(state[name].shape)
    net.load_state_dict(state)
    return net


def golden_signal():
    n = np.arange(64_000)
    wave = np.sin(2 * np.pi * 180 * n / 16_000) * np.sin(2 * np.pi * 2.5 * n / 16_000)
    return (wave + 0.2 * np.sin(0.01 * n**1.4)).astype(np.float32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inside_is_the_golden_interpolation_before_the_transformer(variant, tmp_path):
    encoder = wav2vec.load_wav2vec2(
        imported(chirp_filled(variant), tmp_path, normalise=False), "wav2vec2_base"
    )
    values = wav2vec.zero_mean_unit_variance(golden_signal())[:16_000]
    [found] = encoder.encode([values], INSIDE)
    golden = GOLDEN[variant]["last_hidden_25"]
    assert [1, *found.shape] == golden["shape"]
    np.testing.assert_allclose(found.ravel()[:16], golden["first16"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.ravel()[-4:], golden["last4"], rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(found) == pytest.approx(golden["l2"], rel=1e-4)


def test_normalisation_is_the_golden_one():
    golden = GOLDEN["normalisation"]["output"]
    np.testing.assert_allclose(
        wav2vec.zero_mean_unit_variance(golden_signal())[:16], golden["first16"], atol=1e-5
    )


@pytest.mark.parametrize("normalise", [True, False])
def test_the_checkpoint_says_whether_sound_is_normalised(normalise, tmp_path):
    torch.manual_seed(1)
    encoder = wav2vec.load_wav2vec2(
        imported(Wav2Vec2Model(configured("layer_stable")), tmp_path, normalise), "wav2vec2_base"
    )
    quiet, loud = encoder.encode([voice(6), 3 * voice(6)], INSIDE)
    assert (np.abs(quiet - loud).max() < 1e-3) == normalise


def test_a_published_file_with_a_head_and_older_names_is_the_same_net(tmp_path):
    torch.manual_seed(2)
    net = Wav2Vec2ForCTC(configured("group_postln"))
    path = imported(net, tmp_path)
    plain = wav2vec.load_wav2vec2(path, "wav2vec2_base").encode([voice(5)], INSIDE)[0]
    older = {new: old for old, new in wav2vec.RENAMED_TENSORS.items()}
    state = {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        bare = name.removeprefix("wav2vec2.")
        state[f"wav2vec2.{older[bare]}" if bare in older else name] = tensor
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in state
    assert any(name.startswith("lm_head") for name in state)
    save_file(state, tmp_path / "model.safetensors")
    renamed = wav2vec.load_wav2vec2(converted(tmp_path), "wav2vec2_base").encode([voice(5)], INSIDE)[0]
    np.testing.assert_array_equal(renamed, plain)


# --- the frame clock ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("align", ["centres", "inside"])
def test_a_click_shows_in_its_own_frame(ours, align):
    sound = 0.01 * voice(40, seed=5)
    clicks = [sound.copy() for _ in range(40)]
    for frame, clicked in enumerate(clicks):
        clicked[frame * FRAME + 320] += 0.05
    # against a click in the last frame, which moves the group norm as much
    *features, last = ours.encode(clicks, SpeechEncoderOptions(align=align, layer=0))
    for frame, found in enumerate(features[:20]):
        assert np.abs(found - last)[:20].sum(1).argmax() == frame


@pytest.mark.parametrize(("align", "error"), [("centres", 0), ("inside", -120)])
def test_the_alignment_error_is_as_stated(ours, align, error, monkeypatch):
    """Tokens that say where they are: 320 m + 200."""

    def places(batch, sounds, ahead):
        counts = [(w.frames * FRAME + ahead - 400) // 320 + 1 for w in batch]
        return [
            320 * (2 * w.start + torch.arange(n)[:, None]) + 200.0 for w, n in zip(batch, counts, strict=True)
        ]

    monkeypatch.setattr(ours, "_convolved", places)
    monkeypatch.setattr(ours, "_contextual", lambda tokens, layer: tokens)
    monkeypatch.setattr(ours, "size", 1)
    [found] = ours.encode([voice(50)], SpeechEncoderOptions(align=align, window=20, context=4))
    np.testing.assert_allclose(found[:, 0], FRAME * np.arange(50) + FRAME // 2 + error, atol=0.01)


@pytest.mark.parametrize("pair", ["layer_stable"], indirect=True)
def test_a_token_hears_its_own_400_samples_and_no_others(ours):
    """The last convolution's own view, before anything mixes tokens: 400 samples."""
    sound, reach = np.zeros(10 * FRAME, np.float32), []
    quiet = ours._convolved([wav2vec.SoundWindow(0, 0, 10, 0, 10)], [np.pad(sound, (0, 80))], 80)[0]
    for at in range(5 * FRAME - 400, 5 * FRAME + 400, 8):
        clicked = sound.copy()
        clicked[at] = 1.0
        tokens = ours._convolved([wav2vec.SoundWindow(0, 0, 10, 0, 10)], [np.pad(clicked, (0, 80))], 80)[0]
        reach += [(at, int(m)) for m in np.flatnonzero((tokens - quiet).abs().sum(1).numpy() > 1e-6)]
    assert all(0 <= at - 320 * m < 400 for at, m in reach)
    assert {at - 320 * m for at, m in reach} >= {0, 392}


# --- windows ------------------------------------------------------------------------------------------------
@given(st.integers(1, 3000), st.integers(8, 700), st.integers(0, 100))
def test_windows_keep_each_frame_once_with_its_context(frames, window, context):
    context = min(context, (window - 1) // 2)
    cut = wav2vec.plan_sound_windows(0, frames, window, context)
    assert [k for w in cut for k in range(w.first, w.last)] == list(range(frames))
    assert len({w.frames for w in cut}) == 1
    for w in cut:
        assert w.first - w.start >= min(context, w.first)
        assert w.stop - w.last >= min(context, frames - w.last)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30))
def test_batches_hold_every_window_and_no_more_than_they_may(lengths):
    cut = [w for i, n in enumerate(lengths) for w in wav2vec.plan_sound_windows(i, n, 600, 50)]
    made = list(wav2vec.batch_sound_windows(cut))
    assert sorted((w for b in made for w in b), key=repr) == sorted(cut, key=repr)
    assert all(len(b) * max(w.frames for w in b) <= wav2vec.MAX_BATCH_FRAMES for b in made)


@pytest.mark.parametrize("pair", ["layer_stable"], indirect=True)
def test_stitched_windows_are_one_pass_where_the_net_sees_no_further_than_the_context(ours):
    """Layer 0 sees 200 samples and 8 tokens of the positional convolution: 5 frames."""
    sound = voice(90)
    [whole] = ours.encode([sound], SpeechEncoderOptions(layer=0))
    [stitched] = ours.encode([sound], SpeechEncoderOptions(layer=0, window=30, context=6))
    np.testing.assert_allclose(stitched, whole, atol=1e-5)


def test_stitched_windows_are_near_one_pass_for_the_whole_net(ours):
    """Attention and group norm see a window instead of all: 5 % of a feature's spread, on this random net."""
    sound = voice(400)
    [whole] = ours.encode([sound], SpeechEncoderOptions())
    [stitched] = ours.encode([sound], SpeechEncoderOptions(window=150, context=25))
    error = np.sqrt(((stitched - whole) ** 2).mean()) / whole.std()
    assert 0 < error < 0.05


def test_sounds_do_not_change_each_other(ours):
    sounds = [voice(n, seed=n) for n in (3, 17, 8, 1, 17, 700)]
    together = ours.encode(sounds, SpeechEncoderOptions())
    for sound, found in zip(sounds, together, strict=True):
        np.testing.assert_allclose(found, ours.encode([sound], SpeechEncoderOptions())[0], atol=1e-4)


def test_silence_is_no_trouble(ours):
    [found] = ours.encode([np.zeros(4 * FRAME, np.float32)], SpeechEncoderOptions())
    assert np.isfinite(found).all()


# --- what is refused ----------------------------------------------------------------------------------------
def edited(tmp_path, **changed):
    net = Wav2Vec2Model(configured("group_postln"))
    imported(net, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return converted(tmp_path)


def test_a_config_that_names_code_is_read_for_its_sizes_only(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    path = edited(
        tmp_path, attn_implementation="somebody/kernels", _attn_implementation="somebody/kernels",
        auto_map={"AutoModel": "somebody/code--modeling.Evil"}, model_type="evil",
    )  # fmt: skip
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert wav2vec.load_wav2vec2(path, "wav2vec2_base").encode([voice(2)], INSIDE)[0].shape == (2, 32)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"intermediate_size": 96}, "6 tensors do not fit config.json.*expected .96"),
        ({"add_adapter": True}, "adapter"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "tokens of .* samples every 160"),
    ],
)
def test_a_checkpoint_that_is_not_what_it_says_is_refused(tmp_path, changed, said):
    with pytest.raises(InvalidFile, match=said):
        wav2vec.load_wav2vec2(edited(tmp_path, **changed), "wav2vec2_base")


def test_tensors_without_their_config_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InvalidFile, match=r"no config\.json came with the weights"):
        wav2vec.load_wav2vec2(tmp_path / "a.safetensors", "wav2vec2_base")


def test_what_is_no_whole_frame_or_no_layer_is_refused(ours):
    with pytest.raises(ValueError, match="641 samples: expected a multiple of 640"):
        ours.encode([np.zeros(641, np.float32)], SpeechEncoderOptions())
    with pytest.raises(InvalidSettings, match="layer 3 asked for; it has 2"):
        ours.encode([voice(1)], SpeechEncoderOptions(layer=3))
