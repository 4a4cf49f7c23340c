import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from pipelines import media
from pipelines.dataset.clips import map_points_to_view
from pipelines.engine.fingerprint import flatten_settings
from pipelines.errors import Rejected
from pipelines.preprocess.clips import ClipsConfig, FrameCodecConfig, cut_clips
from pipelines.preprocess.views import (
    CropViewConfig,
    cut_clip_square,
    cut_ffhq256,
    cut_square,
    cut_vox512,
    cut_vox_max,
    face_square,
)
from storage.frame_codec import encode_images
from storage.shards import encode_sample
from tests.video_files import RUNTIME

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "face_crop_256.json").read_text())["outputs"]
SIDE = 320
STRETCHED = {"aspect": "stretch", "rules": "voxceleb"}
BOXES = [
    ([100, 40, 260, 200], {}),
    ([-31, 20, 120, 171], {"out_of_frame": "pad"}),
    ([60, 40, 200, 240], STRETCHED),
]


def config(**more):
    clips = ClipsConfig(size=64, min_frames=10, min_size=32, **more)
    exact = FrameCodecConfig(codec="png")
    views = SimpleNamespace(
        vox_max=CropViewConfig(recipe="vox_max", size=144, frames=exact),
        vox512=CropViewConfig(recipe="vox512", size=200, frames=exact),
        ffhq256=CropViewConfig(recipe="ffhq256", size=96, every=5, frames=exact),
    )
    return SimpleNamespace(clips=clips, views=views)


@pytest.fixture(scope="module")
def video(tmp_path_factory, helpers):
    """2 s of a white dot of 9 px that moves over smooth colours."""
    y, x = np.mgrid[:SIDE, :SIDE]
    frames = np.stack([x // 3, y // 3, (x + y) // 6], axis=-1).astype(np.uint8)[None].repeat(50, axis=0)
    for t, (cx, cy) in enumerate(dots()):
        frames[t][(x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 < 20] = 255
    return helpers.write_video(tmp_path_factory.mktemp("views") / "dot.mkv", frames)


def dots():
    """Its middle in each frame."""
    return [(90 + 2 * t, 110 + t) for t in range(50)]


def inputs_of(video, box, settings, start=0, end=50):
    track = {"start": start, "end": end, "fps": 25.0, "width": SIDE, "height": SIDE, "box": box}
    row = {"id": "rec", "identity": "ann", "tracks": [track]}
    inputs = {"recordings": [row], "download": [{"video": video, "probe": media.probe_file(video)}]}
    inputs["clips"] = list(cut_clips(inputs, settings.clips, {}, RUNTIME))
    # landmarks: 68 copies of the dot's middle but for two that span a face around it
    told, crop = inputs["clips"][0]["clip"], inputs["clips"][0]["crop"][0]
    points = np.array(dots()[told["start"] : told["end"]], np.float32)[:, None].repeat(68, axis=1)
    points[:, 0] -= [30, 35]
    points[:, 1] += [30, 35]
    zoom = told["size"] / (crop[2:] - crop[:2])
    inputs["keypoints"] = [
        {
            "__key__": inputs["clips"][0]["__key__"],
            "landmarks": ((points - crop[:2]) * zoom).astype(np.float32),
        }
    ]
    return inputs


def bright(frame):
    """Middle of the white dot in a frame."""
    weight = np.clip(frame.min(-1).astype(float) - 150, 0, None)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


STAGES = {"vox_max": cut_vox_max, "vox512": cut_vox512, "ffhq256": cut_ffhq256}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("box", "more"), BOXES)
def test_mapped_landmarks_land_on_the_same_picture(video, name, box, more):
    settings = config(**more)
    inputs = inputs_of(video, box, settings)
    (view,) = STAGES[name](inputs, getattr(settings.views, name), {}, RUNTIME)
    points = map_points_to_view(inputs["keypoints"][0]["landmarks"], view["affine"], view["frame_at"])
    inner = 0
    for frame, (x, y) in zip(view["frames"].decode(), points[:, 5], strict=True):
        if 8 < x < frame.shape[1] - 8 and 8 < y < frame.shape[0] - 8:
            np.testing.assert_allclose(bright(frame), (x, y), atol=0.6)
            inner += 1
    assert inner >= 5


STAGES = {"vox_max": cut_vox_max, "vox512": cut_vox512, "ffhq256": cut_ffhq256}


@pytest.mark.parametrize("name", STAGES)
def test_a_pixel_of_the_clip_and_of_the_view_is_one_of_the_recording(video, name):
    settings = config()
    inputs = inputs_of(video, [100, 40, 260, 200], settings)
    (view,) = STAGES[name](inputs, getattr(settings.views, name), {}, RUNTIME)
    base = np.random.default_rng(0).uniform(0, 64, (50, 4, 2))
    there = map_points_to_view(base, view["affine"], view["frame_at"])
    crop = inputs["clips"][0]["crop"][0].astype(float)
    source = crop[:2] + base[view["frame_at"]] * (crop[2:] - crop[:2]) / 64
    if name == "ffhq256":
        points = crop[:2] + inputs["keypoints"][0]["landmarks"] * (crop[2:] - crop[:2]) / 64
        squares = np.array([face_square(points[t] - 0.5) for t in view["frame_at"]], float)
    else:
        squares = np.tile(crop, (50, 1))
    side = view["frames"].decode([0]).shape[1]
    back = squares[:, None, :2] + there * (squares[:, 2:] - squares[:, :2])[:, None] / side
    np.testing.assert_allclose(back, source, atol=1e-3)


def test_vox_max_keeps_the_recordings_pixels_up_to_the_cap(video):
    settings = config()
    (view,) = cut_vox_max(
        inputs_of(video, [100, 40, 230, 170], settings), settings.views.vox_max, {}, RUNTIME
    )
    shown = view["frames"].decode()
    assert shown.shape == (50, 130, 130, 3)
    probed = media.probe_file(video)
    frames, _ = media.read_frames_at_ticks(video, probed, (SIDE, SIDE), None, np.arange(50))
    np.testing.assert_allclose(shown[:, 2:-2, 2:-2], frames[:, 42:168, 102:228], atol=2)
    (view,) = cut_vox_max(inputs_of(video, [60, 40, 260, 240], settings), settings.views.vox_max, {}, RUNTIME)
    assert view["frames"].decode().shape == (50, 144, 144, 3)


def test_clips_that_keypoints_left_out_have_no_faces_cut(video):
    settings = config()
    inputs = inputs_of(video, [100, 40, 260, 200], settings)
    (first,) = inputs["clips"]
    inputs["clips"] = [first | {"__key__": "ann#rec#000000#000001"}, first]
    (view,) = cut_ffhq256(inputs, settings.views.ffhq256, {}, RUNTIME)
    assert view["__key__"] == first["__key__"]


@pytest.mark.parametrize("name", ["vox_max", "vox512"])
def test_clips_of_small_squares_are_left_out(video, name):
    settings = config()
    view = getattr(settings.views, name)
    inputs = inputs_of(video, [100, 40, 230, 170], settings)
    small = inputs["clips"][0] | {"__key__": "small", "crop": inputs["clips"][0]["crop"] - [0, 0, 10, 4]}
    inputs["clips"].append(small)
    cut = list(STAGES[name](inputs, replace(view, min_size=130), {}, RUNTIME))
    assert [one["__key__"] for one in cut] == [inputs["clips"][0]["__key__"]]
    assert len(list(STAGES[name](inputs, replace(view, min_size=120), {}, RUNTIME))) == 2
    with pytest.raises(
        Rejected, match="no square is larger than 130 px, and the view's min_size is 131"
    ) as no:
        list(STAGES[name](inputs, replace(view, min_size=131), {}, RUNTIME))
    assert no.value.code == "too_small"


def test_ffhq_leaves_out_frames_of_small_faces(video):
    """Squares of 140 px, in the first 21 frames of 168."""
    settings = config()
    inputs = inputs_of(video, [100, 40, 260, 200], settings)
    points = inputs["keypoints"][0]["landmarks"]
    points[:21, :2] += 0.2 * (points[:21, :2] - points[:21, 5:6])

    def shown(least):
        view = replace(settings.views.ffhq256, min_size=least)
        return next(cut_ffhq256(inputs, view, {}, RUNTIME))["frame_at"].tolist()

    assert shown(0) == list(range(0, 50, 5))
    assert shown(150) == [0, 5, 10, 15, 20]
    with pytest.raises(Rejected, match="about a square of 400 px or more"):
        shown(400)


def test_no_gate_of_size_as_before_it_was_a_setting_is_in_no_key():
    assert "view.min_size" not in flatten_settings(CropViewConfig(), "view")
    assert flatten_settings(CropViewConfig(min_size=256), "view")["view.min_size"] == 256


def test_stretched_squares_give_up_the_longer_side(video):
    settings = config(**STRETCHED)
    (view,) = cut_vox_max(
        inputs_of(video, [100, 40, 200, 160], settings), settings.views.vox_max, {}, RUNTIME
    )
    assert view["frames"].decode([0]).shape[1:3] == (100, 100)


def test_vox512_has_one_size_and_the_clips_keys(video):
    settings = config()
    inputs = inputs_of(video, [100, 40, 230, 170], settings, 10, 40)
    (view,) = cut_vox512(inputs, settings.views.vox512, {}, RUNTIME)
    assert view["__key__"] == inputs["clips"][0]["__key__"]
    assert view["frames"].decode().shape == (30, 200, 200, 3)
    assert view["frame_at"].tolist() == list(range(30))
    assert (view["affine"].dtype, view["frame_at"].dtype) == (np.float32, np.int32)
    encode_sample(view)


# --- the clip before its codec ---
@pytest.mark.parametrize(("box", "more"), [*BOXES, ([-31, 20, 120, 171], {"out_of_frame": "clip"})])
def test_the_clips_square_is_the_clip_before_its_codec(video, box, more):
    """The codec's loss is all that is between them, where the square was stretched or left the frame too."""
    inputs = inputs_of(video, box, config(**more))
    (clip,) = inputs["clips"]
    exact = CropViewConfig(recipe="clip_square", frames=FrameCodecConfig(codec="png"))
    (view,) = cut_clip_square(inputs, exact, {}, RUNTIME)
    assert encode_images(view["frames"].decode()) == clip["frames"]
    error = view["frames"].decode().astype(float) - clip["frames"].decode()
    assert 40 < 10 * np.log10(255**2 / (error**2).mean()) < 60


def test_the_clips_square_by_the_clips_codec_is_the_same_bytes(video):
    inputs = inputs_of(video, [100, 40, 260, 200], config(), 10, 40)
    (view,) = cut_clip_square(inputs, CropViewConfig(recipe="clip_square"), {}, RUNTIME)
    assert view["__key__"] == inputs["clips"][0]["__key__"]
    assert view["frames"] == inputs["clips"][0]["frames"]


def test_points_of_the_clip_are_points_of_its_square(video):
    inputs = inputs_of(video, [100, 40, 260, 200], config())
    (view,) = cut_clip_square(inputs, CropViewConfig(recipe="clip_square"), {}, RUNTIME)
    points = np.random.default_rng(0).uniform(0, 64, (50, 4, 2))
    np.testing.assert_array_equal(map_points_to_view(points, view["affine"], view["frame_at"]), points)
    encode_sample(view)


def test_ffhq_leaves_out_frames_without_landmarks_or_with_one_outside(video):
    settings = config()
    inputs = inputs_of(video, [100, 40, 260, 200], settings)
    points = inputs["keypoints"][0]["landmarks"]
    points[10] = np.nan
    points[20, 7] = [-200, 0]
    (view,) = cut_ffhq256(inputs, settings.views.ffhq256, {}, RUNTIME)
    assert view["frame_at"].tolist() == [0, 5, 15, 25, 30, 35, 40, 45]
    assert view["frames"].decode().shape == (8, 96, 96, 3)
    points[:] = np.nan
    with pytest.raises(Rejected) as caught:
        list(cut_ffhq256(inputs, settings.views.ffhq256, {}, RUNTIME))
    assert caught.value.code == "no_view"


def test_views_follow_the_clock_of_a_part(video):
    settings = config()
    whole = inputs_of(video, [100, 40, 260, 200], settings, 10, 40)
    part = inputs_of(video, [100, 40, 260, 200], settings, 10, 40)
    part["download"][0]["probe"]["offset"] = 4.0
    part["clips"][0]["clip"] |= {"start": 110, "end": 140}
    for name in ("vox_max", "ffhq256"):
        (a,), (b,) = (
            STAGES[name](inputs, getattr(settings.views, name), {}, RUNTIME) for inputs in (whole, part)
        )
        assert a["frames"] == b["frames"]


@pytest.mark.parametrize("name", GOLDEN)
def test_face_squares_are_those_of_the_directions(name):
    cx, cy, rx, ry = {
        "inside": (100, 130, 30, 38),
        "exceeds left/top": (45, 60, 33, 41),
        "exceeds all": (100, 120, 70, 80),
    }[name]
    t, k = np.arange(68), np.arange(240 * 200 * 3)
    points = np.stack([cx + rx * np.sin(0.61 * t + 0.2), cy + ry * np.cos(0.43 * t + 0.1)], axis=1)
    image = ((np.sin(0.0071 * k + 0.3) + 1) * 127.5).astype(np.uint8).reshape(240, 200, 3)
    square = face_square(points.astype(np.float32))
    cut = cut_square(image, square, 256)
    wanted = GOLDEN[name]
    assert square.tolist() == wanted["crop_box_x1y1x2y2"]
    # the fade beyond the border is theirs to a quarter of a grey level
    near = 1e-6 if name == "inside" else 0.3
    assert cut.mean() == pytest.approx(wanted["mean"], abs=near)
    assert cut.std() == pytest.approx(wanted["std"], abs=near)
    np.testing.assert_allclose(cut.ravel()[:16], wanted["first16"], atol=0 if name == "inside" else 1)
    np.testing.assert_allclose(cut.ravel()[-4:], wanted["last4"], atol=0 if name == "inside" else 1)


def test_a_size_of_the_clips_square_is_refused():
    with pytest.raises(
        ValueError, match=r"size 128: recipe clip_square has the clips' own, clips.size; leave"
    ):
        CropViewConfig(recipe="clip_square", size=128)


@pytest.mark.parametrize("bad", [{"recipe": "vox_max", "size": 63}, {"size": 3}, {"every": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        CropViewConfig(**bad)
