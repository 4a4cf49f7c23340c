import pytest
import torch
from safetensors.torch import save_file

from models.errors import InvalidFile
from models.perception import NETS
from models.perception.interfaces import InferenceSettings
from models.perception.vgg19 import UNUSED_TENSORS, Vgg19Layers, load_random_vgg19, load_vgg19


@pytest.fixture(scope="module")
def random():
    return load_random_vgg19({})


@pytest.fixture(scope="module")
def published():
    """A file in torchvision's layout, its tensors empty of meaning."""
    torch.manual_seed(0)
    state = Vgg19Layers().state_dict()
    return state | {name: torch.zeros(2) for name in UNUSED_TENSORS}


def write(tmp_path, state):
    save_file(state, tmp_path / "vgg19.safetensors")
    return {"vgg19": tmp_path / "vgg19.safetensors"}


def test_layers_carry_torchvisions_names():
    convolutions = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
    names = {f"features.{i}.{kind}" for i in convolutions for kind in ("weight", "bias")}
    state = Vgg19Layers().state_dict()
    assert set(state) == names
    assert state["features.28.weight"].shape == (512, 512, 3, 3)
    assert sum(t.numel() for t in state.values()) == 12_944_960  # torchvision's up to conv5_1


def test_five_maps_each_half_the_side(random):
    maps = random.features(torch.rand(1, 3, 32, 48))
    assert [tuple(m.shape) for m in maps] == [
        (1, 64, 32, 48), (1, 128, 16, 24), (1, 256, 8, 12), (1, 512, 4, 6), (1, 512, 2, 3)
    ]  # fmt: skip
    assert all((m >= 0).all() and m.max() > 0 for m in maps)


def test_the_first_map_is_the_first_convolution_of_the_normalised_image(random):
    image = torch.rand(1, 3, 16, 16)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    first = torch.nn.Conv2d(3, 64, 3, padding=1)
    first.load_state_dict({kind: getattr(random._net.features[0], kind) for kind in ("weight", "bias")})
    torch.testing.assert_close(random.features(image)[0], first(normal).relu(), rtol=0, atol=1e-5)


def test_gradient_reaches_the_images_and_not_the_weights(random):
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    sum(m.mean() for m in random.features(image)).backward()
    assert image.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in random._net.parameters())


def test_random_weights_say_so_and_are_the_same_everywhere(random):
    torch.manual_seed(1)
    image = torch.rand(1, 3, 32, 32)
    torch.manual_seed(1)
    again = load_random_vgg19({})
    moved = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), moved)  # the run's own random numbers stay as they were
    assert again.name == random.name == "vgg19_random"
    for a, b in zip(random.features(image), again.features(image), strict=True):
        assert torch.equal(a, b)
    assert 0.05 < float(again.features(image)[4].std()) < 20  # He's scale keeps the signal alive to the end


def test_the_published_file_is_read_without_its_classifier(published, tmp_path):
    net = load_vgg19(write(tmp_path, published))
    assert net.name == "vgg19"
    assert torch.equal(net._net.features[28].bias, published["features.28.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.28.bias"), r"1 missing: features\.28\.bias"),
        (
            lambda s: s.update({"features.1.running_mean": torch.zeros(1)}),
            r"1 unknown: features\.1\.running_mean",
        ),
        (lambda s: s.update({"features.0.bias": torch.zeros(3)}), r"of another shape: features\.0\.bias"),
    ],
)
def test_another_file_is_refused_by_name(published, tmp_path, change, message):
    state = dict(published)
    change(state)
    with pytest.raises(InvalidFile, match=message):
        load_vgg19(write(tmp_path, state))


def test_told_where_to_run_it_finds_the_same(random):
    image = torch.rand(1, 3, 16, 16)
    moved = load_random_vgg19({})
    moved.configure_inference(InferenceSettings(device="cpu"))
    for a, b in zip(random.features(image), moved.features(image), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_small_images_are_refused(random):
    with pytest.raises(ValueError, match=r"\(8, 16\) pixels: vgg19_random needs 16"):
        random.features(torch.rand(1, 3, 8, 16))


def test_only_the_published_net_needs_a_file():
    assert NETS["vgg19"].weights == ("vgg19",)
    assert NETS["vgg19_random"].weights == ()
