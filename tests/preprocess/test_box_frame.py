"""Boxes in pixels of a frame that the source does not name."""

import numpy as np
import pytest

from pipelines import media
from pipelines.errors import Rejected
from pipelines.preprocess.box_frame import (
    candidate_original_resolutions,
    find_box_frame_size,
    find_frame_size_matching_faces,
)
from pipelines.preprocess.clips import ClipsConfig, cut_clips
from pipelines.preprocess.fetch.ytdlp import _info_fields
from tests.video_files import RUNTIME

SETTINGS = ClipsConfig(size=64, min_frames=20, min_size=32)
FACE = (330, 30, 460, 160)
"""About the face, in pixels of a copy of 640 x 360."""


@pytest.fixture(scope="module")
def copy(portrait, tmp_path_factory, helpers):
    """1 s of 640 x 360 in which the face stands on the right."""
    frame = np.full((360, 640, 3), 90, np.uint8)
    frame[:, 170:] = portrait[:360, 0:470]
    frames = np.repeat(frame[None], 25, axis=0)
    return helpers.write_video(tmp_path_factory.mktemp("copy") / "copy.mp4", frames)


def track(zoom, box=FACE, start=0, end=25):
    return {"start": start, "end": end, "fps": 25.0, "width": 0, "height": 0, "box": [zoom * e for e in box]}


def cut(path, nets, *tracks, **origin):
    row = {"id": "rec", "identity": "ann", "tracks": list(tracks)}
    raw = {"video": path, "probe": media.probe_file(path) | {"origin": origin}}
    return list(cut_clips({"recordings": [row], "download": [raw]}, SETTINGS, nets, RUNTIME))


@pytest.mark.parametrize(("zoom", "frame"), [(2, [1280, 720]), (3, [1920, 1080]), (6, [3840, 2160])])
def test_boxes_of_a_larger_version_are_scaled_to_where_the_face_is(copy, nets, zoom, frame):
    (plain,), (one,) = cut(copy, nets, track(1)), cut(copy, nets, track(zoom))
    assert one["clip"]["box_frame"] == frame
    assert "box_frame" not in plain["clip"]
    np.testing.assert_allclose(one["crop"], plain["crop"], atol=2)


def test_all_boxes_of_a_recording_are_of_one_frame(copy, nets):
    inside = track(2, (170, 20, 300, 150), end=22)  # would fit the copy as it is, on a wall
    frames = [sample["clip"]["box_frame"] for sample in cut(copy, nets, track(2), inside)]
    assert frames == [[1280, 720]] * 2


def test_boxes_in_which_no_face_is_seen_are_rejected(copy, nets):
    with pytest.raises(Rejected) as caught:
        cut(copy, nets, track(2, (20, 150, 600, 350)))
    assert caught.value.code == "another_scale"
    assert "boxes reach 1200 x 700 px, this copy has 640 x 360" in caught.value.sentence
    assert "1280 x 720, 1920 x 1080" in caught.value.sentence


def test_the_largest_version_of_a_site_needs_no_guess(copy):
    probed = media.probe_file(copy) | {"origin": {"largest_width": 1280, "largest_height": 720}}
    tracks, frame = find_box_frame_size(copy, probed, [track(1)], SETTINGS, None)
    assert (frame, tracks[0]["width"], tracks[0]["height"]) == ((1280, 720), 1280, 720)


@pytest.mark.parametrize("edge", [641, 646])
def test_rounding_proves_nothing(copy, edge):
    given = [track(1, (300, 20, edge, 361))]
    assert find_box_frame_size(copy, media.probe_file(copy), given, SETTINGS, None) == (given, None)


def test_a_box_about_a_face_may_leave_its_own_frame(copy, nets):
    given = [track(1, (320, 20, 660, 170))]
    assert find_box_frame_size(copy, media.probe_file(copy), given, SETTINGS, nets["mp_face"]) == (
        given,
        None,
    )


def test_frames_that_sources_name_are_taken_at_their_word(copy):
    given = [{**track(9), "width": 4000, "height": 3000}]
    assert find_box_frame_size(copy, media.probe_file(copy), given, SETTINGS, None) == (given, None)


def test_usual_frames_have_the_shape_of_the_copy():
    assert candidate_original_resolutions((640, 360)) == [
        (853, 480),
        (1280, 720),
        (1920, 1080),
        (2560, 1440),
        (3840, 2160),
    ]
    assert candidate_original_resolutions((360, 640))[1] == (720, 1280)
    assert candidate_original_resolutions((640, 266))[1:3] == [(1280, 532), (1920, 798)]
    assert candidate_original_resolutions((480, 360))[-1] == (2880, 2160)


def test_of_frames_that_a_face_allows_the_one_that_suits_best_is_taken():
    box = [100, 100, 300, 300]
    given = [{**track(1), "box": box}]
    face = np.array([[44, 44, 89, 89]])  # a third of 1080 lines
    faces = [(0, face)]
    assert find_frame_size_matching_faces(
        [(1280, 720), (1920, 1080), (2560, 1440)], given, faces, (640, 360)
    ) == (
        1920,
        1080,
    )
    assert (
        find_frame_size_matching_faces(
            [(1280, 720)], given, [(0, face), (0, face + 300), (0, face + 400)], (640, 360)
        )
        is None
    )
    assert find_frame_size_matching_faces([(1280, 720)], given, [], (640, 360)) is None


def test_a_download_knows_the_largest_version_of_its_site():
    sound, board = {"vcodec": "none", "width": None}, {"vcodec": "none", "width": 9999, "height": 9999}
    sizes = [{"vcodec": "avc1", "width": w, "height": h} for w, h in ((640, 360), (1920, 1080), (1280, 720))]
    facts = _info_fields({"id": "x", "width": 640, "height": 360, "formats": [sound, board, *sizes]})
    assert (facts["largest_width"], facts["largest_height"], facts["height"]) == (1920, 1080, 360)
    assert "largest_width" not in _info_fields({"id": "x", "formats": [sound]})
