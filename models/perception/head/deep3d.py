"""Deep3DFaceRecon's net: coefficients and camera of the Basel face model from one image (Deng et al. 2019).

net_recon: ResNet-50, and seven 1x1 convolutions on its average. The input is a crop of 224 pixels, RGB in
[0,1], neither mean nor deviation taken off. 257 numbers, in order:

| numbers | what |
|---|---|
| 0-79, 80-143, 144-223 | identity, expression, texture, in sigmas |
| 224-226 | angles about x, y, z in radians: M = Rz Ry Rx |
| 227-253 | light: 3 colours of 9 spherical harmonics |
| 254-256 | translation in decimetres |

The camera is a pinhole ten decimetres away: a vertex X is at Y = M X + trans, its pixel in the crop
112 + 1015 Yx / (10 - Yz), 112 - 1015 Yy / (10 - Yz), from the crop's edge. The crop puts five landmarks in
the place of five points of the model: the frame is scaled by 102 over the scale of the affine map from the
one to the other, to whole pixels, bicubic.

In the product's terms, R = diag(1,-1,-1) M with the same angles, and the pinhole becomes a scaled
orthographic camera at the depth of the model's origin, the middle of the face: scale = 1015 / (10 - trans_z).
A point d decimetres before or behind it is off by d / 10 of its distance from the image of the origin; `code`
and `crop_frame` keep what the pinhole needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.perception.head.dense_fit import decompose_camera, fit_affine
from models.perception.head.landmark_fit import FaceFit
from models.perception.head.pose import euler_to_rotation
from models.perception.head.resnet import (
    INPUT_SIZE,
    OUTPUT_CHANNELS,
    MorphableModelPrediction,
    MorphableModelRegressor,
    ResNet50,
    load_subnet,
)

COEFFICIENT_HEAD_SIZES = (80, 64, 80, 3, 27, 2, 1)
COEFFICIENT_COUNTS = {"id": 80, "exp": 64, "tex": 80, "angle": 3, "gamma": 27, "trans": 3}
FOCAL_LENGTH, CAMERA_DISTANCE = 1015.0, 10.0
REFERENCE_FACE_SIZE = 102.0
# Eyes, tip of the nose and corners of the mouth in the mean face (similarity_Lm3D_all.mat), image left first
REFERENCE_LANDMARKS = np.array(
    [
        [-0.3114865720272064, 0.29036077857017517, 0.13377952575683594],
        [0.30979886651039124, 0.289720356464386, 0.1317952573299408],
        [0.003253498813137412, -0.04617932438850403, 0.5524424314498901],
        [-0.25216928124427795, -0.3813391625881195, 0.22405731678009033],
        [0.24846619367599487, -0.38128235936164856, 0.22235769033432007],
    ]
)
MIN_FRAME_SIDE, MAX_FRAME_SIDE = 32, 4096  # pixels of the scaled frame's sides


class Deep3dEncoder(nn.Module):
    """(B,3,224,224) in [0,1] -> (B,257)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.final_layers = nn.ModuleList(
            nn.Conv2d(OUTPUT_CHANNELS, count, 1) for count in COEFFICIENT_HEAD_SIZES
        )

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.backbone(images)[..., None, None]
        return torch.cat([head(pooled) for head in self.final_layers], dim=1).flatten(1)


class Deep3dNet(MorphableModelRegressor):
    name = "deep3d"
    numbers = sum(COEFFICIENT_HEAD_SIZES)

    def crop_boxes(self, landmarks: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes are (n,4): width and height of the scaled frame, then left and top of the crop in it."""
        return alignment_crop_boxes(
            five_landmarks(landmarks) - 0.5, height, width
        )  # the publisher counts pixels from 0

    def crop_edges_in_frame(self, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
        ratio = np.array([width, height]) / np.maximum(boxes[:, :2], 1)
        first = boxes[:, 2:] * ratio
        return np.concatenate([first, first + INPUT_SIZE * ratio], axis=1).astype(np.float32)

    def crop_images(self, frames: np.ndarray, boxes: np.ndarray) -> Tensor:
        cut = np.stack([crop_frame(frame, box) for frame, box in zip(frames, boxes, strict=True)])
        return torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 255

    def to_face_fit(self, reading: MorphableModelPrediction) -> FaceFit:
        part = dict(
            zip(
                COEFFICIENT_COUNTS,
                np.split(reading.code, np.cumsum(list(COEFFICIENT_COUNTS.values()))[:-1], axis=1),
                strict=True,
            )
        )
        pixel = (reading.crop[:, 2:] - reading.crop[:, :2]) / INPUT_SIZE  # (n,2), equal but for whole pixels
        near = FOCAL_LENGTH / (CAMERA_DISTANCE - part["trans"][:, 2])
        scale = near * pixel.mean(1)
        centre = INPUT_SIZE / 2 + near[:, None] * part["trans"][:, :2] * [1, -1]
        place = np.concatenate(
            [reading.crop[:, :2] + pixel * centre, -(scale * part["trans"][:, 2])[:, None]], axis=1
        )
        rotation = euler_to_rotation(*np.rad2deg(part["angle"]).T)
        parts = (part["id"], part["exp"], scale, rotation, place, np.full(len(scale), np.nan))
        return FaceFit(*(p.astype(np.float32) for p in parts))


def five_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """(n,68,2) -> (n,5,2): the eyes (of two corners each), the tip of the nose, the corners of the mouth."""
    eyes = (landmarks[:, [36, 42]] + landmarks[:, [39, 45]]) / 2
    return np.concatenate([eyes, landmarks[:, [30, 48, 54]]], axis=1)


def alignment_crop_boxes(points: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """points (n,5,2) counted from the middle of pixel 0 -> (n,4): width and height of the scaled frame, left
    and top of the crop in it; and which are of a sensible size."""
    up = points.astype(np.float64) * [1, -1] + [0, height - 1]
    affine = np.swapaxes(
        fit_affine(
            np.broadcast_to(REFERENCE_LANDMARKS, (len(up), 5, 3)), np.pad(up, ((0, 0), (0, 0), (0, 1)))
        ),
        1,
        2,
    )
    scale, _, shift = decompose_camera(affine)
    with np.errstate(divide="ignore", invalid="ignore"):
        zoom = (REFERENCE_FACE_SIZE / scale)[:, None]
        size = np.trunc(zoom * [width, height])
        away = (shift[:, :2] - [width / 2, height / 2]) * [1, -1]
        corner = np.trunc(size / 2 - INPUT_SIZE / 2 + away * zoom)
        box = np.concatenate([size, corner], axis=1)
        reach = np.abs(box).max(1)
    usable = np.isfinite(box).all(1) & (size.min(1) >= MIN_FRAME_SIDE) & (reach <= MAX_FRAME_SIDE)
    return np.where(usable[:, None], box, 0).astype(np.int64), usable


def crop_frame(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """frame (H,W,3) uint8, box (4,) of `alignment_crop_boxes` -> (224,224,3) uint8, black outside."""
    from PIL import Image

    width, height, left, top = box.tolist()
    scaled = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(scaled.crop((left, top, left + INPUT_SIZE, top + INPUT_SIZE)))


def load_deep3d(weights: Mapping[str, Path]) -> Deep3dNet:
    """From epoch_20.pth as imported."""
    return Deep3dNet(load_subnet(Deep3dEncoder, weights["deep3d"], "net_recon", "deep3d"))
