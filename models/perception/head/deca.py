"""DECA's coarse encoder: FLAME's shape, expression, pose and camera from one image (Feng et al. 2021).

E_flame: ResNet-50 -> Linear(2048,1024), ReLU, Linear(1024,236). The input is a crop of 224 pixels, RGB in
[0,1], neither mean nor deviation taken off. 236 numbers, in order:

| numbers | what |
|---|---|
| 0-99, 100-149, 150-199 | shape, texture, expression, in sigmas |
| 200-202, 203-205 | rotation of the head about FLAME's root joint, of the jaw; axis times angle in radians |
| 206-208 | camera s, tx, ty: pixel of the crop = 112 + 112 s (x + tx), 112 - 112 s (y + ty), metres |
| 209-235 | light |

The crop is 1.375 times the mean of the landmarks' width and height, about their box's centre.

In the product's terms the rotation moves from the vertices into the camera: with J the root joint of the
shape, M the rotation and o what the converter took off the mean, M (X + o - J) + J is M X + (M (o - J) + J),
so that scale = 112 s m, R = diag(1,-1,-1) M and the rest is the translation; m is frame pixels a crop pixel.
The expression has 53 components: 50, then the jaw's three in radians, which the converted FLAME takes
linearly (converters.py says how far off that is).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import InvalidFile
from models.perception.head.landmark_fit import FaceFit, rotation_exp
from models.perception.head.pose import AXIS_FLIP
from models.perception.head.resnet import (
    INPUT_SIZE,
    OUTPUT_CHANNELS,
    MorphableModelPrediction,
    MorphableModelRegressor,
    ResNet50,
    load_subnet,
)

COEFFICIENT_COUNTS = {"shape": 100, "tex": 50, "exp": 50, "pose": 6, "cam": 3, "light": 27}
LANDMARK_BOX_SCALE = 1.1 * 1.25
MIN_CROP_PIXELS, MAX_CROP_RATIO = 8, 4.0  # pixels; times the frame


class DecaEncoder(nn.Module):
    """(B,3,224,224) in [0,1] -> (B,236)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet50()
        self.layers = nn.Sequential(
            nn.Linear(OUTPUT_CHANNELS, 1024), nn.ReLU(), nn.Linear(1024, sum(COEFFICIENT_COUNTS.values()))
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(self.encoder(images))


class DecaNet(MorphableModelRegressor):
    name = "deca"
    numbers = sum(COEFFICIENT_COUNTS.values())

    def __init__(self, net: nn.Module, root: np.ndarray, root_basis: np.ndarray, origin: np.ndarray):
        """root (3,): FLAME's root joint in the mean; root_basis (3,150): what a sigma of shape and expression
        does to it; origin (3,): what the converter took off the mean."""
        super().__init__(net)
        self._root, self._root_basis, self._origin = root, root_basis, origin

    def crop_boxes(self, landmarks: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        low, high = landmarks.min(1) - 0.5, landmarks.max(1) - 0.5  # the publisher counts whole pixels from 0
        side = np.trunc((high - low).mean(1, dtype=np.float64) * LANDMARK_BOX_SCALE)
        usable = (side >= MIN_CROP_PIXELS) & (side <= MAX_CROP_RATIO * max(height, width))
        corner = (low + high) / 2 - side[:, None] / 2
        return np.concatenate([corner, corner + side[:, None]], axis=1), usable

    def crop_edges_in_frame(self, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
        pixel = (boxes[:, 2:] - boxes[:, :2]) / (INPUT_SIZE - 1)
        first = boxes[:, :2] + 0.5 - pixel / 2
        return np.concatenate([first, first + INPUT_SIZE * pixel], axis=1).astype(np.float32)

    def crop_images(self, frames: np.ndarray, boxes: np.ndarray) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
        return resample_crops(images, torch.from_numpy(boxes)) / 255

    def to_face_fit(self, reading: MorphableModelPrediction) -> FaceFit:
        part = dict(
            zip(
                COEFFICIENT_COUNTS,
                np.split(reading.code, np.cumsum(list(COEFFICIENT_COUNTS.values()))[:-1], axis=1),
                strict=True,
            )
        )
        head = rotation_exp(part["pose"][:, :3].astype(np.float64))  # (n,3,3)
        joint = self._root + np.concatenate([part["shape"], part["exp"]], axis=1) @ self._root_basis.T
        apart = joint + (head @ (self._origin - joint)[..., None])[..., 0]
        apart[:, :2] += part["cam"][:, 1:]
        pixel = (reading.crop[:, 2] - reading.crop[:, 0]) / INPUT_SIZE
        scale = INPUT_SIZE / 2 * part["cam"][:, 0] * pixel
        # the publisher's 112 counts from the middle of the crop's first pixel
        middle = (INPUT_SIZE / 2 + 0.5) * pixel[:, None] + reading.crop[:, :2]
        place = scale[:, None] * (apart @ AXIS_FLIP) + np.pad(middle, ((0, 0), (0, 1)))
        exp = np.concatenate([part["exp"], part["pose"][:, 3:]], axis=1)
        parts = (part["shape"], exp, scale, AXIS_FLIP @ head, place, np.full(len(scale), np.nan))
        return FaceFit(*(p.astype(np.float32) for p in parts))


def resample_crops(images: Tensor, boxes: Tensor, sampling: Literal["exact", "official"] = "exact") -> Tensor:
    """images (n,3,H,W) float, boxes (n,4) x0, y0, x1, y1 counted from the middle of pixel 0 -> crops
    (n,3,224,224): the box's corners are the middles of the crop's corners, bilinear, 0 outside.

    official: as published with kornia 0.4.1, whose conventions of corners and middles are mixed; up to half a
    pixel off.
    """
    height, width = images.shape[2:]
    at = torch.arange(INPUT_SIZE, dtype=torch.float64)
    if sampling == "official":
        at = (at + 0.5) * (INPUT_SIZE - 1) / INPUT_SIZE
    places = [
        boxes[:, axis, None] + at * ((boxes[:, axis + 2] - boxes[:, axis]) / (INPUT_SIZE - 1))[:, None]
        for axis in (0, 1)
    ]
    if sampling == "official":
        sides = (width, height)
        places = [place * side / (side - 1) - 0.5 for place, side in zip(places, sides, strict=True)]
    x, y = ((2 * place + 1) / side - 1 for place, side in zip(places, (width, height), strict=True))
    grid = torch.stack(
        [x[:, None, :].expand(-1, INPUT_SIZE, -1), y[:, :, None].expand(-1, -1, INPUT_SIZE)], dim=-1
    )  # (n,224,224,2)
    return nn.functional.grid_sample(
        images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )


def load_deca(weights: Mapping[str, Path]) -> DecaNet:
    """From deca_model.tar as imported, and FLAME as converted and imported: its root joint is needed."""
    from models.perception.head.converters import read_safetensors_arrays

    arrays = read_safetensors_arrays(weights["flame_model"])
    joint = [arrays.get(name) for name in ("root", "root_basis", "origin")]
    if any(part is None for part in joint):
        raise InvalidFile(
            f"{weights['flame_model'].name} is not a FLAME that models.perception.head.converters wrote"
        )
    net = load_subnet(DecaEncoder, weights["deca"], "E_flame", "deca")
    return DecaNet(net, *(np.asarray(part, np.float64) for part in joint))
