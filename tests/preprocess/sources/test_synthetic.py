import hashlib
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.perception.head.default_head import get_analytic_head
from pipelines.preprocess.sources.synthetic import (
    SOUND_RATE,
    SYNTHETIC_VIDEO_FPS,
    SyntheticConfig,
    frame_loudness,
    list_recordings,
    render_synthetic_recording,
)


def decode(video: bytes) -> tuple[np.ndarray, np.ndarray]:
    """mp4 -> frames (T,H,W,3) uint8, sound (n,) float32."""
    import av

    with av.open(io.BytesIO(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(io.BytesIO(video)) as container:
        assert container.streams.audio[0].rate == SOUND_RATE
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.stack(frames), np.concatenate(blocks)


def dlib_detector_and_predictor():
    import dlib

    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    models = Path(spec.submodule_search_locations[0]) / "models"
    predictor = dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))
    return dlib.get_frontal_face_detector(), predictor


@pytest.fixture(scope="module")
def rendered():
    """Four people, two seconds each: rows and what `render_synthetic_recording` gives for them."""
    rows = list_recordings(
        SyntheticConfig(identities=4, test_identities=2, clips_per_identity=1, seconds=2.0)
    )
    return [(row, *render_synthetic_recording(row, get_analytic_head())) for row in rows]


def test_rows_are_split_by_identity_and_unique():
    rows = list_recordings(SyntheticConfig(identities=4, test_identities=1, clips_per_identity=2))
    assert [row["id"] for row in rows][:3] == ["syn000-00", "syn000-01", "syn001-00"]
    assert {row["identity"] for row in rows if row["split"] == "test"} == {"syn003"}
    assert len({row["seed"] for row in rows}) == len(rows)
    assert all(
        json.dumps(json.loads(r["spec"]), sort_keys=True, separators=(",", ":")) == r["spec"] for r in rows
    )


def test_more_people_change_nobody_else():
    few = list_recordings(SyntheticConfig(identities=3, test_identities=0))
    many = list_recordings(SyntheticConfig(identities=6, test_identities=0))
    assert many[: len(few)] == few


@pytest.mark.parametrize(
    "bad",
    [
        {"identities": 0},
        {"test_identities": 99},
        {"seconds": 0.0},
        {"width": 321},
        {"height": 100},
        {"seed": -1},
    ],
)
def test_impossible_settings_are_named(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} .*expected"):
        SyntheticConfig(**bad)


def test_the_video_has_the_promised_frames_sound_and_truth(rendered):
    row, video, truth = rendered[0]
    frames, sound = decode(video)
    assert frames.shape == (2 * SYNTHETIC_VIDEO_FPS, 320, 320, 3)
    assert len(sound) == pytest.approx(2 * SOUND_RATE, abs=2048)  # AAC ends on a whole packet
    assert {name: value.shape[0] for name, value in truth.items() if name != "id"} == dict.fromkeys(
        ("angles", "exp", "scale", "rotation", "translation", "landmarks", "jaw", "loudness"), 50
    )
    assert all(np.isfinite(value).all() for value in truth.values())
    assert row["split"] == "train"


def test_another_process_renders_the_same_bytes():
    rows = list_recordings(
        SyntheticConfig(identities=1, test_identities=0, clips_per_identity=1, seconds=0.6)
    )
    code = (
        "import sys, json, hashlib;"
        "from pipelines.preprocess.sources.synthetic import render_synthetic_recording as render;"
        "from models.perception.head.default_head import get_analytic_head;"
        "print(hashlib.sha256(render(json.loads(sys.argv[1]), get_analytic_head())[0]).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, json.dumps(rows[0])],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3],
    ).stdout  # fmt: skip
    assert (
        there.strip()
        == hashlib.sha256(render_synthetic_recording(rows[0], get_analytic_head())[0]).hexdigest()
    )


def test_landmarks_are_the_projected_model(rendered):
    from models.perception.head.default_head import get_analytic_head
    from models.perception.head.pose import project, rotation_to_euler

    truth = rendered[1][2]
    head = get_analytic_head()
    points = head.landmarks(head.shape(truth["id"], truth["exp"]))
    pixels = project(points, truth["scale"], truth["rotation"], truth["translation"])[..., :2]
    assert pixels == pytest.approx(truth["landmarks"], abs=0.02)
    assert rotation_to_euler(truth["rotation"]) == pytest.approx(truth["angles"], abs=1e-3)


def test_dlib_finds_the_face_and_its_landmarks_where_the_truth_says(rendered):
    detector, predictor = dlib_detector_and_predictor()
    found, tried, offsets = 0, 0, []
    for _, video, truth in rendered:
        frames, _ = decode(video)
        for t in range(0, len(frames), 10):
            boxes = detector(frames[t], 1)
            tried += 1
            if len(boxes) != 1:
                continue
            found += 1
            points = np.array([[p.x + 0.5, p.y + 0.5] for p in predictor(frames[t], boxes[0]).parts()])
            offsets.append(points - truth["landmarks"][t])
    assert found / tried >= 0.95
    bias = np.linalg.norm(np.median(offsets, axis=0), axis=1)
    assert bias[17:].mean() < 2.0  # pixels, brows to lips; the head is 160 high
    assert np.linalg.norm(offsets, axis=-1)[:, 17:].mean() < 3.0


def test_loudness_follows_the_mouth(rendered):
    for _, video, truth in rendered:
        heard = frame_loudness(decode(video)[1], len(truth["jaw"]))
        assert np.corrcoef(heard, truth["jaw"])[0, 1] > 0.6


def test_the_head_moves_before_a_wall_that_stays(rendered):
    for _, video, truth in rendered:
        frames = decode(video)[0].astype(np.float32)
        change = np.abs(frames - frames[0]).mean((0, 3))
        assert change[:6, :6].mean() < 2.5  # a corner of the wall
        assert np.abs(frames[25] - frames[0]).mean() > 2.5
        assert np.ptp(truth["angles"][:, 1]) > 5


def test_people_differ(rendered):
    means = np.stack([decode(video)[0][:, 100:200, 110:210].mean((0, 1, 2)) for _, video, _ in rendered])
    gaps = np.linalg.norm(means[:, None] - means[None], axis=-1)[np.triu_indices(len(means), 1)]
    assert np.median(gaps) > 20
