"""Distilling FSRT's keypoint detector from the data's own 68 landmarks. Ours: the paper takes FOMM's, frozen.

Each of the 10 keypoints is a fixed mean of landmarks. Batch: whole and cropped (B,1,D,D,3) uint8, target
(B,K,2) on the cropped frame, colours (B,8). K keypoints, D detector side, G cells of a heatmap's side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from msgspec import to_builtins
from torch import Tensor, nn

from models.errors import InvalidSettings
from models.fsrt import augment, losses, visualize
from models.fsrt.config import AugmentConfig, KeypointDetectorConfig
from models.fsrt.keypoints import KeypointDetector, heatmap_cell_coordinates
from models.task import Batch, Sample, StatelessTask, TrainingTable, TrainStep, ValidationOutput

# Stands beside every score that the detector touches.
DISTILLED_KEYPOINT_DETECTOR_PROVENANCE = {"kp_detector": "distilled"}
# A distilled keypoint is the mean of these of the 68 points.
KEYPOINT_LANDMARK_GROUPS: tuple[tuple[int, ...], ...] = (
    (0, 1, 2), (7, 8, 9), (14, 15, 16),  # ends of the jaw and the chin
    (17, 18, 19, 20, 21), (22, 23, 24, 25, 26),  # brows
    (36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47),  # eyes
    (30, 31, 32, 33, 34, 35),  # nose
    (50, 51, 52, 61, 62, 63), (56, 57, 58, 65, 66, 67),  # upper and lower lip
)  # fmt: skip
HEATMAP_SIGMA = 0.08  # of the distilled heatmaps, on the [-1,1] frame: 2.3 of 58 cells
TIGHT_CROP_SHARE = 0.25  # share of samples cropped as the next phase crops for its expression extractor


def landmark_group_means(landmarks: np.ndarray, side: int) -> np.ndarray:
    """landmarks (...,68,2) in pixels -> the distilled keypoints (...,10,2) on the [-1,1] frame."""
    means = np.stack([landmarks[..., list(group), :].mean(-2) for group in KEYPOINT_LANDMARK_GROUPS], axis=-2)
    return (means / side * 2 - 1).astype(np.float32)


class KeypointDetectorWrapper(nn.Module):
    def __init__(self, net: KeypointDetectorConfig) -> None:
        super().__init__()
        self.kp_detector = KeypointDetector(net)


class KeypointTask(StatelessTask):
    """Regress means of landmark groups; the published detector was learned without labels (FOMM)."""

    def __init__(self, detector: KeypointDetectorConfig, augment: AugmentConfig) -> None:
        if detector.keypoints != len(KEYPOINT_LANDMARK_GROUPS):
            raise InvalidSettings(
                f"detector.keypoints {detector.keypoints}: the distilled detector has "
                f"{len(KEYPOINT_LANDMARK_GROUPS)}"
            )
        self.detector, self.changes = detector, augment
        self.net = KeypointDetectorWrapper(detector)

    def sample(
        self, rng: np.random.Generator, tables: Mapping[str, TrainingTable], training: bool
    ) -> Sample | None:
        """whole and cropped (1,D,D,3), target (K,2) on the cropped frame, colours (8,)"""
        clip = tables["clips"].pick_clip(rng)
        index = [int(rng.integers(clip.length))]
        landmarks = clip.read_points("landmarks", index)
        if not np.isfinite(landmarks).all():
            return None
        frames = clip.frames(index)
        side = frames.shape[1]
        crop = np.zeros(4, np.float32)
        colours = augment.neutral_color_jitter(1)
        mirrored = training and rng.random() < self.changes.flip
        if mirrored:
            landmarks = augment.mirror_landmarks(landmarks, side)
        if training:
            scaled = landmarks * (augment.FRAME_SIZE / side)
            kind = rng.random()  # the detector will see both kinds of crop in the next phase
            if kind < self.changes.out_of_frame:
                crop = augment.sample_out_of_frame_crop(rng, scaled, side)
            elif kind < self.changes.out_of_frame + TIGHT_CROP_SHARE:
                crop = augment.sample_expression_crop(rng, scaled[0], side)
            colours = augment.sample_color_jitter(rng, 1, self.changes.jitter, self.changes.hue)
        scale, shift = augment.frame_to_crop_scale_shift(crop)
        return {
            "whole": augment.crop_and_resize(frames, np.zeros(4), self.detector.size, mirrored),
            "cropped": augment.crop_and_resize(frames, crop, self.detector.size, mirrored),
            "target": ((landmark_group_means(landmarks[0], side) + shift) * scale).astype(np.float32),
            "colours": colours[0],
        }

    def _detect(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """-> images (B,3,D,D), keypoints (B,K,2), heatmaps (B,K,G,G)"""
        whole, cropped = (augment.frames_to_images(batch[name]) for name in ("whole", "cropped"))
        images = augment.apply_color_jitter(cropped, batch["colours"], whole)[:, 0]
        keypoints, _, heatmap = self.net.kp_detector(images)
        return images, keypoints, heatmap

    def losses(self, batch: Batch, step: TrainStep | None = None) -> Mapping[str, Callable[[], Tensor]]:
        _, keypoints, heatmap = self._detect(batch)
        axis = heatmap_cell_coordinates(heatmap.shape[-1], heatmap)
        return {
            "position": partial(losses.keypoint_position_loss, keypoints, batch["target"]),
            "heatmap": partial(losses.heatmap_cross_entropy, heatmap, batch["target"], axis, HEATMAP_SIGMA),
        }

    def validation_step(self, batch: Batch) -> ValidationOutput:
        """Row: frame | labelled (green) and found (red) keypoints. Score: mean distance between the two, in
        percent of the frame's side.
        """
        images, keypoints, _ = self._detect(batch)
        plain = visualize.images_to_uint8(images)
        labelled = visualize.mark_keypoints(plain, batch["target"], visualize.WANTED_COLOUR)
        error = (keypoints - batch["target"]).norm(dim=-1).mean() * 50
        return ValidationOutput(
            row=np.concatenate([plain, visualize.mark_keypoints(labelled, keypoints)], axis=2),
            titles=("frame", "keypoints"),
            scores={"keypoint_error_percent": float(error)},
        )

    def architecture_metadata(self) -> dict[str, Any]:
        return {"model": "fsrt", "detector": to_builtins(self.detector)}

    def provenance(self) -> dict[str, str]:
        return DISTILLED_KEYPOINT_DETECTOR_PROVENANCE
