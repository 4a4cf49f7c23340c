"""The formula images and landmarks of tests/golden/metrics.json, drawn again here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics.json"


@pytest.fixture(scope="session")
def golden() -> dict:
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="session")
def images() -> tuple[np.ndarray, np.ndarray]:
    """Two clips (4,64,64,3) float64 in [0,1]: B drifts away from A frame by frame."""
    t, y, x, c = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in (4, 64, 64, 3)), indexing="ij")
    phase = 0.07 * x * (c + 1) + 0.11 * y + 0.3 * c + 0.5 * t
    first = 0.5 + 0.5 * np.sin(phase)
    other = 0.5 + 0.5 * np.sin(phase + 0.2 * np.sin(0.05 * x) + 0.1)
    weight = np.array([0.25, 0.5, 0.75, 1.0]).reshape(4, 1, 1, 1)
    return first, (1 - weight) * first + weight * other


@pytest.fixture(scope="session")
def images_8_bit(images) -> tuple[np.ndarray, np.ndarray]:
    """The same as uint8."""
    first, second = (np.floor(np.clip(one, 0, 1) * 255 + 0.5).astype(np.uint8) for one in images)
    return first, second


@pytest.fixture(scope="session")
def landmarks() -> tuple[np.ndarray, np.ndarray]:
    """Prediction and ground truth (3,68,2) in pixels."""
    t, k = np.meshgrid(np.arange(3.0), np.arange(68.0), indexing="ij")
    angle = 2 * np.pi * k / 68
    truth_x = 128 + 60 * np.cos(angle) + 2 * np.sin(k + t)
    truth_y = 140 + 70 * np.sin(angle) + 2 * np.cos(0.5 * k + t)
    truth = np.stack([truth_x, truth_y], axis=-1)
    shift = np.stack([1.5 * np.sin(0.3 * k + t), -2 * np.cos(0.2 * k + 0.5 * t)], axis=-1)
    return truth + shift, truth
