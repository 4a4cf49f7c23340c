"""What metrics compare by EfficientNet-Lite0, trained on ImageNet: pooled features of each frame, and the
distance of its maps from those of the real frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from pipelines.eval.features import NET_FRAME_SIZE
from pipelines.figures import picture_grids
from pipelines.preprocess.keypoints import perception_inference_settings

if TYPE_CHECKING:
    from models.perception.efficientnet_lite0 import EfficientNetLite0
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample

FRAMES_PER_BATCH = 4
"""The maps of one frame of 256 px take 11 MB."""
UNIT_NORM_EPSILON = 1e-10  # LPIPS'


def compute_efficientnet_features(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Of each generated frame head_features (T,1280) and block_features (T,320); where there are frames of
    the truth (T,...) beside them, map_distance (T,) from these. float32. Without the net, its weights."""
    sample = inputs["generated"][0]
    if "efficientnet_lite0" not in nets:
        yield {"__key__": sample["__key__"], "needs": {"weights": "efficientnet_lite0"}}
        return
    net = cast("EfficientNetLite0", nets["efficientnet_lite0"])
    how = perception_inference_settings(runtime, "float32")
    net.configure_inference(how)
    truth = None
    if "truth" in inputs:
        truth = inputs["truth"].read(sample["__key__"], ["frames"])["frames"]
    yield {"__key__": sample["__key__"], **efficientnet_features(net, sample["frames"], truth, how.device)}


@torch.inference_mode()
def efficientnet_features(
    net: EfficientNetLite0, frames: np.ndarray, truth: np.ndarray | None, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """frames (T,S,S,3) uint8, or a single one that is compared with every frame of the truth; truth
    (T,R,R,3) or None -> float32 head_features (T,1280) and block_features (T,320), means over the positions
    of the maps, and with a truth map_distance (T,)."""
    head, block, distance = [], [], []
    targets = _batches(truth, device) if truth is not None else iter(())
    maps: list[Tensor] = []
    for images in _batches(frames, device):
        maps, last = net.expansion_and_last_block_features(images)
        head.append(maps[-1].mean((2, 3)))
        block.append(last.mean((2, 3)))
        if truth is not None and len(frames) > 1:
            distance.append(mean_map_distance(maps, net.expansion_features(next(targets))))
    for target in targets if len(frames) == 1 else ():
        distance.append(mean_map_distance(maps, net.expansion_features(target)))
    found = {"head_features": head, "block_features": block, "map_distance": distance}
    return {name: torch.cat(parts).float().cpu().numpy() for name, parts in found.items() if parts}


def mean_map_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Maps (B or 1,C,h,w) of two stacks of images -> (B,): each position normalised to length 1 over
    channels; squared difference summed over channels, mean over positions, mean over maps."""
    of_maps = [
        (_unit_norm(a) - _unit_norm(b)).square().sum(1).mean((1, 2))
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(of_maps).mean(0)


def _unit_norm(maps: Tensor) -> Tensor:
    maps = maps.float()
    return maps / (maps.square().sum(1, keepdim=True).sqrt() + UNIT_NORM_EPSILON)


def _batches(frames: np.ndarray, device: str) -> Iterator[Tensor]:
    """(T,S,S,3) uint8 -> (B,3,256,256) float32 in [0,1] at a time, where the net is."""
    for start in range(0, len(frames), FRAMES_PER_BATCH):
        images = picture_grids.resize_frames(frames[start : start + FRAMES_PER_BATCH], NET_FRAME_SIZE)
        yield torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2).to(device)
