"""dlib's face embedding: our net against dlib's own, on one core.

python -m pytest tests/bench/bench_dlib_resnet.py -m bench -s
"""

import time

import numpy as np
import pytest
import torch

from models.perception.faces.dlib_resnet import load_dlib_resnet
from models.weights import find_third_party_weights
from storage.weight_files import find_packaged_file


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def milliseconds(work, repeats=5):
    """CPU time, the least of some runs after one to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return 1000 * min(spent)


@pytest.mark.bench
@pytest.mark.parametrize("batch", [1, 8, 32])
def test_embedding_against_dlib(batch):
    """The aim: a sixth of dlib's time or less, of chips that are cut."""
    import dlib

    file = find_packaged_file(find_third_party_weights("dlib_resnet"))
    net = load_dlib_resnet({"dlib_resnet": file})
    theirs = dlib.face_recognition_model_v1(str(file))
    chips = np.random.default_rng(0).integers(0, 256, (batch, 150, 150, 3), np.uint8)
    images = torch.from_numpy(chips).permute(0, 3, 1, 2).float() / 255
    points = torch.tensor([[115.0, 60.0], [95.0, 61.0], [35.0, 60.0], [56.0, 61.0], [75.0, 90.0]])

    @torch.inference_mode()
    def embed_chips():
        net.embed_chips(images)

    @torch.inference_mode()
    def embed_points():
        net.embed_points(images, points.expand(batch, 5, 2))

    ours, whole = (milliseconds(work) / batch for work in (embed_chips, embed_points))
    dlibs = milliseconds(lambda: theirs.compute_face_descriptor(chips[0]))
    print(f"\nbatch {batch}, ms a face: {ours:.1f} of chips, {whole:.1f} of frames, dlib {dlibs:.1f}")
    print(f"1/{dlibs / ours:.1f} of dlib's time")
