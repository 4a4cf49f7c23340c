"""Inference: encode a source once, render driving frames (supplement 7.3, absolute motion)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.fsrt.config import Architecture, Detector
from models.fsrt.network import Fsrt


def load_reenactor(path: Path, device: str | torch.device = "cpu") -> Reenactor:
    """model.safetensors of a phase that trains the whole net; a missing or unknown tensor is an error."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["reenact"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if "architecture" not in about:
        raise ValueError(
            f"{path} holds {about.get('model')} phase {about.get('phase')}, which cannot render images"
        )
    net = Fsrt(architecture_from(about["architecture"]))
    net.load_state_dict(state, strict=True)
    return Reenactor(net.to(device), architecture_from(about["architecture"]), about["labels"])


def architecture_from(described: Mapping[str, Any]) -> Architecture:
    """The `architecture` of a checkpoint's metadata -> value."""
    sizes: dict[str, Any] = dict(described)
    sizes["detector"] = Detector(**sizes["detector"])
    sizes["render"] = tuple(sizes["render"])
    return Architecture(**sizes)


class Reenactor:
    """A trained net, ready to drive; `labels` says which parts do not carry the published weights."""

    def __init__(self, net: Fsrt, architecture: Architecture, labels: Mapping[str, str]) -> None:
        self.net, self.architecture, self.labels = net.eval(), architecture, dict(labels)
        self.image_size = architecture.image_size

    @torch.inference_mode()
    def reenact(self, source: np.ndarray, driving: np.ndarray, queries: int = 65_536) -> np.ndarray:
        """source (H,W,3) or (n,H,W,3), driving (T,H,W,3), both uint8 RGB -> (T,I,I,3) float32 in [0,1].

        `queries`: pixels rendered in one pass; it bounds memory and does not change the result.
        """
        device = next(self.net.parameters()).device
        sources = source[None] if source.ndim == 3 else source
        at_once = max(1, 4 * 65_536 // self.architecture.detector.size**2)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            keypoints, expression = self._motion(sources, device)
            images = self._resized(sources, self.image_size, device)
            z = self.net.encoder(images[None], keypoints[None], expression[None])
            keys_values = self.net.decoder.keys_values(z)
            rendered = []
            for start in range(0, len(driving), at_once):
                moved = self._motion(driving[start : start + at_once], device)
                rendered.append(
                    self.net.decoder.video(keys_values, self.image_size, *moved, most=queries).float().cpu()
                )
        return torch.cat(rendered).clamp(0, 1).permute(0, 2, 3, 1).numpy()

    def _resized(self, frames: np.ndarray, size: int, device: torch.device) -> Tensor:
        """(N,H,W,3) uint8 -> (N,3,size,size) in [0,1], anti-aliased."""
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float() / 255
        if images.shape[-2:] == (size, size):
            return images
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)

    def _motion(self, frames: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """-> keypoints (N,K,2), expressions (N,E)"""
        images = self._resized(frames, self.architecture.detector.size, device)
        keypoints, features, heatmap = self.net.kp_detector(images)
        return keypoints, self.net.expression_encoder(features, heatmap)
