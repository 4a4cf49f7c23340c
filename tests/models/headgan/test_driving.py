"""What drives a head: landmarks of a video fitted as the stage fits a clip, motion mixed and edited."""

import numpy as np
import pytest

from models.errors import InvalidFile, InvalidSettings
from models.headgan.driving import coefficient_deltas, edit_motion, fit_motion, transfer_motion
from models.perception.head.default_head import get_analytic_head
from models.perception.head.landmark_fit import LandmarkFitOptions, fit_landmarks
from models.perception.head.pose import rotation_to_euler
from models.reenactor import MotionEdit
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from tests.video_files import RUNTIME


@pytest.fixture(scope="module")
def landmarks(turning):
    """(12,68,2) pixels of 64 px images: a head that turns and talks, its landmarks a quarter pixel off."""
    points = turning.landmarks
    return (points + np.random.default_rng(0).normal(size=points.shape) * 0.25).astype(np.float32)


@pytest.fixture(scope="module")
def motion(landmarks):
    return fit_motion(get_analytic_head(), landmarks, "driving")[0]


def angles(motion):
    return rotation_to_euler(motion.rotation)


def marks(motion):
    """(T,68,2) of the model under the motion."""
    model = get_analytic_head()
    shape = np.stack([model.landmarks(one) for one in model.shape(motion.identity, motion.expression)])
    turned = shape @ (motion.scale[:, None, None] * motion.rotation).transpose(0, 2, 1)
    return (turned + motion.translation[:, None])[..., :2].astype(np.float32)


def refitted(motion):
    return angles(fit_landmarks(get_analytic_head(), marks(motion), LandmarkFitOptions()))


# --- fitting ------------------------------------------------------------------------------------------------
def test_a_video_is_fitted_as_the_stage_fits_a_clip(landmarks, motion):
    config = Fit3dmmConfig()
    sample = {"__key__": "k", "landmarks": landmarks}
    (stored,) = fit_clips({"keypoints": [sample]}, config, {"analytic_head": get_analytic_head()}, RUNTIME)
    for name, field in (("scale", "scale"), ("rotation", "rotation"), ("expression", "exp_coeffs")):
        np.testing.assert_array_equal(getattr(motion, name), stored[field])
    np.testing.assert_array_equal(motion.identity[0], stored["id_coeffs"])


def without_fit(landmarks, missing=(), odd=()):
    """No face in some frames, landmarks that make none in others."""
    changed = landmarks.copy()
    changed[list(odd)] = changed[list(odd), ::-1]
    changed[list(missing)] = np.nan
    return changed


def test_up_to_five_frames_without_a_face_are_bridged_and_said(landmarks, motion):
    found, notes = fit_motion(get_analytic_head(), without_fit(landmarks, range(3, 6)), "driving")
    assert notes == ["driving frames 3 to 5: no face; bridged from both sides"]
    np.testing.assert_allclose(angles(found)[4], angles(motion)[[2, 6]].mean(0), atol=3)


def test_a_frame_that_does_not_fit_is_bridged_and_said(landmarks, motion):
    found, notes = fit_motion(get_analytic_head(), without_fit(landmarks, odd=[4]), "driving")
    assert notes == ["driving frame 4: the 3D face does not fit the landmarks; bridged from both sides"]
    np.testing.assert_allclose(angles(found)[4], angles(motion)[[3, 5]].mean(0), atol=3)


def test_in_a_longer_run_without_a_face_the_last_fit_is_kept_and_said(landmarks):
    found, notes = fit_motion(get_analytic_head(), without_fit(landmarks, range(3, 9)), "driving")
    assert notes == ["driving frames 3 to 8: no face; frame 2's motion is kept"]
    np.testing.assert_array_equal(found.pack()[3:9], np.tile(found.pack()[2], (6, 1)))
    assert np.abs(angles(found)[9] - angles(found)[8]).max() > 5


def test_at_the_ends_the_nearest_fit_is_kept_and_said(landmarks):
    found, notes = fit_motion(get_analytic_head(), without_fit(landmarks, [0, 1, 11]), "driving")
    assert notes == [
        "driving frames 0 to 1: no face; frame 2's motion is kept",
        "driving frame 11: no face; frame 10's motion is kept",
    ]
    np.testing.assert_array_equal(found.pack()[[0, 1, 11]], found.pack()[[2, 2, 10]])


def test_a_few_frames_that_do_not_fit_beside_a_gap_are_held_with_it(landmarks):
    found, notes = fit_motion(get_analytic_head(), without_fit(landmarks, range(4, 8), [3, 8]), "driving")
    (note,) = notes
    assert note == (
        "driving frames 3 to 8: the 3D face does not fit the landmarks in 2 of them, no face in the others; "
        "frame 2's motion is kept"
    )
    np.testing.assert_array_equal(found.pack()[3:9], np.tile(found.pack()[2], (6, 1)))


@pytest.mark.parametrize(
    ("missing", "odd", "told"),
    [
        ((), range(2, 9), r"frames 2 to 8: the 3D face does not fit the landmarks; it is off by up to \d+%"),
        ((), range(6), "frames 0 to 5: the 3D face does not fit the landmarks; it is off"),
        ([12, 13, 14], [8, 9, 10, 11, 15, 16, 17, 18], "frames 8 to 18: .* not fit .*in 8 of them"),
    ],
)
def test_more_than_five_frames_of_a_run_that_do_not_fit_are_an_error_that_names_them(
    landmarks, missing, odd, told
):
    """Frames without a face do not end a run."""
    longer = np.concatenate([landmarks, landmarks[::-1]])
    with pytest.raises(InvalidFile, match=f"driving {told}"):
        fit_motion(get_analytic_head(), without_fit(longer, missing, odd), "driving")


def test_more_than_half_of_the_frames_without_a_fit_are_an_error(landmarks):
    longer = np.concatenate([landmarks, landmarks[::-1]])
    with pytest.raises(InvalidFile, match=r"driving: no face, or none that .* fits, in 13 of 24 frames"):
        fit_motion(get_analytic_head(), without_fit(longer, range(2, 13), [20, 22]), "driving")


def test_a_single_picture_that_does_not_fit_is_an_error(landmarks):
    with pytest.raises(InvalidFile, match="source frame 0: the 3D face does not fit"):
        fit_motion(get_analytic_head(), landmarks[:1, ::-1], "source")


def test_no_face_at_all_is_an_error(landmarks):
    with pytest.raises(InvalidFile, match="no landmarks in any of 12 frames"):
        fit_motion(get_analytic_head(), np.full_like(landmarks, np.nan), "driving")


# --- mixing -------------------------------------------------------------------------------------------------
def test_absolute_motion_keeps_the_driving_camera_and_takes_the_sources_face(motion):
    source = motion.select_frames([0]).rescale_pixels(1.5)
    made = transfer_motion(motion, source, "absolute")
    np.testing.assert_array_equal(made.scale, motion.scale)
    np.testing.assert_array_equal(made.translation, motion.translation)
    np.testing.assert_allclose(made.identity, np.tile(source.identity, (12, 1)))


def test_relative_motion_keeps_the_sources_mean_size_and_place(motion):
    source = motion.select_frames([0]).rescale_pixels(1.5)
    made = transfer_motion(motion, source, "relative")
    # the box filter repeats the ends, so a mean moves by what they are off
    assert made.scale.mean() == pytest.approx(source.scale[0], rel=0.02)
    places = (made.translation / made.scale[:, None])[:, :2].mean(0)
    np.testing.assert_allclose(places, (source.translation / source.scale[:, None])[0, :2], atol=0.05)
    np.testing.assert_array_equal(made.rotation, motion.rotation)
    np.testing.assert_array_equal(made.expression, motion.expression)


# --- editing ------------------------------------------------------------------------------------------------
def test_a_turn_of_20_degrees_is_found_by_fitting_again(motion):
    for axis, angle in enumerate(("pitch", "yaw", "roll")):
        still = motion.select_frames([0, 6])
        turned = edit_motion(still, MotionEdit(turn={angle: 20.0}), get_analytic_head())
        gained = (angles(turned) - angles(still))[:, axis]
        np.testing.assert_allclose(gained, 20, atol=0.01)
        np.testing.assert_allclose(refitted(turned)[:, axis] - refitted(still)[:, axis], 20, atol=0.5)


def test_a_pose_is_set_and_the_other_angles_stay(motion):
    made = edit_motion(motion, MotionEdit(pose={"yaw": 20.0}), get_analytic_head())
    np.testing.assert_allclose(angles(made)[:, 1], 20, atol=1e-3)
    np.testing.assert_allclose(angles(made)[:, [0, 2]], angles(motion)[:, [0, 2]], atol=1e-3)


def test_a_frontal_head_is_one_in_every_frame_and_may_be_turned_then(motion):
    np.testing.assert_allclose(
        angles(edit_motion(motion, MotionEdit(frontal=True), get_analytic_head())), 0, atol=1e-4
    )
    both = edit_motion(motion, MotionEdit(frontal=True, turn={"roll": -5.0}), get_analytic_head())
    np.testing.assert_allclose(angles(both), np.tile([0, 0, -5], (12, 1)), atol=1e-4)


def test_an_expression_moves_the_mouth_and_leaves_the_pose(motion):
    open_wide = edit_motion(motion, MotionEdit(expression={"0": 1.5}), get_analytic_head())
    moved = np.linalg.norm(marks(open_wide) - marks(motion), axis=-1)
    assert moved[:, 56:59].min() > 4 * moved[:, 27:36].max()  # lower lip against nose
    np.testing.assert_array_equal(open_wide.rotation, motion.rotation)
    np.testing.assert_array_equal(open_wide.scale, motion.scale)


def test_an_identity_moves_the_face_and_neither_pose_nor_expression(motion):
    wider = edit_motion(motion, MotionEdit(identity={"jaw_width": 2.0}), get_analytic_head())
    at = get_analytic_head().id_names.index("jaw_width")
    np.testing.assert_allclose((wider.identity - motion.identity)[:, at], 2.0, rtol=1e-5)
    assert np.count_nonzero((wider.identity - motion.identity).any(0)) == 1
    for part in ("expression", "scale", "rotation", "translation"):
        np.testing.assert_array_equal(getattr(wider, part), getattr(motion, part))
    moved = np.linalg.norm(marks(wider) - marks(motion), axis=-1)
    assert moved[:, [4, 12]].min() > 4 * moved[:, 36:48].max()  # jaw against eyes


def test_components_go_by_number_or_name_and_others_are_told():
    model = get_analytic_head()
    for kind, names in (("expression", model.exp_names), ("identity", model.id_names)):
        named = coefficient_deltas(kind, {names[2]: 0.5, "0": -1.0}, model)
        assert named[[0, 2]].tolist() == [-1.0, 0.5]
        assert np.count_nonzero(named) == 2
        known = rf"{kind} smirk: analytic has components 0 to {len(names) - 1} or one of {names[0]}, "
        with pytest.raises(InvalidSettings, match=known):
            coefficient_deltas(kind, {"smirk": 1.0}, model)
        with pytest.raises(InvalidSettings, match=f"{kind} 99"):
            coefficient_deltas(kind, {"99": 1.0}, model)


def test_an_expression_is_lent_and_then_changed(motion):
    lent = np.full(get_analytic_head().n_exp, 0.25, np.float32)
    made = edit_motion(motion, MotionEdit(expression={"0": 1.0}), get_analytic_head(), lent)
    np.testing.assert_array_equal(made.expression[:, 1:], 0.25)
    np.testing.assert_allclose(made.expression[:, 0], 1.25)
