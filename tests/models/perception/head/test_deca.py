import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import InvalidFile
from models.perception.head import converters, deca
from models.perception.head.landmark_fit import rotation_exp
from models.perception.head.pose import project, rotation_to_euler
from models.perception.head.resnet import MorphableModelPrediction, load_subnet
from models.perception.interfaces import InferenceConfigurable

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "shape_nets.json").read_text())


@pytest.fixture(scope="module")
def files(tmp_path_factory, shape_files):
    """deca_model.tar as imported and the small FLAME as converted."""
    folder = tmp_path_factory.mktemp("deca")
    net = shape_files.filled(deca.DecaEncoder(), "hash")
    return {
        "deca": shape_files.deca_checkpoint(folder / "deca_model.tar", net),
        "flame_model": shape_files.flame_model(folder / "flame.safetensors"),
    }


@pytest.fixture(scope="module")
def net(files):
    return deca.load_deca(files)


def test_the_nets_names_are_the_released_ones():
    assert sorted(deca.DecaEncoder().state_dict()) == GOLDEN["deca_state"]
    assert sum(p.numel() for p in deca.DecaEncoder().parameters()) == 25_848_108


def test_the_nets_numbers_are_the_golden_ones(net):
    images = 0.5 + 0.5 * np.sin(0.013 * np.arange(2 * 3 * 224 * 224) + 0.7).reshape(2, 3, 224, 224)
    with torch.inference_mode():
        found = net.run_net(torch.from_numpy(images).float(), 2).numpy()
    expected = GOLDEN["deca_E_flame_hash"]["outputs"]["params236"]
    atol = 20 * expected["f32_max_abs_diff"] + 1e-5 * expected["absmax"]
    np.testing.assert_allclose(found.ravel()[:16], expected["first16"], atol=atol)
    np.testing.assert_allclose(found.ravel()[236:244], expected["mid8"], atol=atol)
    np.testing.assert_allclose(found.ravel()[-4:], expected["last4"], atol=atol)


@pytest.mark.parametrize("case", GOLDEN["deca_crop_224"]["outputs"])
def test_the_published_crop_is_the_golden_one(net, case):
    box = np.array(json.loads(re.search(r"\[.*?\]", case).group()))
    corners = np.zeros((1, 68, 2)) + box[:2] + 0.5
    corners[0, 1] = box[2:] + 0.5
    boxes, usable = net.crop_boxes(corners, 256, 256)
    expected = GOLDEN["deca_crop_224"]["outputs"][case]
    assert usable.all()
    assert boxes[0, 2] - boxes[0, 0] == expected["size"]
    image = (np.sin(0.013 * np.arange(3 * 256 * 256) + 0.7) + 1) * 127.5
    images = torch.from_numpy(image.reshape(1, 3, 256, 256)).float()
    found = deca.resample_crops(images, torch.from_numpy(boxes), "official")[0].numpy() / 255
    np.testing.assert_allclose(found.ravel()[:16], expected["first16"], atol=1e-4)
    np.testing.assert_allclose(found.ravel()[-4:], expected["last4"], atol=1e-4)
    assert found.mean() == pytest.approx(expected["mean"], abs=1e-5)
    assert np.linalg.norm(found) == pytest.approx(expected["l2"], rel=1e-5)


def test_a_crop_spans_what_it_says(net):
    """A picture of its own coordinates: the crop's pixels hold the places that `spans` gives them."""
    y, x = np.mgrid[:100, :120] + 0.5
    frame = torch.from_numpy(np.stack([x, y, x])[None])
    boxes, _ = net.crop_boxes(np.array([[[30.0, 20], [80, 70]]]), 100, 120)
    crop = deca.resample_crops(frame, torch.from_numpy(boxes))[0].numpy()
    x0, y0, x1, y1 = net.crop_edges_in_frame(boxes, 100, 120)[0]
    at = (np.arange(224) + 0.5) / 224
    np.testing.assert_allclose(crop[0, 112], x0 + at * (x1 - x0), atol=1e-3)
    np.testing.assert_allclose(crop[1, :, 112], y0 + at * (y1 - y0), atol=1e-3)


def test_a_reading_is_the_published_projection(net, files):
    """FLAME turned, projected and carried back as DECA does it, against the product's model and camera."""
    model, arrays = (
        converters.read_morphable_model(files["flame_model"]),
        converters.read_safetensors_arrays(files["flame_model"]),
    )
    rng = np.random.default_rng(0)
    code = rng.normal(size=(3, 236)).astype(np.float32)
    code[:, 200:206] *= 0.3
    code[:, 206:209] = [[7, 0.01, -0.02], [8, 0, 0], [9, -0.01, 0.03]]
    frame = np.array([[10, 20, 150, 160], [-5.5, 0, 100, 105.5], [40.25, 50, 60, 69.75]], np.float32)
    fit = net.to_face_fit(MorphableModelPrediction(code, frame))
    ours = project(model.shape(fit.id, fit.exp), fit.scale, fit.rotation, fit.translation)[..., :2]
    for t in range(3):
        shape = model.shape(fit.id[t], fit.exp[t]) + arrays["origin"]
        root = arrays["root"] + arrays["root_basis"] @ np.r_[code[t, :100], code[t, 150:200]]
        head = (shape - root) @ rotation_exp(code[t : t + 1, 200:203].astype(float))[0].T + root
        s, tx, ty = code[t, 206:209]
        crop = 112 + 112 * s * np.stack([head[:, 0] + tx, -(head[:, 1] + ty)], axis=1) + 0.5  # from the edge
        pixel = (frame[t, 2] - frame[t, 0]) / 224
        np.testing.assert_allclose(ours[t], frame[t, :2] + crop * pixel, atol=2e-3)
    assert (fit.exp[:, 50:] == code[:, 203:206]).all()


def test_the_heads_turn_becomes_the_products_angles(net):
    code = np.zeros((1, 236), np.float32)
    code[0, 200], code[0, 206] = np.deg2rad(20), 8
    fit = net.to_face_fit(MorphableModelPrediction(code, np.array([[0, 0, 224, 224]], np.float32)))
    np.testing.assert_allclose(rotation_to_euler(fit.rotation), [[20, 0, 0]], atol=1e-4)
    assert fit.scale[0] == pytest.approx(8 * 112)


def test_frames_are_read_in_batches_alike(net):
    frames = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)
    landmarks = np.random.default_rng(1).uniform(10, 50, (5, 68, 2)).astype(np.float32)
    whole = net.predict(frames, landmarks)
    one = net.predict(frames[3:4], landmarks[3:4])
    np.testing.assert_allclose(whole.code[3], one.code[0], atol=1e-4)
    assert whole.code.shape == (5, 236)
    assert isinstance(net, InferenceConfigurable)


def test_a_face_without_a_size_is_left_out(net):
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    landmarks = np.full((2, 68, 2), 30, np.float32)
    landmarks[1] += np.random.default_rng(0).uniform(-10, 10, (68, 2))
    reading = net.predict(frames, landmarks)
    assert np.isnan(reading.code[0]).all()
    assert np.isnan(reading.crop[0]).all()
    assert np.isfinite(reading.code[1]).all()


CRIMES = {
    "lacks layers.0.weight": lambda t: t.pop("E_flame.layers.0.weight"),
    "has unknown layers.4.weight": lambda t: t.update({"E_flame.layers.4.weight": torch.zeros(3)}),
    "has another shape for layers.0.bias": lambda t: t.update({"E_flame.layers.0.bias": torch.zeros(3)}),
    "no E_flame in": lambda t: [t.pop(n) for n in list(t) if n.startswith("E_flame.")],
}  # fmt: skip


@pytest.mark.parametrize("told", CRIMES)
def test_another_models_file_is_told_by_its_names(told, files, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(files["deca"])
    CRIMES[told](tensors)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(InvalidFile, match=f"weights deca: .*{told}"):
        load_subnet(deca.DecaEncoder, tmp_path / "x.safetensors", "E_flame", "deca")


def test_a_flame_without_its_joint_is_refused(files, tmp_path):
    from models.perception.head.default_head import get_analytic_head

    converters.write_morphable_model(tmp_path / "other.safetensors", get_analytic_head())
    with pytest.raises(InvalidFile, match="is not a FLAME"):
        deca.load_deca({**files, "flame_model": tmp_path / "other.safetensors"})
