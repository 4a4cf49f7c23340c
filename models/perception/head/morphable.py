"""A 3D morphable model of a head: one class for every model that is read.

vertices = mean + id_basis @ id + exp_basis @ exp, coefficients in sigmas. Model space: x right in the image,
y up, z toward the viewer, recentred. Licensed models (BFM, LSFM, FLAME) are converted to the npz that `load`
reads; the default (default_head.py) is made by our own code and needs no file.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models.errors import InvalidFile
from models.perception.file_arrays import read_npz

LANDMARK_COUNT = 68
DEFAULT_COEFFICIENT_BOUND = 3.0  # sigmas
ARRAY_NDIMS = {"mean": 2, "id_basis": 3, "exp_basis": 3, "faces": 2, "lm68_weight": 2, "tex_basis": 3}
_TEXTS = ("name", "license")
_NAMES = ("id_names", "exp_names")
_REGION = "region_"  # prefix of the masks in the npz


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MorphableModel:
    """N vertices, F triangles. Checked when made: a wrong shape or index is a ValueError naming it."""

    name: str
    license: str
    mean: np.ndarray
    """(N,3) float32, neutral shape."""
    id_basis: np.ndarray
    """(N,3,n_id) float32, a sigma each."""
    exp_basis: np.ndarray
    """(N,3,n_exp) float32, a sigma each."""
    faces: np.ndarray
    """(F,3) int32, counter-clockwise seen from outside."""
    lm68_index: np.ndarray
    """(68,3) int32: the three vertices of each iBUG landmark."""
    lm68_weight: np.ndarray
    """(68,3) float32, rows sum to 1."""
    id_bound: np.ndarray | None = None
    """(n_id,) float32: |coefficient| a fit may reach; 3 sigmas if not given."""
    exp_bound: np.ndarray | None = None
    tex_mean: np.ndarray | None = None
    """(N,3) float32 in [0,1], or None."""
    tex_basis: np.ndarray | None = None
    """(N,3,n_tex) float32, or None."""
    uv: np.ndarray | None = None
    """(N,2) float32 in [0,1], or None: place in a texture atlas, x right, y down."""
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    """Name -> (N,) bool. The analytic head has skin, front, mouth, lower_face, eyeballs, neck, ..."""
    id_names: tuple[str, ...] = ()
    """What each component does, where the model's makers say so; else empty."""
    exp_names: tuple[str, ...] = ()
    """Component 0 of the analytic head is the jaw opening."""
    dense_index: np.ndarray | None = None
    """The vertices that dense face points stand for, in their order, where the model has such: (n,) int32, or
    (n,3) int32 for points that lie on triangles."""
    dense_weight: np.ndarray | None = None
    """(n,3) float32, rows sum to 1: where on their triangles."""
    dense_angles: np.ndarray | None = None
    """(3,) float32 degrees, pitch, yaw, roll: what fits to the dense points are turned by against fits to the
    68 landmarks, because the net that places them has another idea of a face than the model; None = not at
    all."""
    metres_per_unit: float = float("nan")

    def __post_init__(self) -> None:
        for name, rank in ARRAY_NDIMS.items():  # before their lengths are compared
            array = getattr(self, name)
            if array is not None and array.ndim != rank:
                raise ValueError(f"{self.name}: {name} is {array.shape}; expected {rank} dimensions")
        for name, bound, count in (
            ("id_bound", self.id_bound, self.n_id),
            ("exp_bound", self.exp_bound, self.n_exp),
        ):
            if bound is None:
                object.__setattr__(self, name, np.full(count, DEFAULT_COEFFICIENT_BOUND, np.float32))
        _check(self)

    @property
    def n_id(self) -> int:
        return self.id_basis.shape[-1]

    @property
    def n_exp(self) -> int:
        return self.exp_basis.shape[-1]

    def shape(self, id: np.ndarray, exp: np.ndarray) -> np.ndarray:
        """id (n_id,) or (B,n_id), exp (n_exp,) or (B,n_exp) -> vertices (N,3) or (B,N,3) float32.

        One identity goes with many expressions: the two broadcast.
        """
        id, exp = np.asarray(id, np.float32), np.asarray(exp, np.float32)
        if id.shape[-1] != self.n_id or exp.shape[-1] != self.n_exp:
            raise ValueError(
                f"{self.name}: {id.shape[-1]} identity and {exp.shape[-1]} expression coefficients; "
                f"the model has {self.n_id} and {self.n_exp}"
            )
        n = len(self.mean)
        person = self.mean.reshape(-1) + id @ self.id_basis.reshape(3 * n, -1).T
        flat = person + exp @ self.exp_basis.reshape(3 * n, -1).T
        return flat.reshape(*flat.shape[:-1], n, 3)

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        """vertices (...,N,3) -> (...,68,3), iBUG order."""
        return (vertices[..., self.lm68_index, :] * self.lm68_weight[..., None]).sum(-2)

    def landmark_model(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The model at its landmarks: mean (68,3), id_basis (68,3,n_id), exp_basis (68,3,n_exp)."""
        weight = self.lm68_weight[:, :, None, None]
        id_basis = (self.id_basis[self.lm68_index] * weight).sum(1)
        exp_basis = (self.exp_basis[self.lm68_index] * weight).sum(1)
        return self.landmarks(self.mean), id_basis, exp_basis

    def dense_model(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The model at its n dense points: mean (n,3), id_basis (n,3,n_id), exp_basis (n,3,n_exp). ValueError
        where it does not say which those are."""
        if self.dense_index is None:
            raise ValueError(f"{self.name} has no dense points")
        parts = (self.mean, self.id_basis, self.exp_basis)
        if self.dense_weight is None:
            mean, id_basis, exp_basis = (part[self.dense_index] for part in parts)
            return mean, id_basis, exp_basis
        mean, id_basis, exp_basis = (
            np.einsum("nk,nk...->n...", self.dense_weight, part[self.dense_index]) for part in parts
        )
        return mean, id_basis, exp_basis

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """vertices (...,N,3) -> outward unit normals (...,N,3): the neighbouring faces', weighted by area."""
        batch = vertices.reshape(-1, *vertices.shape[-2:])
        return np.stack([vertex_normals(one, self.faces) for one in batch]).reshape(vertices.shape)

    def save(self, path: Path | BinaryIO) -> None:
        """One npz, plain arrays only; `load` reads it back."""
        arrays: dict[str, np.ndarray] = {_REGION + name: mask for name, mask in self.regions.items()}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != "regions" and value is not None:
                arrays[one.name] = np.asarray(value)
        np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load(cls, path: Path | BinaryIO) -> MorphableModel:
        """Read an npz; nothing in it is unpickled. InvalidFile names the file and what is missing, unknown or
        wrong in it.
        """
        name = path.name if isinstance(path, Path) else "the model's stream"
        with path.open("rb") if isinstance(path, Path) else nullcontext(path) as stream:
            file = read_npz(stream, name, "a morphable model as MorphableModel.save writes it")
        file.require_fields(
            "name", "license", "mean", "id_basis", "exp_basis", "faces", "lm68_index", "lm68_weight"
        )
        regions = {n.removeprefix(_REGION): a for n, a in file.found.items() if n.startswith(_REGION)}
        values: dict[str, Any] = {n: a for n, a in file.found.items() if not n.startswith(_REGION)}
        known = {one.name for one in fields(cls)} - {"regions"}
        if unknown := sorted(set(values) - known):
            raise InvalidFile(f"{name}: unknown {', '.join(unknown)} in a morphable model")
        values |= {text: file.read_text(text) for text in _TEXTS}
        values |= {n: file.read_texts(n) if values[n].size else () for n in _NAMES if n in values}
        if "metres_per_unit" in values:
            values["metres_per_unit"] = float(file.read_floats("metres_per_unit", (), finite=False))
        try:
            return cls(regions=regions, **values)
        except ValueError as error:
            raise InvalidFile(f"{name}: {error}") from error


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """vertices (N,3), faces (F,3) -> unit normals (N,3) float32; 0 for a vertex of no face."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    corners = faces.T.reshape(-1)
    total = np.stack(
        [np.bincount(corners, np.tile(face[:, axis], 3), minlength=len(vertices)) for axis in range(3)],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.where(length > 0, length, 1)).astype(np.float32)


def _check(model: MorphableModel) -> None:
    n = len(model.mean)
    shapes: dict[str, tuple[tuple, type]] = {
        "mean": ((n, 3), np.float32),
        "id_basis": ((n, 3, model.n_id), np.float32),
        "exp_basis": ((n, 3, model.n_exp), np.float32),
        "faces": ((len(model.faces), 3), np.int32),
        "lm68_index": ((LANDMARK_COUNT, 3), np.int32),
        "lm68_weight": ((LANDMARK_COUNT, 3), np.float32),
        "id_bound": ((model.n_id,), np.float32),
        "exp_bound": ((model.n_exp,), np.float32),
        "tex_mean": ((n, 3), np.float32),
        "uv": ((n, 2), np.float32),
    }
    if model.tex_basis is not None:
        shapes["tex_basis"] = ((n, 3, model.tex_basis.shape[-1]), np.float32)
    for name, (shape, dtype) in shapes.items():
        value: np.ndarray | None = getattr(model, name)
        if value is None:  # tex_mean and uv may be absent; the others' types forbid it
            continue
        if value.shape != shape or value.dtype != dtype:
            raise ValueError(
                f"{model.name}: {name} is {value.dtype} {value.shape}; expected {np.dtype(dtype)} {shape}"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"{model.name}: {name} holds a NaN or an infinity")
    for name, mask in model.regions.items():
        if mask.shape != (n,) or mask.dtype != np.bool_:
            raise ValueError(
                f"{model.name}: region {name} is {mask.dtype} {mask.shape}; expected bool {(n,)}"
            )
    _check_dense_points(model)
    for name in ("faces", "lm68_index", "dense_index"):
        index = getattr(model, name)
        if index is None:
            continue
        if index.size and (index.min() < 0 or index.max() >= n):
            raise ValueError(
                f"{model.name}: {name} runs from {index.min()} to {index.max()}; there are {n} vertices"
            )
    for name in ("lm68_weight", "dense_weight"):
        weight = getattr(model, name)
        if weight is not None and not np.allclose(weight.sum(1), 1, atol=1e-4):
            raise ValueError(f"{model.name}: the rows of {name} must sum to 1")
    for name, count in (("id_names", model.n_id), ("exp_names", model.n_exp)):
        names = getattr(model, name)
        if names and len(names) != count:
            raise ValueError(f"{model.name}: {len(names)} {name} for {count} components")


def _check_dense_points(model: MorphableModel) -> None:
    index, weight, angles = model.dense_index, model.dense_weight, model.dense_angles
    if index is not None and weight is None and (index.ndim != 1 or index.dtype != np.int32):
        raise ValueError(
            f"{model.name}: dense_index is {index.dtype} {index.shape}; "
            "expected int32 of one dimension, or of three vertices a point beside dense_weight"
        )
    if weight is not None:
        points = (len(weight), 3)
        if weight.shape != points or weight.dtype != np.float32:
            raise ValueError(
                f"{model.name}: dense_weight is {weight.dtype} {weight.shape}; expected float32 (n, 3)"
            )
        if index is None or index.shape != points or index.dtype != np.int32:
            found = "missing" if index is None else f"{index.dtype} {index.shape}"
            raise ValueError(
                f"{model.name}: dense_index is {found}; expected int32 {points} as dense_weight has them"
            )
    if angles is not None and (angles.shape != (3,) or not np.isfinite(angles).all()):
        raise ValueError(f"{model.name}: dense_angles are {angles}; expected three finite degrees")
