"""Milliseconds a frame of each preprocessing stage, bare: no Ray, no store, one thread.

python -m pytest tests/bench/bench_preprocess.py -m bench -s
"""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.perception.faces import dlib_faces
from models.perception.head.default_head import get_analytic_head
from pipelines.preprocess.clips import ClipsConfig, cut_clips
from pipelines.preprocess.download import download_or_render
from pipelines.preprocess.fit3dmm import Fit3dmmConfig, fit_clips
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.sources.synthetic import SyntheticConfig, list_recordings
from pipelines.preprocess.speech import SpeechFeaturesConfig, encode_speech
from storage.shards import encode_sample

CONFIG = SimpleNamespace(
    data=SimpleNamespace(sound="required"),
    clips=ClipsConfig(),
    keypoints=KeypointsConfig(),
    fit3dmm=Fit3dmmConfig(),
    speech=SpeechFeaturesConfig(),
)
STAGES = {
    "download": download_or_render,
    "clips": cut_clips,
    "keypoints": find_keypoints,
    "fit3dmm": fit_clips,
    "speech": encode_speech,
}


def cpu():
    """CPU seconds of this process and of the ffmpeg processes it has waited for."""
    return sum(os.times()[:4])


@pytest.mark.bench
def test_stages_on_synthetic_recordings():
    folder = (
        Path(importlib.util.find_spec("face_recognition_models").submodule_search_locations[0]) / "models"
    )
    predictor = folder / "shape_predictor_68_face_landmarks.dat"
    nets = {
        "dlib_hog": dlib_faces.load_hog_detector({}),
        "analytic_head": get_analytic_head(),
        "dlib68": dlib_faces.load_dlib_landmarker({"dlib_sp68": predictor}),
    }
    spent = dict.fromkeys([*STAGES, "encode"], 0.0)
    frames = 0
    for row in list_recordings(SyntheticConfig(identities=3, test_identities=1, clips_per_identity=2)):
        inputs = {"recordings": [{**row, "source": "synthetic"}]}
        for name, stage in STAGES.items():
            begin = cpu()
            inputs[name] = list(stage(inputs, CONFIG, nets))
            middle = cpu()
            for sample in inputs[name]:
                encode_sample(sample)
            spent[name] += middle - begin
            spent["encode"] += cpu() - middle
            if name == "clips":  # as they are read back
                inputs[name] = [clip | {"frames": clip["frames"].decode()} for clip in inputs[name]]
        frames += sum(len(sample["frames"]) for sample in inputs["clips"])
    print()
    for name, seconds in spent.items():
        print(f"{name:10s} {1000 * seconds / frames:6.2f} ms a frame")
    print(f"{'sum':10s} {1000 * sum(spent.values()) / frames:6.2f} ms a frame, {frames} frames")
