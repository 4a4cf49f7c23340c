"""The perceptual losses' nets beside each other: forward and backward to the image, on one core.

python -m pytest tests/bench/bench_perceptual_nets.py -m bench -s
"""

import time

import pytest
import torch

from models.perception.efficientnet_lite0 import load_efficientnet_lite0
from models.perception.interfaces import InferenceSettings
from models.perception.vgg19 import load_random_vgg19
from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def milliseconds(net, side, batch, repeats=3):
    """CPU time an image, the least of some runs: forward alone, forward and backward."""
    images = torch.rand(batch, 3, side, side, requires_grad=True)
    forward, both = [], []
    for _ in range(repeats):
        begin = time.process_time()
        loss = sum(m.abs().mean() for m in net.features(images))
        forward.append(time.process_time() - begin)
        loss.backward()
        both.append(time.process_time() - begin)
    return tuple(1000 * min(spent) / batch for spent in (forward, both))


@pytest.mark.bench
@pytest.mark.parametrize(("side", "batch"), [(256, 1), (64, 8)])
def test_efficientnet_lite0_against_vgg19(side, batch):
    """The aim: a sixth of VGG19's time or less."""
    file = find_packaged_file(find_third_party_weights("efficientnet_lite0"))
    nets = [load_efficientnet_lite0({"efficientnet_lite0": file}), load_random_vgg19({})]
    for net in nets:
        net.configure_inference(InferenceSettings())
    (lite, lite_both), (vgg, vgg_both) = (milliseconds(net, side, batch) for net in nets)
    print(f"\n{side} px, batch {batch}, ms an image: forward {lite:.1f}, VGG19 {vgg:.0f}")
    print(f"forward and backward {lite_both:.1f}, VGG19 {vgg_both:.0f}: 1/{vgg_both / lite_both:.1f}")
