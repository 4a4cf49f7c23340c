import pytest
import torch
from safetensors.torch import save_file

from models.errors import InvalidFile
from models.perception.alexnet import AlexNetLayers, check_weights_match_id, load_alexnet_layers
from tests.formula_nets import lpips_alex_states


@pytest.fixture(scope="module")
def published():
    """A file in torchvision's layout: its classifier's tensors are empty of meaning."""
    classifier = {f"classifier.{i}.{kind}": torch.zeros(2) for i in (1, 4, 6) for kind in ("weight", "bias")}
    return lpips_alex_states()[0] | classifier


def test_layers_carry_torchvisions_names_and_shapes():
    state = AlexNetLayers().state_dict()
    assert set(state) == {f"features.{i}.{kind}" for i in (0, 3, 6, 8, 10) for kind in ("weight", "bias")}
    assert state["features.3.weight"].shape == (192, 64, 5, 5)
    assert sum(tensor.numel() for tensor in state.values()) == 2_469_696


@pytest.mark.parametrize(("side", "sides"), [(256, (63, 31, 15, 15, 15)), (31, (7, 3, 1, 1, 1))])
def test_a_map_after_every_relu(side, sides):
    maps = AlexNetLayers()(torch.rand(1, 3, side, side))
    widths = (64, 192, 384, 256, 256)
    assert [tuple(m.shape) for m in maps] == [(1, c, s, s) for c, s in zip(widths, sides, strict=True)]
    assert all(m.min() >= 0 for m in maps)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_the_published_file_is_read_without_its_classifier(published, tmp_path, kind):
    path = tmp_path / f"alexnet.{kind}"
    save_file(published, path) if kind == "safetensors" else torch.save(published, path)
    assert torch.equal(load_alexnet_layers(path).features[10].bias, published["features.10.bias"])


def test_another_nets_file_is_refused_by_name(published, tmp_path):
    changed = {name: tensor for name, tensor in published.items() if name != "features.10.bias"}
    save_file(changed, tmp_path / "other.safetensors")
    with pytest.raises(InvalidFile, match=r"weights alexnet do not fit.*1 missing: features\.10\.bias"):
        check_weights_match_id("alexnet", tmp_path / "other.safetensors")
