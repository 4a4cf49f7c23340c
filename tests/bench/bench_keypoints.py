"""face-alignment's nets: our batches against the bare nets and against the package's own calls, on one core.

python -m pytest tests/bench/bench_keypoints.py -m bench -s
"""

import time

import numpy as np
import pytest
import torch

from models.perception.faces import fan, s3fd
from models.perception.interfaces import InferenceSettings

FRAMES = 8


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def milliseconds(work, repeats=2):
    """CPU time a frame, the best of some runs after one to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return 1000 * min(spent) / FRAMES


@pytest.fixture(scope="module")
def clip():
    """8 frames of 256 px, a face box in each."""
    from skimage.data import astronaut

    frames = np.stack([astronaut()[:256, 100 - k : 356 - k] for k in range(FRAMES)])
    boxes = np.array([[80 + k, 60, 190.37 + k, 185.2] for k in range(FRAMES)], np.float32)
    return frames, boxes


@pytest.mark.bench
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fan_against_the_bare_net(formula_nets, clip, dtype):
    from face_alignment.models import FAN

    torch.manual_seed(0)
    landmarker = fan.FanLandmarker("fan2d", FAN(4))
    landmarker.configure_inference(InferenceSettings(dtype=dtype))
    net, batch = landmarker._net._net, landmarker._net.batch_size(256 * 256)
    crops = torch.rand(batch, 3, 256, 256).to(getattr(torch, dtype))

    @torch.inference_mode()
    def bare():
        for _ in range(FRAMES // batch):
            net(crops)

    ours, alone = milliseconds(lambda: landmarker.predict(*clip)), milliseconds(bare)
    cheap = fan.FanLandmarker("blobs", formula_nets.Blobs())
    host = milliseconds(lambda: cheap.predict(*clip), repeats=20)
    print(f"\nfan2d {dtype}: {ours:.0f} ms a crop, bare net {alone:.0f} ms: {alone / ours:.1%} of its rate")
    print(f"all but the net: {host:.2f} ms a crop")


@pytest.mark.bench
def test_host_work_against_the_packages(formula_nets, clip):
    """Crop, peaks and geometry with a net that costs nothing; the package's after numba has compiled."""
    from face_alignment.utils import crop, get_preds_fromhm

    frames, boxes = clip
    blobs = formula_nets.Blobs()
    heat = blobs.heat[None].numpy()

    def theirs():
        for frame, (x0, y0, x1, y1) in zip(frames, boxes.tolist(), strict=True):
            centre, scale = np.array([(x0 + x1) / 2, (y0 + y1) / 2]), (x1 - x0 + y1 - y0) / 195
            crop(frame, centre, scale).transpose((2, 0, 1)).astype(np.float32) / 255.0
            get_preds_fromhm(heat, centre, scale)

    ours = milliseconds(lambda: fan.FanLandmarker("blobs", blobs).predict(*clip), repeats=20)
    package = milliseconds(theirs, repeats=20)
    print(f"\nhost work: {ours:.2f} ms a crop, the package {package:.2f} ms")


@pytest.mark.bench
def test_s3fd_against_the_bare_net(formula_nets, tmp_path):
    state = tmp_path / "s3fd.pth"
    torch.save(formula_nets.red_square_state(96, 120), state)
    detector = s3fd.load_s3fd({"s3fd": state})
    frames = np.stack([formula_nets.with_squares([(60 + 4 * k, 90), (190, 160)]) for k in range(FRAMES)])
    net, batch = detector._net._net, detector._net.batch_size(256 * 256)
    images = torch.rand(batch, 3, 256, 256)

    @torch.inference_mode()
    def bare():
        for _ in range(FRAMES // batch):
            net(images)

    ours, alone = milliseconds(lambda: detector.detect(frames)), milliseconds(bare)
    print(f"\ns3fd at 256 px: {ours:.0f} ms a frame, bare net {alone:.0f} ms: {alone / ours:.1%} of its rate")
