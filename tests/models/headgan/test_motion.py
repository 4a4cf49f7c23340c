import json
from pathlib import Path

import numpy as np
import pytest

from models.errors import InvalidFile, InvalidSettings
from models.headgan.motion import (
    CAMERA_PARAMETER_COUNT,
    CameraAdaptation,
    HeadMotion,
    adapt_motion_to_reference_head,
    change_expression,
    driving_window_indices,
    is_fit_window_valid,
    orthonormalize_rotations,
    parse_head_motion_arrays,
    read_clip_head_motion,
    set_frontal,
    set_pose,
)
from models.perception.head.pose import AXIS_FLIP, euler_to_rotation, nearest_rotation

ADAPTED = json.loads((Path(__file__).parents[2] / "golden" / "fit3dmm.json").read_text())["camera_adaptation"]


def motion(frames=40, n_id=4, n_exp=3, seed=0):
    rng = np.random.default_rng(seed)
    return HeadMotion(
        identity=np.tile(rng.normal(size=n_id), (frames, 1)),
        expression=rng.normal(size=(frames, n_exp)),
        scale=rng.uniform(50, 70, frames),
        rotation=euler_to_rotation(*rng.uniform(-30, 30, (3, frames))),
        translation=rng.uniform(100, 150, (frames, 3)),
    )


def golden_clip():
    """The driving camera of the golden case, by its formulas."""
    i = np.arange(40)
    place = np.stack([120 + 4 * np.sin(0.25 * i), 130 + 3 * np.cos(0.4 * i), 1 + 0.1 * i], axis=1)
    given = {"scale": 90 + 5 * np.sin(0.3 * i), "translation": place, "exp_coeffs": np.zeros((40, 3))}
    return parse_head_motion_arrays({**given, "angles": np.zeros((40, 3))}, 4, 3)


GOLDEN_REFERENCE = HeadMotion(
    identity=np.ones((1, 4)), expression=np.zeros((1, 3)), scale=np.array([104.0]),
    rotation=AXIS_FLIP[None], translation=np.array([[125.0, 118, 2]]),
)  # fmt: skip


# --- reading ------------------------------------------------------------------------------------------------
def fields(frames=5):
    one = motion(frames)
    rng = np.random.default_rng(5)
    return {
        "id_coeffs": one.identity[0], "id_frames": rng.normal(size=(frames, 4)), "exp_coeffs": one.expression,
        "scale": one.scale, "rotation": one.rotation, "translation": one.translation,
    }  # fmt: skip


def test_one_identity_serves_the_clip_or_each_frame_keeps_its_own():
    given = fields()
    np.testing.assert_array_equal(
        read_clip_head_motion(given.__getitem__).identity, np.tile(given["id_coeffs"], (5, 1))
    )
    each = read_clip_head_motion(given.__getitem__, "frame")
    np.testing.assert_allclose(each.identity, given["id_frames"], rtol=1e-6)


@pytest.mark.parametrize("identity", ["clip_mean", "frame"])
def test_frames_that_are_asked_for_are_read_alone_and_in_order(identity):
    given = fields()
    whole, some = (read_clip_head_motion(given.__getitem__, identity, frames) for frames in (None, [3, 0, 3]))
    np.testing.assert_array_equal(some.pack(), whole.pack()[[3, 0, 3]])


def test_a_field_of_the_wrong_shape_is_named():
    given = fields() | {"translation": np.zeros((5, 2))}
    with pytest.raises(ValueError, match=r"translation: found shape \(5, 2\), expected \(5, 3\)"):
        read_clip_head_motion(given.__getitem__)


def test_packed_numbers_are_identity_expression_scale_rotation_translation():
    one = motion(2)
    packed = one.pack()
    assert packed.shape == (2, 4 + 3 + CAMERA_PARAMETER_COUNT)
    assert packed.dtype == np.float32
    np.testing.assert_array_equal(packed[1, :4], one.identity[1])
    np.testing.assert_array_equal(packed[1, 4:7], one.expression[1])
    np.testing.assert_array_equal(packed[1, 8:17], one.rotation[1].ravel())
    np.testing.assert_array_equal(packed[1, 17:], one.translation[1])


def test_a_smaller_image_holds_the_same_head():
    one = motion()
    small = one.rescale_pixels(0.25)
    np.testing.assert_allclose(small.scale, one.scale / 4)
    np.testing.assert_allclose(small.translation, one.translation / 4)
    np.testing.assert_array_equal(small.rotation, one.rotation)


def test_a_window_is_oldest_first_and_repeats_the_first_frame():
    assert driving_window_indices(7) == [5, 6, 7]
    assert driving_window_indices(1) == [0, 0, 1]
    assert driving_window_indices(0) == [0, 0, 0]
    assert driving_window_indices(3, frames=1) == [3]


def test_a_window_is_trusted_when_all_its_frames_are():
    valid = np.array([1, 1, 0, 1, 1, 1], bool)
    assert [is_fit_window_valid(valid, t) for t in range(6)] == [True, True, False, False, False, True]


# --- explicit parameters ------------------------------------------------------------------------------------
GIVEN = {"scale": np.ones(2), "translation": np.zeros((2, 3)), "exp_coeffs": np.zeros((2, 3))}


def turned(frame, by):
    """Rotations of two frames, one of them multiplied."""
    rotation = euler_to_rotation(*np.array([[0, 10, 0], [5, -20, 3.0]]).T)
    rotation[frame] = rotation[frame] * by if np.isscalar(by) else by @ rotation[frame]
    return rotation


def test_angles_or_rotations_drive_a_head():
    angles = np.array([[0, 10, 0], [5, -20, 3.0]])
    by_angles = parse_head_motion_arrays({**GIVEN, "angles": angles}, 4, 3)
    by_rotations = parse_head_motion_arrays(
        {**GIVEN, "rotation": turned(0, 1), "id_coeffs": np.arange(4.0)}, 4, 3
    )
    np.testing.assert_allclose(by_angles.rotation, by_rotations.rotation, atol=1e-6)
    np.testing.assert_allclose(by_angles.angles, angles, atol=1e-4)
    assert (by_angles.identity == 0).all()
    np.testing.assert_array_equal(by_rotations.identity, [[0, 1, 2, 3]] * 2)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "needs one of rotation and angles"),
        ({"angles": np.zeros((2, 3)), "rotation": np.zeros((2, 3, 3))}, "one of rotation and angles"),
        ({"angles": np.zeros((3, 3))}, r"angles: found shape \(3, 3\), expected \(2, 3\)"),
        ({"angles": np.full((2, 3), np.nan)}, "angles, frame 0: found nan, expected numbers from"),
        ({"angles": np.zeros((2, 3), bool)}, "angles: found bool, expected numbers"),
        (
            {"angles": np.zeros((2, 3)), "exp_coeffs": np.zeros((2, 5))},
            r"found shape \(2, 5\), expected \(2, 3\)",
        ),
        (
            {"angles": np.zeros((2, 3)), "scale": np.array([1, 0])},
            r"scale, frame 1: found 0, expected numbers from 1e-06 to 1e\+06",
        ),
        (
            {"angles": np.zeros((2, 3)), "scale": np.array([1, 1e300])},  # inf in float32
            r"scale, frame 1: found 1e\+300",
        ),
        ({"angles": np.zeros((0, 3)), "scale": np.zeros(0)}, "scale: found no frames"),
        ({"rotation": turned(1, 0)}, "rotation, frame 1: found R with R R.T off from 1 by 1, expected"),
        ({"rotation": turned(1, 7)}, "rotation, frame 1: found R with R R.T off from 1 by 48"),
        ({"rotation": turned(1, -1)}, "rotation, frame 1: found determinant -1, expected 1"),
        (
            {"rotation": turned(0, AXIS_FLIP)},
            "rotation, frame 0: found a head that is upside down and looks away",
        ),
        ({"angles": np.zeros((2, 3)), "pose": np.zeros(2)}, "unknown pose"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(changed, told):
    with pytest.raises(InvalidFile, match=told):
        parse_head_motion_arrays({**GIVEN, **changed}, 4, 3)


def test_an_affine_cameras_rows_may_be_a_little_askew():
    skewed = turned(0, 1) + 0.03
    found = parse_head_motion_arrays({**GIVEN, "rotation": skewed}, 4, 3)
    np.testing.assert_allclose(found.rotation, skewed, rtol=1e-6)


# --- reenactment --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("default", CameraAdaptation()),
        ("no_translation", CameraAdaptation(translation=False)),
        ("none", CameraAdaptation(scale=False, translation=False)),
    ],
)
def test_golden_camera_adaptation(name, how):
    """Acceptance test 3 of the specification."""
    driving, expected = golden_clip(), ADAPTED["results"][name]
    found = adapt_motion_to_reference_head(driving, GOLDEN_REFERENCE, how)
    np.testing.assert_allclose(found.scale, expected["s"], rtol=1e-6)
    np.testing.assert_allclose(found.translation[:3].ravel(), expected["t_first3"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.translation[-1], expected["t_last"], rtol=1e-5)
    np.testing.assert_array_equal(found.rotation, driving.rotation)


def test_reenactment_takes_the_references_identity_and_the_drivers_face():
    driving, reference = motion(20), motion(3, seed=1)
    found = adapt_motion_to_reference_head(driving, reference)
    np.testing.assert_allclose(found.identity, np.tile(reference.identity[0], (20, 1)), rtol=1e-6)
    np.testing.assert_array_equal(found.expression, driving.expression)
    np.testing.assert_array_equal(found.rotation, driving.rotation)


def test_an_adapted_head_has_the_references_size_and_place_on_average():
    driving, reference = motion(400), motion(30, seed=1)
    found = adapt_motion_to_reference_head(driving, reference, CameraAdaptation(frames=1))
    assert found.scale.mean() == pytest.approx(reference.scale.mean(), rel=1e-5)
    for one, other in zip((found, reference), (reference, found), strict=True):
        place = (one.translation / one.scale[:, None]).mean(0)
        np.testing.assert_allclose(place, (other.translation / other.scale[:, None]).mean(0), rtol=1e-4)


def test_standardising_takes_the_references_spread_and_needs_one():
    driving, reference = motion(40), motion(30, seed=1)
    found = adapt_motion_to_reference_head(driving, reference, CameraAdaptation(standardise=True, frames=1))
    spread = (reference.translation / reference.scale[:, None]).std(0)
    np.testing.assert_allclose((found.translation / found.scale[:, None]).std(0), spread, rtol=1e-4)
    with pytest.raises(InvalidSettings, match="40 driving and 1 reference frames"):
        adapt_motion_to_reference_head(
            driving, reference.select_frames([0]), CameraAdaptation(standardise=True)
        )


@pytest.mark.parametrize(
    "bad", [{"scale": False}, {"translation": False, "standardise": True}, {"frames": 4}, {"frames": 0}]
)
def test_adaptations_that_mean_nothing_are_refused(bad):
    with pytest.raises(ValueError, match="adaptation"):
        CameraAdaptation(**bad)


# --- editing ------------------------------------------------------------------------------------------------
def test_a_frontal_head_keeps_its_place_size_and_face():
    one = motion()
    found = set_frontal(one)
    np.testing.assert_allclose(found.angles, 0, atol=1e-6)
    np.testing.assert_array_equal(found.translation, one.translation)
    np.testing.assert_array_equal(found.expression, one.expression)


def test_one_angle_is_set_and_the_others_stay():
    one = motion()
    found = set_pose(one, yaw=20).angles
    np.testing.assert_allclose(found[:, 1], 20, atol=1e-4)
    np.testing.assert_allclose(found[:, [0, 2]], one.angles[:, [0, 2]], atol=1e-4)


def test_angles_are_added():
    one = motion()
    np.testing.assert_allclose(
        set_pose(one, pitch=5, roll=-8, add=True).angles, one.angles + np.array([5, 0, -8]), atol=1e-4
    )


def test_a_pose_edit_starts_from_the_nearest_rotation():
    """An affine camera's rows are not at right angles; what is rebuilt is."""
    one = motion(3)
    skewed = HeadMotion(
        identity=one.identity, expression=one.expression, scale=one.scale,
        rotation=one.rotation + 0.03, translation=one.translation,
    )  # fmt: skip
    found = set_pose(skewed, yaw=0, add=True)
    np.testing.assert_allclose(found.rotation, nearest_rotation(skewed.rotation), atol=1e-5)
    np.testing.assert_allclose(
        orthonormalize_rotations(skewed).rotation, nearest_rotation(skewed.rotation), atol=1e-6
    )


def test_an_expression_is_added_or_replaced():
    one = motion()
    change = np.array([1.0, 0, -2])
    np.testing.assert_allclose(change_expression(one, change).expression, one.expression + change, rtol=1e-5)
    np.testing.assert_allclose(change_expression(one, change, add=False).expression, np.tile(change, (40, 1)))


def test_edits_leave_the_original_alone():
    one = motion()
    before = one.pack().copy()
    edited = change_expression(set_pose(set_frontal(one), yaw=3), np.ones(3), add=False)
    edited.expression[:] = 7
    np.testing.assert_array_equal(one.pack(), before)
