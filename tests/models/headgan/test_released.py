"""Released weights (spec 13): names, strictness, both ways."""

from __future__ import annotations

import pytest
import torch
from msgspec import to_builtins
from msgspec.structs import replace
from safetensors.torch import save_file

from models.errors import InvalidFile, InvalidSettings
from models.headgan import released
from models.headgan.config import Architecture, DiscriminatorConfig, HeadGanConfig, official_architecture
from models.headgan.discriminator import image_discriminator, mouth_discriminator
from models.headgan.network import Generator
from models.headgan.phases import PHASES
from models.headgan.released import (
    check_weights_match_id,
    expected_shapes,
    export_released_format,
    infer_architecture,
    load_released,
    read_released_weights,
    to_our_name,
    to_published_name,
    to_published_tensors,
)
from models.perception.torch_net import tensor_shapes
from tests.models.one_pass import with_update

SIZES = DiscriminatorConfig(width=4, max_width=8, mouth_size=16)


@pytest.fixture(scope="module")
def arch(nano):
    return replace(nano, residual=True, mask=True)


@pytest.fixture(scope="module")
def section(arch):
    return HeadGanConfig(net=arch, discriminators=SIZES)


@pytest.fixture(scope="module")
def net(arch):
    whole = Generator(arch)
    whole.image_discriminator = image_discriminator(SIZES)
    whole.mouth_discriminator = mouth_discriminator(SIZES, arch.audio)
    return whole


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    folder, paths = tmp_path_factory.mktemp("released"), {}
    for name, tensors in to_published_tensors(net.state_dict()).items():
        paths[name] = folder / f"{name}.safetensors"
        save_file(tensors, paths[name])
    return paths


def test_what_is_written_is_read_back(net, files, section):
    tensors, provenance = read_released_weights(files, section)
    state = net.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert provenance["generator"] == "from headgan_vox"
    assert provenance["mouth_discriminator"] == "from headgan_vox_dm"


def test_files_hold_the_authors_names(files, golden):
    from safetensors.torch import load_file

    names = {"headgan_vox": "generator", "headgan_vox_d": "image_discriminator"}
    for weights_id, name in names.items():
        listed = dict(golden.figures["nets"][name]["full"]["state_dict"])
        assert sorted(load_file(files[weights_id])) == sorted(listed)


def test_names_go_both_ways(net):
    for name in net.state_dict():
        assert to_our_name(to_published_name(name)) == name
    assert to_our_name("a.conv_0.weight_orig") == "a.conv_0.parametrizations.weight.original"
    assert to_our_name("a.mlp_gamma.weight") == "a.mlp_gamma.weight"


def test_the_prefix_of_data_parallelism_is_taken_off(net, files, section, tmp_path):
    wrapped = {
        f"module.{name}": t for name, t in to_published_tensors(net.state_dict())["headgan_vox"].items()
    }
    path = tmp_path / "wrapped.safetensors"
    save_file(wrapped, path)
    tensors, _ = read_released_weights({"headgan_vox": path}, section)
    assert set(tensors) == {name for name in net.state_dict() if "discriminator" not in name}


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda t: t.pop("flow_network.dec_flow.1.bias"), "1 missing: flow_network.dec_flow.1.bias"),
        (lambda t: t.update({"other": torch.zeros(1)}), "1 unknown: other"),
        (lambda t: t.update({"flow_network.dec_flow.1.bias": torch.zeros(3)}), "1 of another shape"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(net, section, tmp_path, harm, told):
    tensors = to_published_tensors(net.state_dict())["headgan_vox"]
    harm(tensors)
    path = tmp_path / "harmed.safetensors"
    save_file(tensors, path)
    with pytest.raises(InvalidFile, match=told):
        read_released_weights({"headgan_vox": path}, section)


def test_the_supplements_net_refuses_official_weights(files, nano, section):
    with pytest.raises(InvalidFile, match=r"unknown: flow_network\.dec_mask\.1"):
        read_released_weights({"headgan_vox": files["headgan_vox"]}, replace(section, net=nano))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"residual": False}, r"expected net\.residual true"),
        ({"condition": "sketch"}, r"were shown NMFC, found net\.condition sketch"),
    ],
)
def test_settings_that_shapes_do_not_show_must_be_theirs_too(files, section, change, told):
    with pytest.raises(InvalidSettings, match=told):
        read_released_weights(
            {"headgan_vox": files["headgan_vox"]}, replace(section, net=replace(section.net, **change))
        )


def test_discriminators_that_a_phase_does_not_train_stay_behind(files, section):
    phase = PHASES["adversarial"]
    alone = with_update(phase, "discriminator", parts={"image_discriminator": 1.0})
    tensors, provenance = read_released_weights(files, section, alone)
    assert not [name for name in tensors if name.startswith("mouth_discriminator.")]
    assert set(provenance) == {"generator", "image_discriminator"}
    assert (
        read_released_weights(files, section, phase)[0].keys()
        == read_released_weights(files, section)[0].keys()
    )


def test_a_generator_must_be_among_the_files(files):
    with pytest.raises(InvalidSettings, match="expected headgan_vox among them"):
        read_released_weights({"headgan_vox_d": files["headgan_vox_d"]})
    with pytest.raises(InvalidSettings, match="no reader for weights fsrt_vox"):
        read_released_weights({"fsrt_vox": files["headgan_vox"]})


@pytest.mark.parametrize(
    "change", [{}, {"audio": 0}, {"mask": False}, {"flow": False, "mask": False}, {"spectral": False}]
)
def test_shapes_show_the_variant(arch, change):
    wanted = replace(arch, **change)
    like = replace(official_architecture(), image_size=16, width=2, hidden=4)
    assert infer_architecture(Generator(wanted).state_dict(), like) == wanted


# --- for inference, and out again ---------------------------------------------------------------------------
@pytest.fixture
def published_size(tmp_path):
    """Files as large as the released ones, of zeros."""
    paths = {}
    for name in ("headgan_vox", "headgan_vox_dm"):
        wanted = expected_shapes(name, official_architecture(), DiscriminatorConfig()).items()
        tensors = {
            to_published_name(one).removeprefix("mouth_discriminator."): torch.zeros(s) for one, s in wanted
        }
        paths[name] = tmp_path / f"{name}.safetensors"
        save_file(tensors, paths[name])
    return paths


@pytest.mark.slow
def test_an_imported_file_is_what_its_id_says(published_size):
    for name, path in published_size.items():
        check_weights_match_id(name, path)
    with pytest.raises(InvalidFile, match="this is not headgan_vox_d: tensors"):
        check_weights_match_id("headgan_vox_d", published_size["headgan_vox_dm"])
    with pytest.raises(InvalidFile, match="this is not headgan_vox: tensors"):
        check_weights_match_id("headgan_vox", published_size["headgan_vox_dm"])
    made = load_released(published_size)
    assert Architecture(**made.metadata["architecture"]) == official_architecture()
    assert made.metadata["provenance"] == {"generator": "from headgan_vox", "tokens": "transcripts"}
    assert tensor_shapes(Generator(official_architecture())) == {
        name: tuple(tensor.shape) for name, tensor in made.tensors.items()
    }


@pytest.mark.parametrize(("audio", "tokens"), [(300, {"tokens": "transcripts"}), (0, {})])
def test_released_nets_that_hear_say_that_they_learned_with_letters(
    arch, tmp_path, monkeypatch, audio, tokens
):
    monkeypatch.setattr(released, "official_architecture", lambda: arch)
    own = Generator(replace(arch, audio=audio))
    save_file(to_published_tensors(own.state_dict())["headgan_vox"], tmp_path / "g.safetensors")
    made = load_released({"headgan_vox": tmp_path / "g.safetensors"})
    assert made.metadata["provenance"] == {"generator": "from headgan_vox"} | tokens


def test_a_checkpoint_is_written_as_the_authors_files(net, arch, section, tmp_path):
    about = {"architecture": to_builtins(arch), "phase": "decay"}
    paths = export_released_format(net.state_dict(), about, tmp_path / "out")
    assert [path.name for path in paths] == ["latest_net_G.pth", "latest_net_D.pth", "latest_net_Dm.pth"]
    theirs = torch.load(paths[0], weights_only=True)
    assert "flow_network.dec_res.0.conv_0.weight_orig" in theirs
    again = {}
    for path, name in zip(paths, ("headgan_vox", "headgan_vox_d", "headgan_vox_dm"), strict=True):
        again[name] = tmp_path / f"{name}.safetensors"
        save_file(torch.load(path, weights_only=True), again[name])
    tensors, _ = read_released_weights(again, section)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in net.state_dict().items())
    with pytest.raises(InvalidSettings, match="would be overwritten"):
        export_released_format(net.state_dict(), about, tmp_path / "out")


def test_half_a_checkpoint_is_not_written(net, arch, tmp_path):
    tensors = {name: t for name, t in net.state_dict().items() if not name.startswith("flow_network.enc.0")}
    with pytest.raises(InvalidFile, match="the checkpoint of phase decay is not whole: tensors 5 missing"):
        export_released_format(tensors, {"architecture": to_builtins(arch), "phase": "decay"}, tmp_path)
    with pytest.raises(InvalidFile, match="names no architecture"):
        export_released_format(tensors, {}, tmp_path)
