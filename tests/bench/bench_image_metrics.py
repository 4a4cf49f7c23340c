"""LPIPS, FID and KID on one core: the stages beside their bare nets, and the reductions at 2,048 features.

python -m pytest tests/bench/bench_image_metrics.py -m bench -s
"""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from models.perception.inception_fid import InceptionFidLayers, load_inception_fid
from models.perception.interfaces import InferenceSettings
from models.perception.lpips import load_lpips_alex, load_lpips_vgg
from models.perception.vgg16 import Vgg16Layers
from models.weights import find_third_party_weights
from pipelines.eval.inception_features import compute_inception_features_pt
from pipelines.eval.lpips_features import compute_lpips_alex, compute_lpips_vgg
from pipelines.eval.metrics.feature_sample import MAX_SAMPLE_FRAMES, feature_sample
from pipelines.eval.metrics.frechet import frechet_distance
from pipelines.eval.metrics.kid import kernel_distance
from pipelines.eval.metrics.moments import feature_moments
from pipelines.eval.set_states import SetStateBuilder
from storage.weight_files import find_packaged_file
from tests.formula_nets import lpips_alex_states, noise_state
from tests.shape_files import filled

RUNTIME: Any = SimpleNamespace(gpu_share=0, net_batch=0, net_compile=False)
FEATURES, FRAMES = 2048, 3000


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    states = {"alexnet": lpips_alex_states()[0], "vgg16": noise_state(Vgg16Layers)}
    states["inception_fid"] = filled(InceptionFidLayers(), "hash").state_dict()
    files: dict[str, Any] = {name: folder / f"{name}.pth" for name in states}
    for name, state in states.items():
        torch.save(state, files[name])
    files |= {one: find_packaged_file(find_third_party_weights(one)) for one in ("lpips_alex", "lpips_vgg")}
    loaded = {"lpips_alex": load_lpips_alex(files), "lpips_vgg": load_lpips_vgg(files)}
    return loaded | {"inception_fid": load_inception_fid(files)}


class Samples(list):
    """A family's samples of one pair."""

    @property
    def keys(self) -> list[str]:
        return [sample["__key__"] for sample in self]

    def read(self, key: str, fields: list[str]) -> dict[str, Any]:
        return self[0]


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """CPU time, the least of some runs."""
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return min(spent)


def bare(net: Any, name: str, images: torch.Tensor) -> Callable[[], object]:
    """What no stage can do without, frames ready for the net in batches of its own."""
    batches = [some.contiguous(memory_format=torch.channels_last) for some in images.split(4)]
    if name == "inception_fid":
        return lambda: [net.features(some, "pt") for some in batches]
    return lambda: [net.distance(*pair) for pair in zip(batches, reversed(batches), strict=True)]


@pytest.mark.bench
@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("lpips_alex", compute_lpips_alex),
        ("lpips_vgg", compute_lpips_vgg),
        ("inception_fid", compute_inception_features_pt),
    ],
)
def test_a_stage_takes_little_longer_than_its_net(nets, name, stage):
    """The aim: 1.15 times the bare net, of 256 px frames."""
    frames = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    inputs: Any = {
        "generated": Samples([{"__key__": "p", "frames": frames}]),
        "truth": Samples([{"__key__": "p", "frames": frames[:, :, ::-1].copy()}]),
    }
    nets[name].configure_inference(InferenceSettings())
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous() / 255
    with torch.inference_mode():
        net = seconds(bare(nets[name], name, images))
    whole = seconds(lambda: list(stage(inputs, None, nets, RUNTIME)))
    per_frame = [1000 * one / len(frames) for one in (net, whole)]
    print(f"\n{name}, ms a frame: bare {per_frame[0]:.1f}, stage {per_frame[1]:.1f}: x{whole / net:.2f}")


@pytest.mark.bench
def test_distances_of_2048_features():
    """The aim: 5 s for a Frechet distance."""
    rng = np.random.default_rng(0)
    sets = [np.abs(rng.normal(size=(FRAMES, FEATURES))).astype(np.float32) for _ in range(2)]
    moments = [feature_moments(one) for one in sets]
    print(f"\nFrechet distance: {seconds(lambda: frechet_distance(*moments), 2):.2f} s")
    names = [str(i) for i in range(MAX_SAMPLE_FRAMES)]
    samples = [feature_sample(names, np.resize(one, (MAX_SAMPLE_FRAMES, FEATURES))) for one in sets]
    spent = seconds(lambda: kernel_distance(*samples), 2)
    print(f"kernel distance of {MAX_SAMPLE_FRAMES:,} frames each: {spent:.2f} s")


@pytest.mark.bench
@pytest.mark.parametrize("length", [1, 30])
def test_adding_up_the_sets_of_pairs(length):
    """Of pairs of so many frames each: against 100 ms a frame of Inception."""
    vectors = np.random.default_rng(0).normal(size=(length, FEATURES)).astype(np.float32)
    keep, pairs = np.ones(length, bool), -(-FRAMES // length)

    def add() -> object:
        builder = SetStateBuilder()
        for pair in range(pairs):
            builder.add("fd_efflite0", f"p{pair}", (vectors, vectors), (keep, keep))
        return builder.finish()

    print(f"\npairs of {length} frames: {1000 * seconds(add, 2) / (pairs * length):.2f} ms a frame")
