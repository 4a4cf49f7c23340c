import pytest
import torch
from safetensors.torch import save_file

from models.errors import InvalidFile
from models.perception.vgg16 import Vgg16Layers, check_weights_match_id, load_vgg16_layers
from tests.formula_nets import noise_state


@pytest.fixture(scope="module")
def published():
    """A file in torchvision's layout: its classifier's tensors are empty of meaning."""
    classifier = {f"classifier.{i}.{kind}": torch.zeros(2) for i in (0, 3, 6) for kind in ("weight", "bias")}
    return noise_state(Vgg16Layers) | classifier


def test_layers_carry_torchvisions_names():
    state = Vgg16Layers().state_dict()
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert set(state) == {f"features.{i}.{kind}" for i in convolutions for kind in ("weight", "bias")}
    assert sum(tensor.numel() for tensor in state.values()) == 14_714_688  # torchvision's convolutions


def test_five_maps_each_the_last_of_its_size(published, tmp_path):
    save_file(published, tmp_path / "vgg16.safetensors")
    net, image = load_vgg16_layers(tmp_path / "vgg16.safetensors"), torch.rand(1, 3, 32, 48)
    maps = net(image)
    assert [tuple(m.shape) for m in maps] == [
        (1, 64, 32, 48), (1, 128, 16, 24), (1, 256, 8, 12), (1, 512, 4, 6), (1, 512, 2, 3)
    ]  # fmt: skip
    assert torch.equal(maps[1], net.features[:9](image))
    assert torch.equal(maps[4], net.features(image))


def test_another_nets_file_is_refused_by_name(published, tmp_path):
    save_file(published | {"features.34.bias": torch.zeros(512)}, tmp_path / "vgg19.safetensors")
    with pytest.raises(InvalidFile, match=r"weights vgg16 do not fit.*1 unknown: features\.34\.bias"):
        check_weights_match_id("vgg16", tmp_path / "vgg19.safetensors")
