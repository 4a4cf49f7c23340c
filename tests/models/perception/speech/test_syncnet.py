"""The net in its published layout: against figures of the authors' module, on the frame clock, as a loss."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.errors import InvalidFile
from models.perception import NETS
from models.perception.interfaces import InferenceSettings
from models.perception.speech.mfcc import mfcc
from models.perception.speech.syncnet import (
    SyncNet,
    SyncNetLayers,
    count_windows,
    load_syncnet,
    speech_coefficients,
)
from models.weights import find_third_party_weights
from storage.weights_import import convert_checkpoint_to_safetensors
from tests.formula_states import chirp_state, sine_input, wave_state

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "syncnet.json").read_text())


def layers(state):
    net = SyncNetLayers()
    net.load_state_dict(state(net.state_dict()))
    return net


@pytest.fixture(scope="module")
def net():
    return SyncNet(layers(chirp_state))


def test_layers_have_the_papers_size_and_the_published_names():
    state = SyncNetLayers().state_dict()
    assert len(state) == 102
    assert sum(p.numel() for p in SyncNetLayers().parameters()) == 13_631_616
    assert state["netcnnlip.0.weight"].shape == (96, 3, 5, 7, 7)
    assert state["netcnnaud.18.weight"].shape == (512, 256, 5, 4)
    assert state["netfclip.3.weight"].shape == state["netfcaud.3.weight"].shape == (1024, 512)


@pytest.mark.parametrize(
    ("figures", "state", "rtol"),
    [
        ("syncnet", wave_state, 1e-4),
        ("syncnet_chirp", chirp_state, 1e-4),
        # Values of some thousands of which single ones are what is left of larger sums.
        ("syncnet_scaled", lambda shapes: wave_state(shapes, scaled=True), 1e-3),
    ],
)
@torch.no_grad()
def test_embeddings_are_those_of_the_authors_module(figures, state, rtol):
    # Through the interface: RGB in [0,1] becomes the BGR in 0..255 that the figures' input is.
    net = SyncNet(layers(state))
    lips = net.embed_lips(sine_input(1, 3, 5, 224, 224, phase=0.3).transpose(1, 2).flip(2))
    cepstra = (20 * sine_input(2, 13, 20, phase=0.6) - 10).transpose(1, 2)
    for found, name in ((lips[:, 0], "lip_out"), (net.embed_speech(cepstra)[:, 0], "aud_out")):
        golden = GOLDEN[figures][name]
        assert list(found.shape) == golden["shape"]
        np.testing.assert_allclose(found.flatten()[:16], golden["first16"], rtol=rtol, atol=1e-5)
        np.testing.assert_allclose(found.flatten()[-4:], golden["last4"], rtol=rtol, atol=1e-5)
        assert found.norm().item() == pytest.approx(golden["l2"], rel=rtol)


@torch.no_grad()
def test_a_longer_clip_is_its_windows_one_after_another(net):
    faces = torch.rand(1, 7, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    together = net.embed_lips(faces)
    assert together.shape == (1, 3, 1024)
    for start in range(3):
        torch.testing.assert_close(
            together[:, start : start + 1], net.embed_lips(faces[:, start : start + 5]), rtol=1e-3, atol=1e-3
        )


@torch.no_grad()
def test_windows_of_sound_begin_every_four_columns(net):
    cepstra = torch.randn(1, 39, 13, generator=torch.Generator().manual_seed(2))
    together = net.embed_speech(cepstra)
    assert together.shape == (1, 5, 1024)
    torch.testing.assert_close(together[:, 2:3], net.embed_speech(cepstra[:, 8:28]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frames", [6, 9, 100])
def test_sound_of_a_clip_has_as_many_windows_as_the_authors_evaluation_takes(net, frames):
    cepstra = speech_coefficients(np.zeros(640 * frames, np.float32))
    assert (len(cepstra) - 20) // 4 + 1 == count_windows(frames, 640 * frames) == frames - 5


def test_shorter_sound_or_fewer_frames_leave_fewer_windows():
    assert count_windows(100, 640 * 50 + 639) == 45
    assert count_windows(50, 640 * 100) == 45
    assert count_windows(5, 640 * 5) == count_windows(0, 0) == 0


def test_sound_is_read_as_the_integers_that_it_was():
    integers = np.array([-32_768, -1, 0, 1, 12_345, 32_767] * 200, np.int16)
    sound = (integers / 32_768).astype(np.float32)
    np.testing.assert_array_equal(speech_coefficients(sound), mfcc(integers).astype(np.float32))


def test_gradient_reaches_faces_and_sound_and_no_weight(net):
    faces = torch.rand(1, 5, 3, 224, 224, requires_grad=True)
    cepstra = torch.randn(1, 20, 13, requires_grad=True)
    (net.embed_lips(faces) - net.embed_speech(cepstra)).square().mean().backward()
    assert faces.grad.abs().sum() > 0
    assert cepstra.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in net._net.parameters())


def test_the_published_file_is_imported_and_read_as_it_is(tmp_path, net):
    """A plain state dict in torch's format, its counters included."""
    published = tmp_path / find_third_party_weights("syncnet").file
    torch.save(chirp_state(SyncNetLayers().state_dict()), published)
    convert_checkpoint_to_safetensors(published, tmp_path / "imported.safetensors", [])
    loaded = load_syncnet({"syncnet": tmp_path / "imported.safetensors"})
    cepstra = torch.randn(1, 20, 13)
    assert torch.equal(loaded.embed_speech(cepstra), net.embed_speech(cepstra))
    assert NETS["syncnet"].weights == ("syncnet",)


def test_another_nets_file_is_refused_by_its_tensors(tmp_path):
    state = chirp_state(SyncNetLayers().state_dict())
    state.pop("netfcaud.3.bias")
    save_file(state | {"decoder.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InvalidFile, match=r"1 missing: netfcaud\.3\.bias; 1 unknown: decoder\.weight"):
        load_syncnet({"syncnet": tmp_path / "other.safetensors"})


def test_too_few_frames_or_columns_are_refused(net):
    with pytest.raises(ValueError, match=r"faces \(1, 4, 3, 224, 224\)"):
        net.embed_lips(torch.zeros(1, 4, 3, 224, 224))
    with pytest.raises(ValueError, match=r"MFCC \(1, 19, 13\)"):
        net.embed_speech(torch.zeros(1, 19, 13))


def test_it_runs_where_it_is_configured_to(net):
    net.configure_inference(InferenceSettings(device="cpu"))
    assert net.device == torch.device("cpu")
