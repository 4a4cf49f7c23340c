"""What nets would see, made of the pixels alone: every feature that a metric of the table reads."""

from __future__ import annotations

from typing import Any

import numpy as np

ROAD_METRICS = (
    "l1", "psnr_frame", "psnr_pooled", "ssim", "akd_l1_dlib", "akd_l2_dlib", "akd_l1_mesh", "akd_l2_mesh",
    "nme_mesh", "pose_mesh", "blink_iris", "csim_dlib_centred", "id_l2_dlib", "lpips_efflite0_unlearned",
    "fd_efflite0", "fd_efflite0_b15", "kid_efflite0",
)  # fmt: skip
"""What the comparison of the tests is scored by."""
DARKEST = 1.0
"""Mean grey level below which a frame shows no face."""


class BrightFaces:
    """Finds a face in every picture but dark ones, and 68 points in it that move with the picture's
    brightness."""

    name = "bright"
    darkest = 0.0

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        box = np.array([[0, 0, 9, 9, 1.0]], np.float32)
        return [box if frame.mean() >= self.darkest else box[:0] for frame in frames]

    def landmarks(self, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        points = np.zeros((len(frames), 68, 2), np.float32) + frames.mean((1, 2, 3))[:, None, None]
        points[np.isnan(boxes).any(axis=1)] = np.nan
        return points


def stand_in_features(key: str, frames: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, Any]]:
    """frames (T,S,S,3) or a single one, truth (T,S,S,3) uint8 -> feature -> its sample of this pair."""
    mean, dark = frames.mean((1, 2)), frames.mean((1, 2, 3)) < DARKEST
    landmarks = np.arange(136.0).reshape(68, 2) % 37 + mean[:, None, :2]
    of_faces = {
        "landmarks": landmarks.astype(np.float32),
        "openness": (mean[:, :2] / 255).astype(np.float32),
        "angles": (mean / 10).astype(np.float32),
        "exp_coeffs": (mean / 100).astype(np.float32),
        "embedding": frames[:, ::8, ::8].reshape(len(frames), -1).astype(np.float32),
    }
    for values in of_faces.values():
        values[dark] = np.nan
    vectors = np.concatenate([mean, frames.std((1, 2))], axis=1).astype(np.float32) / 255
    distance = np.abs(frames / 255 - truth / 255).mean((1, 2, 3)).astype(np.float32)
    features = {
        "landmarks.mesh468_iris": {
            name: of_faces[name] for name in ("landmarks", "openness", "angles", "exp_coeffs")
        },
        "landmarks.fan2d": {"landmarks": of_faces["landmarks"]},
        "identity.dlib_resnet": {"embedding": of_faces["embedding"]},
        "imagenet.efficientnet_lite0": {
            "head_features": vectors, "block_features": vectors[:, :3], "map_distance": distance
        },
    }  # fmt: skip
    return {name: {"__key__": key, **fields} for name, fields in features.items()}
