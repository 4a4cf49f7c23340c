"""How the fits were made that a checkpoint learned from: its record, and what is taken where there is none.

A training phase records the settings of its stages fit3dmm and keypoints that decide the numbers; `reenact
animate` fits what drives the net with them. Importing this module loads no net.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from models import provenance
from models.checkpoint_metadata import parse_checkpoint_settings
from models.perception.head.face_fitter import POINT_BACKENDS, FaceFitSettings

LANDMARK_FITS = FaceFitSettings()
"""To 68 landmarks, one identity a clip: of a checkpoint that records none."""
OFFICIAL_FITS = FaceFitSettings(
    backend="algorithm1", points="dense", alignments=5, camera_target="fitted", identity="frame"
)
"""Of configs/run/headgan_official.yaml."""
DENSE_POINTS_OF = {"analytic_head": ("mesh468", "mesh468_iris"), "lsfm": ("retinaface_dense1103",)}
"""Head -> the landmarkers whose dense points it knows, by their names in models.perception.NETS."""
MESH_LANDMARKERS = ("mesh468", "mesh468_iris")
PAPER_LANDMARKER = "retinaface_dense1103"


class KeypointsRecord(Struct, frozen=True, kw_only=True):
    """Settings of stage keypoints, by the same names and with its defaults."""

    detector: str = "mp_face"
    landmarker: str = "mesh468_iris"
    dtype: str = "float32"
    whole_pixels: bool = False
    smoothing: str = "none"
    smoothing_sigma: float = 1.0
    max_slip: float | None = None

    @property
    def not_repeated(self) -> list[str]:
        """What was done to the training clips' points and is not done to what drives, for people."""
        smoothed = [f"smoothed by {self.smoothing_sigma:g} frames"] * (self.smoothing != "none")
        return smoothed + ["truncated to whole pixels"] * self.whole_pixels


def fits_record(stages: Mapping[str, Any]) -> dict[str, Any]:
    """{stage: its settings}, fit3dmm and keypoints -> the entries of a checkpoint's metadata."""
    fit, keypoints = stages["fit3dmm"], stages["keypoints"]
    return {
        "fit3dmm": {name: getattr(fit, name) for name in FaceFitSettings.__struct_fields__},
        "keypoints": {name: getattr(keypoints, name) for name in KeypointsRecord.__struct_fields__},
    }


class TrainedFits(Struct, frozen=True, kw_only=True):
    """The fits that a checkpoint learned from, as far as it tells."""

    fits: FaceFitSettings
    keypoints: KeypointsRecord
    notes: tuple[str, ...] = ()
    """What is done otherwise than in training, or taken for want of a record, for people."""

    @classmethod
    def from_metadata(cls, about: Mapping[str, Any], head: str) -> TrainedFits:
        """Metadata -> value. InvalidFile for what is not known here."""
        keypoints = parse_checkpoint_settings(KeypointsRecord, about.get("keypoints") or {}, "keypoints")
        if about.get("fit3dmm"):
            fits = parse_checkpoint_settings(FaceFitSettings, about["fit3dmm"], "fit3dmm")
            return cls(fits=fits, keypoints=keypoints, notes=tuple(_differences(fits, keypoints)))
        landmarker = keypoints.landmarker
        lids = 1.0 if landmarker.startswith("dlib") else LANDMARK_FITS.eyelid_weight  # dlib sees no blinks
        fits = replace(LANDMARK_FITS, eyelid_weight=lids)
        why = "this checkpoint does not record how faces were fitted: by default"
        if about.get("phase") == "released":
            dense = landmarker in DENSE_POINTS_OF.get(head, ())
            fits = OFFICIAL_FITS if dense else fits
            how = "as preset official does" if dense else f"{landmarker} has no dense points of {head}"
            why = f"released weights do not say how faces were fitted: {how}"
        note = f"{why}, {fits.summary} of {landmarker}"
        return cls(fits=fits, keypoints=keypoints, notes=(note,))

    @property
    def for_points(self) -> FaceFitSettings:
        """The same where no net may look at the frames."""
        if self.fits.backend in POINT_BACKENDS:
            return self.fits
        return replace(self.fits, backend="landmarks", points="landmarks")

    def provenance(self, head: str) -> dict[str, str]:
        """Of the head that is drawn and of the points that it was fitted to: empty texts where they are the
        paper's, LSFM and its 1,035 dense points."""
        if self.fits.backend not in POINT_BACKENDS:
            points = self.fits.backend
        elif self.fits.backend == "algorithm1" and self.fits.points == "dense":
            mesh = self.keypoints.landmarker in MESH_LANDMARKERS
            points = provenance.MESH_POINTS if mesh else provenance.AS_PUBLISHED_PROVENANCE
        else:
            points = provenance.LANDMARK_POINTS
        return {"head": provenance.head_provenance(head), "face_points": points}

    def to_metadata(self) -> dict[str, Any]:
        return {"fit3dmm": to_builtins(self.fits), "keypoints": to_builtins(self.keypoints)}


def _differences(fits: FaceFitSettings, keypoints: KeypointsRecord) -> list[str]:
    found = []
    if fits.backend not in POINT_BACKENDS:
        found.append(f"trained on fits by {fits.backend}; here the 3D face is fitted to landmarks")
    if changed := keypoints.not_repeated:
        found.append(f"trained on points that were {' and '.join(changed)}; here they stay as they are found")
    return found
