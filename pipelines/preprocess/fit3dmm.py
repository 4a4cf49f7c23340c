"""Stage `fit3dmm`: landmarks -> the 3D morphable model's identity, expression and pose in every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.engine.node import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit3dmmConfig:
    model: Literal["analytic_head"] = "analytic_head"
    """The morphable model that is fitted."""
    contour_weight: float = 0.15
    """Say of the jaw outline, which slides over a turning head, against the inner points' 1."""
    chin_weight: float = 0.1
    """Say of the five points of the chin."""
    noise: float = 0.03
    """What landmarks are off by, in model units (the analytic head is two wide): larger trusts the prior
    more."""
    id_prior: float = 0.5
    """Weight of the identity's squared length, a frame."""
    rounds: int = 5
    """Gauss-Newton rounds."""

    def __post_init__(self) -> None:
        if not (0 <= self.contour_weight <= 1 and 0 <= self.chin_weight <= 1):
            raise ValueError(
                f"contour_weight {self.contour_weight}, chin_weight {self.chin_weight}: expected 0 to 1"
            )
        if self.noise <= 0 or self.id_prior <= 0:
            raise ValueError(f"noise {self.noise}, id_prior {self.id_prior}: expected more than 0")
        if not 1 <= self.rounds <= 50:
            raise ValueError(f"rounds {self.rounds}: expected 1 to 50")


def fit_clips(inputs: Mapping[str, list[Sample]], config: Any, nets: Mapping[str, Any]) -> list[Sample]:
    """Keypoints -> id_coeffs, exp_coeffs, scale, rotation, translation, angles, fit_error, for each clip."""
    return [_fit(sample, config.fit3dmm, nets[config.fit3dmm.model]) for sample in inputs["keypoints"]]


def _fit(sample: Sample, settings: Any, model: Any) -> Sample:
    from models.perception.fit import FitOptions, fill_gaps, fit_landmarks, neutral
    from models.perception.pose import rotation_to_euler

    names = ("contour_weight", "chin_weight", "noise", "id_prior", "rounds")
    options = FitOptions(**{name: getattr(settings, name) for name in names})
    landmarks = sample["landmarks"]
    seen = np.flatnonzero(np.isfinite(landmarks).all((1, 2)))
    if len(seen):
        fit = fill_gaps(fit_landmarks(model, landmarks[seen], options), seen, len(landmarks))
    else:
        fit = neutral(model, len(landmarks))
    return {
        "__key__": sample["__key__"],
        "id_coeffs": fit.id,
        "exp_coeffs": fit.exp,
        "scale": fit.scale,
        "rotation": fit.rotation,
        "translation": fit.translation,
        "angles": rotation_to_euler(fit.rotation).astype(np.float32),
        "fit_error": fit.error,
    }
