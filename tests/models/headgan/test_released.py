"""Released weights (spec 13): names, strictness, both ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from models.headgan.config import Judges, official
from models.headgan.discriminator import image_discriminator, mouth_discriminator
from models.headgan.network import Generator
from models.headgan.released import architecture_of, our_name, published, read, their_name

SIZES = Judges(width=4, max_width=8)


@pytest.fixture
def arch(nano):
    return replace(nano, residual=True, mask=True)


@pytest.fixture
def net(arch):
    whole = Generator(arch)
    whole.image_discriminator = image_discriminator(SIZES)
    whole.mouth_discriminator = mouth_discriminator(SIZES, arch.audio)
    return whole


@pytest.fixture
def files(net, tmp_path):
    paths = {}
    for name, tensors in published(net.state_dict()).items():
        paths[name] = tmp_path / f"{name}.safetensors"
        save_file(tensors, paths[name])
    return paths


def test_what_is_written_is_read_back(net, files, arch):
    tensors, labels = read(files, arch, SIZES)
    state = net.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert labels["generator"] == "from headgan_vox"
    assert labels["mouth_discriminator"] == "from headgan_vox_dm"


def test_files_hold_the_authors_names(files, golden):
    from safetensors.torch import load_file

    names = {"headgan_vox": "generator", "headgan_vox_d": "image_discriminator"}
    for weights_id, name in names.items():
        listed = dict(golden.figures["nets"][name]["full"]["state_dict"])
        assert sorted(load_file(files[weights_id])) == sorted(listed)


def test_names_go_both_ways(net):
    for name in net.state_dict():
        assert our_name(their_name(name)) == name
    assert our_name("a.conv_0.weight_orig") == "a.conv_0.parametrizations.weight.original"
    assert our_name("a.mlp_gamma.weight") == "a.mlp_gamma.weight"


def test_the_prefix_of_data_parallelism_is_taken_off(net, files, arch, tmp_path):
    wrapped = {f"module.{name}": t for name, t in published(net.state_dict())["headgan_vox"].items()}
    path = tmp_path / "wrapped.safetensors"
    save_file(wrapped, path)
    tensors, _ = read({"headgan_vox": path}, arch, SIZES)
    assert set(tensors) == {name for name in net.state_dict() if "discriminator" not in name}


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda t: t.pop("flow_network.dec_flow.1.bias"), "1 missing: flow_network.dec_flow.1.bias"),
        (lambda t: t.update({"other": torch.zeros(1)}), "1 unknown: other"),
        (lambda t: t.update({"flow_network.dec_flow.1.bias": torch.zeros(3)}), "1 of another shape"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(net, arch, tmp_path, harm, told):
    tensors = published(net.state_dict())["headgan_vox"]
    harm(tensors)
    path = tmp_path / "harmed.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match=told):
        read({"headgan_vox": path}, arch, SIZES)


def test_the_supplements_net_refuses_official_weights(files, nano):
    with pytest.raises(ValueError, match=r"unknown: flow_network\.dec_mask\.1"):
        read({"headgan_vox": files["headgan_vox"]}, nano, SIZES)


def test_a_net_whose_blocks_do_not_add_their_input_refuses_them_too(files, arch):
    with pytest.raises(ValueError, match=r"expected net\.residual true"):
        read({"headgan_vox": files["headgan_vox"]}, replace(arch, residual=False), SIZES)


def test_a_generator_must_be_among_the_files(files):
    with pytest.raises(ValueError, match="expected headgan_vox among them"):
        read({"headgan_vox_d": files["headgan_vox_d"]})
    with pytest.raises(ValueError, match="no reader for weights fsrt_vox"):
        read({"fsrt_vox": files["headgan_vox"]})


@pytest.mark.parametrize(
    "change", [{}, {"audio": 0}, {"mask": False}, {"flow": False, "mask": False}, {"spectral": False}]
)
def test_shapes_show_the_variant(arch, change):
    wanted = replace(arch, **change)
    like = replace(official(), image_size=16, width=2, hidden=4)
    assert architecture_of(Generator(wanted).state_dict(), like) == wanted
