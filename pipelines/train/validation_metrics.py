"""Validation's figures for the eye: the metrics of evaluation, on the few samples of a validation.

Reached by name (pipelines/train/validate.py), so that they enter no key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.task import ValidationOutput
from pipelines.eval.metrics import METRICS
from pipelines.eval.score import load_landmarks, score
from storage.files import Store

SHOWN = {"l1": "l1", "ssim": "ssim", "akd_l2_dlib": "akd"}
"""Metric -> the name of its curve."""


def figures(samples: Sequence[ValidationOutput], landmarks: Callable[[], Any] | None) -> dict[str, float]:
    """l1, ssim and akd (pixels of 256) of the outputs; copy_psnr and so on are what copying the source gives.

    A figure that no sample allows (AKD without a face, or without the landmark finder) is left out;
    akd_frames: samples in which both pictures show a face.
    """
    outputs, drivings, sources = (
        np.concatenate([getattr(one, name) for one in samples]) for name in ("output", "driving", "source")
    )
    finder = landmarks() if landmarks else None
    names = ["psnr_frame", *SHOWN]
    found: dict[str, float] = {}
    for prefix, pictures in (("", outputs), ("copy_", sources)):
        sums = score({"picture": pictures}, drivings, names, finder)
        for name, title in ({"psnr_frame": "psnr"} | SHOWN).items():
            if ("picture", name) not in sums:
                continue
            state = sums["picture", name]
            if np.isfinite(value := METRICS[name].compute(state)):
                found[prefix + title] = float(value)
            if title == "akd":
                found[prefix + "akd_frames"] = float(state.n)
    del found["psnr"]  # validation's own, which chooses the best checkpoint
    return found


def landmark_finder(store: Store) -> Any:
    """What validation's AKD is measured with, or None where its weights are missing."""
    return load_landmarks(store)[0]
