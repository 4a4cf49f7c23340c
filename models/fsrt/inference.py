"""Inference: encode sources once, read motion from driving frames, transfer it, render (supplement 7.3).

Legend: n sources, T driving frames, K keypoints, E expression size, I image side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.checkpoint import Checkpoint
from models.checkpoint_metadata import parse_checkpoint_settings, printable_text
from models.errors import InvalidFile, InvalidSettings
from models.fsrt.config import Architecture
from models.fsrt.keypoints import move_keypoints
from models.fsrt.network import Fsrt, KeysValues
from models.perception.head.hull import hull_area
from models.precision import autocast, choose_precision
from models.reenactor import FaceFrames, FrameDrivenReenactor, Motion, MotionTransfer, Precision

TRAINING_ONLY_PREFIXES = ("discriminator.",)
"""Parts that a checkpoint may hold and inference does not need."""
MAX_PIXELS_PER_PASS = {"cpu": 65_536, "cuda": 4 * 65_536}
"""Pixels rendered in one pass, for memory's sake alone: at the published size the largest layer holds 1536
numbers for each."""
MAX_PIXELS_PER_KEYPOINT_PASS = {"cpu": 4 * 65_536, "cuda": 16 * 65_536}
"""Pixels of driving frames that the keypoint detector sees at once."""


@dataclass(frozen=True, slots=True)
class FsrtEncodedSources:
    """Sources as the decoder looks at them."""

    keys_values: KeysValues
    """Of each decoder block, batch 1."""
    keypoints: Tensor
    """(n,K,2) of the sources"""


class FsrtReenactor(FrameDrivenReenactor):
    """A trained net, ready to drive (models.reenactor.Reenactor); `provenance` says which parts do not carry
    the published weights.
    """

    def __init__(
        self,
        net: Fsrt,
        architecture: Architecture,
        provenance: Mapping[str, str],
        precision: Precision = "auto",
    ) -> None:
        self.net, self.architecture, self.provenance = net.eval(), architecture, dict(provenance)
        self.notes: list[str] = []
        self.image_size = architecture.image_size
        self.device = next(net.parameters()).device
        self.precision = choose_precision(precision, self.device)
        self.batch = max(1, self._most(MAX_PIXELS_PER_KEYPOINT_PASS) // architecture.detector.size**2)

    @classmethod
    def from_checkpoints(
        cls,
        checkpoints: Mapping[str, Checkpoint],
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
    ) -> FsrtReenactor:
        """The checkpoint "renderer", of a phase that trains the whole net; InvalidFile for another."""
        checkpoint = checkpoints["renderer"]
        if "architecture" not in checkpoint.metadata:
            phase = printable_text(checkpoint.metadata.get("phase"))
            raise InvalidFile(f"{checkpoint.name} holds fsrt phase {phase}, which cannot render images")
        net, architecture, provenance = checkpoint.load_net_and_metadata(
            lambda metadata: parse_checkpoint_settings(
                Architecture, metadata["architecture"], "architecture"
            ),
            Fsrt,
            TRAINING_ONLY_PREFIXES,
        )
        return cls(net.to(device), architecture, provenance, precision)

    def _most(self, by_device: Mapping[str, int]) -> int:
        return by_device["cuda" if self.device.type == "cuda" else "cpu"]

    def check_transfer(self, how: MotionTransfer) -> None:
        """InvalidSettings: relative motion moves keypoints, and a net may have been trained without them; no
        net of it knows angles, named expressions or identities.
        """
        if how.edit.changes:
            raise InvalidSettings(
                f"fsrt cannot make a head's {', '.join(how.edit.changes)}: it has no coefficients of pose, "
                "expression or identity that could be edited, only latent vectors of the frames; headgan has"
            )
        if how.motion == "relative" and not self.architecture.uses_keypoints:
            raise InvalidSettings(
                "relative motion adds the changes of the driving keypoints to those of the source, and this "
                "model renders without keypoints (net.keypoint_octaves 0): the pose is part of its latent "
                "expression, which cannot be taken apart; use absolute motion"
            )

    def motion_from_arrays(self, parameters: Mapping[str, np.ndarray]) -> Motion:
        """InvalidSettings: it is driven by frames alone."""
        raise InvalidSettings(
            "fsrt is driven by a video or a picture: its motion is a latent vector, which nobody can state "
            "in numbers; headgan takes a file of 3D face parameters"
        )

    @torch.inference_mode()
    def encode_sources(self, sources: FaceFrames) -> FsrtEncodedSources:
        """Encode sources; together they describe one person."""
        found = self._motion(sources.frames)
        images = self._resized(sources.frames, self.image_size)
        with self._autocast():
            z = self.net.encoder(images[None], found["keypoints"][None], found["expression"][None])
            return FsrtEncodedSources(self.net.decoder.keys_values(z), found["keypoints"])

    @torch.inference_mode()
    def extract_motion(self, driving: FaceFrames) -> Motion:
        """-> keypoints (T,K,2) float32 on the [-1,1] frame, expression (T,E) float32."""
        return self._motion(driving.frames)

    @torch.inference_mode()
    def transfer_motion(
        self, scene: FsrtEncodedSources, driving: Motion, first: Motion, how: MotionTransfer
    ) -> Motion:
        """Supplement 7.3: only keypoints are transferred, the expression is always the driving frame's."""
        if how.motion == "absolute":
            return driving
        self.check_transfer(how)
        moved = relative_keypoints(
            scene.keypoints[0], driving["keypoints"], first["keypoints"][0], how.adapt_scale
        )
        return {**driving, "keypoints": moved}

    @torch.inference_mode()
    def render(self, scene: FsrtEncodedSources, motion: Motion) -> np.ndarray:
        """-> (T,I,I,3) float32 in [0,1]"""
        keypoints, expression = motion["keypoints"], motion["expression"]
        with self._autocast():
            images = self.net.decoder.render_video(
                scene.keys_values,
                self.image_size,
                keypoints,
                expression,
                most=self._most(MAX_PIXELS_PER_PASS),
            )
        return images.float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()

    def _autocast(self) -> torch.autocast:
        return autocast(self.precision, self.device)

    def _motion(self, frames: np.ndarray) -> Motion:
        images = self._resized(frames, self.architecture.detector.size)
        with self._autocast():
            keypoints, features, heatmap = self.net.kp_detector(images)
            expression = self.net.expression_encoder(features, heatmap)
        return {"keypoints": keypoints.float(), "expression": expression.float()}

    def _resized(self, frames: np.ndarray, size: int) -> Tensor:
        """(N,H,W,3) uint8 -> (N,3,size,size) in [0,1], anti-aliased."""
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        images = images.permute(0, 3, 1, 2).float() / 255
        if images.shape[-2:] == (size, size):
            return images
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


# --- motion transfer ----------------------------------------------------------------------------------------
def relative_keypoints(source: Tensor, driving: Tensor, first: Tensor, adapt_scale: bool) -> Tensor:
    """source (K,2), driving (T,K,2), first (K,2) -> (T,K,2): k_s + a (k_d - k_d0) (supplement 7.3).

    a = 1, or with adapt_scale the square root of the ratio of the areas that the keypoints of `source` and
    `first` span. The result may leave [-1,1]. InvalidSettings where `first` spans no area.
    """
    scale = 1.0
    if adapt_scale:
        span = keypoint_area(first)
        if not span > 0:
            raise InvalidSettings(
                "the keypoints of the first driving frame span no area: no scale to adapt to"
            )
        scale = (keypoint_area(source) / span) ** 0.5
    return move_keypoints(source, driving, first, scale)


def keypoint_area(keypoints: Tensor) -> float:
    """(K,2) -> what they span; 0 where they lie on a line."""
    return hull_area(keypoints.double().cpu().numpy())
