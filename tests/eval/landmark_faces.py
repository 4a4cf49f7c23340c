"""Faces made of 68 points, for tests of what is done by landmarks."""

import numpy as np


def make_face(centre=(32.0, 30.0), scale=20.0):
    """68 points in about their places: outline, brows, nose, eyes, lips (closed)."""
    angles = np.linspace(np.pi, 0, 17)
    outline = np.stack([np.cos(angles), np.sin(angles)], -1)
    brows = [(x, -0.45) for x in (-0.7, -0.6, -0.5, -0.4, -0.3, 0.3, 0.4, 0.5, 0.6, 0.7)]
    nose = [(0, y) for y in (-0.2, -0.1, 0, 0.1)] + [(x, 0.2) for x in (-0.15, -0.08, 0, 0.08, 0.15)]
    eye = np.array([(-0.15, 0), (-0.05, -0.05), (0.05, -0.05), (0.15, 0), (0.05, 0.05), (-0.05, 0.05)])
    eyes = [*(eye - [0.45, 0.25]), *(eye - [-0.45, 0.25])]
    lips = [(-0.35, 0.5), (-0.2, 0.44), (-0.1, 0.42), (0, 0.43), (0.1, 0.42), (0.2, 0.44), (0.35, 0.5),
            (0.2, 0.56), (0.1, 0.58), (0, 0.58), (-0.1, 0.58), (-0.2, 0.56),
            (-0.3, 0.5), (-0.1, 0.5), (0, 0.5), (0.1, 0.5), (0.3, 0.5), (0.1, 0.5), (0, 0.5),
            (-0.1, 0.5)]  # fmt: skip
    return np.array([*outline, *brows, *nose, *eyes, *lips]) * scale + centre
