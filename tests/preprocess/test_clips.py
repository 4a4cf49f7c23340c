from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.engine.node import Rejected
from pipelines.preprocess import media
from pipelines.preprocess.clips import ClipsConfig, cut_clips, fit_into, given_tracks, link, overlap, smoothed
from storage.shards import encode_sample

BASE = ClipsConfig(size=128, min_frames=30, min_size=64)


def inputs_of(path, tracks=()):
    row = {"id": "rec", "identity": "ann", "tracks": list(tracks)}
    return {"recordings": [row], "download": [{"video": path.read_bytes(), "probe": media.probe(path)}]}


def cut(path, settings, nets, tracks=()):
    return cut_clips(inputs_of(path, tracks), SimpleNamespace(clips=settings), nets)


def track(start, end, box, width=320, height=320, fps=25.0):
    return {"start": start, "end": end, "fps": fps, "width": width, "height": height, "box": box}


def code_of(path, settings, nets, tracks=()):
    with pytest.raises(Rejected) as caught:
        cut(path, settings, nets, tracks)
    return caught.value.code


@pytest.fixture(scope="module")
def clip(face_video, nets):
    (sample,) = cut(face_video, BASE, nets)
    return sample


def test_a_clip_has_its_fields_on_one_clock(clip):
    assert clip["__key__"] == "ann#rec#000000#000075"
    assert clip["frames"].shape == (75, 128, 128, 3)
    assert clip["frames"].dtype == np.uint8
    assert clip["sound"].shape == (75 * 640,)
    assert clip["boxes"].shape == clip["crop"].shape == (75, 4)
    assert clip["boxes"].dtype == clip["crop"].dtype == clip["sound"].dtype == np.float32
    assert (clip["clip"]["detector"], clip["clip"]["detected"]) == ("dlib_hog", 1.0)


def test_the_box_follows_the_face_and_the_crop_stands_still(clip):
    centres = clip["boxes"][:, [0, 2]].mean(1)
    assert centres[-1] - centres[0] == pytest.approx(74, abs=12)  # the portrait moves 74 px to the right
    assert (clip["crop"] == clip["crop"][0]).all()
    x0, y0, x1, y1 = clip["crop"][0]
    assert x1 - x0 == y1 - y0
    assert (clip["boxes"] >= [x0, y0, x0, y0]).all()
    assert (clip["boxes"] <= [x1, y1, x1, y1]).all()


def test_the_same_recording_gives_the_same_bytes(clip, face_video, nets):
    (again,) = cut(face_video, BASE, nets)
    assert encode_sample(again) == encode_sample(clip)


def test_a_video_without_a_face_is_rejected(tmp_path, helpers, nets):
    noise = np.random.default_rng(0).integers(0, 255, (40, 96, 128, 3), np.uint8)
    assert code_of(helpers.write_video(tmp_path / "a.mp4", noise), BASE, nets) == "no_face"


def test_short_small_and_leaving_tracks_are_rejected(face_video, nets):
    assert code_of(face_video, replace(BASE, min_frames=76), nets) == "too_short"
    assert code_of(face_video, replace(BASE, min_size=400), nets) == "too_small"
    drop = replace(BASE, out_of_frame="drop")
    assert code_of(face_video, drop, nets, [track(0, 75, [-20, 0, 100, 120])]) == "out_of_frame"


def test_long_tracks_are_cut_into_pieces(face_video, nets):
    samples = cut(face_video, replace(BASE, min_frames=30, max_frames=40), nets)
    assert [s["__key__"][-13:] for s in samples] == ["000000#000040", "000040#000075"]


def test_given_tracks_need_no_detector(face_video):
    (sample,) = cut(face_video, BASE, {}, [track(10, 60, [100, 40, 260, 200])])
    assert sample["__key__"] == "ann#rec#000010#000060"
    assert sample["crop"][0].tolist() == [100, 40, 260, 200]
    assert sample["clip"]["detector"] == "given"
    np.testing.assert_array_equal(
        sample["sound"][:640], media.read_sound(face_video, media.probe(face_video))[6400:7040]
    )


def test_given_tracks_are_rescaled_to_this_copy_and_this_clock(face_video):
    probed = media.probe(face_video)
    (one,) = given_tracks([track(30, 60, [50, 20, 130, 100], 160, 160, fps=30.0)], probed, BASE)
    assert (one.start, one.stop) == (25, 50)
    assert one.region.tolist() == [100, 40, 260, 200]


def test_a_track_behind_the_end_is_rejected_and_one_over_it_is_cut(face_video, nets):
    assert code_of(face_video, BASE, nets, [track(80, 160, [0, 0, 160, 160])]) == "tracks_outside"
    (sample,) = cut(face_video, BASE, nets, [track(40, 160, [0, 0, 160, 160])])
    assert sample["clip"]["end"] == 75


@pytest.mark.parametrize(
    ("aspect", "crop"), [("square", [80, 60, 240, 220]), ("stretch", [120, 60, 200, 220])]
)
def test_given_boxes_are_squared_or_stretched(face_video, aspect, crop):
    (sample,) = cut(face_video, replace(BASE, aspect=aspect), {}, [track(0, 40, [120, 60, 200, 220])])
    assert sample["crop"][0].tolist() == crop
    assert sample["frames"].shape[1:3] == (128, 128)


def test_padding_mirrors_the_border(face_video):
    (sample,) = cut(
        face_video, replace(BASE, size=128, out_of_frame="pad"), {}, [track(0, 40, [-32, 0, 96, 128])]
    )
    frame = sample["frames"][0].astype(int)
    assert frame.shape == (128, 128, 3)
    np.testing.assert_array_equal(frame[:, :32], frame[:, 63:31:-1])


def test_clamping_moves_then_shrinks():
    assert fit_into(np.array([-10.0, 20, 90, 120]), 200, 150, "clamp").tolist() == [0, 20, 100, 120]
    x0, y0, x1, y1 = fit_into(np.array([-50.0, -50, 350, 350]), 200, 150, "clamp")
    assert x1 - x0 == y1 - y0 == 150
    assert 0 <= x0 < x1 <= 200
    assert (y0, y1) == (0, 150)


def test_two_faces_are_two_tracks_and_the_larger_is_kept(portrait, tmp_path, helpers, nets):
    face = portrait[40:200, 140:300]
    still = np.full((160, 480, 3), 90, np.uint8)
    still[:, :160] = face
    still[14:142, 336:464] = np.asarray(face)[np.linspace(0, 159, 128).astype(int)][
        :, np.linspace(0, 159, 128).astype(int)
    ]
    path = helpers.write_video(tmp_path / "two.mp4", np.repeat(still[None], 40, axis=0))
    settings = replace(BASE, margin=0.1)
    (one,) = cut(path, settings, nets)
    assert one["crop"][0, 2] < 240
    both = cut(path, replace(settings, faces="all"), nets)
    assert [s["__key__"] for s in both] == ["ann#rec#000000#000040", "ann-face1#rec#000000#000040"]
    assert both[1]["crop"][0, 0] > 240


def moved(*shifts):
    return [np.array([[x, 0, x + 10, 10] for x in at], np.float32).reshape(-1, 4) for at in shifts]


def chains(detections, ticks=None, **more):
    ticks = np.arange(len(detections)) * 5 if ticks is None else np.array(ticks)
    settings = SimpleNamespace(margin=0.0, iou=0.25, max_gap=15, **more)
    return [(c.samples, [b[0] for b in c.boxes]) for c in link(detections, ticks, settings)]


def test_linking_keeps_two_faces_apart():
    found = chains(moved([0, 50], [51, 1], [2, 52]))
    assert found == [([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [50, 51, 52])]


def test_a_jump_starts_a_new_track():
    assert [samples for samples, _ in chains(moved([0], [1], [40], [41]))] == [[0, 1], [2, 3]]


def test_drift_is_measured_from_the_first_box():
    # 6 px of 10 leave an overlap of exactly a quarter with the first box, though each step is small
    assert [samples for samples, _ in chains(moved([0], [3], [6], [9]))] == [[0, 1], [2, 3]]


def test_a_short_gap_is_bridged_and_a_long_one_is_not():
    assert [s for s, _ in chains(moved([0], [], [0]))] == [[0, 2]]
    assert [s for s, _ in chains(moved([0], [], [], [], [0]))] == [[0], [4]]


def test_sparse_samples_are_no_gap():
    assert [s for s, _ in chains(moved([0], [0], [0]), ticks=[0, 50, 100])] == [[0, 1, 2]]


def test_overlap_of_halves_is_a_third():
    assert overlap(np.array([0, 0, 2, 2.0]), np.array([1, 0, 3, 2.0])) == pytest.approx(1 / 3)


def test_smoothing_drops_a_lone_jump_and_keeps_the_ends():
    boxes = np.tile(np.array([[1, 2, 3, 4]], np.float32), (20, 1))
    boxes[7] += 50
    np.testing.assert_array_equal(smoothed(boxes, 13), np.tile(boxes[:1], (20, 1)))


def test_fewer_frames_than_promised_are_noticed(face_video, nets):
    inputs = inputs_of(face_video)
    inputs["download"][0]["probe"]["seconds"] = 6.0
    with pytest.raises(Rejected) as caught:
        cut_clips(inputs, SimpleNamespace(clips=BASE), nets)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("tracks", [[], [track(0, 75, [100, 40, 260, 200])]])
def test_a_hole_in_the_middle_is_noticed(portrait, tmp_path, helpers, nets, tracks):
    frames = np.repeat(portrait[None, :320, 60:380], 75, axis=0)
    times = np.r_[np.arange(35) * 0.04, np.arange(40) * 0.04 + 2.9]
    path = helpers.write_video(tmp_path / "hole.mp4", frames, times=times)
    assert code_of(path, BASE, nets, tracks) == "damaged"


@pytest.mark.parametrize(
    "bad", [{"size": 0}, {"size": 33}, {"min_frames": 9, "max_frames": 8}, {"smooth": 4}, {"iou": 1}]
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        ClipsConfig(**bad)
