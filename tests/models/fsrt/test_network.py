import pytest
import torch
from msgspec.structs import replace
from torch.nn import functional as F

from models.fsrt.network import Decoder, Encoder, convolve_constant_input


@pytest.fixture
def scene(nano):
    torch.manual_seed(0)
    return {
        "images": torch.rand(1, 2, 3, 16, 16, dtype=torch.float64),
        "keypoints": torch.rand(1, 2, 10, 2, dtype=torch.float64) - 0.5,
        "expression": torch.randn(1, 2, nano.expression_size, dtype=torch.float64),
    }


def test_constant_inputs_equal_a_convolution_over_constant_maps():
    torch.manual_seed(0)
    weight, constant = torch.randn(5, 7, 3, 3).double(), torch.randn(2, 7).double()
    maps = constant[..., None, None].expand(-1, -1, 6, 4)
    expected = F.conv2d(maps, weight, padding=1)
    torch.testing.assert_close(convolve_constant_input(weight, constant, 6, 4), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_sources_see_each_other_only_when_encoded_jointly(nano, scene):
    alone = {name: tensor[:, :1] for name, tensor in scene.items()}
    for attention, equal in (("joint", False), ("per_image", True)):
        torch.manual_seed(1)
        encoder = Encoder(replace(nano, encoder_attention=attention)).double()
        assert (
            torch.allclose(encoder(**scene)[:, : nano.tokens_per_source], encoder(**alone), atol=1e-12)
            == equal
        )


@torch.no_grad()
def test_the_order_of_sources_does_not_matter(nano, scene):
    torch.manual_seed(1)
    encoder, decoder = Encoder(nano).double(), Decoder(nano).double()
    swapped = {name: tensor.flip(1) for name, tensor in scene.items()}
    k, e = scene["keypoints"][:, 0], scene["expression"][:, 0]
    images = [decoder.render_image(encoder(**s), 16, k, e) for s in (scene, swapped)]
    torch.testing.assert_close(images[0], images[1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_balanced_weights_let_the_picture_through(nano):
    def spread(initial: str) -> float:
        torch.manual_seed(2)
        encoder = Encoder(replace(nano, initial=initial))
        images = torch.rand(8, 1, 3, 16, 16)
        z = encoder(images, torch.zeros(8, 1, 10, 2), torch.zeros(8, 1, nano.expression_size))
        return float(z.std(dim=0).mean())

    assert spread("balanced") > 5 * spread("torch")
