"""HeadGAN's crop, against figures of its authors' own script, and on a video."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipelines import media
from pipelines.config import CONFIGS_FOLDER, load_config
from pipelines.errors import Rejected
from pipelines.preprocess.clips import ClipsConfig, _crop_of, cut_clips, fit_box_into_frame
from pipelines.preprocess.median_box import (
    detect_largest_faces,
    fill_missing_boxes,
    frame_by_median_box,
    median_box_region,
)
from pipelines.preprocess.tracks import Track
from tests.video_files import RUNTIME

CASES = json.loads((Path(__file__).parents[1] / "golden/headgan_crops.json").read_text())["cases"]
NOTHING = [np.nan] * 4


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run.yaml"
    run.write_text("use: [data/vox256, clips/headgan_published]")
    return load_config(run).config.clips


@pytest.fixture(scope="module")
def here(published):
    """The published rules with the embedded detector, for a video of 320 px."""
    return replace(published, detector="mp_face", size=128)


def cut(path, settings, nets, tracks=(), span=()):
    row = {"id": "rec", "identity": "ann", "tracks": list(tracks), "span": list(span)}
    raw = {"video": path.read_bytes(), "probe": media.probe_file(path)}
    return list(cut_clips({"recordings": [row], "download": [raw]}, settings, nets, RUNTIME))


def track(start, end, box):
    return {"start": start, "end": end, "fps": 25.0, "width": 320, "height": 320, "box": box}


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_crops_and_rejections_are_those_of_the_authors_script(case, published):
    found = np.array([box or NOTHING for box in case["boxes"]], np.float32)
    probed = dict(zip(("width", "height"), case["frame"], strict=True), frames=len(found))
    whole = Track(0, len(found), found, np.full(4, np.nan), None)
    framed = frame_by_median_box(whole, found, probed, replace(published, min_frames=1))
    if case["crop"] is None:
        assert isinstance(framed, Rejected)
        assert framed.code == "face_drifts"
        assert "more than clips.max_drift 0.45" in framed.sentence
    else:
        crop = _crop_of(framed, probed, published)
        assert crop.tolist() == case["crop"]
        assert framed.detected == sum(box is not None for box in case["boxes"]) / len(found)


@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
def test_a_frame_without_a_face_takes_the_next_box_else_the_last(seen):
    boxes = np.array([[n, n, n + 1, n + 1] if one else NOTHING for n, one in enumerate(seen)], np.float32)
    for n, box in enumerate(fill_missing_boxes(boxes)):
        later = [k for k in range(n, len(seen)) if seen[k]]
        assert box[0] == (later[0] if later else max(k for k in range(n) if seen[k]))


@given(st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 400), st.floats(1, 400), st.floats(0, 2))
def test_the_region_is_a_square_on_the_boxes_height_about_their_middle(x, y, width, height, increase):
    region = median_box_region(np.array([[x, y, x + width, y + height]]), increase)
    np.testing.assert_allclose((region[:2] + region[2:]) / 2, [x + width / 2, y + height / 2], atol=1e-9)
    np.testing.assert_allclose(region[2:] - region[:2], height * (1 + 2 * increase), rtol=1e-12)


def test_clipping_keeps_what_is_inside():
    box = np.array([-20, 10, 90, 260])
    assert fit_box_into_frame(box, 201, 151, "clip", whole_pixels=True).tolist() == [0, 10, 90, 151]
    assert fit_box_into_frame(box, 201, 151, "clip").tolist() == [0, 10, 90, 150]  # even, as elsewhere
    inside = np.array([5, 6, 50, 60])
    assert fit_box_into_frame(inside, 201, 151, "clip", whole_pixels=True).tolist() == inside.tolist()


@pytest.fixture(scope="module")
def clip(face_video, nets, here):
    (sample,) = cut(face_video, here, nets)
    return sample


def test_without_tracks_the_whole_video_is_one_clip(clip, face_video, nets, here):
    assert clip["__key__"] == "ann#rec#000000#000075"
    frames = np.stack(
        [f.copy() for f, _ in media.stream_frames(face_video, media.probe_file(face_video), (320, 320))]
    )
    boxes = np.stack([found[0, :4] for found in nets["mp_face"].detect(frames)])
    np.testing.assert_allclose(clip["boxes"], boxes, atol=0.01)
    x0, y0, x1, y1 = np.median(boxes, axis=0)
    half = (y1 - y0) / 2 * 256 / 156
    wanted = np.array(
        [(x0 + x1) / 2 - half, (y0 + y1) / 2 - half, (x0 + x1) / 2 + half, (y0 + y1) / 2 + half]
    )
    assert clip["crop"][0].tolist() == np.clip(np.trunc(wanted), 0, 320).tolist()
    assert (clip["crop"] == clip["crop"][0]).all()
    assert (clip["clip"]["detector"], clip["clip"]["detected"]) == ("mp_face", 1.0)


def test_a_track_says_when_and_its_pieces_share_one_crop(face_video, nets, here, clip):
    settings = replace(here, min_frames=20, max_frames=30)
    first, second = cut(face_video, settings, nets, [track(5, 60, [0, 0, 320, 320])])
    assert [s["__key__"][-13:] for s in (first, second)] == ["000005#000035", "000035#000060"]
    assert first["crop"][0].tolist() == second["crop"][0].tolist()
    np.testing.assert_allclose(first["boxes"], clip["boxes"][5:35], atol=0.01)


def test_a_track_says_which_face(face_video, here):
    """Of the larger one beside the track's box nothing is left, though it is the larger."""
    both = np.array([[0, 0, 200, 200, 1], [220, 10, 300, 90, 1]], np.float32)
    detector = SimpleNamespace(name="made_up", detect=lambda frames: [both] * len(frames))
    probed = media.probe_file(face_video)
    found = detect_largest_faces(face_video, probed, here, detector, (3, 40), np.array([200, 0, 320, 120]))
    assert found.shape == (37, 4)
    assert (found == both[1, :4]).all()
    assert (detect_largest_faces(face_video, probed, here, detector, (3, 40)) == both[0, :4]).all()


def test_frames_that_are_not_looked_at_take_the_box_of_the_next_look(face_video, nets, here, clip):
    (sample,) = cut(face_video, replace(here, detect_every=4), nets)
    assert (sample["boxes"][0:4] == sample["boxes"][0]).all()
    np.testing.assert_allclose(sample["boxes"][::4], clip["boxes"][::4], atol=0.01)


@pytest.mark.parametrize(("tracks", "code"), [((), "no_face"), ([track(0, 70, [0, 0, 20, 20])], "no_face")])
def test_a_track_without_its_face_is_rejected(face_video, nets, here, tracks, code):
    blind = SimpleNamespace(
        name="mp_face", detect=lambda frames: [np.zeros((0, 6), np.float32)] * len(frames)
    )
    with pytest.raises(Rejected) as caught:
        cut(face_video, here, nets if tracks else {"mp_face": blind}, tracks)
    assert caught.value.code == code


def test_scene_cuts_part_a_video_where_the_run_asks_for_them(portrait, tmp_path, helpers, nets, here):
    left, right = portrait[:320, 60:380], np.ascontiguousarray(portrait[40:360, 140:460][:, ::-1])
    frames = np.concatenate([np.repeat(left[None], 30, 0), np.repeat(right[None], 40, 0)])
    path = helpers.write_video(tmp_path / "two.mp4", frames)
    settings = replace(here, min_frames=20)
    assert [s["clip"]["end"] for s in cut(path, settings, nets)] == [70]
    parts = cut(path, replace(settings, scene_cuts="found"), nets)
    assert [s["clip"]["end"] for s in parts] == [30, 70]
    assert parts[0]["crop"][0].tolist() != parts[1]["crop"][0].tolist()


@pytest.mark.parametrize("other", [{"faces": "all"}, {"identity": "dlib128"}])
def test_what_the_rules_know_nothing_of_is_refused(other):
    with pytest.raises(ValueError, match="rules headgan with"):
        ClipsConfig(rules="headgan", **other)


def test_the_fragment_is_the_authors_defaults(published):
    assert published.detector == "mtcnn"
    assert published.increase == 100 / 2 / (256 - 100)
    assert (published.max_drift, published.detect_every, published.size) == (0.45, 1, 256)
    assert (published.out_of_frame, published.scene_cuts, published.min_frames) == ("clip", "off", 50)
    assert (CONFIGS_FOLDER / "clips/headgan_published.yaml").is_file()
