"""How far fits of rendered heads are from the truth."""

import numpy as np

from models.perception.head.default_head import get_analytic_head
from models.perception.head.pose import project


def true_landmarks(truth, clip):
    """(T,68,2): where the rendered head's points are, in pixels of the clip."""
    crop = clip["crop"]
    zoom = clip["frames"].shape[1] / (crop[:, 2] - crop[:, 0])
    return (truth["landmarks"] - crop[:, None, :2]) * zoom[:, None, None]


def off_truth(truth, clip, points):
    """Mean distance (T,) of inner points (T,68,2) from the true ones, in sizes of the face."""
    true = true_landmarks(truth, clip)
    return np.linalg.norm(points - true, axis=-1)[:, 17:].mean(1) / np.ptp(true, axis=1).mean(1)


def placed(fit):
    head = get_analytic_head()
    shape = head.landmarks(head.shape(fit["id_coeffs"], fit["exp_coeffs"]))
    return project(shape, fit["scale"], fit["rotation"], fit["translation"])[..., :2]


def face_of(exp):
    """What expressions (T,n_exp) do to a face that is measured: name -> (T,)."""
    head = get_analytic_head()
    points = head.landmarks(head.shape(np.zeros(head.n_id), exp))
    return {
        "lips apart": points[:, 62, 1] - points[:, 66, 1],
        "mouth width": points[:, 54, 0] - points[:, 48, 0],
        "mouth corners": points[:, [48, 54], 1].mean(1),
        "lips forward": points[:, 48:60, 2].mean(1),
        "brows": points[:, 17:27, 1].mean(1),
    }


def motion(exp):
    """(T,n,3): how each vertex of the face's front moves against the others."""
    head = get_analytic_head()
    moved = (head.shape(np.zeros(head.n_id), exp) - head.mean)[:, head.regions["front"]]
    return moved - moved.mean(0)
