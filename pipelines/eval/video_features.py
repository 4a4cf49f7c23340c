"""What videos are compared by in FVD: the logits of I3D of every 16 frames in a row, one window after
another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.nn import functional

from models.perception.i3d import CLASSES
from pipelines.eval.features import I3D_WINDOW
from pipelines.preprocess.keypoints import perception_inference_settings

if TYPE_CHECKING:
    from models.perception.i3d import I3d
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample

NET_SIDE = 224
"""Pixels of a side that I3D learned from."""


def compute_i3d_logits(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """logits (T // 16,400) float32, frames after the last whole window left out; one row of NaN of a clip
    under 16 frames; of a single picture one row, of 16 times the same. Without the net, its weights."""
    sample = inputs["generated"][0]
    if "i3d_k400" not in nets:
        yield {"__key__": sample["__key__"], "needs": {"weights": "i3d_k400"}}
        return
    net = cast("I3d", nets["i3d_k400"])
    net.configure_inference(perception_inference_settings(runtime, "float32"))
    yield {"__key__": sample["__key__"], "logits": i3d_logits(net, sample["frames"])}


@torch.inference_mode()
def i3d_logits(net: I3d, frames: np.ndarray) -> np.ndarray:
    """frames (T,S,S,3) uint8 -> (max(1, T // 16),400) float32"""
    if len(frames) == 1:
        frames = np.broadcast_to(frames, (I3D_WINDOW, *frames.shape[1:]))
    windows = len(frames) // I3D_WINDOW
    out = np.full((max(1, windows), CLASSES), np.nan, np.float32)
    for row in range(windows):
        some = np.ascontiguousarray(frames[I3D_WINDOW * row : I3D_WINDOW * (row + 1)])
        images = torch.from_numpy(some).to(net.device).permute(0, 3, 1, 2).float() / 255
        resized = functional.interpolate(
            images, size=(NET_SIDE, NET_SIDE), mode="bilinear", align_corners=False
        )
        out[row] = net.logits(resized[None])[0].cpu().numpy()
    return out
