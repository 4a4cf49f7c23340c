"""The expert in its published layout: against figures of the authors' module, and its mel spectrogram by what
it is made of."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import InvalidFile
from models.perception.speech.wav2lip_expert import (
    Wav2LipExpert,
    Wav2LipExpertLayers,
    first_mel_column,
    load_wav2lip_expert,
    mel_spectrogram,
    slaney_mel_filters,
)
from models.weights import find_third_party_weights
from storage.weights_import import convert_checkpoint_to_safetensors
from tests.formula_states import sine_input, wave_state

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "syncnet.json").read_text())
FIGURES = GOLDEN["wav2lip_expert_scaled"]


@pytest.fixture(scope="module")
def expert():
    net = Wav2LipExpertLayers()
    net.load_state_dict(wave_state(net.state_dict(), scaled=True))
    return Wav2LipExpert(net)


def tone(hertz, seconds=1.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(16_000 * seconds)) / 16_000)).astype(np.float32)


def test_layers_have_the_published_size():
    assert sum(p.numel() for p in Wav2LipExpertLayers().parameters()) == 16_435_072


@torch.no_grad()
def test_embeddings_are_those_of_the_authors_module(expert):
    """Of the first face rounding alone moves single numbers by .002 and the cosine by .007: float64 has .0912
    where the figures' float32 has .0983."""
    stacked = sine_input(2, 15, 48, 96, phase=0.3)
    faces = expert.embed_lips(stacked.unflatten(1, (5, 3)).flip(2))
    sound = expert.embed_speech(8 * sine_input(2, 80, 16, phase=0.6) - 4)
    np.testing.assert_allclose(sound.flatten()[:16], FIGURES["audio"]["first16"], atol=1e-4)
    np.testing.assert_allclose(sound.flatten()[-4:], FIGURES["audio"]["last4"], atol=1e-4)
    np.testing.assert_allclose(faces.flatten()[:16], FIGURES["face"]["first16"], atol=5e-3)
    np.testing.assert_allclose(faces.flatten()[-4:], FIGURES["face"]["last4"], atol=1e-3)
    cosines = (faces * sound).sum(1)
    np.testing.assert_allclose(cosines, FIGURES["cosine"], atol=1e-2)
    np.testing.assert_allclose(cosines[1], FIGURES["cosine"][1], atol=2e-3)


def test_gradient_reaches_faces_and_sound_and_no_weight(expert):
    faces = torch.rand(1, 5, 3, 48, 96, requires_grad=True)
    mel = torch.rand(1, 80, 16, requires_grad=True)
    (expert.embed_lips(faces) * expert.embed_speech(mel)).sum().backward()
    assert faces.grad.abs().sum() > 0
    assert mel.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in expert._net.parameters())


def test_the_published_file_is_imported_without_its_optimizer(tmp_path, expert):
    entry = find_third_party_weights("wav2lip_expert")
    state = wave_state(Wav2LipExpertLayers().state_dict(), scaled=True)
    step = {name: torch.zeros_like(tensor) for name, tensor in list(state.items())[:2]}
    torch.save(
        {"state_dict": state, "optimizer": {"state": {0: step}}, "global_step": 5, "global_epoch": 1},
        tmp_path / entry.file,
    )
    convert_checkpoint_to_safetensors(
        tmp_path / entry.file, tmp_path / "imported.safetensors", [], entry.drop_prefixes
    )
    loaded = load_wav2lip_expert({"wav2lip_expert": tmp_path / "imported.safetensors"})
    mel = torch.rand(1, 80, 16)
    assert torch.equal(loaded.embed_speech(mel), expert.embed_speech(mel))


def test_another_nets_file_is_refused(tmp_path):
    torch.save({"state_dict": {"face_encoder.0.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(InvalidFile, match="weights wav2lip_expert do not fit"):
        load_wav2lip_expert({"wav2lip_expert": tmp_path / "other.pth"})


def test_inputs_of_another_size_are_refused(expert):
    with pytest.raises(ValueError, match=r"faces .*expected \(B,5,3,48,96\)"):
        expert.embed_lips(torch.zeros(1, 5, 3, 96, 96))
    with pytest.raises(ValueError, match=r"mel .*expected \(B,80,16\)"):
        expert.embed_speech(torch.zeros(1, 80, 15))


# --- mel spectrogram ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("hertz", [200, 1000, 4000])
def test_a_tone_is_loudest_in_the_band_about_it(hertz):
    bands = mel_spectrogram(tone(hertz))[:, 40]
    weights = slaney_mel_filters()[bands.argmax()]
    about = (weights * np.arange(401) * 20).sum() / weights.sum()
    assert about == pytest.approx(hertz, rel=0.1)


def test_bands_have_area_one_and_slaneys_scale_is_linear_below_a_thousand_hertz():
    filters = slaney_mel_filters()
    np.testing.assert_allclose(filters[20:].sum(1) * 20, 1, rtol=0.1)
    centres = (filters[40:] * np.arange(401) * 20).sum(1) / filters[40:].sum(1)
    ratios = centres[1:] / centres[:-1]  # above it, each is the same factor higher
    assert ratios.std() < 0.01


def test_silence_is_the_least_value_and_columns_come_every_twelve_and_a_half_milliseconds():
    mel = mel_spectrogram(np.zeros(3_200, np.float32))
    assert mel.shape == (80, 17)
    assert (mel == -4).all()


def test_sound_of_a_fifth_of_a_second_is_a_window():
    assert [first_mel_column(frame) for frame in (0, 1, 5, 10)] == [0, 3, 16, 32]
