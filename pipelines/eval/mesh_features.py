"""What metrics compare by MediaPipe's face mesh: landmarks, how far the eyes are open and the head's pose,
and who the face is.

Points are found in each frame by itself, at 256 px: what a method shows in others is no excuse for it. Only
the head that is fitted to them, for its pose, has one identity in all frames of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from models.perception.faces.mesh_points import LEFT_EYE_CONTOUR, RIGHT_EYE_CONTOUR
from models.perception.head.landmark_fit import LandmarkFitOptions, fit_landmarks
from models.perception.head.pose import rotation_to_euler
from models.perception.interfaces import InferenceConfigurable
from pipelines.eval.features import largest_faces, resize_for_nets
from pipelines.preprocess.boxes import largest_box
from pipelines.preprocess.keypoints import perception_inference_settings

if TYPE_CHECKING:
    from models.perception.head.morphable import MorphableModel
    from models.perception.interfaces import FaceDetector, FaceEmbedder, Landmarker
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample

LANDMARK_NET_WEIGHTS = {"mp_face": "mp_face_short", "mesh468_iris": "mp_iris"}
IDENTITY_NET_WEIGHTS = {"mp_face": "mp_face_short", "dlib128_mesh": "dlib_resnet"}
"""Net -> the weights that are named where it is missing."""
LID_POINTS = 7
"""Points of each lid between the corners of an eye."""


def compute_mesh_landmarks(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """In each generated frame 68 points (T,68,2), openness of both eyes (T,2), pitch, yaw, roll (T,3) in
    degrees and expression coefficients (T,n_exp) in sigmas; float32, NaN where no face is found. Without one
    of the nets, its weights."""
    sample = inputs["generated"][0]
    if needs := missing_weights(nets, LANDMARK_NET_WEIGHTS):
        yield {"__key__": sample["__key__"], "needs": {"weights": needs}}
        return
    detector, landmarker = cast("FaceDetector", nets["mp_face"]), cast("Landmarker", nets["mesh468_iris"])
    configure_nets((detector, landmarker), runtime)
    images = resize_for_nets(sample["frames"])
    found = detector.detect(images)
    points = landmarker.predict(images, largest_faces(found), largest_face_rolls(found))
    assert points.dense is not None
    angles, exp_coeffs = fit_head(cast("MorphableModel", nets["analytic_head"]), points.landmarks)
    yield {
        "__key__": sample["__key__"],
        "landmarks": points.landmarks,
        "openness": eye_openness(points.dense),
        "angles": angles,
        "exp_coeffs": exp_coeffs,
    }


def compute_identity_embeddings(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """The face in each generated frame as dlib's net knows it: (T,128) float32, NaN where no face is found.
    Without one of the nets, its weights."""
    sample = inputs["generated"][0]
    if needs := missing_weights(nets, IDENTITY_NET_WEIGHTS):
        yield {"__key__": sample["__key__"], "needs": {"weights": needs}}
        return
    detector, embedder = cast("FaceDetector", nets["mp_face"]), cast("FaceEmbedder", nets["dlib128_mesh"])
    configure_nets((detector, embedder), runtime)
    images = resize_for_nets(sample["frames"])
    yield {
        "__key__": sample["__key__"],
        "embedding": embedder.embed(images, largest_faces(detector.detect(images))),
    }


def missing_weights(nets: Mapping[str, object], weights: Mapping[str, str]) -> str:
    """Of the first net that is not there; "" where all are."""
    return next((one for net, one in weights.items() if net not in nets), "")


def configure_nets(nets: Sequence[object], runtime: RuntimeConfig) -> None:
    for net in nets:
        if isinstance(net, InferenceConfigurable):
            net.configure_inference(perception_inference_settings(runtime, "float32"))


def largest_face_rolls(detections: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes of each frame (n,6), the last column the roll -> (T,) float32 radians of those that
    `largest_faces` takes; 0 where there is none."""
    return np.array([largest_box(rows)[5] if len(rows) else 0 for rows in detections], np.float32)


def eye_openness(dense: np.ndarray) -> np.ndarray:
    """dense (T,468,3), lids by the iris net -> (T,2) float32, the image's left eye first: mean distance of
    the lids over the distance of the corners, some .2 to .3 of open eyes and under .1 of closed ones; NaN
    where there is no face."""
    eyes = []
    for contour in (LEFT_EYE_CONTOUR, RIGHT_EYE_CONTOUR):
        points = dense[:, list(contour), :2].astype(np.float64)
        lower, upper = points[:, 1 : 1 + LID_POINTS], points[:, 2 + LID_POINTS :]
        width = np.linalg.norm(points[:, 0] - points[:, 1 + LID_POINTS], axis=-1)
        gap = np.linalg.norm(upper - lower, axis=-1).mean(axis=1)
        eyes.append(gap / np.maximum(width, 1e-6))
    return np.stack(eyes, axis=1).astype(np.float32)


def fit_head(model: MorphableModel, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """landmarks (T,68,2), NaN where there is no face -> pitch, yaw, roll (T,3) in degrees and expression
    coefficients (T,n_exp), float32, of a fit of one person to all frames; NaN where the landmarks are."""
    angles = np.full((len(landmarks), 3), np.nan, np.float32)
    exp_coeffs = np.full((len(landmarks), model.n_exp), np.nan, np.float32)
    seen = np.isfinite(landmarks).all((1, 2))
    if seen.any():
        fit = fit_landmarks(model, landmarks[seen], LandmarkFitOptions())
        angles[seen], exp_coeffs[seen] = rotation_to_euler(fit.rotation), fit.exp
    return angles, exp_coeffs
