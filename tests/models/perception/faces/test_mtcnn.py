import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import InvalidFile
from models.perception.faces import mtcnn
from models.perception.interfaces import InferenceConfigurable, InferenceSettings
from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file, install_command

GOLDEN = json.loads((Path(__file__).parents[3] / "golden/mtcnn.json").read_text())


@pytest.fixture(scope="module")
def files(formula_nets, tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for name, state in formula_nets.mtcnn_states().items():
        found[name] = folder / f"{name}.pt"
        torch.save(state, found[name])
    return found


@pytest.fixture(scope="module")
def detector(files):
    return mtcnn.load_mtcnn(files)


@pytest.fixture(scope="module")
def frames(formula_nets):
    return formula_nets.mtcnn_frames()


def test_boxes_and_probabilities_are_those_of_the_wheels_own_code(detector, frames):
    for frame, expected in zip(frames, GOLDEN["boxes"], strict=True):
        (found,) = detector.detect(frame[None])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-3)
    assert min(map(len, GOLDEN["boxes"])) >= 30  # few boxes would test few rules


def test_with_the_wheels_weights_a_face_lies_where_the_wheel_puts_it(astronaut):
    weights = {name: find_packaged_file(find_third_party_weights(name)) for name in mtcnn.MTCNN_WEIGHTS_IDS}
    if None in weights.values():
        pytest.skip(f"not installed: {install_command(find_third_party_weights('mtcnn_pnet'))}")
    (found,) = mtcnn.load_mtcnn(weights).detect(astronaut[None])
    np.testing.assert_allclose(found, GOLDEN["astronaut"], atol=2e-3)


def test_a_batch_says_what_its_frames_say_alone(files, frames):
    detector = mtcnn.load_mtcnn(files)
    detector.configure_inference(InferenceSettings(batch=2))
    assert detector._proposal.batch_size(96 * 140) > 1
    for together, frame in zip(detector.detect(frames), frames, strict=True):
        np.testing.assert_allclose(together, detector.detect(frame[None])[0], atol=1e-3)


def test_boxes_come_with_the_surest_first(detector, frames):
    for boxes in detector.detect(frames):
        assert (np.diff(boxes[:, 4]) <= 0).all()
        assert (boxes[:, 4] > mtcnn.THRESHOLDS[-1]).all()


@pytest.mark.parametrize("sides", [(19, 200), (200, 8)])
def test_a_frame_smaller_than_the_smallest_face_has_none(detector, sides):
    (found,) = detector.detect(np.zeros((1, *sides, 3), np.uint8))
    assert found.shape == (0, 5)


def test_the_first_scale_makes_the_smallest_face_a_window():
    scales = mtcnn.pyramid_scales(720, 1280)
    assert scales[0] * mtcnn.SMALLEST_FACE == mtcnn.WINDOW
    assert 720 * scales[-1] >= mtcnn.WINDOW > 720 * scales[-1] * mtcnn.PYRAMID_FACTOR


def test_a_box_outside_the_frame_has_no_pixels():
    boxes = np.array([[-5, -5, 10.9, 10.2], [50, 3, 60, 9], [3, -9, 9, -1]], np.float32)
    low, high = mtcnn.pixel_spans(boxes, 40, 30)
    assert (high > low).all(1).tolist() == [True, False, False]
    assert low[0].tolist() == [0, 0]
    assert high[0].tolist() == [10, 10]


def test_of_a_face_in_a_face_the_surer_stays_though_their_union_is_large():
    boxes = np.array([[0, 0, 100, 100], [30, 30, 60, 60], [200, 0, 230, 30]], np.float32)
    scores, frame = np.array([0.8, 0.9, 0.7], np.float32), np.zeros(3, int)
    found = mtcnn.Candidates(frame, boxes, scores, np.zeros((3, 4), np.float32))
    assert mtcnn.keep_surest(found, 0.7).tolist() == [1, 0, 2]
    assert mtcnn.keep_surest_of_nested(found, 0.7).tolist() == [1, 2]
    apart = found._replace(frame=np.array([0, 1, 0]))
    assert sorted(mtcnn.keep_surest_of_nested(apart, 0.7).tolist()) == [0, 1, 2]


def test_it_can_be_told_where_to_run_but_neither_to_compile_nor_to_round(files):
    detector = mtcnn.load_mtcnn(files)
    assert isinstance(detector, InferenceConfigurable)
    detector.configure_inference(InferenceSettings(dtype="bfloat16", compile=True))
    for net in (detector._proposal, detector._refine, detector._output):
        assert {p.dtype for p in net._net.parameters()} == {torch.float32}


def test_another_nets_file_is_refused_by_its_weights_id(files):
    with pytest.raises(InvalidFile, match=r"weights mtcnn_rnet do not fit RefineNet: .* of another shape"):
        mtcnn.load_mtcnn(files | {"mtcnn_rnet": files["mtcnn_onet"]})
