"""HeadGAN's dense points from files in its layout: crop, places in the image, import, refusals."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.errors import InvalidFile
from models.perception.faces.retinaface_dense import (
    DENSE_COUNT,
    POINT_COUNT,
    SYMBOL_FILE,
    WEIGHTS_ID,
    load_retinaface_dense,
    to_image_points,
)
from models.weights import find_third_party_weights
from pipelines.cli.weights import find_weights_file_check
from storage import weight_files
from storage.files import Store
from storage.mxnet_params import read_mxnet_params
from tests.mxnet_files import SymbolWriter


def regressor(points=POINT_COUNT):
    """A net of the authors' layout whose answer is the middle of what is bright: two pooled ramps."""
    writer = SymbolWriter()
    centred = writer.add("_minus_scalar", "_minusscalar0", (0,), scalar=127.5)
    scaled = writer.add("_mul_scalar", "_mulscalar0", (centred,), scalar=0.0078125)
    kernels = writer.array("conv0_weight", np.random.default_rng(0).normal(size=(4, 3, 3, 3)))
    conv = writer.add(
        "Convolution", "conv0", (scaled, kernels),
        kernel=(3, 3), stride=(2, 2), pad=(1, 1), num_filter=4, no_bias=True,
    )  # fmt: skip
    parts = [writer.array(f"bn0_{n}", np.ones(4)) for n in ("gamma", "beta")]
    parts += [writer.array(f"bn0_moving_{n}", np.ones(4), "aux") for n in ("mean", "var")]
    normed = writer.add("BatchNorm", "bn0", (conv, *parts), eps=2e-5, fix_gamma=False)
    active = writer.add("Activation", "relu0", (normed,), act_type="relu")
    pool = writer.add("Pooling", "pool1", (active,), kernel=(7, 7), global_pool=True, pool_type="avg")
    weight = 0.05 * np.random.default_rng(1).normal(size=(3 * points, 4))
    full = (
        pool,
        writer.array("fc1_weight", weight),
        writer.array("fc1_bias", np.linspace(-1, 1, 3 * points)),
    )
    writer.add("FullyConnected", "fc1", full, num_hidden=3 * points, no_bias=False)
    writer.nodes.append({"op": "null", "name": "label", "inputs": []})
    writer.add("LinearRegressionOutput", "lro", (len(writer.nodes) - 2, len(writer.nodes) - 1))
    return writer


@pytest.fixture(scope="module")
def landmarker(tmp_path_factory):
    """Through `reenact weights import`'s own road."""
    folder = tmp_path_factory.mktemp("retinaface")
    store, weights = Store(str(folder / "store")), find_third_party_weights(WEIGHTS_ID)
    check = find_weights_file_check(WEIGHTS_ID)
    weight_files.import_weights(store, weights, regressor().save(folder), check, accept=True)
    return load_retinaface_dense({WEIGHTS_ID: weight_files.weights_path(store, weights)})


FRAMES = np.random.default_rng(2).integers(0, 256, (3, 120, 160, 3), dtype=np.uint8)
BOXES = np.array([[40, 30, 100, 90], [np.nan] * 4, [-10, 60, 30, 130]], np.float32)


def test_points_have_the_papers_numbers_and_missing_faces_none(landmarker):
    found = landmarker.predict(FRAMES, BOXES)
    assert found.dense.shape == (3, DENSE_COUNT, 3)
    assert found.landmarks3d.shape == (3, 68, 3)
    np.testing.assert_array_equal(found.landmarks, found.landmarks3d[..., :2])
    np.testing.assert_array_equal(np.isfinite(found.dense).all((1, 2)), [True, False, True])
    np.testing.assert_array_equal(found.landmarks, landmarker.landmarks(FRAMES, BOXES))


def test_the_crop_is_the_published_one_against_a_slow_sampler(landmarker):
    """scale 128/max(w,h) about the box's middle, 192 px, bilinear, black outside; answers of the same net."""
    t = 2
    scale = 128 / 70
    middle = np.array([10.0, 95.0]) - 0.5
    padded = np.zeros((400, 400, 3))
    padded[100:220, 100:260] = FRAMES[t]
    crop = np.zeros((192, 192, 3), np.float32)
    for i in range(192):
        y = (i - 96) / scale + middle[1] + 100
        for j in range(192):
            x = (j - 96) / scale + middle[0] + 100
            a, b = int(np.floor(y)), int(np.floor(x))
            v, u = y - a, x - b
            crop[i, j] = (padded[a, b] * (1 - v) * (1 - u) + padded[a, b + 1] * (1 - v) * u
                          + padded[a + 1, b] * v * (1 - u) + padded[a + 1, b + 1] * v * u)  # fmt: skip
    net = landmarker._net._published
    answer = net(torch.from_numpy(crop).permute(2, 0, 1)[None]).numpy()
    judge = to_image_points(answer, BOXES[t : t + 1])[0]
    np.testing.assert_allclose(landmarker.predict(FRAMES, BOXES).dense[t], judge[:DENSE_COUNT], atol=0.05)


def test_answers_lie_about_the_boxs_middle_in_halves_of_the_crop():
    boxes = np.array([[0, 0, 64, 128]], np.float32)  # scale 1: the crop is 192 px of the image
    answers = np.zeros((1, POINT_COUNT, 3), np.float32)
    answers[0, 0], answers[0, 1] = [1, -1, 0.5], [-0.25, 0, -1]
    points = to_image_points(answers, boxes)[0]
    np.testing.assert_allclose(points[0], [32 + 96, 64 - 96, 48])
    np.testing.assert_allclose(points[1], [32 - 24, 64, -96])
    np.testing.assert_allclose(points[2], [32, 64, 0])


@pytest.mark.parametrize(
    ("points", "symbol", "told"),
    [
        (68, True, r"fc1 gives \(1, 204\), expected \(1, 3309\)"),
        (POINT_COUNT, False, f"no {SYMBOL_FILE} in its header"),
    ],
)
def test_files_of_another_net_are_refused(points, symbol, told, tmp_path):
    writer = regressor(points)
    header = {"reenact": json.dumps({"settings": {SYMBOL_FILE: writer.graph()}})} if symbol else None
    arrays = {name: torch.from_numpy(a) for name, a in read_mxnet_params(writer.save(tmp_path)).items()}
    save_file(arrays, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(InvalidFile, match=told):
        load_retinaface_dense({WEIGHTS_ID: tmp_path / "w.safetensors"})
