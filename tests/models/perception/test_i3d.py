"""I3D in its published layout: sizes, padding against a slow check, and what is refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from models.errors import InvalidFile
from models.perception.i3d import (
    MIXED,
    I3d,
    I3dLayers,
    Unit3d,
    load_i3d,
    max_pool_same,
    pad_same,
)
from models.weights import find_third_party_weights
from storage.weights_import import convert_checkpoint_to_safetensors
from tests.formula_states import chirp_state

CLIP = (1, 9, 3, 193, 193)
"""The smallest that goes through."""


@pytest.fixture(scope="module")
def state():
    return chirp_state(I3dLayers().state_dict())


@pytest.fixture(scope="module")
def net(state):
    layers = I3dLayers()
    layers.load_state_dict(state)
    return I3d(layers)


def clip(seed=0, shape=CLIP):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_layers_have_the_published_names_and_size():
    state = I3dLayers().state_dict()
    assert len(state) == 344
    assert sum(p.numel() for p in I3dLayers().parameters()) == 12_697_264
    assert state["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert state["Mixed_4f.b2b.bn.running_var"].shape == (128,)
    assert state["Mixed_5c.b3b.conv3d.weight"].shape == (128, 832, 1, 1, 1)
    assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)
    assert [widths.out for widths in MIXED.values()] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


@pytest.mark.parametrize("sides", [(4, 6, 7), (5, 5, 8)])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1), (2, 2)])
def test_a_convolution_has_the_sum_of_what_lies_under_each_position(sides, kernel, stride):
    """TensorFlow's SAME, one position at a time: output o looks from stride o - front on, front being half of
    what is missing, rounded down; outside there is nothing."""
    unit = Unit3d(1, 1, kernel, stride)
    x = clip(1, (1, 1, *sides)).double() + 0.1
    weight = unit.conv3d.weight.detach().double()
    found = functional.conv3d(pad_same(x, (kernel,) * 3, (stride,) * 3), weight, stride=stride)
    out = [-(-side // stride) for side in sides]
    assert list(found.shape[2:]) == out
    front = [max((n - 1) * stride + kernel - side, 0) // 2 for n, side in zip(out, sides, strict=True)]
    for at in np.ndindex(*out):
        expected = 0.0
        for tap in np.ndindex(kernel, kernel, kernel):
            place = [stride * o - f + k for o, f, k in zip(at, front, tap, strict=True)]
            if all(0 <= p < side for p, side in zip(place, sides, strict=True)):
                expected += (x[(0, 0, *place)] * weight[(0, 0, *tap)]).item()
        assert found[(0, 0, *at)].item() == pytest.approx(expected, abs=1e-9)


def test_a_pool_has_the_largest_of_what_lies_under_each_position():
    x = clip(2, (1, 1, 4, 7, 6))
    found = max_pool_same(x, (1, 3, 3), (1, 2, 2))
    assert found.shape == (1, 1, 4, 4, 3)
    # 7 pixels: one zero before and after; 6 pixels: one after.
    assert found[0, 0, 1, 0, 0] == x[0, 0, 1, 0:2, 0:3].max()
    assert found[0, 0, 1, 3, 2] == x[0, 0, 1, 5:7, 4:6].max()


@torch.no_grad()
def test_a_clip_has_four_hundred_logits_that_depend_on_the_order_of_its_frames(net):
    brightening = torch.linspace(0, 1, 9).view(1, 9, 1, 1, 1).expand(CLIP)
    forward, backward = net.logits(brightening), net.logits(brightening.flip(1))
    assert forward.shape == (1, 400)
    assert torch.isfinite(forward).all()
    assert (forward - backward).abs().max() > 5e-3 * forward.std()


@torch.no_grad()
def test_clips_of_a_batch_do_not_change_each_other(net):
    together = net.logits(torch.cat([clip(3), clip(4)]))
    torch.testing.assert_close(together[:1], net.logits(clip(3)), rtol=1e-3, atol=1e-3)


def test_the_published_file_is_imported_and_read_as_it_is(tmp_path, state, net):
    published = tmp_path / find_third_party_weights("i3d_k400").file
    torch.save(state, published)
    convert_checkpoint_to_safetensors(published, tmp_path / "imported.safetensors", [])
    loaded = load_i3d({"i3d_k400": tmp_path / "imported.safetensors"})
    for name, tensor in loaded._net.state_dict().items():
        assert torch.equal(tensor, net._net.state_dict()[name]), name


def test_another_nets_file_is_refused_by_its_tensors(tmp_path, state):
    other = {name.replace("logits", "head"): tensor for name, tensor in state.items()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(InvalidFile, match=r"2 missing: logits\.conv3d\.weight.*2 unknown: head\.conv3d"):
        load_i3d({"i3d_k400": tmp_path / "other.safetensors"})


@pytest.mark.parametrize("shape", [(1, 8, 3, 224, 224), (1, 16, 3, 192, 224)])
def test_a_shorter_or_smaller_clip_is_refused(net, shape):
    with pytest.raises(ValueError, match="needs 9 frames and 193 pixels"):
        net.logits(torch.zeros(shape))
