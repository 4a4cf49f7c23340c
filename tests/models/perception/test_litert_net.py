import pytest
import torch

from models.errors import InvalidFile, InvalidSettings
from models.perception.faces.blazeface import FULL_RANGE_NET, SHORT_RANGE_NET
from models.perception.faces.face_mesh import IRIS_NET, MESH_NET
from models.perception.interfaces import InferenceSettings
from models.perception.litert_net import LiteRtNet
from models.perception.tflite_net import TorchTfliteNet


@pytest.mark.parametrize(
    ("weights_id", "signature"),
    [
        ("mp_face_short", SHORT_RANGE_NET),
        ("mp_face_full", FULL_RANGE_NET),
        ("mp_mesh468", MESH_NET),
        ("mp_iris", IRIS_NET),
    ],
)
def test_it_agrees_with_torch_to_a_thousandth_of_a_pixel(
    mediapipe_weights, wave_image, weights_id, signature
):
    image = wave_image(signature.side)
    image = 2 * image - 1 if weights_id.startswith("mp_face") else image
    images = torch.cat([image, image.flip(3), image.roll(11, 2)])
    path = mediapipe_weights[weights_id]
    for ours, theirs in zip(
        TorchTfliteNet(path, signature)(images), LiteRtNet(path, signature)(images), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_it_refuses_a_gpu_and_says_which_backend_runs_there(mediapipe_weights):
    net = LiteRtNet(mediapipe_weights["mp_iris"], IRIS_NET)
    net.configure_inference(InferenceSettings())
    for how in (InferenceSettings(device="cuda"), InferenceSettings(dtype="bfloat16")):
        with pytest.raises(InvalidSettings, match=r"--set perception\.backend=torch"):
            net.configure_inference(how)


def test_a_file_cut_short_is_an_error_and_not_the_end_of_the_process(mediapipe_weights, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(mediapipe_weights["mp_iris"].read_bytes()[:100_000])
    with pytest.raises(InvalidFile, match="cut short or damaged"):
        LiteRtNet(path, IRIS_NET)
