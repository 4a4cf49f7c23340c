"""What FID and KID compare: the features of FID's Inception in each frame, resized as one of two libraries
does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from pipelines.preprocess.keypoints import perception_inference_settings

if TYPE_CHECKING:
    from models.perception.inception_fid import InceptionFid, InceptionResize
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample

FRAMES_PER_BATCH = {"cpu": 4, "cuda": 64}
INCEPTION_NET = "inception_fid"


def compute_inception_features_pt(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Of each generated frame pool_features (T,2048) float32, resized as pytorch-fid does. Without the
    net, its weights."""
    yield _sample(inputs["generated"], nets, runtime, "pt")


def compute_inception_features_clean(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """The same, resized as clean-fid does."""
    yield _sample(inputs["generated"], nets, runtime, "clean")


def _sample(
    generated: FamilySamples, nets: Mapping[str, object], runtime: RuntimeConfig, resize: InceptionResize
) -> Sample:
    key = generated.keys[0]
    if INCEPTION_NET not in nets:
        return {"__key__": key, "needs": {"weights": INCEPTION_NET}}
    net = cast("InceptionFid", nets[INCEPTION_NET])
    how = perception_inference_settings(runtime, "float32")
    net.configure_inference(how)
    frames = generated[0]["frames"]
    return {"__key__": key, "pool_features": inception_features(net, frames, resize, how.device)}


@torch.inference_mode()
def inception_features(
    net: InceptionFid, frames: np.ndarray, resize: InceptionResize, device: str = "cpu"
) -> np.ndarray:
    """frames (T,S,S,3) uint8, at their own size -> (T,2048) float32."""
    batch, parts = FRAMES_PER_BATCH[device], []
    for start in range(0, len(frames), batch):
        images = torch.from_numpy(frames[start : start + batch]).to(device).permute(0, 3, 1, 2)
        parts.append(net.features(images.float() / 255, resize).cpu())
    return torch.cat(parts).numpy()
