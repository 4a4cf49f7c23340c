"""What nets would say of flat grey pictures: a face whose figures are the level; none in a black one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipelines.eval.features import DLIB_LANDMARKS_FEATURE, IDENTITY_FEATURE, MESH_LANDMARKS_FEATURE


def grey_faces(feature: str, pictures: np.ndarray) -> Mapping[str, np.ndarray]:
    """Landmarks with x = level; angles and expression of the level; an embedding that the level turns."""
    levels = pictures.reshape(len(pictures), -1).mean(axis=1).astype(np.float32)
    levels[levels == 0] = np.nan
    if feature == DLIB_LANDMARKS_FEATURE:
        points = np.zeros((len(levels), 68, 2), np.float32)
        points[..., 0] = levels[:, None]
        return {"landmarks": points}
    if feature == MESH_LANDMARKS_FEATURE:
        return {"angles": np.tile(levels[:, None], 3), "expression": np.tile(levels[:, None], 10) / 10}
    assert feature == IDENTITY_FEATURE
    turn = np.deg2rad(levels)
    return {"embedding": np.stack([np.cos(turn), np.sin(turn)], axis=1)}
