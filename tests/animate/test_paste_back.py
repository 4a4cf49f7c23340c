"""The rendered face pasted back into the whole portrait."""

import numpy as np

from pipelines.animate.paste_back import PortraitCanvas, feather_weights


def test_the_pasted_face_fades_out_at_its_edges():
    canvas = PortraitCanvas(np.zeros((100, 121, 3), np.uint8), np.array([20, 20, 80, 80]))
    pasted = canvas.paste_face(np.full((8, 8, 3), 200, np.uint8))
    assert pasted.shape == (100, 120, 3)
    assert pasted[50, 50, 0] == 200
    row = pasted[50, 18:52, 0].astype(int)
    assert row[0] == 0
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 60


def test_an_edge_on_the_pictures_border_does_not_fade():
    weights = feather_weights(200, left=False, right=True)
    assert weights[0] == 1
    assert weights[-1] < 0.05


def test_a_large_portrait_is_scaled_to_fit():
    canvas = PortraitCanvas(np.zeros((3001, 4000, 3), np.uint8), np.array([1000, 1000, 3000, 3000]))
    assert canvas.size == (1920, 1440)
    assert canvas.paste_face(np.full((8, 8, 3), 255, np.uint8))[960, 960, 0] == 255
