"""FaceRenderer, videos and nets that the tests of `animate` share."""

import json

import numpy as np
import pytest
import torch
from msgspec import to_builtins
from PIL import Image

from models.checkpoint import Checkpoint
from models.headgan.network import Generator
from models.headgan.spec import SPEC
from models.loading import load_reenactor
from models.perception.head.default_head import get_analytic_head
from models.reenactor import MotionTransfer
from pipelines.animate.perception import load_perception_nets
from pipelines.animate.render import AnimateOptions, write_animation
from storage.files import Store
from tests.animate.stand_ins import (
    ABOUT,
    CLIPS,
    HEADGAN_CLIPS,
    NET,
    SINE,
    TALK,
    Mirror,
    encode,
)


@pytest.fixture(scope="session")
def face():
    """(512,512,3) uint8: one face of about 110 px near x 225, y 125; it ships with scikit-image."""
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(scope="session")
def moving(face):
    """(50,256,256,3): the face moves to the right by half a pixel a frame."""
    return np.stack([face[:256, 100 - t // 2 : 356 - t // 2] for t in range(50)])


@pytest.fixture(scope="session")
def videos(moving, tmp_path_factory):
    """By name: odd rate with sound, uneven times, no sound, sound that mp4 does not take."""
    folder = tmp_path_factory.mktemp("videos")
    late = "settb=1/90000,setpts=PTS+0.013*mod(N\\,3)/TB"
    uneven = ("-vf", late, "-fps_mode", "vfr", "-enc_time_base", "1:90000")
    return {
        "ntsc": encode(folder / "ntsc.mp4", moving, *SINE, "-c:a", "aac", rate="30000/1001"),
        "matroska": encode(folder / "ntsc.mkv", moving[:20], *SINE, "-c:a", "aac", rate="30000/1001"),
        "uneven": encode(folder / "uneven.mp4", moving, *SINE, "-c:a", "aac", *uneven),
        "transport": encode(folder / "stream.ts", moving[:20], *SINE, "-t", "0.8", "-c:a", "aac"),
        "silent": encode(folder / "silent.mp4", moving[:20]),
        "pcm": encode(folder / "pcm.mov", moving[:20], *SINE, "-t", "0.8", "-c:a", "pcm_s16le"),
    }  # fmt: skip


@pytest.fixture(scope="session")
def source(face, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "portrait.png"
    Image.fromarray(face[:300, 80:400]).save(path)
    return path


@pytest.fixture(scope="session")
def nets(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("store")))
    return load_perception_nets({"detector": "mp_face", "landmarker": "mesh468_iris"}, store, "cpu")


@pytest.fixture
def messages():
    return []


@pytest.fixture
def make(source, nets, messages, tmp_path):
    """Animate with the mirror -> the file, and what was made."""

    def run(driving, sources=(source,), name="out.mp4", tags=None, model=None, **options):
        out = tmp_path / name
        wanted = AnimateOptions(clips=CLIPS, **options)
        result = write_animation(
            model or Mirror(), sources, driving, out, wanted, nets, tags or {}, messages.append
        )
        return out, result

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The tiny FSRT with initial weights, as a training phase would publish it."""
    from safetensors.torch import save_file

    from models.fsrt.config import tiny_architecture
    from models.fsrt.network import Fsrt

    torch.manual_seed(0)
    about = {
        "model": "fsrt",
        "architecture": to_builtins(tiny_architecture()),
        "provenance": {"net": "untrained"},
    }
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    state = {name: tensor.contiguous() for name, tensor in Fsrt(tiny_architecture()).state_dict().items()}
    save_file(state, path, metadata={"reenact": json.dumps(about)})
    return path


# --- HeadGAN ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def headgan_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("headgan")


@pytest.fixture(scope="session")
def headgan_state():
    torch.manual_seed(0)
    return Generator(NET).state_dict()


@pytest.fixture(scope="session")
def moving_bust():
    """(16,256,256,3): a face of about 110 px goes to the right."""
    from skimage.data import astronaut

    return np.stack([astronaut()[:256, 100 - t // 2 : 356 - t // 2] for t in range(16)])


@pytest.fixture(scope="session")
def bust(moving_bust, headgan_folder):
    Image.fromarray(moving_bust[0, 10:]).save(headgan_folder / "portrait.png")
    return headgan_folder / "portrait.png"


@pytest.fixture(scope="session")
def talks(moving_bust, headgan_folder):
    talk = ("-f", "lavfi", "-i", TALK, "-map", "0:v", "-map", "1:a", "-shortest", "-c:a", "aac")
    gap = moving_bust.copy()
    gap[6:9] = 90
    return {
        "talk": encode(headgan_folder / "talk.mp4", moving_bust, *talk),
        "ntsc": encode(headgan_folder / "ntsc.mp4", moving_bust, *talk, rate="30000/1001"),
        "silent": encode(headgan_folder / "silent.mp4", moving_bust[:8]),
        "gap": encode(headgan_folder / "gap.mp4", gap),
    }


@pytest.fixture(scope="session")
def headgan(headgan_state):
    checkpoint = Checkpoint(tensors=headgan_state, metadata=ABOUT)
    result = load_reenactor(SPEC, {"renderer": checkpoint})
    result.set_frozen_nets({"analytic_head": get_analytic_head()})
    return result


@pytest.fixture
def make_headgan(headgan, bust, nets, messages, tmp_path):
    """Animate -> the file and what was made; what was rendered is in `make_headgan.motions`."""

    def run(driving, name="out.mp4", transfer=None, **options):
        wanted = AnimateOptions(
            clips=HEADGAN_CLIPS, transfer=transfer or MotionTransfer(motion="relative"), **options
        )
        out = tmp_path / name
        return out, write_animation(headgan, [bust], driving, out, wanted, nets, {}, messages.append)

    return run


@pytest.fixture
def rendered(headgan, monkeypatch):
    """The motion that was rendered, batch by batch."""
    seen = []
    render = headgan.render

    def kept(scene, motion):
        seen.append(motion)
        return render(scene, motion)

    monkeypatch.setattr(headgan, "render", kept)
    return seen
