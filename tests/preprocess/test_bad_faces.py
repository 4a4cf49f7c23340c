"""Faces that nets do not see as they should, or that are none: what the stages make of each kind.

python -m pytest tests/preprocess/test_bad_faces.py -s prints the table of outcomes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image, ImageDraw

from models.perception.head.default_head import get_analytic_head
from pipelines import media
from pipelines.errors import Rejected
from pipelines.preprocess.clips import ClipsConfig, cut_clips
from pipelines.preprocess.keypoints import KeypointsConfig, find_keypoints
from pipelines.preprocess.sources.common.head_appearance import (
    sample_person_appearance,
    sample_synthetic_recording_appearance,
)
from pipelines.preprocess.sources.common.rendered_head import HeadRenderer, SyntheticHeadState
from storage.shards import Sample
from tests.video_files import RUNTIME

CANVAS = (360, 640)
FRAMES = 1
LEFT_EYE, RIGHT_EYE, MOUTH = slice(36, 42), slice(42, 48), slice(48, 68)
"""Of the 68 landmarks, sides as seen in an upright picture."""
SURE, UNSURE = (0.8, 1.0), (0.01, 0.7)
NOTHING = "no_landmarks"


# --- pictures -----------------------------------------------------------------------------------------------
def pasted(portrait, width, left, top, canvas=CANVAS, quarters=0, frame=None) -> np.ndarray:
    """A face, its box so many pixels wide, cut out of the portrait with what surrounds it and put into a grey
    frame (H,W,3); it may leave it. Its middle lies 1.3 and 1.1 widths from left and top."""
    side = round(240 * width / 94.5)
    face = Image.fromarray(portrait[20:260, 100:340]).resize((side, side), Image.Resampling.LANCZOS)
    out = Image.fromarray(np.full((*canvas, 3), 127, np.uint8) if frame is None else frame)
    out.paste(Image.fromarray(np.rot90(np.asarray(face), -quarters)), (left, top))
    return np.array(out)


def rendered(yaw) -> np.ndarray:
    """(256,256,3) uint8: a person of the synthetic source, turned to the side."""
    model = get_analytic_head()
    renderer = HeadRenderer(
        model,
        sample_person_appearance(np.random.default_rng(0), 0, model),
        sample_synthetic_recording_appearance(np.random.default_rng(1), 256, 256),
        256, 256,
    )  # fmt: skip
    middle = np.array([128.0, 120.0, 0.0])
    return renderer.render_frame(
        SyntheticHeadState(np.array([0.0, yaw, 0.0]), 60.0, middle, np.zeros(model.n_exp), np.zeros(2))
    )


def cartoon(details=True) -> np.ndarray:
    """(256,256,3) uint8: a face of ellipses and arcs; without details a yellow disc with dots for eyes."""
    image = Image.new("RGB", (256, 256), (200, 220, 255))
    draw = ImageDraw.Draw(image)
    if not details:
        draw.ellipse([40, 40, 216, 216], fill=(255, 220, 0))
        for x in (100, 156):
            draw.ellipse([x - 10, 90, x + 10, 125], fill=0)
        draw.arc([80, 90, 176, 185], 20, 160, fill=0, width=6)
        return np.array(image)
    draw.ellipse([58, 48, 198, 208], fill=(255, 214, 170), outline=(40, 30, 20), width=3)
    for x in (98, 158):
        draw.ellipse([x - 14, 91, x + 14, 109], fill=(255, 255, 255), outline=(20, 20, 20), width=2)
        draw.ellipse([x - 6, 94, x + 6, 106], fill=(40, 60, 90))
        draw.arc([x - 18, 76, x + 18, 100], 200, 340, fill=(60, 40, 20), width=4)
    draw.line([128, 104, 120, 138, 134, 140], fill=(150, 100, 80), width=3)
    draw.chord([98, 148, 158, 182], 0, 180, fill=(180, 60, 60), outline=(60, 20, 20))
    return np.array(image)


# --- kinds --------------------------------------------------------------------------------------------------
class Kind(NamedTuple):
    make: Callable[[np.ndarray], np.ndarray]
    """portrait (512,512,3) -> one frame (H,W,3) uint8."""
    expect: tuple[float, float] | str
    """Least and largest score, or a reject code."""


KINDS = {
    "face of 96 px": Kind(lambda p: pasted(p, 96, 200, 60), SURE),
    "a fifth beyond the left edge": Kind(lambda p: pasted(p, 96, -80, 60), SURE),
    "a third beyond the lower edge": Kind(lambda p: pasted(p, 96, 200, 240), UNSURE),
    "half beyond the left edge": Kind(lambda p: pasted(p, 96, -130, 60), NOTHING),
    "lying to the right": Kind(lambda p: pasted(p, 96, 200, 60, quarters=1), (0.3, 1)),
    "upside down": Kind(lambda p: pasted(p, 96, 200, 60, quarters=2), SURE),
    "lying to the left": Kind(lambda p: pasted(p, 96, 200, 60, quarters=3), (0.3, 1)),
    "half profile": Kind(lambda _: rendered(45), (0.4, 1)),
    "turned by 70 degrees": Kind(lambda _: rendered(70), UNSURE),
    "profile": Kind(lambda _: rendered(90), NOTHING),
    "face of 24 px": Kind(lambda p: pasted(p, 24, 200, 160), UNSURE),
    "face of 16 px": Kind(lambda p: pasted(p, 16, 200, 160), NOTHING),
    "face of 400 px in 4k": Kind(lambda p: pasted(p, 400, 1500, 600, (2160, 3840)), SURE),
    "drawn face": Kind(lambda _: cartoon(), SURE),
    "disc with dots": Kind(lambda _: cartoon(details=False), NOTHING),
    "black": Kind(lambda _: np.zeros((256, 256, 3), np.uint8), NOTHING),
    "white": Kind(lambda _: np.full((256, 256, 3), 255, np.uint8), NOTHING),
    "noise": Kind(lambda _: np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8), NOTHING),
}


def keypoints_of(frames, nets, **clip) -> Sample:
    inputs = {"clips": [{"__key__": "a#b#000000#000002", "frames": frames, "clip": {}, **clip}]}
    (found,) = find_keypoints(inputs, KeypointsConfig(), nets, RUNTIME)
    return found


@pytest.fixture(scope="module")
def outcomes(portrait, nets) -> dict[str, Sample | Rejected]:
    """What keypoints make of each kind."""
    found: dict[str, Sample | Rejected] = {}
    for name, kind in KINDS.items():
        try:
            found[name] = keypoints_of(np.stack([kind.make(portrait)] * FRAMES), nets)
        except Rejected as rejected:
            found[name] = rejected
        one = found[name]
        told = str(one) if isinstance(one, Rejected) else f"score {one['score'][0]:.2f}"
        print(f"{name:30} {told}")  # noqa: T201
    return found


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_has_points_that_say_how_sure_they_are_or_a_sentence(outcomes, name):
    found, expected = outcomes[name], KINDS[name].expect
    if isinstance(found, Rejected):
        assert found.code == expected
        assert found.sentence == "mp_face + mesh468_iris: no face in any of the 1 clips"
    else:
        assert not isinstance(expected, str), found["score"]
        assert (found["score"] >= expected[0]).all(), found["score"]
        assert (found["score"] <= expected[1]).all(), found["score"]
        assert np.isfinite(found["dense"]).all()
        assert np.isfinite(found["landmarks"]).all()


def test_points_may_leave_the_frame_with_the_face(outcomes):
    points = outcomes["a fifth beyond the left edge"]["dense"][0, :, :2]
    assert -10 < points[:, 0].min() < 5
    below = outcomes["a third beyond the lower edge"]["landmarks"][0]
    assert 365 < below[:, 1].max() < 400


@pytest.mark.parametrize(
    ("name", "up"),
    [
        ("face of 96 px", (0, -1)),
        ("lying to the right", (1, 0)),
        ("upside down", (0, 1)),
        ("lying to the left", (-1, 0)),
        ("drawn face", (0, -1)),
    ],
)
def test_eyes_and_mouth_are_where_they_are_however_the_face_lies(outcomes, name, up):
    points = outcomes[name]["landmarks"][0]
    left, right, mouth = (points[part].mean(0) for part in (LEFT_EYE, RIGHT_EYE, MOUTH))
    rise = (left + right) / 2 - mouth
    assert rise @ up > 0.85 * np.linalg.norm(rise)
    across = right - left
    assert across @ (-up[1], up[0]) > 0.85 * np.linalg.norm(across)


def test_the_parts_of_a_drawn_face_are_found(outcomes):
    points = outcomes["drawn face"]["landmarks"][0]
    for part, place in ((LEFT_EYE, (98, 100)), (RIGHT_EYE, (158, 100)), (MOUTH, (128, 165))):
        np.testing.assert_allclose(points[part].mean(0), place, atol=12)


def test_images_of_nan_and_infinity_show_no_face(nets):
    """Frames are bytes; what reaches the landmarker from elsewhere is not drawn into points."""
    frames = np.full((2, 256, 256, 3), 90, np.float32)
    frames[0], frames[1] = np.nan, np.inf
    found = nets["mesh468_iris"].predict(frames, np.array([[64, 64, 192, 192]] * 2, np.float32))
    assert found.score.tolist() == [0, 0]
    assert np.isnan(found.dense).all()
    assert np.isnan(found.iris).all()


# --- several faces, in a video ------------------------------------------------------------------------------
SETTINGS = ClipsConfig(size=256, min_frames=20, min_size=64)


def cut(path, nets, settings) -> list[Sample]:
    row = {"id": "rec", "identity": "ann", "tracks": []}
    inputs = {"recordings": [row], "download": [{"video": path, "probe": media.probe_file(path)}]}
    return list(cut_clips(inputs, settings, nets, RUNTIME))


def test_of_two_people_each_clip_has_the_points_of_its_own_face(portrait, tmp_path, helpers, nets):
    """At a margin so wide that the larger face stands in the clip of the smaller one."""
    frame = pasted(portrait, 100, 20, 40)
    frame = pasted(portrait[:, ::-1][:, 72:], 90, 190, 55, frame=frame)
    path = helpers.write_video(tmp_path / "two.mp4", np.stack([frame] * 24))
    clips = cut(path, nets, replace(SETTINGS, faces="all", margin=1.5))
    assert len(clips) == 2
    for clip in clips:
        crop, frames = clip["crop"][0], clip["frames"].decode()
        zoom = len(frames[0]) / (crop[2] - crop[0])
        own = (clip["boxes"][0] - np.tile(crop[:2], 2)) * zoom
        found = keypoints_of(frames, nets, clip=clip["clip"], crop=clip["crop"], boxes=clip["boxes"])
        middle = found["landmarks"].mean(1)
        assert (middle > own[:2]).all(), clip["__key__"]
        assert (middle < own[2:]).all(), clip["__key__"]


@pytest.mark.parametrize("name", ["face of 16 px", "disc with dots", "black", "noise"])
def test_a_video_without_a_face_to_be_seen_is_a_row_that_says_so(portrait, tmp_path, helpers, nets, name):
    path = helpers.write_video(tmp_path / "a.mp4", np.stack([KINDS[name].make(portrait)] * 21))
    with pytest.raises(Rejected) as caught:
        cut(path, nets, SETTINGS)
    assert (caught.value.code, caught.value.sentence) == (
        "no_face", "mp_face sees no face in 5 frames, one in 5"
    )  # fmt: skip
