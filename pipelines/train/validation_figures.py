"""Validation's figures of what a task renders: metrics of evaluation, on the few samples of a validation.

SELF_FIGURES and CROSS_FIGURES: every figure by name. Self-reenactment has a truth. Of a pair of two people
there is none: the face is compared with the source, pose and expression with the driving frame, and beside
each figure stands what the other of the two pictures would have (`copy_`: the source, copied; `driving_`: the
driving frame itself).

N samples, S their side. A figure that no sample allows (AKD without a face, or without its nets) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from msgspec import Struct

from models.perception import net_on_backend
from models.perception.head.landmark_fit import LandmarkFitOptions, fit_landmarks
from models.perception.head.pose import rotation_to_euler
from models.task import ValidationOutput
from pipelines.eval.features import (
    DLIB_LANDMARKS_FEATURE,
    FRAMES_FEATURE,
    IDENTITY_FEATURE,
    MESH_LANDMARKS_FEATURE,
    METRIC_FEATURES,
    find_landmarks,
    largest_faces,
    resize_for_nets,
)
from pipelines.eval.mesh_features import largest_face_rolls
from pipelines.eval.metrics import METRICS, Metric, sum_frame_values

PictureFeatures = Callable[[str, np.ndarray], Mapping[str, np.ndarray] | None]
"""(key of FIGURE_FEATURES, pictures (N,S,S,3) uint8) -> its fields, (N,...) each, NaN where there is no face;
None where there are no nets for it."""
CROSS_PREFIX = "cross/"
"""Of the names of figures of pairs."""


# --- what nets say of pictures ------------------------------------------------------------------------------
def find_dlib_landmarks(pictures: np.ndarray, nets: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """landmarks (N,68,2) float32, pixels of 256"""
    return {"landmarks": find_landmarks(pictures, nets["dlib_hog"], nets["dlib68"])}


def fit_mesh_heads(pictures: np.ndarray, nets: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """angles (N,3) float32: pitch, yaw and roll in degrees; expression (N,n_exp) float32, sigmas. Of a head
    fitted to the points of each picture, which shows a person of its own."""
    images, model = resize_for_nets(pictures), nets["analytic_head"]
    found = nets["mp_face"].detect(images)
    points = nets["mesh468_iris"].predict(images, largest_faces(found), largest_face_rolls(found)).landmarks
    angles = np.full((len(images), 3), np.nan, np.float32)
    expression = np.full((len(images), model.n_exp), np.nan, np.float32)
    seen = np.isfinite(points).all((1, 2))
    if seen.any():
        fit = fit_landmarks(model, points[seen], LandmarkFitOptions(identity="frame"))
        angles[seen], expression[seen] = rotation_to_euler(fit.rotation), fit.exp
    return {"angles": angles, "expression": expression}


def embed_identities(pictures: np.ndarray, nets: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """embedding (N,128) float32"""
    images = resize_for_nets(pictures)
    boxes = largest_faces(nets["mp_face"].detect(images))
    return {"embedding": nets["dlib128_mesh"].embed(images, boxes)}


FIGURE_FEATURES: dict[str, Callable[[np.ndarray, Mapping[str, Any]], dict[str, np.ndarray]]] = {
    DLIB_LANDMARKS_FEATURE: find_dlib_landmarks,
    MESH_LANDMARKS_FEATURE: fit_mesh_heads,
    IDENTITY_FEATURE: embed_identities,
}
"""Feature of evaluation -> what computes it here, of pictures of N people, with the same nets."""


def figure_feature_nets(feature: str) -> tuple[str, ...]:
    """Names in models.perception.NETS; none for the pictures themselves. On CPUs: it is a few pictures."""
    return tuple(net_on_backend(name, "litert") for name in METRIC_FEATURES[feature].nets)


# --- the figures --------------------------------------------------------------------------------------------
class Figure(Struct, frozen=True, kw_only=True):
    metric: Metric
    against: Literal["source", "driving"]
    """What the output is compared with."""

    @property
    def is_of_a_net(self) -> bool:
        return self.metric.feature != FRAMES_FEATURE


def expression_difference_per_frame(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Two (N,n_exp) in sigmas -> mean absolute difference (N,)"""
    return np.abs(prediction.astype(np.float64) - target).mean(axis=1)


EXPRESSION_MESH_METRIC = Metric(
    name="expression_mesh", title="Expression (mesh)", variant="mean_abs_expression_sigmas", better="down",
    unit="σ", per_frame=expression_difference_per_frame, feature=MESH_LANDMARKS_FEATURE, field="expression",
    meaning="mean absolute difference of the expression coefficients of a 3D head fitted to 68 points of "
    "MediaPipe's face mesh, in sigmas",
)  # fmt: skip
SELF_FIGURES = {
    title: Figure(metric=METRICS[name], against="driving")
    for name, title in (
        ("psnr_frame", "psnr"), ("l1", "l1"), ("ssim", "ssim"), ("akd_l2_dlib", "akd_l2_dlib"),
    )
}  # fmt: skip
CROSS_FIGURES = {
    figure.metric.name: figure
    for figure in (
        Figure(metric=METRICS["csim_dlib_centred"], against="source"),
        Figure(metric=METRICS["id_l2_dlib"], against="source"),
        Figure(metric=METRICS["pose_mesh"], against="driving"),
        Figure(metric=EXPRESSION_MESH_METRIC, against="driving"),
    )
}


def find_figure(name: str) -> Figure | None:
    """By its name in `BestCriterion.figure`; None of one that only the model's task can know."""
    if name.startswith(CROSS_PREFIX):
        return CROSS_FIGURES.get(name.removeprefix(CROSS_PREFIX))
    return SELF_FIGURES.get(name)


def compute_self_figures(
    samples: Sequence[ValidationOutput], features: PictureFeatures | None
) -> dict[str, float]:
    """l1, ssim and akd_l2_dlib (pixels of 256) of the outputs; copy_psnr and so on: of the source, copied.

    akd_l2_dlib_frames: samples in which both pictures show a face; akd_l2_dlib_missing: those in which the
    driving frame alone does.
    """
    found = _compute(SELF_FIGURES, samples, features, others={"driving": "copy_"})
    found.pop("psnr", None)  # validation's own, which chooses the best checkpoint
    return found


def compute_cross_figures(
    samples: Sequence[ValidationOutput], features: PictureFeatures | None
) -> dict[str, float]:
    """CROSS_FIGURES of the outputs, and what the source and the driving frame themselves have. `_frames` and
    `_missing` as above."""
    return _compute(CROSS_FIGURES, samples, features, others={"driving": "copy_", "source": "driving_"})


def _compute(
    figures: Mapping[str, Figure],
    samples: Sequence[ValidationOutput],
    features: PictureFeatures | None,
    others: Mapping[str, str],
) -> dict[str, float]:
    """others: what a figure compares the output with -> prefix of the same figure of the third picture."""
    pictures = {
        name: np.concatenate([getattr(one, name) for one in samples])
        for name in ("output", "source", "driving")
    }
    found: dict[str, float] = {}
    for title, figure in figures.items():
        values = {name: _field(figure.metric, one, features) for name, one in pictures.items()}
        if any(one is None for one in values.values()):
            continue
        if figure.metric.centred:
            centre = _mean_of_real_faces(values)
            values = {name: one - centre for name, one in values.items()}
        third = "source" if figure.against == "driving" else "driving"
        for prefix, predicted in (("", "output"), (others[figure.against], third)):
            of_frames = figure.metric.per_frame(values[predicted], values[figure.against])
            state = sum_frame_values(of_frames)
            if np.isfinite(value := figure.metric.compute(state)):
                found[prefix + title] = float(value)
            if figure.is_of_a_net:
                found[f"{prefix}{title}_frames"] = float(state.n)
                if not prefix:
                    found[f"{title}_missing"] = float((_has_face(values[figure.against])).sum() - state.n)
    return found


def _field(metric: Metric, pictures: np.ndarray, features: PictureFeatures | None) -> Any:
    """What a metric compares of pictures (N,S,S,3) uint8; None without nets for it."""
    if metric.feature == FRAMES_FEATURE:
        return pictures / 255.0
    found = features(metric.feature, pictures) if features else None
    return None if found is None else found[metric.field]


def _mean_of_real_faces(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """(D,): what is taken from embeddings before they are compared, of the sources and driving frames in
    which there is a face; the same at every validation."""
    real = np.concatenate([values["source"], values["driving"]]).astype(np.float64)
    real = real[_has_face(real)]
    return real.mean(0) if len(real) else np.zeros(real.shape[1:])


def _has_face(values: np.ndarray) -> np.ndarray:
    """(N,...) -> (N,) bool"""
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))
