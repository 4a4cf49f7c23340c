"""How large a face is, by the points on it."""

from __future__ import annotations

import numpy as np


def hull_area(points: np.ndarray) -> float:
    """points (n,2) -> the area of their convex hull, in their unit squared; 0 if they are NaN or lie in a
    line.
    """
    from scipy.spatial import ConvexHull, QhullError

    if not np.isfinite(points).all():
        return 0.0
    try:
        return float(ConvexHull(points).volume)
    except QhullError:
        return 0.0
