import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from models.errors import InvalidFile
from models.perception.head import converters, deep3d
from models.perception.head.pose import AXIS_FLIP, project, rotation_to_euler
from models.perception.head.resnet import MorphableModelPrediction

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "shape_nets.json").read_text())
ALIGN = GOLDEN["deep3d_align"]


@pytest.fixture(scope="module")
def file(tmp_path_factory, shape_files):
    net = shape_files.filled(deep3d.Deep3dEncoder(), "chirp")
    return shape_files.deep3d_checkpoint(tmp_path_factory.mktemp("deep3d") / "epoch_20.pth", net)


@pytest.fixture(scope="module")
def net(file):
    return deep3d.load_deep3d({"deep3d": file})


def test_the_nets_numbers_are_the_golden_ones(shape_files):
    """The golden run normalised by the image's own statistics (training mode), not by the stored ones."""
    expected = GOLDEN["deep3d_recon_net_resnet50"]
    encoder = shape_files.filled(deep3d.Deep3dEncoder(), "chirp").train()
    image = (shape_files.wave((1, 3, 224, 224), 0.3) + 1) / 2
    with torch.inference_mode():
        found = encoder(torch.from_numpy(image).float()).numpy()
    assert sum(p.numel() for p in encoder.parameters()) == expected["param_count"]
    assert len(encoder.state_dict()) == expected["n_state"]
    np.testing.assert_allclose(found.ravel()[:16], expected["output"]["first16"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.ravel()[-4:], expected["output"]["last4"], rtol=1e-3, atol=1e-4)
    assert np.linalg.norm(found) == pytest.approx(expected["output"]["l2"], rel=1e-4)


def test_the_checkpoints_tensors_are_the_nets(net, shape_files):
    expected = shape_files.filled(deep3d.Deep3dEncoder(), "chirp").eval()
    image = torch.full((1, 3, 224, 224), 0.4)
    with torch.inference_mode():
        np.testing.assert_allclose(net.run_net(image, 1).numpy(), expected(image).numpy(), atol=1e-5)


def test_the_crop_is_the_golden_alignment():
    points = np.array(ALIGN["five_points_image"])[None]
    boxes, usable = deep3d.alignment_crop_boxes(points, 512, 512)
    assert usable.all()
    assert boxes[0].tolist() == [*ALIGN["resized"], *ALIGN["left_top"]]
    y, x = np.mgrid[:512, :512]
    image = np.stack([x * 255 / 511, y * 255 / 511, (x + y) % 256], axis=-1).astype(np.uint8)
    found = deep3d.crop_frame(image, boxes[0])
    assert found.shape == (224, 224, 3)
    np.testing.assert_allclose(found.mean((0, 1)), ALIGN["crop_mean_rgb"], atol=0.02)


def test_the_five_points_are_its_own():
    np.testing.assert_allclose(deep3d.REFERENCE_LANDMARKS, ALIGN["lm3d_5"])


def test_the_span_is_the_golden_camera_of_the_whole_frame(net):
    """Focal length and centre of the pinhole in the frame, from the crop alone."""
    golden = GOLDEN["pir_camera_full_frame"]
    x0, y0, x1, y1 = net.crop_edges_in_frame(np.array([[*golden["resized"], *golden["left_top"]]]), 512, 512)[
        0
    ]
    expected = np.array(golden["K_pixels_512"])
    assert deep3d.FOCAL_LENGTH * (x1 - x0) / 224 == pytest.approx(expected[0, 0], rel=1e-5)
    assert x0 + (x1 - x0) / 2 == pytest.approx(expected[0, 2], abs=1e-3)
    assert y0 + (y1 - y0) / 2 == pytest.approx(expected[1, 2], abs=1e-3)


def test_rotations_are_the_golden_ones(net, shape_files):
    code = (0.5 * shape_files.wave((2, 257), 0.9)).astype(np.float32)
    code[:, 224:227] *= 0.6
    fit = net.to_face_fit(
        MorphableModelPrediction(code, np.tile(np.array([[0, 0, 224, 224]], np.float32), (2, 1)))
    )
    golden = np.array(GOLDEN["deep3d_parametric_face_model"]["rotation"])  # acts on rows
    np.testing.assert_allclose(AXIS_FLIP @ fit.rotation, np.swapaxes(golden, 1, 2), atol=1e-5)
    np.testing.assert_allclose(rotation_to_euler(fit.rotation), np.rad2deg(code[:, 224:227]), atol=1e-3)


def test_the_orthographic_camera_is_near_the_pinhole(net, shape_files, tmp_path):
    """Golden landmarks of the pinhole against ours: equal at the origin, off by depth over ten elsewhere."""
    savemat(tmp_path / "m.mat", shape_files.bfm_arrays())
    model = converters.convert_bfm(tmp_path / "m.mat")
    code = (0.5 * shape_files.wave((2, 257), 0.9)).astype(np.float32)
    code[:, 224:227] *= 0.6
    code[:, 254:] *= 0.2
    fit = net.to_face_fit(
        MorphableModelPrediction(code, np.tile(np.array([[0, 0, 224, 224]], np.float32), (2, 1)))
    )
    head = model.landmarks(model.shape(fit.id, fit.exp)) @ np.swapaxes(AXIS_FLIP @ fit.rotation, 1, 2)
    world = head + code[:, None, 254:]
    pinhole = 112 + 1015 * world[..., :2] * [1, -1] / (10 - world[..., 2:])
    golden = GOLDEN["deep3d_parametric_face_model"]["landmarks68_y_up"]  # y = 224 - ours
    first = (pinhole * [1, -1] + [0, 224]).ravel()[:16]
    np.testing.assert_allclose(first, golden["first16"], atol=2e-3)
    ours = project(model.landmarks(model.shape(fit.id, fit.exp)), fit.scale, fit.rotation, fit.translation)
    middle = fit.translation[:, None, :2]
    off = np.linalg.norm(ours[..., :2] - pinhole, axis=-1)
    bound = np.abs(head[..., 2]) / 10 * np.linalg.norm(pinhole - middle, axis=-1) * 1.2
    assert (off <= bound + 0.01).all()


def test_frames_are_read_and_those_without_a_face_left_out(net):
    frames = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    landmarks = np.full((2, 68, 2), 60, np.float32)
    eyes_nose_mouth = {
        36: (45, 50),
        39: (55, 50),
        42: (75, 50),
        45: (85, 50),
        30: (65, 65),
        48: (52, 85),
        54: (78, 85),
    }
    for k, point in eyes_nose_mouth.items():
        landmarks[1, k] = point
    reading = net.predict(frames, landmarks)
    assert np.isnan(reading.code[0]).all()
    assert np.isfinite(reading.code[1]).all()
    assert reading.code.shape == (2, 257)
    x0, y0, x1, y1 = reading.crop[1]
    assert x0 < 45 < 85 < x1
    assert y0 < 50 < 85 < y1


def test_a_file_without_the_net_is_refused(file, tmp_path):
    from safetensors.torch import save_file

    save_file({"state_dict.a": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(InvalidFile, match=r"no net_recon in x\.safetensors"):
        deep3d.load_deep3d({"deep3d": tmp_path / "x.safetensors"})
