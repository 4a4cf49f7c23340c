from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

from models.perception import NETS
from models.perception.lpips import load_lpips_alex
from models.weights import find_third_party_weights
from pipelines.eval import lpips_features
from pipelines.eval.lpips_features import (
    NET_WEIGHTS,
    compute_lpips_alex,
    compute_lpips_vgg,
    lpips_of_frames,
)
from storage.weight_files import find_packaged_file
from tests.formula_nets import lpips_alex_states

FACE = astronaut()[20:148, 160:288]
RUNTIME = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A trunk by formula under the real heads."""
    path = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    torch.save(lpips_alex_states()[0], path)
    heads = find_packaged_file(find_third_party_weights("lpips_alex"))
    return load_lpips_alex({"alexnet": path, "lpips_alex": heads})


def blurred(sigma):
    return gaussian_filter(FACE.astype(np.float64), (sigma, sigma, 0)).round().astype(np.uint8)


def test_a_frame_is_no_distance_from_itself_and_further_from_blurrier_ones(net):
    frames = np.stack([FACE, *(blurred(sigma) for sigma in (0.5, 1, 2, 4))])
    distance = lpips_of_frames(net, frames, np.repeat(FACE[None], 5, axis=0))
    assert distance.dtype == np.float32
    assert distance[0] == 0
    assert (np.diff(distance) > 0).all()


def test_frames_go_in_from_minus_1_to_1_at_their_own_size(net):
    other = blurred(2)
    images = [torch.from_numpy(one).permute(2, 0, 1)[None] / 127.5 - 1 for one in (other, FACE)]
    with torch.inference_mode():
        expected = float(net.distance(*images))
    assert lpips_of_frames(net, other[None], FACE[None]) == pytest.approx([expected], rel=1e-4)


def test_a_single_picture_is_compared_with_every_frame_of_the_truth(net, monkeypatch):
    monkeypatch.setitem(lpips_features.FRAMES_PER_BATCH, "cpu", 2)
    truth = np.stack([FACE[::-1], FACE[:, ::-1], blurred(1)])
    found = lpips_of_frames(net, FACE[None], truth)
    assert found == pytest.approx(lpips_of_frames(net, np.repeat(FACE[None], 3, axis=0), truth), rel=1e-4)


def test_frames_too_small_for_the_net_have_no_value(net):
    small = FACE[None, :30, :30]
    assert np.isnan(lpips_of_frames(net, small, np.repeat(small, 3, axis=0))).tolist() == [True] * 3


def test_the_stage_compares_with_the_truth(net, unit_samples):
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": blurred(1)[None]}])}
    inputs["truth"] = unit_samples([{"__key__": "p", "frames": FACE[None]}])
    (found,) = compute_lpips_alex(inputs, None, {"lpips_alex": net}, RUNTIME)
    assert set(found) == {"__key__", "lpips"}
    assert found["lpips"] == pytest.approx(lpips_of_frames(net, blurred(1)[None], FACE[None]))


@pytest.mark.parametrize("stage", [compute_lpips_alex, compute_lpips_vgg])
def test_without_the_net_its_weights_are_named(unit_samples, stage):
    inputs = {"generated": unit_samples([{"__key__": "p"}])}  # no frame is decoded for it
    (found,) = stage(inputs, None, {}, RUNTIME)
    name = stage.__name__.removeprefix("compute_")
    assert found == {"__key__": "p", "needs": {"weights": NET_WEIGHTS[name]}}
    assert NET_WEIGHTS[name] == ", ".join(NETS[name].weights)
