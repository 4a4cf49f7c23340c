"""A checkpoint's record of the fits it learned from, and what is taken without one."""

import json
from types import SimpleNamespace

import pytest

from models.errors import InvalidFile
from models.headgan.fitter import (
    DENSE_POINTS_OF,
    LANDMARK_FITS,
    OFFICIAL_FITS,
    KeypointsRecord,
    TrainedFits,
    fits_record,
)
from models.perception.head.face_fitter import FaceFitSettings
from pipelines.config import load_config
from pipelines.preprocess.fit3dmm import Fit3dmmConfig
from pipelines.preprocess.keypoints import KeypointsConfig
from pipelines.runs.snapshot import checkout_folder


def trained(fit=None, keypoints=None, head="analytic_head"):
    """What is read back of the metadata that a phase with these settings writes."""
    record = fits_record({"fit3dmm": fit or Fit3dmmConfig(), "keypoints": keypoints or KeypointsConfig()})
    return TrainedFits.from_metadata(json.loads(json.dumps({"phase": "decay", **record})), head)


def test_what_is_recorded_is_read_back():
    found = trained(
        Fit3dmmConfig(backend="algorithm1", points="dense", alignments=3, ridge=0.5, orthonormal=False),
        KeypointsConfig(landmarker="mesh468"),
    )
    assert found.fits == FaceFitSettings(
        backend="algorithm1", points="dense", alignments=3, ridge=0.5, orthonormal=False
    )
    assert (found.keypoints.landmarker, found.notes) == ("mesh468", ())


def test_the_record_has_the_stages_defaults():
    ours, theirs = KeypointsRecord(), KeypointsConfig()
    assert all(getattr(ours, name) == getattr(theirs, name) for name in ours.__struct_fields__)


def test_without_a_record_the_default_is_taken_and_said_in_one_line():
    found = TrainedFits.from_metadata({"phase": "decay"}, "analytic_head")
    assert found.fits == LANDMARK_FITS
    assert found.notes == (
        "this checkpoint does not record how faces were fitted: by default, 68 landmarks of mesh468_iris",
    )


@pytest.mark.parametrize(
    ("head", "landmarker", "fits", "words"),
    [
        (
            "analytic_head",
            "mesh468_iris",
            OFFICIAL_FITS,
            "as preset official does, algorithm1 on dense points",
        ),
        ("lsfm", "mesh468_iris", LANDMARK_FITS, "mesh468_iris has no dense points of lsfm, 68 landmarks"),
        ("analytic_head", "dlib68", FaceFitSettings(eyelid_weight=1.0), "dlib68 has no dense points"),
    ],
)
def test_released_weights_are_driven_as_the_official_preset_fits(head, landmarker, fits, words):
    about = {"phase": "released", "keypoints": {"landmarker": landmarker}}
    found = TrainedFits.from_metadata(about, head)
    assert found.fits == fits
    (note,) = found.notes
    assert words in note


def test_the_official_fits_are_those_of_its_run_file():
    fit = load_config(checkout_folder() / "configs/run/headgan_official.yaml").config.fits["main"]
    assert all(getattr(fit, name) == getattr(OFFICIAL_FITS, name) for name in OFFICIAL_FITS.__struct_fields__)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"backend": "magic"}, "fit3dmm.backend 'magic': expected one of landmarks, algorithm1"),
        ({"alignments": 10**9}, "alignments 1000000000: expected 1 to 50"),
        ({"ridge": "much"}, "fit3dmm.ridge 'much': expected a finite number"),
        ({"other": 1}, "fit3dmm: unknown 'other'"),
        ([1], r"fit3dmm: found \[1\], expected an object"),
    ],
)
def test_a_record_of_another_kind_is_an_error(record, told):
    with pytest.raises(InvalidFile, match=told):
        TrainedFits.from_metadata({"phase": "decay", "fit3dmm": record}, "analytic_head")


def test_what_is_done_otherwise_than_in_training_is_said():
    by_net = trained(Fit3dmmConfig(backend="deca", model="flame"), head="flame")
    assert by_net.for_points == LANDMARK_FITS
    assert by_net.notes == ("trained on fits by deca; here the 3D face is fitted to landmarks",)
    smoothed = trained(keypoints=KeypointsConfig(smoothing="gaussian", whole_pixels=True))
    assert smoothed.notes == (
        "trained on points that were smoothed by 1 frames and truncated to whole pixels; here they stay as "
        "they are found",
    )


@pytest.mark.parametrize(
    ("head", "backend", "points", "landmarker", "label"),
    [
        ("analytic_head", "landmarks", "landmarks", "dlib68", ("analytic_head", "landmarks68")),
        ("analytic_head", "algorithm1", "landmarks3d", "mesh468", ("analytic_head", "landmarks68")),
        ("analytic_head", "algorithm1", "dense", "mesh468_iris", ("analytic_head", "mesh468")),
        ("lsfm", "algorithm1", "dense", *DENSE_POINTS_OF["lsfm"], ("", "")),
        ("flame", "deca", "landmarks", "dlib68", ("flame", "deca")),
    ],
)
def test_heads_and_points_other_than_the_papers_are_labelled(head, backend, points, landmarker, label):
    found = TrainedFits(
        fits=FaceFitSettings(backend=backend, points=points), keypoints=KeypointsRecord(landmarker=landmarker)
    )
    assert tuple(found.provenance(head).values()) == label


def test_settings_that_decide_no_number_are_not_recorded():
    stages = {"fit3dmm": Fit3dmmConfig(keypoints="other", failed="keep"), "keypoints": KeypointsConfig()}
    assert {"keypoints", "failed"}.isdisjoint(fits_record(stages)["fit3dmm"])
    assert SimpleNamespace(**fits_record(stages)["keypoints"]).landmarker == "mesh468_iris"
