"""How points of a video become fits of a head: the settings that decide the numbers, and the fitter that they
name. Stage fit3dmm makes its fits with it, and a model that learned from them fits what drives it alike.

T = frames, n = frames with points, m = points of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from msgspec import Struct

from models.errors import InvalidSettings
from models.perception.head.dense_fit import DenseFitter
from models.perception.head.landmark_fit import (
    FaceFit,
    LandmarkFitOptions,
    face_size,
    fit_landmarks,
    interpolate_fit,
    landmark_fit_error,
)
from models.perception.head.morphable import MorphableModel
from models.perception.head.smoothing import gaussian_smooth_face_fit, one_euro_filter

LANDMARK_FIT_SETTINGS = (
    "contour_weight", "chin_weight", "eyelid_weight", "noise", "id_prior", "rounds", "identity",
)  # fmt: skip
"""Those of `LandmarkFitOptions` that a run can set."""
POINT_BACKENDS = ("landmarks", "algorithm1")
"""Backends that need points and no frames."""
RANGES: dict[str, tuple[float, float]] = {
    "contour_weight": (0, 1), "chin_weight": (0, 1), "eyelid_weight": (0, 10), "noise": (1e-6, 1e6),
    "id_prior": (1e-9, 1e9), "rounds": (1, 50), "alignments": (1, 50), "ridge": (0, 1e9),
    "max_error": (1e-6, 1e6), "max_gap": (0, 1e9), "smooth_sigma": (0.3, 20), "smooth_cutoff": (0.05, 12.5),
    "smooth_beta": (0, 1e6),
}  # fmt: skip
"""Least and greatest values: settings come from checkpoints, which anyone may have written."""


class FaceFitSettings(Struct, frozen=True, kw_only=True):
    """The settings of stage fit3dmm by the same names, and with its defaults."""

    backend: Literal["landmarks", "algorithm1", "deca", "deep3d"] = "landmarks"
    points: Literal["landmarks", "landmarks3d", "dense"] = "landmarks"
    identity: Literal["clip", "frame"] = "clip"
    contour_weight: float = 0.15
    chin_weight: float = 0.1
    eyelid_weight: float = 3.0
    noise: float = 0.03
    id_prior: float = 0.5
    rounds: int = 5
    ridge: float | None = None
    alignments: int = 1
    camera_target: Literal["mean", "fitted"] = "mean"
    orthonormal: bool = True
    max_error: float = 0.1
    max_gap: int = 5
    smooth: Literal["none", "gaussian", "one_euro"] = "none"
    smooth_sigma: float = 1.0
    smooth_cutoff: float = 2.0
    smooth_beta: float = 0.3

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} {value}: expected {least:g} to {most:g}")

    @property
    def summary(self) -> str:
        """In a few words: "algorithm1 on dense points, 5 alignments"."""
        if self.backend != "algorithm1":
            return "68 landmarks" if self.backend == "landmarks" else self.backend
        rounds = f"{self.alignments} alignment{'s' * (self.alignments != 1)}"
        points = "dense points" if self.points == "dense" else "68 landmarks"
        return f"algorithm1 on {points}, {rounds}"


class ReadsFitSettings(Protocol):
    """`FaceFitSettings`, or the settings of stage fit3dmm."""

    @property
    def backend(self) -> str: ...
    @property
    def points(self) -> Literal["landmarks", "landmarks3d", "dense"]: ...
    @property
    def ridge(self) -> float | None: ...
    @property
    def alignments(self) -> int: ...
    @property
    def camera_target(self) -> Literal["mean", "fitted"]: ...
    @property
    def orthonormal(self) -> bool: ...
    @property
    def smooth(self) -> Literal["none", "gaussian", "one_euro"]: ...
    @property
    def smooth_sigma(self) -> float: ...
    @property
    def smooth_cutoff(self) -> float: ...
    @property
    def smooth_beta(self) -> float: ...


@dataclass(frozen=True, slots=True)
class PointFitter:
    """Fits a model to points: of one person over n frames."""

    model: MorphableModel
    dense: DenseFitter | None
    """Algorithm 1; None = `options`"""
    options: LandmarkFitOptions | None
    points: Literal["landmarks", "landmarks3d", "dense"]

    def fit(self, points: np.ndarray) -> FaceFit:
        """points (n,m,2 or 3), finite -> the fit of each frame. InvalidSettings for a number of points that
        the model does not know."""
        if self.dense is None:
            assert self.options is not None
            return fit_landmarks(self.model, points, self.options)
        if points.shape[1] != self.dense.point_count:
            raise InvalidSettings(
                f"fits.NAME.points {self.points}: the keypoints have {points.shape[1]} points, model "
                f"{self.model.name} knows {self.dense.point_count}; choose another model or landmarker"
            )
        return self.dense.fit_points(points)

    def error(self, fit: FaceFit, points: np.ndarray) -> np.ndarray:
        """Pixels (n,) by which the fit misses the points."""
        if self.dense is not None and self.points == "dense":
            return self.dense.fit_error(fit, points)
        return landmark_fit_error(self.model, fit, points)


def make_point_fitter(settings: ReadsFitSettings, model: MorphableModel) -> PointFitter:
    """Of a backend that needs points alone. InvalidSettings where the model has no such points."""
    if settings.backend == "landmarks":
        options = LandmarkFitOptions(**{name: getattr(settings, name) for name in LANDMARK_FIT_SETTINGS})
        return PointFitter(model, None, options, "landmarks")
    if settings.backend not in POINT_BACKENDS:
        raise InvalidSettings(
            f"fits by {settings.backend} need frames and a net; expected landmarks, algorithm1"
        )
    if settings.points == "dense" and model.dense_index is None:
        raise InvalidSettings(
            f"fits.NAME.points dense: model {model.name} does not say which vertices those are"
        )
    dense = DenseFitter.for_model(
        model,
        "dense" if settings.points == "dense" else "landmarks",
        settings.ridge,
        rounds=settings.alignments,
        camera_target=settings.camera_target,
        orthonormal=settings.orthonormal,
    )
    return PointFitter(model, dense, None, settings.points)


def fit_video(
    model: MorphableModel, landmarks: np.ndarray, points: np.ndarray, settings: FaceFitSettings
) -> tuple[FaceFit, np.ndarray]:
    """landmarks (T,68,2) and points (T,m,2 or 3), in pixels, NaN where there is no face, but not everywhere
    -> the fit of one person over all frames, and (T,) bool which frames' own fit counts: that which misses
    the points by at most `max_error` of the face's size (`face_size`). The others are bridged
    (`interpolate_fit`), but for their error, which is told; where none counts all stay as they are.
    """
    fitter = make_point_fitter(settings, model)
    size = face_size(landmarks)
    seen = np.flatnonzero((size > 1) & np.isfinite(points).all((1, 2)))
    found = fitter.fit(points[seen])
    usable = np.isfinite(found.exp).all(1) & np.isfinite(found.translation).all(1) & (found.scale > 0)
    counts = np.zeros(len(landmarks), bool)
    if not usable.any():
        return interpolate_fit(found, seen, len(landmarks)), counts
    if settings.identity == "clip" and found.id.ndim == 2:
        found = replace(found, id=mean_identity(found, usable))
    found = replace(found, error=fitter.error(found, points[seen]))
    good = usable & (found.error <= settings.max_error * size[seen])
    kept = good if good.any() else usable
    fit = interpolate_fit(found.select_frames(kept), seen[kept], len(landmarks))
    fit = smooth_cameras(fit, seen[kept], settings)
    fit.error[seen] = found.error
    counts[seen[good]] = True
    return fit, counts


def mean_identity(fit: FaceFit, counted: np.ndarray) -> np.ndarray:
    """Identities (n,n_id) of frames -> the mean (n_id,) float32 of those that are counted (n,) bool."""
    return fit.id[counted].mean(0, dtype=np.float64).astype(np.float32)


def smooth_cameras(fit: FaceFit, trusted: np.ndarray, settings: ReadsFitSettings) -> FaceFit:
    """The fit with its cameras smoothed as the settings ask. Frames that are not among `trusted` are already
    bridged, and lend no weight."""
    if settings.smooth == "none":
        return fit
    if settings.smooth == "one_euro":
        return one_euro_filter(fit, settings.smooth_cutoff, settings.smooth_beta)
    return gaussian_smooth_face_fit(fit, settings.smooth_sigma, np.isin(np.arange(len(fit.scale)), trusted))
