"""Stage `fit3dmm`: landmarks -> the 3D morphable model's identity, expression and pose in every frame.

| backend | fits | to |
|---|---|---|
| landmarks | any model | 68 points: camera, identity and expression together (landmark_fit.py) |
| algorithm1 | any model | points, dense or 68, with depth or without: far faster (dense_fit.py) |
| deca | flame | the image, by DECA's encoder (deca.py) |
| deep3d | bfm_deep3d | the image, by Deep3DFaceRecon's net (deep3d.py) |

The files lie in models/perception/head/. All write the same fields:
pixel = scale * rotation @ (mean + id_basis @ id + exp_basis @ exp) + translation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np
from msgspec import Struct

from models.perception.interfaces import InferenceConfigurable
from pipelines.engine.node import Inputs
from pipelines.errors import Rejected, UserError
from pipelines.preprocess.keypoints import (
    EXTRA_LANDMARKER_OUTPUT_FIELDS,
    KeypointsConfig,
    perception_inference_settings,
)
from storage.shards import Sample

if TYPE_CHECKING:
    from models.perception.head.landmark_fit import FaceFit
    from models.perception.head.morphable import MorphableModel
    from models.perception.head.resnet import MorphableModelPrediction, MorphableModelRegressor
    from pipelines.cluster.runtime import RuntimeConfig

    Fitter = Callable[[np.ndarray, "np.ndarray | None"], tuple[FaceFit, "MorphableModelPrediction | None"]]
    Measure = Callable[[FaceFit, np.ndarray], np.ndarray]

NET_MORPHABLE_MODELS = {"deca": "flame", "deep3d": "bfm_deep3d"}
"""Backends that are nets -> the model whose coefficients they give."""
FIT_NET_OUTPUT_SIZES = {"deca": 236, "deep3d": 257}
FIT_FIELDS = (
    "id_coeffs",
    "exp_coeffs",
    "scale",
    "rotation",
    "translation",
    "angles",
    "fit_error",
    "fit_valid",
)
MAX_FRONTAL_YAW = 30.0
"""Degrees of yaw beyond which a net's identity of a frame does not count for the clip."""


class Fit3dmmConfig(Struct, frozen=True, kw_only=True):
    not_in_key: ClassVar[tuple[str, ...]] = ("keypoints",)
    as_before: ClassVar[Mapping[str, object]] = {"eyelid_weight": 1.0}

    backend: Literal["landmarks", "algorithm1", "deca", "deep3d"] = "landmarks"
    """What fits; see the table above."""
    model: Literal["analytic_head", "flame", "bfm_deep3d", "bfm_3ddfa", "lsfm"] = "analytic_head"
    """The morphable model that is fitted; all but analytic_head are converted and imported by the user, see
    models/perception/head/converters.py."""
    identity: Literal["clip", "frame"] = "clip"
    """One identity for the clip, or one a frame beside their mean (field id_frames)."""
    contour_weight: float = 0.15
    """landmarks: say of the jaw outline, which slides over a turning head, against the inner points' 1."""
    chin_weight: float = 0.1
    """landmarks: say of the five points of the chin."""
    eyelid_weight: float = 3.0
    """landmarks: say of the twelve points of the eyes. 3 suits landmarkers that see blinks; 1 those that do
    not, as dlib68."""
    noise: float = 0.03
    """landmarks: what they are off by, in half widths of the face: larger trusts the prior more."""
    id_prior: float = 0.5
    """landmarks: weight of the identity's squared length, a frame."""
    rounds: int = 5
    """landmarks: Gauss-Newton rounds."""
    points: Literal["landmarks", "landmarks3d", "dense"] = "landmarks"
    """algorithm1: the field of the keypoints that it fits to. Depth is guessed for points without one."""
    ridge: float | None = None
    """algorithm1: weight of the squared coefficients; None = 0 from 1000 points on, as published, else the
    square of 3 % of the face's half width for landmarks, of 6 % for dense points."""
    alignments: int = 1
    """algorithm1: 1 as published; 5 or so follow an open mouth better, above all on points without depth and
    on the 468 of a face mesh."""
    camera_target: Literal["mean", "fitted"] = "mean"
    """algorithm1: the shape that its camera carries to the image; mean as published."""
    orthonormal: bool = True
    """algorithm1: make its cameras' rows orthogonal; false as published."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """deca, deep3d: numbers the nets work with."""
    max_error: float = 0.1
    """fit_error over the face's size, the mean of its landmarks' width and height, from which a frame's fit
    does not count: it is bridged from its neighbours."""
    max_gap: int = 5
    """Longest run of frames without a fit that counts as valid once it is bridged."""
    keypoints: str = "main"
    """The instance of keypoints that is fitted."""
    failed: Literal["reject", "keep"] = "reject"
    """A clip with a longer run of frames without a fit: left out of this family, and so of what reads it
    (reject code no_fit for a recording of which no clip is left), or kept, those frames marked as not
    valid."""
    smooth: Literal["none", "gaussian", "one_euro"] = "none"
    """What the cameras are smoothed with; expressions are left alone."""
    smooth_sigma: float = 1.0
    """gaussian: its width in frames."""
    smooth_cutoff: float = 2.0
    """one_euro: Hz that pass at rest; lower is smoother."""
    smooth_beta: float = 0.3
    """one_euro: Hz more for each degree, pixel or percent a second, so that fast motion does not lag."""

    def __post_init__(self) -> None:
        if not (0 <= self.contour_weight <= 1 and 0 <= self.chin_weight <= 1):
            raise ValueError(
                f"contour_weight {self.contour_weight}, chin_weight {self.chin_weight}: expected 0 to 1"
            )
        if not 0 <= self.eyelid_weight <= 10:
            raise ValueError(f"eyelid_weight {self.eyelid_weight}: expected 0 to 10")
        if self.noise <= 0 or self.id_prior <= 0:
            raise ValueError(f"noise {self.noise}, id_prior {self.id_prior}: expected more than 0")
        if not (1 <= self.rounds <= 50 and 1 <= self.alignments <= 50):
            raise ValueError(f"rounds {self.rounds}, alignments {self.alignments}: expected 1 to 50")
        if self.ridge is not None and self.ridge < 0:
            raise ValueError(f"ridge {self.ridge}: expected 0 or more, or none")
        if self.max_error <= 0 or self.max_gap < 0:
            raise ValueError(
                f"max_error {self.max_error}, max_gap {self.max_gap}: expected more than 0, and 0 or more"
            )
        if not (0.3 <= self.smooth_sigma <= 20 and 0.05 <= self.smooth_cutoff <= 12.5):
            raise ValueError(
                f"smooth_sigma {self.smooth_sigma}, smooth_cutoff {self.smooth_cutoff}: expected 0.3 to 20 "
                "frames, 0.05 to 12.5 Hz"
            )
        if self.smooth_beta < 0:
            raise ValueError(f"smooth_beta {self.smooth_beta}: expected 0 or more")
        wanted = NET_MORPHABLE_MODELS.get(self.backend, self.model)
        if self.model != wanted:
            raise ValueError(f"model {self.model}: expected {wanted}, which backend {self.backend} gives")
        if self.points != "landmarks" and self.backend != "algorithm1":
            raise ValueError(f"points {self.points}: expected landmarks; only algorithm1 reads others")

    @property
    def nets(self) -> tuple[str, ...]:
        """Those of models.perception.NETS."""
        return (self.model, self.backend) if self.backend in NET_MORPHABLE_MODELS else (self.model,)

    @property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """Upstream node -> fields."""
        points = ("landmarks",) if self.points == "landmarks" else ("landmarks", self.points)
        frames = {"clips": ("frames",)} if self.backend in NET_MORPHABLE_MODELS else {}
        return {**frames, "keypoints": points}

    @property
    def writes(self) -> tuple[str, ...]:
        frames = ("id_frames",) if self.identity == "frame" else ()
        return (
            *FIT_FIELDS,
            *frames,
            *(("net_code", "net_crop") if self.backend in NET_MORPHABLE_MODELS else ()),
        )


def check_points_are_given(name: str, fit: Fit3dmmConfig, keypoints: KeypointsConfig) -> None:
    """UserError where the landmarker does not give the points that fit `name` is to: then plan says so."""
    if fit.points in keypoints.writes:
        return
    others = [net for net, fields in EXTRA_LANDMARKER_OUTPUT_FIELDS.items() if fit.points in fields]
    raise UserError(
        f"fits.{name}.points {fit.points}: keypoints.{fit.keypoints} by {keypoints.landmarker} has none; "
        f"--set fits.{name}.points=landmarks, or a landmarker that gives them: {', '.join(others)} (those of "
        "the mesh only without perception.faces dlib)"
    )


def fit_clips(
    inputs: Inputs,
    config: Fit3dmmConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Keypoints, and frames for nets -> the fields of `writes`, for each clip that `failed` lets pass;
    Rejected no_fit where it lets none.
    """
    settings = config
    net = nets[settings.backend] if settings.backend in NET_MORPHABLE_MODELS else None
    if isinstance(net, InferenceConfigurable):
        net.configure_inference(perception_inference_settings(runtime, settings.dtype))
    model = cast("MorphableModel", nets[settings.model])
    fitter, measure = _make_fitter(settings, model, cast("MorphableModelRegressor | None", net))
    clips = iter(inputs["clips"]) if net is not None else None
    kept, failure = False, ""
    for sample in inputs["keypoints"]:
        frames = _frames_of(sample["__key__"], clips) if clips is not None else None
        found = _fit(sample, frames, settings, model, fitter, measure)
        gap = longest_invalid_run(found["fit_valid"])
        if settings.failed == "reject" and gap > settings.max_gap:
            failure = f"{gap} of {len(found['fit_valid'])} frames in a row have no fit"
            continue
        kept = True
        yield found
    if failure and not kept:
        raise Rejected("no_fit", f"{failure}, more than fit3dmm.max_gap {settings.max_gap}")


def _frames_of(key: str, clips: Iterator[Sample]) -> np.ndarray:
    """Both come in the order of their keys, one clip in memory at a time."""
    for clip in clips:
        if clip["__key__"] == key:
            return clip["frames"]
    raise ValueError(f"keypoints of {key}, which is not among the clips")


def _make_fitter(
    settings: Fit3dmmConfig, model: MorphableModel, net: MorphableModelRegressor | None
) -> tuple[Fitter, Measure]:
    """What fits the frames that have points (n,m,2 or 3), and what says how many pixels (n,) a fit is off."""
    from models.perception.head.face_fitter import make_point_fitter
    from models.perception.head.landmark_fit import landmark_fit_error

    if net is not None:

        def on_landmarks(fit: FaceFit, points: np.ndarray) -> np.ndarray:
            return landmark_fit_error(model, fit, points)

        return (lambda points, frames: _by_net(net, points, frames)), on_landmarks
    fitter = make_point_fitter(settings, model)
    return (lambda points, _: (fitter.fit(points), None)), fitter.error


def _by_net(
    net: MorphableModelRegressor, points: np.ndarray, frames: np.ndarray | None
) -> tuple[FaceFit, MorphableModelPrediction]:
    if frames is None:
        raise ValueError(f"{net.name} reads frames")
    reading = net.predict(frames, points)
    return net.to_face_fit(reading), reading


def _fit(
    sample: Sample,
    frames: np.ndarray | None,
    settings: Fit3dmmConfig,
    model: MorphableModel,
    fitter: Fitter,
    measure: Measure,
) -> Sample:
    from models.perception.head.face_fitter import smooth_cameras
    from models.perception.head.landmark_fit import face_size, interpolate_fit, neutral_fit

    landmarks, points = sample["landmarks"], sample[settings.points]
    count = len(landmarks)
    size = face_size(landmarks)  # (T,)
    seen = np.flatnonzero((size > 1) & np.isfinite(points).all((1, 2)))
    fit, valid, reading = neutral_fit(model, count), np.zeros(count, bool), None
    if len(seen):
        images = frames if frames is None or len(seen) == count else frames[seen]
        found, reading = fitter(points[seen], images)
        usable = np.isfinite(found.exp).all(1) & np.isfinite(found.translation).all(1) & (found.scale > 0)
        if usable.any():
            found = _shared_identity(found, usable, settings)
            found = replace(found, error=measure(found, points[seen]))
            good = usable & (found.error <= settings.max_error * size[seen])
            kept = good if good.any() else usable
            fit = interpolate_fit(found.select_frames(kept), seen[kept], count)
            fit = smooth_cameras(fit, seen[kept], settings)
            valid[seen[good]] = True
            changed = seen[~kept] if settings.smooth == "none" else seen
            fit.error[changed] = measure(fit.select_frames(changed), points[changed])
    out = _sample(sample["__key__"], fit, fill_short_mask_gaps(valid, settings.max_gap), settings)
    return out | _net_fields(reading, seen, count, settings)


def _shared_identity(found: FaceFit, usable: np.ndarray, settings: Fit3dmmConfig) -> FaceFit:
    """Identities of frames -> that of the clip, unless each frame is to keep its own."""
    if settings.identity == "frame" or found.id.ndim == 1:
        return found
    counted = usable
    if settings.backend in NET_MORPHABLE_MODELS:
        from models.perception.head.pose import rotation_to_euler

        frontal = usable & (np.abs(rotation_to_euler(found.rotation)[:, 1]) < MAX_FRONTAL_YAW)
        counted = frontal if frontal.any() else usable
    from models.perception.head.face_fitter import mean_identity

    return replace(found, id=mean_identity(found, counted))


def fill_short_mask_gaps(good: np.ndarray, max_gap: int) -> np.ndarray:
    """good (T,) bool -> the same with the gaps of at most max_gap frames between good ones filled."""
    out, at = good.copy(), np.flatnonzero(good)
    for first, last in pairwise(at):
        out[first:last] |= last - first <= max_gap + 1
    return out


def longest_invalid_run(valid: np.ndarray) -> int:
    """valid (T,) bool -> frames of the longest run that is not, those at the clip's ends too."""
    edges = np.flatnonzero(np.concatenate([[True], valid, [True]]))
    return int(np.diff(edges).max()) - 1


def _sample(key: str, fit: FaceFit, valid: np.ndarray, settings: Fit3dmmConfig) -> Sample:
    from models.perception.head.pose import rotation_to_euler

    each = fit.id if fit.id.ndim == 2 else np.tile(fit.id, (len(fit.scale), 1))
    counted = valid if valid.any() else np.ones(len(valid), bool)
    out = {
        "__key__": key,
        "id_coeffs": fit.id if fit.id.ndim == 1 else each[counted].mean(0),
        "exp_coeffs": fit.exp,
        "scale": fit.scale,
        "rotation": fit.rotation,
        "translation": fit.translation,
        "angles": rotation_to_euler(fit.rotation).astype(np.float32),
        "fit_error": fit.error,
        "fit_valid": valid,
    }
    return out | {"id_frames": each} if settings.identity == "frame" else out


def _net_fields(
    reading: MorphableModelPrediction | None, seen: np.ndarray, count: int, settings: Fit3dmmConfig
) -> Sample:
    """All that a net said, a row a frame; NaN where it saw no face."""
    if settings.backend not in NET_MORPHABLE_MODELS:
        return {}
    code = np.full((count, FIT_NET_OUTPUT_SIZES[settings.backend]), np.nan, np.float32)
    crop = np.full((count, 4), np.nan, np.float32)
    if reading is not None:
        code[seen], crop[seen] = reading.code, reading.crop
    return {"net_code": code, "net_crop": crop}
