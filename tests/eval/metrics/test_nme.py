import numpy as np
import pytest

from pipelines.eval.metrics import METRICS, sum_frame_values
from pipelines.eval.metrics.nme import nme_by_box_per_frame, nme_by_eyes_per_frame

FORMS = (nme_by_box_per_frame, nme_by_eyes_per_frame)


@pytest.mark.parametrize("backend", ["dlib", "mesh", "fan2d"])
@pytest.mark.parametrize(
    ("form", "name"),
    [("nme", "nme_x1e3_box_sqrt_area_mean_of_frames"), ("nme_interocular", "nme_interocular_36_45_percent")],
)
def test_nme_is_the_golden_one(landmarks, golden, backend, form, name):
    metric = METRICS[f"{form}_{backend}"]
    value = metric.compute(sum_frame_values(metric.per_frame(*landmarks)))
    assert value == pytest.approx(golden["landmarks"][name], abs=1e-9)


def test_nme_of_each_frame_is_the_golden_one(landmarks, golden):
    expected = golden["landmarks"]["nme_per_frame_x1e3"]
    assert nme_by_box_per_frame(*landmarks) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_nme_does_not_depend_on_the_size_of_the_face(landmarks, form):
    assert form(*(one / 4 for one in landmarks)) == pytest.approx(form(*landmarks))


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_without_a_face_has_no_nme(landmarks, form):
    prediction, target = (one.copy() for one in landmarks)
    prediction[1], target[2] = np.nan, np.nan
    assert np.isfinite(form(prediction, target)).tolist() == [True, False, False]
