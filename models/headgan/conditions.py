"""HeadGAN's condition (supplement, Fig. 1): normalised mean face coordinates, rendered from stored
coefficients and cameras; and its alternative, a sketch of 68 landmarks.

A pixel that the posed face covers holds the place of what it shows in the mean face, a number from 0 to 1 an
axis: red x, green y, blue z. Colours never depend on identity, expression or pose; only geometry does. The
background is 0. Pictures are in [0,1] and are given to the net as they are.

Legend: B faces (frames), N vertices, I image side.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from models.headgan.motion import CAMERA_PARAMETER_COUNT
from models.perception.head.morphable import MorphableModel
from models.perception.head.raster_torch import Shading, rasterize

RENDERED_HEAD_REGIONS = ("front", "eyeballs")
"""Regions that are rendered of a model that names the first: LSFM, the paper's, is a face with closed
eye sockets and without ears, neck and the back of the head. Models without regions are rendered whole.
"""
LANDMARK_LINES = (
    range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36),
    (*range(36, 42), 36), (*range(42, 48), 42), (*range(48, 60), 48), (*range(60, 68), 60),
)  # fmt: skip
"""Polylines of the 68 points: jaw, brows, nose, nostrils, eyes, outer and inner lips."""


def nmfc_colours(mean: np.ndarray) -> np.ndarray:
    """mean (N,3) -> (N,3) float32: each axis from its least value, 0, to its largest, 1."""
    low, high = mean.min(0), mean.max(0)
    return ((mean - low) / (high - low)).astype(np.float32)


class FaceRenderer:
    """One morphable model, rendered from coefficients on a device. No net: nothing of it is trained or
    goes into a checkpoint.
    """

    def __init__(
        self,
        model: MorphableModel,
        size: int,
        shading: Shading = "smooth",
        device: torch.device | str = "cpu",
        *,
        full_head: bool = False,
    ) -> None:
        """size: I. shading: smooth, or one colour a triangle as the authors' renderer may have done
        (they differ by at most a triangle's extent). full_head: render all of the model, whatever regions
        it names.
        """
        self.name, self.size = model.name, size
        self.shading: Shading = shading
        self.n_id, self.n_exp = model.n_id, model.n_exp
        vertices, faces = _region(model, full_head)
        basis = np.concatenate([model.id_basis[vertices], model.exp_basis[vertices]], axis=2)
        marks, *mark_bases = model.landmark_model()
        mark_basis = np.concatenate(mark_bases, axis=2)

        def to(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self.mean = to(model.mean[vertices].reshape(-1).astype(np.float32))  # (3N,)
        self.basis = to(_flat(basis))  # (n_id + n_exp, 3N)
        self.faces = to(faces.astype(np.int64))  # (F,3)
        self.colours = to(nmfc_colours(model.mean[vertices]))  # (N,3)
        self.marks = to(marks.reshape(-1).astype(np.float32))  # (3 68,)
        self.mark_basis = to(_flat(mark_basis))

    @property
    def packed_motion_size(self) -> int:
        """Of a frame, as `motion.HeadMotion.packed` lays them out."""
        return self.n_id + self.n_exp + CAMERA_PARAMETER_COUNT

    @torch.no_grad()
    def render_nmfc(self, packed: Tensor) -> Tensor:
        """packed (...,numbers) float32, in pixels of an image of side I -> (...,3,I,I) float32 in [0,1].

        In float32 whatever autocast is on: bfloat16 would move vertices by a pixel.
        """
        points = self._placed(packed, self.mean, self.basis)
        surface = rasterize(points, self.faces, self.size, self.size)
        image = surface.render_vertex_values(self.faces, self.colours, self.shading)
        return image.contiguous().view(*packed.shape[:-1], 3, self.size, self.size)

    @torch.no_grad()
    def project_landmarks(self, packed: Tensor) -> Tensor:
        """packed (...,numbers) -> (...,68,2) float32 pixels: the model's landmarks under its camera."""
        points = self._placed(packed, self.marks, self.mark_basis)
        return points[..., :2].reshape(*packed.shape[:-1], 68, 2)

    @torch.no_grad()
    def render_sketch(self, packed: Tensor) -> Tensor:
        """packed (...,numbers) -> (...,3,I,I) float32 in [0,1]: the model's landmarks joined by lines."""
        marks = self.project_landmarks(packed)
        return rasterize_sketch(marks.reshape(-1, 68, 2), self.size).view(
            *packed.shape[:-1], 3, self.size, self.size
        )

    def _placed(self, packed: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
        """packed (...,numbers), mean (3N,), basis (n_id + n_exp, 3N) -> (B,N,3) pixels with depth, B the
        product of the leading sizes.
        """
        if packed.shape[-1] != self.packed_motion_size:
            raise ValueError(
                f"{self.name}: {packed.shape[-1]} numbers a face; expected {self.n_id} of identity, "
                f"{self.n_exp} of expression and {CAMERA_PARAMETER_COUNT} of the camera"
            )
        packed = packed.reshape(-1, self.packed_motion_size)
        coefficients, scale, rotation, translation = packed.split([self.n_id + self.n_exp, 1, 9, 3], dim=1)
        with torch.autocast(packed.device.type, enabled=False):
            shape = torch.addmm(mean, coefficients.float(), basis).view(len(packed), -1, 3)
            turn = (scale * rotation).float().view(-1, 3, 3).transpose(1, 2)
            return shape @ turn + translation[:, None].float()


def _region(model: MorphableModel, full_head: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N,) that are rendered, and triangles (F,3) among them."""
    everything = np.ones(len(model.mean), bool)
    masks = [model.regions[name] for name in RENDERED_HEAD_REGIONS if name in model.regions]
    kept = (
        everything
        if full_head or RENDERED_HEAD_REGIONS[0] not in model.regions
        else np.logical_or.reduce(masks)
    )
    faces = model.faces[kept[model.faces].all(1)]
    vertices, place = np.unique(faces, return_inverse=True)
    return vertices, place.reshape(-1, 3)


def _flat(basis: np.ndarray) -> np.ndarray:
    """(N,3,k) -> (k,3N) float32."""
    return basis.reshape(-1, basis.shape[-1]).T.astype(np.float32)


@torch.no_grad()
def rasterize_sketch(landmarks: Tensor, size: int) -> Tensor:
    """landmarks (B,68,2) pixels of an image of side `size` -> (B,3,size,size) float32: white lines a pixel
    wide, softened at their edges, on black. A face with a NaN stays black.
    """
    at = torch.arange(size, device=landmarks.device, dtype=torch.float32) + 0.5
    nearest = landmarks.new_full((len(landmarks), size, size), float("inf"), dtype=torch.float32)
    for line in LANDMARK_LINES:
        for one, other in pairwise(line):
            a, b = landmarks[:, one].float(), landmarks[:, other].float()  # (B,2)
            along = b - a
            x, y = at[None, None] - a[:, 0, None, None], at[None, :, None] - a[:, 1, None, None]
            length = (along**2).sum(1).clamp_min(1e-12)[:, None, None]
            share = ((x * along[:, 0, None, None] + y * along[:, 1, None, None]) / length).clamp(0, 1)
            gap = torch.hypot(x - share * along[:, 0, None, None], y - share * along[:, 1, None, None])
            nearest = nearest.minimum(torch.nan_to_num(gap, nan=float("inf")))
    return (1 - nearest).clamp(0, 1)[:, None].repeat(1, 3, 1, 1)
