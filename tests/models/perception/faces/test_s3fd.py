import numpy as np
import pytest
import torch

from models.errors import InvalidFile
from models.perception.faces import s3fd as module
from models.perception.interfaces import InferenceConfigurable, InferenceSettings

WIDTH, HEIGHT = 96, 120
TWO = ((60, 70), (180, 150))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, formula_nets):
    path = tmp_path_factory.mktemp("weights") / "s3fd.pth"
    torch.save(formula_nets.red_square_state(WIDTH, HEIGHT), path)
    return {"s3fd": path}


@pytest.fixture(scope="module")
def with_squares(formula_nets):
    return formula_nets.with_squares


@pytest.fixture(scope="module")
def detector(weights):
    return module.load_s3fd(weights)


@pytest.fixture(scope="module")
def package(weights, tmp_path_factory, formula_nets):
    """The package's own detector, which finds our weights where it looks for its downloads."""
    from face_alignment.detection.sfd import FaceDetector

    home = tmp_path_factory.mktemp("torch")
    formula_nets.write_package_cache(weights, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        return FaceDetector("cpu")


def theirs(package, frame):
    return np.array(package.detect_from_image(frame), np.float32).reshape(-1, 5)


@pytest.mark.parametrize("centres", [(), ((100, 90),), TWO], ids=["none", "one", "two"])
def test_it_finds_what_the_package_finds(detector, package, with_squares, centres):
    frame = with_squares(centres)
    (found,) = detector.detect(frame[None])
    assert found.shape == (len(centres), 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs(package, frame), atol=1e-3)


def test_the_boxes_lie_on_the_squares(detector, with_squares):
    (found,) = detector.detect(with_squares(TWO)[None])
    boxes = found[np.argsort(found[:, 0]), :4]
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, TWO, atol=8)  # cells are 8 px apart
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], [[WIDTH, HEIGHT]] * 2, atol=0.1)


def test_a_batch_says_what_its_frames_say_alone(detector, with_squares):
    frames = np.stack([with_squares(c, 160, 192) for c in ((), TWO[:1], ((40, 50), (130, 90)), ((99, 80),))])
    batch = detector.detect(frames)
    assert [len(boxes) for boxes in batch] == [0, 1, 2, 1]
    for boxes, frame in zip(batch, frames, strict=True):
        np.testing.assert_allclose(boxes, detector.detect(frame[None])[0], atol=1e-4)


def test_hundreds_of_candidates_on_all_maps_agree_with_the_package(formula_nets, tmp_path):
    from face_alignment.detection.sfd import FaceDetector
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from skimage.data import astronaut

    state = formula_nets.noise_state(s3fd)
    for name, tensor in state.items():
        if name.endswith("conf.bias"):
            tensor.zero_()
    torch.save(state, tmp_path / "noise.pth")
    frame = np.ascontiguousarray(astronaut()[20:148, 150:278])
    (found,) = module.load_s3fd({"s3fd": tmp_path / "noise.pth"}).detect(frame[None])
    expected = theirs(FaceDetector("cpu", path_to_detector=str(tmp_path / "noise.pth")), frame)
    assert len(expected) > 100
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_no_cell_above_the_threshold_means_no_box(detector, with_squares):
    strict = module.S3fdDetector(detector._net._published, threshold=1.0)
    assert strict.detect(with_squares(TWO)[None])[0].shape == (0, 5)


def test_of_equal_boxes_the_last_stays_and_far_ones_do():
    boxes = np.array([[0, 0, 10, 10, 0.9], [1, 0, 11, 10, 0.9], [50, 0, 60, 10, 0.95]])
    np.testing.assert_allclose(module.non_maximum_suppression(boxes), boxes[[2, 1]])


def test_it_can_be_told_in_which_precision_to_run(detector):
    assert isinstance(detector, InferenceConfigurable)
    detector.configure_inference(InferenceSettings(dtype="bfloat16"))
    assert {p.dtype for p in detector._net._net.parameters()} == {torch.bfloat16}
    detector.configure_inference(InferenceSettings())
    assert {p.dtype for p in detector._net._net.parameters()} == {torch.float32}


@pytest.mark.slow  # two minutes where a processor only emulates bfloat16
def test_boxes_in_bfloat16_are_those_of_full_precision(detector, with_squares):
    detector.configure_inference(InferenceSettings(dtype="bfloat16", batch=1))
    (found,) = detector.detect(with_squares(TWO[:1])[None])
    detector.configure_inference(InferenceSettings())
    np.testing.assert_allclose(found, detector.detect(with_squares(TWO[:1])[None])[0], atol=1)


def test_another_nets_file_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "fan.pth")
    with pytest.raises(
        InvalidFile, match=r"weights s3fd do not fit s3fd: tensors 65 missing: conv1_1\.weight"
    ):
        module.load_s3fd({"s3fd": tmp_path / "fan.pth"})
