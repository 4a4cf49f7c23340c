import torch
from torch.nn import functional as F

from models.fsrt.config import tiny_architecture
from models.fsrt.keypoints import ExpressionExtractor, KeypointDetector, heatmap_cell_coordinates, soft_argmax


def test_expression_equals_the_published_order_of_operations(nano):
    """Convolve with 7x7, multiply by the heatmap, sum over cells: what the paper does."""
    torch.manual_seed(0)
    net = ExpressionExtractor(nano).double()
    features = torch.randn(2, nano.detector.feature_channels, 16, 16).double()
    heatmap = torch.rand(2, 10, 10, 10).double()
    maps = net.expression(features).unflatten(1, (10, -1))
    read = (maps * heatmap.unsqueeze(2)).sum((3, 4)).flatten(1)
    torch.testing.assert_close(net(features, heatmap), net.expression_mlp(read), rtol=0, atol=1e-12)


def test_a_heatmap_with_one_hot_cell_gives_that_cell():
    heatmap = torch.zeros(1, 1, 10, 10)
    heatmap[0, 0, 2, 7] = 1
    axis = heatmap_cell_coordinates(10, heatmap)
    assert soft_argmax(heatmap)[0, 0].tolist() == [axis[7].item(), axis[2].item()]  # x from the column
    assert axis[0] == -1
    assert F.l1_loss(axis[9], torch.tensor(1.0)) < 1e-6


def test_shapes(nano):
    net = KeypointDetector(nano.detector)
    keypoints, features, heatmap = net(torch.rand(2, 3, 64, 64))
    assert keypoints.shape == (2, 10, 2)
    assert features.shape == (2, nano.detector.feature_channels, 16, 16)
    assert heatmap.shape == (2, 10, nano.detector.heatmap_size, nano.detector.heatmap_size)
    torch.testing.assert_close(heatmap.sum((2, 3)), torch.ones(2, 10))


def test_detector_and_expression_stay_in_float32_under_autocast():
    """In bf16 keypoints would move by up to a pixel or two."""
    torch.manual_seed(0)
    net = tiny_architecture()
    detector, extractor = KeypointDetector(net.detector).eval(), ExpressionExtractor(net)
    images = torch.rand(2, 3, net.detector.size, net.detector.size)
    keypoints, features, heatmap = detector(images)
    expression = extractor(features, heatmap)
    with torch.autocast("cpu", torch.bfloat16):
        found = detector(images)
        told = extractor(*found[1:])
    assert torch.equal(found[0], keypoints)
    assert torch.equal(told, expression)
