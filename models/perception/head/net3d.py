"""Net3D: pixels -> expression and pose of a morphable model, with gradient to the pixels, for losses.

Where the papers put a 3DMM regressor (DECA in "Finding Directions in GAN's Latent Space", Deep3D in PIR), the
embedded default has MediaPipe's face mesh and Algorithm 1 of the HeadGAN supplement on its 468 points, the
identity given:

    three rounds of   l' = similarity that brings the points nearest to the shape    (Procrustes)
                      e  = (E'E + ridge)^-1 E' (l' - mean - identity)
    and the pose from the affine camera of x and y alone, as the net's depth is flatter than a head.

Rules, measured: the crop's square gets no gradient; a single gradient is noisy, for the net is piecewise
linear with kinks closer than 1e-4, and points the right way on the jaw in 83 % of trials, the mean over eight
copies of the crop, moved, scaled, turned and with noise, in all; rotations are solved in float64.
A generator trained against it is not to be judged by it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.perception.faces.face_crops import CropSquares, sample_crops
from models.perception.faces.face_mesh import MESH_NET, FaceMesh
from models.perception.head.default_head import get_analytic_head
from models.perception.head.dense_fit import RIDGE_SHARES
from models.perception.head.morphable import MorphableModel
from models.perception.head.pose import AXIS_FLIP, euler_to_rotation
from models.perception.interfaces import InferenceSettings
from models.perception.tflite_net import TorchTfliteNet

FIT_ROUNDS = 3
JITTER_COPIES = 8
JITTER_SHIFT, JITTER_SCALE, JITTER_ANGLE, JITTER_NOISE = 0.02, 0.04, 0.05, 0.02
"""Standard deviations: of the square's centre and side in sides, its angle in radians, pixels of [0,1]."""


# --- rotations ----------------------------------------------------------------------------------------------
class NearestRotation(torch.autograd.Function):
    """The rotation nearest to a matrix (...,3,3). Its derivative has the sums of singular values below the
    line; that of torch.linalg.svd has their differences, which vanish for matrices near a rotation."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        finite = torch.isfinite(matrix).all(-1, keepdim=True).all(-2, keepdim=True)
        u, values, vh = torch.linalg.svd(torch.where(finite, matrix, 0))  # it raises where they are not
        signs = torch.ones_like(values)
        signs[..., -1] = torch.linalg.det(u @ vh).sign()
        ctx.save_for_backward(u, values * signs, signs, vh)
        return torch.where(finite, (u * signs[..., None, :]) @ vh, torch.nan)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        u, values, signs, vh = ctx.saved_tensors
        left = u * signs[..., None, :]  # rotation = left @ vh
        inner = left.transpose(-1, -2) @ gradients[0] @ vh.transpose(-1, -2)
        sums = values[..., :, None] + values[..., None, :]
        skew = (inner - inner.transpose(-1, -2)) / sums.clamp(min=1e-12)
        return left @ skew @ vh


def nearest_rotation(matrix: Tensor) -> Tensor:
    """(...,3,3) float64 -> the rotation (determinant 1) nearest in the Frobenius norm, with gradient; NaN of
    a matrix that is not finite."""
    found = NearestRotation.apply(matrix)
    assert isinstance(found, Tensor)
    return found


def rotation_to_euler(rotation: Tensor) -> Tensor:
    """Model-to-camera rotations (...,3,3), flip included -> (...,3) degrees: pitch, yaw, roll, as pose.py
    has them; with gradient but at a yaw of 90 degrees."""
    head = rotation.new_tensor(AXIS_FLIP) @ rotation
    cos_yaw = torch.hypot(head[..., 0, 0], head[..., 1, 0])
    angles = [
        torch.atan2(head[..., 2, 1], head[..., 2, 2]),
        torch.atan2(-head[..., 2, 0], cos_yaw),
        torch.atan2(head[..., 1, 0], head[..., 0, 0]),
    ]
    return torch.rad2deg(torch.stack(angles, dim=-1))


# --- points -> expression and pose --------------------------------------------------------------------------
class PointFit(NamedTuple):
    expression: Tensor
    """(B,n_exp) in sigmas."""
    angles: Tensor
    """(B,3) degrees: pitch, yaw, roll."""


class DensePointFitter:
    """Algorithm 1 in torch for a model's dense points, the identity given."""

    def __init__(self, model: MorphableModel):
        mean, id_basis, exp_basis = (torch.from_numpy(part).double() for part in model.dense_model())
        self.n_id, self.n_exp = model.n_id, model.n_exp
        self._mean, self._id, self._exp = mean, id_basis, exp_basis
        half = float(mean[:, 0].max() - mean[:, 0].min()) / 2
        flat = exp_basis.flatten(0, 1)  # (3n,n_exp)
        held = flat.T @ flat + (RIDGE_SHARES["dense"] * half) ** 2 * torch.eye(self.n_exp).double()
        self._solve = torch.linalg.solve(held, flat.T)  # (n_exp,3n)
        turn = np.eye(3) if model.dense_angles is None else AXIS_FLIP @ euler_to_rotation(*model.dense_angles)
        self._turn_back = torch.from_numpy(turn.T)
        self._flip = torch.tensor([1.0, -1.0, -1.0]).double()

    def to(self, device: torch.device) -> DensePointFitter:
        for name in ("_mean", "_id", "_exp", "_solve", "_turn_back", "_flip"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def fit(self, points: Tensor, identity: Tensor) -> PointFit:
        """points (B,n,3) pixels, x right, y down, z smaller nearer; identity (B,n_id) sigmas -> float32, with
        gradient to the points."""
        points, identity = points.double(), identity.double()
        person = self._mean + torch.einsum("ncd,bd->bnc", self._id, identity)
        shape = person
        expression = points.new_zeros((len(points), self.n_exp))
        for _ in range(FIT_ROUNDS):
            aligned = align_points(points * self._flip, shape)
            expression = (aligned - person).flatten(1) @ self._solve.T
            shape = person + torch.einsum("ncd,bd->bnc", self._exp, expression)
        rotation = affine_camera_rotation(shape, points) @ self._turn_back
        return PointFit(expression.float(), rotation_to_euler(rotation).float())


def align_points(points: Tensor, shape: Tensor) -> Tensor:
    """points (B,n,3) and shape (B,n,3) in the same axes -> the points, turned, scaled and moved to where they
    lie nearest to the shape (Procrustes without reflection)."""
    middle, to = points.mean(1, keepdim=True), shape.mean(1, keepdim=True)
    centred, target = points - middle, shape - to
    cross = target.transpose(1, 2) @ centred  # (B,3,3)
    rotation = nearest_rotation(cross / cross.flatten(1).norm(dim=1)[:, None, None])
    turned = centred @ rotation.transpose(1, 2)
    scale = (turned * target).sum((1, 2)) / centred.square().sum((1, 2))
    return scale[:, None, None] * turned + to


def affine_camera_rotation(shape: Tensor, points: Tensor) -> Tensor:
    """The rotation (B,3,3) of the affine camera that carries a shape (B,n,3) to image points (B,n,2 or 3): of
    x and y alone, the third row their cross product."""
    known = shape - shape.mean(1, keepdim=True)
    seen = points[..., :2] - points[..., :2].mean(1, keepdim=True)
    rows = torch.linalg.solve(known.transpose(1, 2) @ known, known.transpose(1, 2) @ seen)  # (B,3,2)
    unit = (rows / rows.norm(dim=1, keepdim=True)).transpose(1, 2)  # (B,2,3)
    third = torch.linalg.cross(unit[:, 0], unit[:, 1])
    return nearest_rotation(torch.cat([unit, third[:, None]], dim=1))


# --- pixels -> expression and pose --------------------------------------------------------------------------
class Net3DPrediction(NamedTuple):
    expression: Tensor
    """(B,n_exp) sigmas, the mean of the copies."""
    angles: Tensor
    """(B,3) degrees."""
    points: Tensor
    """(B,468,3) pixels of the image."""
    presence: Tensor
    """(B,) logit that there is a face: below 0 the rest means nothing. All is NaN of a crop that is not
    finite."""


class Net3D:
    """models.perception.interfaces.InferenceConfigurable."""

    name = "net3d_mesh468"

    def __init__(self, mesh: FaceMesh, model: MorphableModel):
        self._mesh, self._fitter = mesh, DensePointFitter(model)
        self.n_id, self.n_exp = model.n_id, model.n_exp

    def configure_inference(self, how: InferenceSettings) -> None:
        self._mesh.configure_inference(how)
        self._fitter.to(torch.device(how.device))

    def predict(
        self,
        images: Tensor,
        squares: CropSquares,
        identity: Tensor,
        generator: torch.Generator | None = None,
        copies: int = JITTER_COPIES,
    ) -> Net3DPrediction:
        """images (B,3,H,W) in [0,1], squares of their faces (face_mesh.squares_from_points of points that are
        known), identity (B,n_id) sigmas -> means over `copies` jittered crops, with gradient to the images.

        generator: where the jitter comes from, on the CPU; None = one crop, as it is.
        """
        fixed = CropSquares(*(one.detach() for one in squares))
        copies = copies if generator is not None else 1
        fixed = CropSquares(*(one.repeat_interleave(copies, 0) for one in fixed))
        if generator is not None:
            fixed = jitter_squares(fixed, generator)
        crops = sample_crops(images.repeat_interleave(copies, 0), fixed, MESH_NET.side)
        if generator is not None:
            noise = torch.randn(crops.shape, generator=generator).to(crops)
            crops = (crops + JITTER_NOISE * noise).clamp(0, 1)
        points, presence = self._mesh.predict_crops(crops, fixed)
        found = self._fitter.fit(points, identity.repeat_interleave(copies, 0))
        parts = (found.expression, found.angles, points, presence)
        return Net3DPrediction(*(one.unflatten(0, (len(images), copies)).mean(1) for one in parts))


def jitter_squares(squares: CropSquares, generator: torch.Generator) -> CropSquares:
    """Moved, scaled and turned a little, each by itself."""
    draws = torch.randn((len(squares.side), 4), generator=generator).to(squares.side)
    shift = draws[:, :2] * JITTER_SHIFT * squares.side[:, None]
    side = squares.side * (1 + JITTER_SCALE * draws[:, 2])
    return CropSquares(squares.centre + shift, side, squares.angle + JITTER_ANGLE * draws[:, 3])


def load_net3d_mesh468(weights: Mapping[str, Path]) -> Net3D:
    """On the analytic head, whose dense points are the mesh's."""
    mesh = FaceMesh(TorchTfliteNet(weights["mp_mesh468"], MESH_NET))
    return Net3D(mesh, get_analytic_head())
