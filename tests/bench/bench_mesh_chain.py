"""MediaPipe's detector, mesh and irises in torch, batched: frames a second, beside the bare nets on as many
inputs, and how far the points lie from LiteRT's. On the GPU where there is one.

python -m pytest tests/bench/bench_mesh_chain.py -m bench -s
"""

import time

import numpy as np
import pytest
import torch

from models.perception.faces.blazeface import SHORT_RANGE_NET, load_mp_face_litert, load_mp_face_torch
from models.perception.faces.face_mesh import (
    FACES_PER_BATCH,
    IRIS_NET,
    MESH_NET,
    load_mesh468_iris_litert,
    load_mesh468_iris_torch,
)
from models.perception.interfaces import InferenceSettings
from models.perception.tflite_net import TorchTfliteNet
from models.weights import find_third_party_weights
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from storage.weight_files import find_packaged_file

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FRAMES = 240 if DEVICE == "cuda" else 24
BATCH = FACES_PER_BATCH


@pytest.fixture(scope="module")
def frames():
    """(FRAMES,256,256,3): a portrait that moves to the side."""
    from skimage.data import astronaut

    return np.stack([astronaut()[:256, 100 - k % 40 : 356 - k % 40] for k in range(FRAMES)])


def seconds(work, repeats=3):
    """The best of some runs after one to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - begin)
    return min(spent)


@pytest.fixture(scope="module")
def weights():
    return {
        name: find_packaged_file(find_third_party_weights(name))
        for name in ("mp_face_short", "mp_face_full", "mp_mesh468", "mp_iris")
    }


@torch.inference_mode()
def bare_nets(weights):
    """Seconds of the nets alone: a detection and a first pass in one frame of three, the mesh and two eyes in
    each."""
    inputs = [
        ("mp_face_short", SHORT_RANGE_NET, 1 / 3),
        ("mp_mesh468", MESH_NET, 4 / 3),
        ("mp_iris", IRIS_NET, 2),
    ]
    total = 0.0
    for name, signature, each in inputs:
        net = TorchTfliteNet(weights[name], signature)
        net.configure_inference(InferenceSettings(device=DEVICE))
        images = torch.rand(BATCH, 3, signature.side, signature.side, device=DEVICE)
        total += seconds(lambda net=net, images=images: net(images)) * each * FRAMES / BATCH
    return total


@pytest.mark.bench
def test_the_chain_in_torch_against_its_bare_nets(weights, frames):
    on_gpu = RuntimeConfig(gpu_share=1.0 if DEVICE == "cuda" else 0.0)
    litert = load_mp_face_litert(weights), load_mesh468_iris_litert(weights), RuntimeConfig()
    in_torch = load_mp_face_torch(weights), load_mesh468_iris_torch(weights), on_gpu

    def landmarks(detector, landmarker, runtime):
        nets = {"mp_face": detector, "mesh468_iris": landmarker}
        (sample,) = find_keypoints(
            {"clips": [{"__key__": "a", "frames": frames, "clip": {}}]}, KeypointsConfig(), nets, runtime
        )
        return sample["landmarks"]

    apart = np.abs(landmarks(*in_torch) - landmarks(*litert)).max()
    ours, bare = seconds(lambda: landmarks(*in_torch)), bare_nets(weights)
    print(f"\n{DEVICE}: {FRAMES / ours:.0f} frames/s, the bare nets {FRAMES / bare:.0f}: {bare / ours:.0%}")
    print(f"landmarks at most {apart:.4f} px from LiteRT's (steps of 1/64)")
