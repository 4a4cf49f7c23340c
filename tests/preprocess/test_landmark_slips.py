"""Slips on made-up landmarkers: one that sits on the face, one that follows its box, one whose mouth falls to
the chin in boxes that are too large."""

from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.perception.head.default_head import get_analytic_head
from models.perception.interfaces import LandmarkPrediction
from pipelines.errors import Rejected
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.landmark_slips import (
    INNER_LANDMARKS,
    MOUTH_LANDMARKS,
    SLIP_LIMITS,
    SMALLER_BOX,
    OtherBox,
    boxes_about_landmarks,
    change_boxes,
    distance_aside,
    distance_off_line,
    face_lengths,
    measure_slip,
    placement_gap,
    slip_between_passes,
)
from pipelines.preprocess.sources.synthetic import (
    SyntheticConfig,
    list_recordings,
    render_synthetic_recording,
)
from tests.video_files import RUNTIME

FRAMES = 40
LIMIT = SLIP_LIMITS["dlib68"]
GOOD_SIDE = 100.0
"""Of the box about the made-up face, in pixels."""


@pytest.fixture(scope="module")
def talking():
    """(40,68,2): the true landmarks of a rendered head that talks, blinks, nods and turns, fast."""
    (row,) = list_recordings(
        SyntheticConfig(identities=1, test_identities=0, clips_per_identity=1, seconds=1.6)
    )
    _, truth = render_synthetic_recording(row, get_analytic_head())
    return truth["landmarks"][:FRAMES].astype(np.float32)


def boxes_about(points, sizes):
    """points (T,68,2), sizes (T,) in good sides -> (T,4)."""
    inner = points[:, INNER_LANDMARKS]
    middle = (inner.min(1) + inner.max(1)) / 2
    half = np.asarray(sizes)[:, None] * GOOD_SIDE / 2
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)


class FallingMouth:
    """Knows where the faces are; in boxes more than 12 % too large the mouth slips down by a fifth of the
    face. Counts the faces that it was asked for."""

    name = "falling"

    def __init__(self, points):
        self.points, self.asked = points, 0

    def place(self, rows, boxes):
        self.asked += len(rows)
        found = self.points[rows].copy()
        large = boxes[:, 2] - boxes[:, 0] > 1.12 * GOOD_SIDE
        found[large, MOUTH_LANDMARKS] += 0.2 * face_lengths(found[large])[:, None, None] * np.float32([0, 1])
        return found

    def landmarks(self, frames, boxes, rolls=None):
        return self.place(frames[:, 0, 0, 0].astype(int), boxes)

    def predict(self, frames, boxes, rolls=None, detected=None):
        return LandmarkPrediction(landmarks=self.landmarks(frames, boxes))


def slip_of(points, sizes, every=3):
    net, boxes = FallingMouth(points), boxes_about(points, sizes)
    found = net.place(np.arange(len(points)), boxes)
    net.asked = 0
    detected = np.arange(len(points)) % every == 0
    return measure_slip(found, boxes, detected, net.place, LIMIT), net.asked


# --- what is flagged ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("slipped", [[6], [7], [7, 8], [20, 21, 22, 23, 24, 25, 26], [0, 39], [1, 2, 38]])
def test_frames_in_too_large_boxes_are_flagged_and_no_others(talking, slipped):
    sizes = np.ones(FRAMES)
    sizes[slipped] = 1.2
    slip, _ = slip_of(talking, sizes)
    assert np.flatnonzero(slip > LIMIT).tolist() == slipped


def test_a_whole_clip_in_too_large_boxes_is_flagged(talking):
    slip, _ = slip_of(talking, np.full(FRAMES, 1.2))
    assert (slip > LIMIT).all()


def test_speech_blinks_and_turns_are_no_slips(talking):
    slip, asked = slip_of(talking, np.ones(FRAMES))
    assert slip.max() == 0
    assert np.ptp(talking[:, 62, 1] - talking[:, 30, 1]) > 3  # the mouth does move
    assert asked < 0.6 * FRAMES


def test_a_still_picture_is_placed_again_too(talking):
    slip, asked = slip_of(talking[:1], [1.2])
    assert slip[0] > LIMIT
    assert asked == 3


def test_a_landmarker_that_finds_nothing_the_second_time_has_slipped(talking):
    boxes = boxes_about(talking, np.ones(FRAMES))
    lost = lambda rows, others: np.full((len(rows), 68, 2), np.nan, np.float32)  # noqa: E731
    assert (measure_slip(talking, boxes, np.ones(FRAMES, bool), lost, LIMIT) == 1).all()


def test_frames_without_landmarks_have_no_slip_and_are_not_asked_for(talking):
    points = talking.copy()
    points[10:20] = np.nan
    slip, _ = slip_of(points, np.ones(FRAMES))
    assert np.isnan(slip[10:20]).all()
    assert np.isfinite(np.delete(slip, np.s_[10:20])).all()
    none, asked = slip_of(np.full_like(talking, np.nan), np.ones(FRAMES))
    assert np.isnan(none).all()
    assert asked == 0


def test_of_nets_that_look_twice_the_pass_before_is_the_other_placement(talking):
    first = talking + np.float32([0, 0.05]) * face_lengths(talking)[:, None, None]
    first[np.arange(FRAMES) % 3 != 0] = np.nan
    np.testing.assert_allclose(slip_between_passes(talking, first), 0.05, atol=1e-5)


@pytest.mark.parametrize("slipped", [[7], [20, 21, 22, 23, 24, 25, 26]])
def test_where_the_size_of_a_good_box_is_known_all_five_others_are_asked(talking, slipped):
    inner = talking[:, INNER_LANDMARKS]
    side = GOOD_SIDE / float((inner.max(1) - inner.min(1)).mean())
    sizes, net = np.ones(FRAMES), FallingMouth(talking)
    sizes[slipped] = 1.2
    boxes = boxes_about(talking, sizes)
    found = net.place(np.arange(FRAMES), boxes)
    net.asked = 0
    looked_at = np.isin(np.arange(FRAMES), slipped[:1])
    slip = measure_slip(found, boxes, looked_at, net.place, LIMIT, side)
    assert np.flatnonzero(slip > LIMIT).tolist() == slipped
    assert net.asked >= 6 * len(slipped)


# --- the arithmetic -----------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(zoom=st.floats(0.2, 8), x=st.floats(-500, 500), y=st.floats(-500, 500), angle=st.floats(-3, 3))
def test_gaps_do_not_depend_on_where_how_large_and_how_turned_faces_are(talking, zoom, x, y, angle):
    rng = np.random.default_rng(0)
    others = talking + rng.normal(size=talking.shape)
    turn = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = [points.astype(np.float64) @ turn + [x, y] for points in (talking, others)]
    np.testing.assert_allclose(placement_gap(*moved), placement_gap(talking, others), rtol=1e-5)
    known = np.arange(FRAMES) % 4 == 0
    expected = distance_off_line(talking.astype(np.float64), known)
    np.testing.assert_allclose(distance_off_line(moved[0], known), expected, rtol=1e-5, atol=1e-9)


def test_the_mouth_counts_alone_where_it_moved_most(talking):
    others = talking.copy()
    others[:, MOUTH_LANDMARKS, 1] += 0.1 * face_lengths(talking)[:, None]
    np.testing.assert_allclose(placement_gap(talking, others), 0.1, rtol=1e-4)
    np.testing.assert_array_equal(placement_gap(talking, talking), 0)


def test_a_face_that_is_turned_away_keeps_its_length():
    points = np.zeros((2, 68, 2))
    points[:, 33, 1] = 50
    points[0, 45, 0] = 100
    points[1, 45, 0] = 5
    assert face_lengths(points).tolist() == [100, 80]


def test_other_boxes_keep_what_they_do_not_change():
    box = np.array([[10.0, 20, 50, 100]])
    np.testing.assert_allclose(change_boxes(box, SMALLER_BOX), [[12, 24, 48, 96]])
    np.testing.assert_allclose(change_boxes(box, OtherBox(1.0, 0.0, 0.05)), [[10, 24, 50, 104]])
    np.testing.assert_allclose(change_boxes(box, OtherBox(1.0, -0.1)), [[6, 20, 46, 100]])


def test_landmarks_beside_their_box_are_placed_again(talking):
    """Not one of these frames has a detection but the first, and no mouth leaves the line."""
    still = np.repeat(talking[:1], 7, axis=0)
    net, boxes = FallingMouth(still), boxes_about(still, np.ones(7))
    boxes[4, ::2] += 0.06 * GOOD_SIDE
    boxes[5, ::2] -= 0.03 * GOOD_SIDE
    detected, rows = np.arange(7) == 0, []

    def place(numbers, others):
        rows.extend(numbers.tolist())
        return net.place(numbers, others)

    assert (measure_slip(still, boxes, detected, place, LIMIT) == 0).all()
    assert rows == [0, 4]


def test_the_distance_aside_is_in_sides_of_the_box():
    points, boxes = np.full((2, 68, 2), 50.0), np.array([[0.0, 0, 80, 80], [20, 0, 100, 80]])
    points[0, 30, 0] = 70
    points[:, :17] = 300  # the jaw counts for nothing
    np.testing.assert_allclose(distance_aside(points, boxes), [0.25, 0.125])


def test_a_box_about_landmarks_has_their_middle():
    """Their extent is 120 wide and 80 high: in the mean 100."""
    points = np.full((1, 68, 2), 70.0)
    points[0, 17:19] = [[10.0, 30.0], [130.0, 110.0]]
    points[0, :17] = 500.0  # the jaw counts for nothing
    np.testing.assert_allclose(boxes_about_landmarks(points, 1.5), [[-5, -5, 145, 145]])


# --- in the stages ------------------------------------------------------------------------------------------
class GivenBoxes:
    name = "given"

    def __init__(self, boxes):
        self.boxes = np.concatenate([boxes, np.ones((len(boxes), 1))], axis=1).astype(np.float32)

    def detect(self, frames):
        return [self.boxes[t : t + 1] for t in frames[:, 0, 0, 0].astype(int)]


def stage(points, sizes, **changes):
    """The samples of a clip whose frames hold their own numbers."""
    frames = (
        np.zeros((len(points), 8, 8, 3), np.uint8)
        + np.arange(len(points), dtype=np.uint8)[:, None, None, None]
    )
    config = KeypointsConfig(landmarker="dlib68", detect_every=1, **changes)
    nets = {"mp_face": GivenBoxes(boxes_about(points, sizes)), "dlib68": FallingMouth(points)}
    clip = {"__key__": "ann#rec#000000#000040", "frames": frames, "clip": {}}
    return list(find_keypoints({"clips": [clip]}, config, nets, RUNTIME))


@pytest.fixture(scope="module")
def slipping(talking):
    """Sizes of boxes: of 20 frames in three runs they are 20 % too large."""
    sizes = np.ones(FRAMES)
    sizes[[*range(5, 9), *range(15, 17), *range(30, 33)]] = 1.2
    return sizes


def test_slipped_frames_have_no_landmarks_but_a_face(talking, slipping):
    (found,) = stage(talking, slipping)
    slipped = slipping > 1
    assert (np.isnan(found["landmarks"]).all((1, 2)) == slipped).all()
    assert ((found["slip"] > LIMIT) == slipped).all()
    assert (found["score"] > 0).all()
    assert np.isfinite(found["face_box"]).all()


def test_their_fits_are_bridged_or_do_not_count(talking, slipping):
    (found,) = stage(talking, slipping)
    nets = {"analytic_head": get_analytic_head()}
    (fit,) = fit_clips({"keypoints": [found]}, Fit3dmmConfig(max_gap=3, failed="keep"), nets, RUNTIME)
    assert np.flatnonzero(~fit["fit_valid"]).tolist() == [5, 6, 7, 8]  # the run that is too long


def test_without_the_gate_all_is_as_it_was(talking, slipping):
    (found,) = stage(talking, slipping, max_slip=0.0)
    expected = FallingMouth(talking).place(np.arange(FRAMES), boxes_about(talking, slipping))
    np.testing.assert_array_equal(found["landmarks"], expected)
    assert "slip" not in found


def test_a_clip_that_slips_too_often_is_left_out(talking):
    often = np.where(np.arange(FRAMES) < 24, 1.2, 1.0)
    with pytest.raises(Rejected, match=r"60% of the frames of a clip; more than keypoints.max_slipped 0.5"):
        stage(talking, often)
    assert len(stage(talking, often, max_slipped=1.0)) == 1


def test_every_landmarker_of_the_settings_has_a_limit():
    assert set(get_args(get_type_hints(KeypointsConfig)["landmarker"])) == set(SLIP_LIMITS)


def test_the_mesh_gives_its_pass_before_the_last_where_boxes_were_detected(portrait, nets):
    frames = np.stack([portrait[30:222, 110 + t : 302 + t] for t in range(7)])
    config, inputs = KeypointsConfig(), {"clips": [{"__key__": "a", "frames": frames, "clip": {}}]}
    (found,) = find_keypoints(inputs, config, nets, RUNTIME)
    assert (found["slip"] > 0).all()
    assert (found["slip"] < SLIP_LIMITS["mesh468_iris"]).all()
