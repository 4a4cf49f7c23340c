"""What ArcFace's nets look at, and the nets behind one interface: a face of 112 px, RGB in [-1,1], from which
each makes 512 numbers (Deng et al. 2019).

The papers cut the face out in two ways, whose cosines do not compare: five landmarks brought to a template by
a similarity (InsightFace; HyperReenact), or a fixed square of an aligned frame of 256 px (the ID loss of
e4e and of StelaBou/stylegan_directions_face_reenactment).

Everything here is differentiable: gradient reaches images and points, and never a weight.
Legend: B faces, H, W sides of an image. Coordinates are pixels, pixel centres at +0.5.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.perception.faces.face_crops import CropSquares, crop_grid
from models.perception.interfaces import InferenceSettings
from models.perception.torch_net import TorchNet, map_batches_with_oom_backoff

FACE_SIDE, EMBEDDING_SIZE = 112, 512
FIVE_POINT_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""InsightFace's: eye at the image's left, eye at its right, tip of the nose, left and right corner of the
mouth, in the face of 112 px, counted from the middle of its first pixel."""
LEFT_EYE_LANDMARKS, RIGHT_EYE_LANDMARKS = slice(36, 42), slice(42, 48)
NOSE_AND_MOUTH_LANDMARKS = (30, 48, 54)
"""Of iBUG's 68."""
ALIGNED_FRAME_SIDE = 256
FIXED_CROP_ROWS, FIXED_CROP_COLUMNS = slice(35, 223), slice(32, 220)
"""Of an aligned frame: the face of e4e's and Directions' ID loss."""


# --- the two crops ------------------------------------------------------------------------------------------
def five_points_from_68(landmarks: Tensor) -> Tensor:
    """landmarks (B,68,2), iBUG order -> (B,5,2) in the order of FIVE_POINT_TEMPLATE: an eye is the mean of
    its six points."""
    eyes = [landmarks[:, some].mean(1) for some in (LEFT_EYE_LANDMARKS, RIGHT_EYE_LANDMARKS)]
    return torch.stack([*eyes, *(landmarks[:, n] for n in NOSE_AND_MOUTH_LANDMARKS)], dim=1)


def five_point_squares(points: Tensor) -> CropSquares:
    """points (B,5,2), in the order of FIVE_POINT_TEMPLATE -> where the faces of 112 px lie in the image: the
    similarity that brings the points nearest to the template, least squares in the template."""
    template = torch.tensor(FIVE_POINT_TEMPLATE, dtype=points.dtype, device=points.device) + 0.5
    middle, mean = template.mean(0), points.mean(1)  # (2,), (B,2)
    u, v = (template - middle).unbind(-1)  # (5,)
    x, y = (points - mean[:, None]).unbind(-1)  # (B,5)
    spread = (x * x + y * y).sum(1)
    # scale times cosine and sine of the turn from the image to the template
    a, b = (x * u + y * v).sum(1) / spread, (x * v - y * u).sum(1) / spread
    square = a * a + b * b
    dx, dy = (FACE_SIDE / 2 - middle).unbind()  # from the template's mean to the middle of the face's square
    offset = torch.stack([a * dx + b * dy, a * dy - b * dx], dim=1) / square[:, None]
    return CropSquares(mean + offset, FACE_SIDE / square.sqrt(), torch.atan2(-b, a))


def align_five_points(images: Tensor, points: Tensor) -> Tensor:
    """images (B,3,H,W) float, points (B,5,2) in their pixels -> (B,3,112,112), bilinear.

    Outside an image is 0: grey where images are in [-1,1], as in Directions' and HyperReenact's code, which
    align tensors; black where they are in 0..255 and scaled afterwards, as in InsightFace's own.
    """
    grid = crop_grid(five_point_squares(points), FACE_SIDE, *images.shape[2:])
    return functional.grid_sample(
        images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )


def crop_aligned_frames(images: Tensor) -> Tensor:
    """images (B,3,256,256) float -> (B,3,112,112): the fixed square of the ID loss, averaged."""
    if images.shape[2:] != (ALIGNED_FRAME_SIDE, ALIGNED_FRAME_SIDE):
        sides = tuple(images.shape[2:])
        raise ValueError(f"images of {sides} pixels: the fixed crop is of frames of {ALIGNED_FRAME_SIDE}")
    face = images[:, :, FIXED_CROP_ROWS, FIXED_CROP_COLUMNS]  # (B,3,188,188)
    return functional.adaptive_avg_pool2d(face, FACE_SIDE)


# --- the nets -----------------------------------------------------------------------------------------------
class ArcFaceNet:
    """A net with published weights: models.perception.interfaces.InferenceConfigurable."""

    def __init__(self, name: str, net: nn.Module) -> None:
        self.name, self._net = name, TorchNet(net)

    def configure_inference(self, how: InferenceSettings) -> None:
        self._net.configure_inference(how)

    def embed_faces(self, faces: Tensor) -> Tensor:
        """faces (B,3,112,112) float, RGB in [-1,1] -> (B,512) of length 1. For losses: gradient reaches the
        faces."""
        return functional.normalize(self._net.run_net(faces, len(faces)).float(), dim=1)

    def embed_five_points(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        """frames (T,H,W,3) uint8 RGB, points (T,5,2) pixels -> (T,512) float32 of length 1, NaN where the
        points are. Outside the frame it is black."""
        rows = np.flatnonzero(np.isfinite(points).all((1, 2)))

        def cut(chosen: np.ndarray) -> Tensor:
            images = self._net.images_to_device(torch.from_numpy(np.ascontiguousarray(frames[chosen])))
            at = torch.from_numpy(points[chosen]).to(images.device, torch.float32)
            return align_five_points(images, at)

        return self._embed(len(frames), rows, cut)

    def embed_aligned_frames(self, frames: np.ndarray) -> np.ndarray:
        """frames (T,256,256,3) uint8 RGB -> (T,512) float32 of length 1, whatever they show: no face is
        looked for."""

        def cut(chosen: np.ndarray) -> Tensor:
            images = torch.from_numpy(np.ascontiguousarray(frames[chosen]))
            return crop_aligned_frames(self._net.images_to_device(images))

        return self._embed(len(frames), np.arange(len(frames)), cut)

    @torch.inference_mode()
    def _embed(self, count: int, rows: np.ndarray, cut: Callable[[np.ndarray], Tensor]) -> np.ndarray:
        """cut: frames' numbers (B,) -> their faces (B,3,112,112), 0 to 255."""

        def work(some: slice, full: int) -> Tensor:
            faces = cut(rows[some]) / 127.5 - 1
            return functional.normalize(self._net.run_net(faces, full)[: len(faces)].float(), dim=1)

        out = np.full((count, EMBEDDING_SIZE), np.nan, np.float32)
        size = self._net.batch_size(ALIGNED_FRAME_SIDE**2)
        parts = list(map_batches_with_oom_backoff(len(rows), size, work))
        if parts:
            out[rows] = torch.cat(parts).cpu().numpy()
        return out
