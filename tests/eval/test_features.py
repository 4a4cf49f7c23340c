import numpy as np

from models.perception import NETS, net_on_backend
from pipelines.engine.fingerprint import resolve_entry_point
from pipelines.eval import features
from pipelines.eval.features import (
    FEATURE_STAGES,
    METRIC_FEATURES,
    compute_dlib_landmarks,
    find_landmarks,
    largest_faces,
)
from pipelines.eval.metrics import METRICS
from pipelines.figures import picture_grids
from storage.shards import FIELD_EXTENSIONS


def test_every_feature_names_a_stage_a_field_and_nets_that_are_there():
    assert list(FEATURE_STAGES) == list(METRIC_FEATURES)
    for name, feature in METRIC_FEATURES.items():
        assert callable(resolve_entry_point(FEATURE_STAGES[name]))
        assert {*feature.fields, *feature.pair_fields} <= set(FIELD_EXTENSIONS)
        assert {net_on_backend(net, "litert") for net in feature.nets} <= set(NETS)


def test_every_metric_reads_frames_or_a_field_of_a_known_feature():
    known = {name: {*one.fields, *one.pair_fields} for name, one in METRIC_FEATURES.items()}
    known[features.FRAMES_FEATURE] = {features.FRAMES_FEATURE}
    assert [one.name for one in METRICS.values() if one.field not in known[one.feature]] == []


def test_the_largest_of_several_faces_is_taken():
    small, large = [0, 0, 10, 10, 2.0], [5, 5, 40, 40, 0.1]
    boxes = largest_faces([np.array([small, large], np.float32), np.zeros((0, 5), np.float32)])
    np.testing.assert_array_equal(boxes[0], large[:4])
    assert np.isnan(boxes[1]).all()


def test_frames_of_256_px_are_what_resizing_them_would_give():
    frames = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    resized = picture_grids.to_uint8(picture_grids.resize_frames(frames, 256))
    np.testing.assert_array_equal(features.resize_for_nets(frames), resized)


def test_landmarks_are_sought_at_256_px(bright_faces):
    sizes = set()

    class Seen(type(bright_faces)):
        def detect(self, frames):
            sizes.add(frames.shape[1:])
            return super().detect(frames)

    find_landmarks(np.zeros((2, 32, 32, 3), np.uint8), Seen(), bright_faces)
    assert sizes == {(256, 256, 3)}


def test_a_frame_without_a_face_has_nan(bright_faces, unit_samples):
    frames = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)])
    bright_faces.darkest = 1.0
    inputs = {"generated": unit_samples([{"__key__": "p", "frames": frames}])}
    (sample,) = compute_dlib_landmarks(inputs, None, {"dlib_hog": bright_faces, "dlib68": bright_faces})
    assert np.isfinite(sample["landmarks"]).all(axis=(1, 2)).tolist() == [False, True]
    assert sample["__key__"] == "p"
