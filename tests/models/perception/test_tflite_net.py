import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import InvalidFile
from models.perception.faces.blazeface import FULL_RANGE_NET, SHORT_RANGE_NET
from models.perception.faces.face_mesh import IRIS_NET, MESH_NET
from models.perception.tflite_net import TorchTfliteNet

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/embedded_nets.json").read_text())
NETS = {
    "mp_face_short": ("face_detection_short_range", SHORT_RANGE_NET),
    "mp_face_full": ("face_detection_full_range", FULL_RANGE_NET),
    "mp_mesh468": ("face_landmark", MESH_NET),
    "mp_iris": ("iris_landmark", IRIS_NET),
}
TOLERANCE = 2e-4


@pytest.fixture(scope="module", params=NETS)
def net(request, mediapipe_weights):
    """Id, figures and net of each file."""
    name, signature = NETS[request.param]
    return request.param, GOLDEN[name], TorchTfliteNet(mediapipe_weights[request.param], signature)


def net_input(weights_id, image):
    return 2 * image - 1 if weights_id.startswith("mp_face") else image


def test_the_outputs_are_those_of_googles_runtime(net, wave_image):
    weights_id, golden, module = net
    found = module(net_input(weights_id, wave_image(golden["side"])))
    for values, expected in zip(found, golden["outputs"].values(), strict=True):
        flat = values.flatten().double().numpy()
        assert len(flat) == expected["n"]
        np.testing.assert_allclose(flat[: len(expected["first"])], expected["first"], atol=TOLERANCE)
        np.testing.assert_allclose(flat[-len(expected["last"]) :], expected["last"], atol=TOLERANCE)
        np.testing.assert_allclose(
            [flat.mean(), flat.min(), flat.max()],
            [expected[name] for name in ("mean", "min", "max")],
            atol=TOLERANCE,
        )
        assert np.linalg.norm(flat) == pytest.approx(expected["norm"], rel=1e-5)


def test_an_image_does_not_change_the_others_of_its_batch(net, wave_image):
    weights_id, golden, module = net
    image = net_input(weights_id, wave_image(golden["side"]))
    batch = torch.cat([image.roll(3 * n, 3) for n in range(5)])
    for together, alone in zip(
        module(batch), zip(*(module(one[None]) for one in batch), strict=True), strict=True
    ):
        torch.testing.assert_close(together, torch.cat(alone), atol=TOLERANCE, rtol=0)


def test_gradient_reaches_the_pixels_and_no_weight(net, wave_image):
    weights_id, golden, module = net
    image = net_input(weights_id, wave_image(golden["side"])).requires_grad_()
    sum(one.square().mean() for one in module.module(image)).backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().max() > 0
    assert all(weight.grad is None for weight in module.module.parameters())


@pytest.mark.parametrize(
    ("operator", "stride", "told"),
    [(0, 1, r"its operators give \(\(2, 2, 1404\)"), (2, 2, "its operators do not fit together: .*96")],
)
def test_operators_that_do_not_fit_together_are_refused(edited_file, operator, stride, told):
    """The first convolution; and one beside a shortcut."""

    def edit(model):
        options = model.subgraphs[0].operators[operator].builtinOptions
        assert options.strideH != stride
        options.strideH = options.strideW = stride

    with pytest.raises(InvalidFile, match=rf"edited\.tflite: {told}"):
        TorchTfliteNet(edited_file(edit), MESH_NET)


def test_a_gpu_is_asked_for_all_bits_of_float32_while_the_net_runs(mediapipe_weights, wave_image):
    net = TorchTfliteNet(mediapipe_weights["mp_iris"], IRIS_NET)
    asked = []
    net.module.register_forward_hook(lambda *_: asked.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    net(wave_image(64))
    assert asked == [False]
    assert torch.backends.cudnn.allow_tf32 is before


def test_images_that_get_a_gradient_pass_at_once(mediapipe_weights):
    net, passes = TorchTfliteNet(mediapipe_weights["mp_mesh468"], MESH_NET), []
    net.module.register_forward_hook(lambda _, given, __: passes.append(len(given[0])))
    images = torch.rand(3, 3, 192, 192, generator=torch.manual_seed(0))
    alone = net(images)[0]
    together = net(images.clone().requires_grad_())[0]
    assert passes == [1, 1, 1, 3]
    torch.testing.assert_close(together.detach(), alone, atol=TOLERANCE, rtol=0)
