import numpy as np
import pytest
import torch

from models.errors import InvalidFile
from models.perception.faces import fan
from models.perception.interfaces import InferenceConfigurable, InferenceSettings

BOX = np.array([80.0, 60.0, 190.37, 185.2], np.float32)


@pytest.fixture(scope="module")
def weights(formula_nets, tmp_path_factory):
    """Files as their publisher makes them, with our own numbers: the landmarks are noise, always the same."""
    from face_alignment.models import FAN, ResNetDepth

    folder = tmp_path_factory.mktemp("weights")
    paths = {name: folder / formula_nets.CACHED[name] for name in ("fan2d", "fan3d", "fan_depth")}
    torch.save(formula_nets.noise_state(lambda: FAN(4)), paths["fan2d"])
    paths["fan3d"].symlink_to(paths["fan2d"])
    depth = {f"module.{name}": tensor for name, tensor in formula_nets.noise_state(ResNetDepth).items()}
    torch.save({"state_dict": depth}, paths["fan_depth"])
    return paths


@pytest.fixture(scope="module")
def cache(weights):
    """A folder that face_alignment takes for torch's, and finds everything in."""
    folder = weights["fan2d"].parent
    (folder / "hub").mkdir()
    (folder / "hub" / "checkpoints").symlink_to(folder)
    return folder


@pytest.fixture(scope="module")
def face():
    from skimage.data import astronaut

    return astronaut()[:256, 100:356]


@pytest.fixture(scope="module")
def blobs(formula_nets):
    """A landmarker whose net always sees the mean face: crops, peaks and geometry are real."""
    return fan.FanLandmarker("blobs", formula_nets.Blobs())


@pytest.fixture
def plain_python(monkeypatch):
    """The package's own lines without their 8 s of compilation by numba."""
    from face_alignment import utils

    for name in ("transform_np", "_get_preds_fromhm"):
        monkeypatch.setattr(utils, name, getattr(utils, name).py_func)


def random_boxes(count, seed=0):
    """Half of them whole pixels whose crops end exactly on a pixel, where rounding decides."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(-50, 400, (count, 2)), rng.uniform(20, 300, (count, 2))
    half = count // 2
    corner[:half], size[:half] = corner[:half].round(), size[:half].round()
    size[:half, 1] += -size[:half].sum(1) % 39
    return np.concatenate([corner, corner + size], axis=1)


def centre_and_scale(box):
    """As face_alignment/api.py reckons them."""
    x0, y0, x1, y1 = box
    centre = np.array([x1 - (x1 - x0) / 2.0, y1 - (y1 - y0) / 2.0 - (y1 - y0) * 0.12])
    return centre, (x1 - x0 + y1 - y0) / 195


# --- crops --------------------------------------------------------------------------------------------------
def test_crops_have_the_packages_corners():
    from face_alignment.utils import transform

    boxes = random_boxes(1000)
    expected, exact = [], []
    for box in boxes.tolist():
        centre, scale = centre_and_scale(box)
        expected.append(
            [
                *transform([1, 1], centre, scale, 256.0, True),
                *transform([256, 256], centre, scale, 256.0, True),
            ]
        )
        exact.append([*(centre + 200 * scale * (at / 256 - 0.5) for at in (1, 256))])
    found, expected = fan.crop_windows_from_boxes(boxes).corners, np.array(expected)
    exact = np.array(exact).reshape(-1, 4)
    # The package inverts a float32 matrix by LAPACK, which rounds by processor: where a corner lies on a
    # pixel's edge, its truncation may go either way.
    edge = np.abs(exact - exact.round()) < 1e-3
    np.testing.assert_array_equal(found[~edge], expected[~edge])
    assert np.abs(found - expected)[edge].max() <= 1
    assert (found == expected)[edge].mean() > 0.9


def test_crops_have_the_packages_pixels_inside_and_beyond_the_frame(face):
    from face_alignment.utils import crop

    boxes = np.array([BOX, [-20, -30, 60, 70], [150, 150, 260, 300], [-60, -60, 320, 330]])
    for box, corners in zip(boxes.tolist(), fan.crop_windows_from_boxes(boxes).corners, strict=True):
        np.testing.assert_array_equal(fan.crop_frame(face, corners), crop(face, *centre_and_scale(box)))


@pytest.mark.parametrize(
    "box",
    [
        (np.nan, 1, 2, 3), (np.inf, 1, 2, 3), (50, 50, 50, 80), (80, 80, 60, 60), (400, 400, 500, 500),
        (-300, 0, -200, 100), (0, 0, 1e9, 1e9), (60, 60, 60.2, 60.2),
    ],
)  # fmt: skip
def test_boxes_that_show_nothing_have_no_landmarks(blobs, face, box):
    points = blobs.predict(np.stack([face, face]), np.array([BOX, box], np.float32))
    assert np.isfinite(points.landmarks[0]).all()
    assert np.isnan(points.landmarks[1]).all()
    assert (points.confidence[1] == 0).all()
    assert (points.confidence[0] > 0).all()


def test_views_that_opencv_does_not_take_are_taken(blobs, face):
    mirrored = blobs.predict(face[None, :, ::-1], BOX[None])
    planes = blobs.predict(face.transpose(2, 0, 1).copy().transpose(1, 2, 0)[None], BOX[None])
    np.testing.assert_array_equal(mirrored.landmarks, planes.landmarks)


# --- heatmaps -----------------------------------------------------------------------------------------------
def test_peaks_are_read_as_the_package_reads_them(plain_python):
    from face_alignment.utils import get_preds_fromhm

    heat = np.random.default_rng(0).normal(size=(3, 68, 64, 64)).astype(np.float32)
    for k, (row, column) in enumerate(
        [(0, 0), (0, 5), (63, 63), (7, 63), (1, 1), (62, 62), (30, 0), (1, 62)]
    ):
        heat[0, k, row, column] = 9
    heat[1, 0] = 0  # all equal
    at, height = fan.heatmap_peaks(torch.from_numpy(heat))
    expected, _, scores = get_preds_fromhm(heat)
    np.testing.assert_array_equal(at.numpy(), expected)
    np.testing.assert_array_equal(height.numpy(), scores)


def test_spots_are_drawn_as_the_package_draws_them():
    from face_alignment.utils import draw_gaussian

    rng = np.random.default_rng(0)
    at = rng.integers(1, 255, (1, 68, 2)).astype(np.float32)
    at[0, :8] = [[1, 1], [2, 100], [5, 6], [7, 255], [255, 3], [254, 254], [6, 6], [8, 8]]
    drawn = fan.landmark_heatmaps(torch.from_numpy(at))[0].numpy()
    expected = [draw_gaussian(np.zeros((256, 256), np.float32), point, 2) for point in at[0]]
    np.testing.assert_allclose(drawn, np.stack(expected), atol=1e-6)


def test_landmarks_lie_where_the_net_sees_them(blobs, formula_nets, face):
    """Half a cell of the net is 2.4 px here: as exact as quarter cells can be."""
    points = blobs.predict(face[None], BOX[None])
    centre, scale = centre_and_scale(BOX.astype(float).tolist())
    expected = (formula_nets.mean_face() - 0.5) * 200 * scale + centre
    assert np.abs(points.landmarks[0] - expected).max() < 200 * scale / 64 * 0.26
    assert points.landmarks.dtype == np.float32
    assert points.landmarks3d is None


def test_confidence_is_the_height_of_the_peak(formula_nets, face):
    for height in (0.9, 0.3):
        sure = (
            fan.FanLandmarker("b", formula_nets.Blobs(height=height))
            .predict(face[None], BOX[None])
            .confidence
        )
        assert sure.shape == (1, 68)
        assert sure.max() <= height
        assert sure.min() > height * 0.7  # the peak may lie between cells


def test_batches_change_nothing(blobs, face):
    frames = np.stack([face] * 9)
    boxes = BOX + np.arange(9, dtype=np.float32)[:, None]
    boxes[4] = np.nan
    whole = blobs.predict(frames, boxes).landmarks
    blobs.configure_inference(InferenceSettings(batch=2))
    np.testing.assert_array_equal(blobs.predict(frames, boxes).landmarks, whole)
    blobs.configure_inference(InferenceSettings())
    np.testing.assert_allclose(np.diff(whole[:4], axis=0), 1, atol=1e-4)  # they move with the box


def test_no_face_at_all_needs_no_net(face):
    points = fan.FanLandmarker("none", torch.nn.Identity()).predict(
        np.stack([face] * 3), np.full((3, 4), np.nan)
    )
    assert np.isnan(points.landmarks).all()
    assert points.landmarks.shape == (3, 68, 2)


def test_the_mirrored_image_cancels_a_net_that_leans(formula_nets, face):
    symmetric = formula_nets.Blobs()
    symmetric.heat.copy_((symmetric.heat + symmetric.heat[fan.MIRRORED_LANDMARKS].flip(2)) / 2)
    leaning = formula_nets.Blobs()
    leaning.heat.copy_(symmetric.heat.roll(1, dims=2))
    places = [
        fan.FanLandmarker("a", net, flip=flip).landmarks(face[None], BOX[None])[0]
        for net, flip in ((symmetric, False), (leaning, False), (leaning, True))
    ]
    cell = 200 * float(centre_and_scale(BOX)[1]) / 64
    assert (places[1] - places[0])[:, 0].mean() == pytest.approx(cell, rel=0.1)
    assert (places[2] - places[0])[:, 0].mean() == pytest.approx(0, abs=0.15 * cell)


# --- the package's way of loading and placing ---------------------------------------------------------------
LOADERS = {"TWO_D": fan.load_fan_2d, "TWO_HALF_D": fan.load_fan_25d, "THREE_D": fan.load_fan_3d}


def package_points(cache, kind, frame, box, flip):
    """face_alignment constructed as its users do, with weights from its download cache."""
    import face_alignment

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(cache))
        package = face_alignment.FaceAlignment(
            face_alignment.LandmarksType[kind], device="cpu", flip_input=flip, compile=False,
            face_detector="folder",
        )  # fmt: skip
    points, scores, _ = package.get_landmarks_from_image(
        frame, detected_faces=[box.tolist()], return_landmark_score=True
    )
    return points[0], scores[0]


def check_against_package(ours, theirs, kind):
    points, scores = theirs
    np.testing.assert_array_equal(np.trunc(ours.landmarks[0]), points[:, :2])  # it truncates, we do not
    assert np.abs(ours.landmarks[0] - points[:, :2]).max() <= 1
    np.testing.assert_allclose(ours.confidence[0], scores, atol=1e-5)
    assert (ours.landmarks3d is not None) == (kind == "THREE_D")
    if ours.landmarks3d is not None:
        np.testing.assert_array_equal(ours.landmarks3d[..., :2], ours.landmarks)
        np.testing.assert_allclose(ours.landmarks3d[0, :, 2], points[:, 2], atol=1e-6)
        assert np.ptp(points[:, 2]) > 1e-3


@pytest.mark.parametrize("kind", ["TWO_HALF_D", "THREE_D"])
def test_points_are_the_packages_but_for_truncation(weights, cache, face, plain_python, kind):
    ours = LOADERS[kind](weights).predict(face[None], BOX[None])
    check_against_package(ours, package_points(cache, kind, face, BOX, flip=False), kind)


def test_points_with_the_mirrored_image_are_the_packages(weights, cache, face, plain_python):
    ours = fan.load_fan_2d_flip(weights).predict(face[None], BOX[None])
    ours.confidence[:] *= 2  # the package adds both heights
    check_against_package(ours, package_points(cache, "TWO_D", face, BOX, flip=True), "TWO_D")


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOADERS)
def test_points_are_those_of_the_package_with_its_compiled_code(weights, cache, face, kind):
    for box in (BOX, np.array([-20, -30, 60, 70], np.float32), np.array([150, 150, 260, 300], np.float32)):
        ours = LOADERS[kind](weights).predict(face[None], box[None])
        check_against_package(ours, package_points(cache, kind, face, box, flip=False), kind)


def test_a_file_of_another_net_is_refused(weights):
    with pytest.raises(InvalidFile, match=r"weights fan2d do not fit FAN: .*missing.*unknown"):
        fan.load_fan_2d({"fan2d": weights["fan_depth"]})


def test_it_can_be_told_in_which_precision_to_run(weights):
    net = fan.load_fan_2d(weights)
    assert isinstance(net, InferenceConfigurable)
    net.configure_inference(InferenceSettings(dtype="bfloat16"))
    assert {p.dtype for p in net._net._net.parameters()} == {torch.bfloat16}


@pytest.mark.slow  # two minutes where a processor only emulates bfloat16
def test_points_in_bfloat16_are_those_of_full_precision(weights, face):
    net = fan.load_fan_2d(weights)
    full = net.predict(face[None], BOX[None])
    net.configure_inference(InferenceSettings(dtype="bfloat16"))
    half = net.predict(face[None], BOX[None])
    assert half.landmarks.dtype == np.float32
    np.testing.assert_allclose(half.confidence, full.confidence, atol=0.1 * full.confidence.max())
