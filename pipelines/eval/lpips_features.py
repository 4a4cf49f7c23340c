"""LPIPS of each generated frame from the real one. The maps that it compares are too large to be kept, so
that the distance is computed where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from pipelines.preprocess.keypoints import perception_inference_settings

if TYPE_CHECKING:
    from models.perception.lpips import Lpips
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample

FRAMES_PER_BATCH = {"cpu": 4, "cuda": 32}
NET_WEIGHTS = {"lpips_alex": "alexnet, lpips_alex", "lpips_vgg": "vgg16, lpips_vgg"}
"""Net -> the weights that are named where it is missing: either file may be."""


def compute_lpips_alex(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """lpips (T,) float32 of the generated frames from the truth's, by AlexNet. Without the net, its
    weights."""
    yield _sample(inputs, nets, runtime, "lpips_alex")


def compute_lpips_vgg(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """The same by VGG16."""
    yield _sample(inputs, nets, runtime, "lpips_vgg")


def _sample(
    inputs: Mapping[str, FamilySamples], nets: Mapping[str, object], runtime: RuntimeConfig, name: str
) -> Sample:
    key = inputs["generated"].keys[0]
    if name not in nets:
        return {"__key__": key, "needs": {"weights": NET_WEIGHTS[name]}}
    net = cast("Lpips", nets[name])
    how = perception_inference_settings(runtime, "float32")
    net.configure_inference(how)
    frames = inputs["generated"][0]["frames"]
    truth = inputs["truth"].read(key, ["frames"])["frames"]
    return {"__key__": key, "lpips": lpips_of_frames(net, frames, truth, how.device)}


@torch.inference_mode()
def lpips_of_frames(net: Lpips, frames: np.ndarray, truth: np.ndarray, device: str = "cpu") -> np.ndarray:
    """frames (T,S,S,3) uint8, or a single one that is compared with every frame of the truth; truth (T,S,S,3)
    -> (T,) float32, of frames at their own size; NaN of frames that are too small for the net."""
    if min(frames.shape[1:3]) < net.min_image_side:
        return np.full(len(truth), np.nan, np.float32)
    single = net.unit_maps(_images(frames, device)) if len(frames) == 1 else None
    batch, parts = FRAMES_PER_BATCH[device], []
    for start in range(0, len(truth), batch):
        some = slice(start, start + batch)
        maps = single or net.unit_maps(_images(frames[some], device))
        parts.append(net.distance_of_maps(net.unit_maps(_images(truth[some], device)), maps).cpu())
    return torch.cat(parts).numpy()


def _images(frames: np.ndarray, device: str) -> Tensor:
    """(B,S,S,3) uint8 -> (B,3,S,S) float32 in [-1,1]"""
    return torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
