from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.engine.node import Rejected
from pipelines.preprocess import media
from pipelines.preprocess.clips import ClipsConfig, fit_into
from pipelines.preprocess.tracks import (
    Chain,
    by_identity,
    enlarged,
    found_tracks,
    given_tracks,
    link,
    overlap,
    scene_cuts,
    smoothed,
)

BASE = ClipsConfig(size=128, min_frames=30, min_size=64)


def track(start, end, box, width=320, height=320, fps=25.0):
    return {"start": start, "end": end, "fps": fps, "width": width, "height": height, "box": box}


def test_given_tracks_are_rescaled_to_this_copy_and_this_clock(face_video):
    probed = media.probe(face_video)
    (one,) = given_tracks([track(30, 60, [50, 20, 130, 100], 160, 160, fps=30.0)], probed, BASE)
    assert (one.start, one.stop) == (25, 50)
    assert one.region.tolist() == [100, 40, 260, 200]


def moved(*shifts):
    return [np.array([[x, 0, x + 10, 10] for x in at], np.float32).reshape(-1, 4) for at in shifts]


def chains(detections, ticks=None, **more):
    ticks = np.arange(len(detections)) * 5 if ticks is None else np.array(ticks)
    settings = SimpleNamespace(margin=0.0, iou=0.25, max_gap=15, rules="steady", **more)
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


# --- one box a frame ----------------------------------------------------------------------------------------
STANDARD = replace(
    BASE, rules="voxceleb", out_of_frame="drop", min_frames=64, min_size=256, smooth=1, margin=0.0, lift=0.0
)
HD = {"width": 1280, "height": 720, "fps": 25.0, "seconds": 60.0}


def boxes_track(boxes, start=0, width=1280, height=720):
    return {"start": start, "end": start + len(boxes), "fps": 25.0, "width": width, "height": height,
            "box": None, "boxes": boxes}  # fmt: skip


def spans(tracks):
    return [(one.start, one.stop) for one in tracks]


def reference_tubes(boxes, longest=1024):
    """The rules of the published cropper, step by step in inclusive pixels -> spans and unions."""

    def iou(a, b):
        w = min(a[2], b[2]) - max(a[0], b[0]) + 1
        h = min(a[3], b[3]) - max(a[1], b[1]) + 1
        shared = max(w, 0) * max(h, 0)
        areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
        return shared / (sum(areas) - shared)

    out, begin, union = [], 0, list(boxes[0])
    for at, box in enumerate(boxes[1:], 1):
        if iou(boxes[begin], box) < 0.25 or at - begin >= longest:
            out.append((begin, at, union))
            begin, union = at, list(box)
        union = [min(union[0], box[0]), min(union[1], box[1]), max(union[2], box[2]), max(union[3], box[3])]
    return [*out, (begin, len(boxes), union)]


def reference_square(union, width, height, a=0.1):
    left, top, right, bottom = union
    w, h = right - left, bottom - top
    gw = max(a, ((1 + 2 * a) * h - w) / (2 * w))
    gh = max(a, ((1 + 2 * a) * w - h) / (2 * h))
    edges = int(left - gw * w), int(top - gh * h), int(right + gw * w), int(bottom + gh * h)
    out = edges[0] < 0 or edges[1] < 0 or edges[2] > width or edges[3] > height
    return None if out else list(edges)


@pytest.mark.parametrize("seed", range(6))
def test_standard_tubes_and_squares_are_the_published_ones(seed):
    random = np.random.default_rng(seed)
    drift = np.cumsum(random.normal(0, 9, (400, 2)), axis=0) + random.uniform([250, 100], [700, 300])
    side = 220 + 40 * random.random((400, 2))
    boxes = np.round(np.concatenate([drift, drift + side], axis=1)).tolist()
    found = given_tracks([boxes_track(boxes)], HD, STANDARD)
    wanted = reference_tubes(boxes)
    assert len(wanted) > 1
    assert spans(found) == [(a, b) for a, b, _ in wanted]
    for track, (_, _, union) in zip(found, wanted, strict=True):
        crop = fit_into(track.region, 1280, 720, "drop", whole=True)
        assert (crop.tolist() if crop is not None else None) == reference_square(union, 1280, 720)


def test_long_tubes_start_anew_from_their_own_first_box():
    boxes = [[100 + k, 100, 400 + k, 400] for k in range(300)]  # 180 px of 300 leave an IoU of 0.25
    found = given_tracks([boxes_track(boxes)], HD, replace(STANDARD, max_frames=100))
    assert spans(found) == [(0, 100), (100, 200), (200, 300)]
    once = given_tracks([boxes_track(boxes)], HD, STANDARD)
    assert spans(once) == [(0, 181), (181, 300)]


def test_a_frame_without_a_box_cuts_a_tube():
    boxes = [[100, 100, 400, 400]] * 200
    for gone in ([0, 0, 0, 0], None, [float("nan")] * 4):
        found = given_tracks([boxes_track([*boxes[:80], gone, *boxes[81:]])], HD, STANDARD)
        assert spans(found) == [(0, 80), (81, 200)]


def test_boxes_are_looked_up_on_the_clock_and_rescaled():
    boxes = [[10 + k, 20, 110 + k, 120] for k in range(60)]
    given = {**boxes_track(boxes, 30, 640, 360), "fps": 30.0}
    (one,) = given_tracks([given], HD, replace(STANDARD, iou=0.1))
    assert (one.start, one.stop) == (25, 75)
    assert one.boxes[10].tolist() == [2 * (10 + 12), 40, 2 * (110 + 12), 240]  # tick 35 is frame 42, its 12th


def test_what_a_source_cannot_know_is_taken_from_the_recording():
    probed = {"width": 1280, "height": 720, "fps": 50.0, "seconds": 60.0}
    (one,) = given_tracks([track(100, 200, [0.25, 0.5, 0.5, 0.75], 1, 1, fps=0)], probed, BASE)
    assert (one.start, one.stop, one.boxes[0].tolist()) == (50, 100, [320, 360, 640, 540])
    (one,) = given_tracks([track(0, 100, [10, 20, 110, 120], 0, 360)], probed, BASE)
    assert one.boxes[0].tolist() == [20, 40, 220, 240]
    (one,) = given_tracks(
        [{**boxes_track([[0.25, 0.5, 0.5, 0.75]] * 100, 0, 1, 1), "fps": 0.0}], probed, BASE
    )
    assert (one.start, one.stop, one.boxes[7].tolist()) == (0, 50, [320, 360, 640, 540])


def test_a_track_with_too_few_boxes_is_rejected():
    with pytest.raises(Rejected) as caught:
        given_tracks([{**boxes_track([[0, 0, 9, 9]] * 5), "end": 9}], HD, STANDARD)
    assert caught.value.code == "bad_track"


def test_enlarging_makes_a_square_or_keeps_the_shape():
    box = np.array([100, 100, 200, 180.0])
    assert enlarged(box, 0.1, "square").tolist() == pytest.approx([90, 80, 210, 200])
    assert enlarged(box, 0.1, "stretch").tolist() == pytest.approx([90, 92, 210, 188])


def test_steady_boxes_are_smoothed():
    boxes = [[100, 100, 400, 400]] * 100
    boxes[50] = [90, 90, 420, 420]
    (one,) = given_tracks([boxes_track(boxes)], HD, replace(BASE, min_size=64))
    assert one.region.tolist() == pytest.approx([70, 70, 430, 430])


def test_tracks_of_a_part_keep_the_recordings_clock():
    probed = {**HD, "offset": 10.0, "seconds": 4.0}
    (one,) = given_tracks([track(200, 500, [0, 0, 9, 9])], probed, BASE)
    assert (one.start, one.stop) == (250, 350)
    with pytest.raises(Rejected):
        given_tracks([track(0, 240, [0, 0, 9, 9])], probed, BASE)


# --- where tracks break -------------------------------------------------------------------------------------
def view(portrait, frames, dark=(), white=()):
    out = np.repeat(portrait[None, :320, 60:380], frames, axis=0)
    out[list(dark)] //= 2
    out[list(white)] = 255
    return out


def found(path, settings, nets, embedder=None):
    return found_tracks(path, media.probe(path), settings, nets["dlib_hog"], embedder)


def test_a_scene_cut_parts_a_track_on_its_frame(portrait, tmp_path, helpers, nets):
    path = helpers.write_video(tmp_path / "a.mp4", view(portrait, 80, dark=range(43, 80)))
    assert spans(found(path, BASE, nets)) == [(0, 43), (43, 80)]
    assert spans(found(path, replace(BASE, scene_cuts="off"), nets)) == [(0, 80)]


def test_a_flash_is_no_scene_cut(portrait, tmp_path, helpers, nets):
    for white in ([37], [40], [38, 39]):
        path = helpers.write_video(tmp_path / "a.mp4", view(portrait, 80, white=white))
        assert spans(found(path, BASE, nets)) == [(0, 80)]


def test_given_tracks_part_at_cuts_when_asked(portrait, tmp_path, helpers):
    path = helpers.write_video(tmp_path / "a.mp4", view(portrait, 80, dark=range(43, 80)))
    probed = media.probe(path)
    cuts = scene_cuts(path, probed, (10, 75), BASE)
    assert cuts == [43]
    given = given_tracks([track(10, 75, [0, 0, 320, 320])], probed, BASE, cuts)
    assert spans(given) == [(10, 43), (43, 75)]
    probed["offset"] = 2.0
    assert scene_cuts(path, probed, (60, 125), BASE) == [93]


class Brightness:
    """Stands for an embedder: one number, the mean of the face."""

    name = "brightness"

    def embed(self, frames, boxes):
        out = []
        for frame, (x0, y0, x1, y1) in zip(frames, boxes.astype(int), strict=True):
            out.append([frame[max(0, y0) : y1, max(0, x0) : x1].mean() / 100])
        return np.array(out, np.float32)


def test_another_face_in_the_same_place_parts_a_track(portrait, tmp_path, helpers, nets):
    frames = view(portrait, 150)
    for k in range(75, 150):
        frames[k] = frames[k] * max(0.5, 1 - (k - 75) / 10)  # no cut: it darkens over 5 frames
    path = helpers.write_video(tmp_path / "a.mp4", frames)
    settings = replace(BASE, identity_every=10, identity_distance=0.3)
    assert spans(found(path, settings, nets)) == [(0, 150)]
    first, second = found(path, settings, nets, Brightness())
    assert (first.start, second.stop) == (0, 150)
    assert 70 < first.stop <= second.start <= 91


def chain_of(values):
    faces = [None if v is None else np.array([[v]], np.float32) for v in values]
    n = len(values)
    return Chain(list(range(n)), [0] * n, [np.zeros(4)] * n), faces


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ([0, None, 0, None, 0], [[0, 1, 2, 3, 4]]),
        ([0, None, 1, None, 0], [[0, 1, 2, 3, 4]]),  # one look may be a blur
        ([0, None, 0, None, 1, None, 1], [[0, 1, 2], [4, 5, 6]]),
        ([0, 0, 1, 1, 0, 0], [[0, 1], [2, 3], [4, 5]]),
    ],
)
def test_two_strange_looks_in_a_row_are_another_person(values, parts):
    chain, faces = chain_of(values)
    assert [part.samples for part in by_identity(chain, faces, 0.6)] == parts


def test_standard_rules_frame_found_tracks_by_their_union(face_video, nets):
    settings = replace(STANDARD, detect_every=1, min_size=64)
    tracks = found(face_video, settings, nets)
    assert len(tracks) == 2  # the face, of 110 px, moves by 74: a quarter of the first box is left on the way
    for one in tracks:
        union = [*one.boxes[:, :2].min(0), *one.boxes[:, 2:].max(0)]
        np.testing.assert_allclose(one.region, enlarged(np.array(union), 0.1, "square"))
