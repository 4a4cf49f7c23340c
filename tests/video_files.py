"""Videos made on the spot, one photograph of a face (it ships with scikit-image), and dlib's nets."""

import importlib.util
import subprocess
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from models.perception.faces import dlib_faces
from models.perception.faces.blazeface import load_mp_face_litert
from models.perception.faces.face_mesh import load_mesh468_iris_litert
from models.weights import find_third_party_weights
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.media import ffmpeg_path
from storage.weight_files import find_packaged_file

RUNTIME = RuntimeConfig()


def write_video(path, frames, *, fps=25, times=None, sound=None, rate=44_100, codec="libx264", gop=12):
    """frames (T,H,W,3) uint8 and a mono sound in [-1,1] -> a file; times (T,) in seconds for uneven
    frames."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        video.options, video.gop_size = {"crf": "10", "preset": "veryfast", "threads": "1"}, gop
        video.codec_context.time_base = Fraction(1, 12_000)
        audio = container.add_stream("aac", rate=rate, layout="mono") if sound is not None else None
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.time_base = Fraction(1, 12_000)
            frame.pts = round((times[k] if times is not None else k / fps) * 12_000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            for start in range(0, len(sound), 1024):
                block = av.AudioFrame.from_ndarray(
                    sound[None, start : start + 1024].astype(np.float32), "fltp", "mono"
                )
                block.sample_rate, block.pts, block.time_base = rate, start, Fraction(1, rate)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def tone(seconds, rate=44_100):
    return (0.3 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def ffmpeg(*arguments):
    """For files that PyAV's muxers would not write; the last argument is the file, which is returned."""
    command = [ffmpeg_path(), "-nostdin", "-hide_banner", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return arguments[-1]


@pytest.fixture(scope="session")
def helpers():
    return SimpleNamespace(write_video=write_video, tone=tone, ffmpeg=ffmpeg)


@pytest.fixture(scope="session")
def portrait():
    """(512,512,3) uint8: one face of about 110 px near x 225, y 125."""
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(scope="session")
def predictor():
    found = importlib.util.find_spec("face_recognition_models")
    return Path(found.submodule_search_locations[0]) / "models" / "shape_predictor_68_face_landmarks.dat"


@pytest.fixture(scope="session")
def nets(predictor):
    mediapipe = {
        name: find_packaged_file(find_third_party_weights(name))
        for name in ("mp_face_short", "mp_face_full", "mp_mesh468", "mp_iris")
    }
    return {
        "mp_face": load_mp_face_litert(mediapipe),
        "mesh468_iris": load_mesh468_iris_litert(mediapipe),
        "dlib_hog": dlib_faces.load_hog_detector({}),
        "dlib68": dlib_faces.load_dlib_landmarker({"dlib_sp68": predictor}),
    }


@pytest.fixture(scope="session")
def face_video(portrait, tmp_path_factory, helpers):
    """3 s of the portrait moving to the right by 1 px a frame behind a 320 x 320 window, with sound."""
    frames = np.stack([portrait[:320, 100 - t : 420 - t] for t in range(75)])
    path = tmp_path_factory.mktemp("video") / "face.mp4"
    return helpers.write_video(path, frames, sound=tone(3))


def grey(levels, height=48, width=64):
    """Grey levels (n,) -> frames (n,height,width,3) uint8."""
    return np.repeat(np.array(levels, np.uint8), height * width * 3).reshape(-1, height, width, 3)
