from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from models.perception.head.default_head import get_analytic_head
from pipelines import media
from pipelines.errors import Rejected
from pipelines.nets import load_nets
from pipelines.preprocess.clips import ClipsConfig, fit_box_into_frame
from pipelines.preprocess.sources.common.head_appearance import (
    sample_person_appearance,
    sample_synthetic_recording_appearance,
)
from pipelines.preprocess.sources.common.rendered_head import HeadRenderer, SyntheticHeadState
from pipelines.preprocess.sources.synthetic import IMAGE_HEIGHT_UNITS
from pipelines.preprocess.tracks import (
    DroppedTracks,
    FaceTracklet,
    box_iou,
    convert_source_tracks,
    detect_tracks,
    enlarge_box,
    find_scene_cuts,
    link_detections,
    median_filter_boxes,
    split_at_identity_changes,
    split_into_tubes,
)
from storage.files import Store

BASE = ClipsConfig(size=128, min_frames=30, min_size=64)


def track(start, end, box, width=320, height=320, fps=25.0):
    return {"start": start, "end": end, "fps": fps, "width": width, "height": height, "box": box}


def given(tracks, probed, settings, cuts=()):
    return convert_source_tracks(tracks, probed, settings, DroppedTracks(), cuts)


def test_given_tracks_are_rescaled_to_this_copy_and_this_clock(face_video):
    probed = media.probe_file(face_video)
    (one,) = given([track(30, 60, [50, 20, 130, 100], 160, 160, fps=30.0)], probed, BASE)
    assert (one.start, one.stop) == (25, 50)
    assert one.region.tolist() == [100, 40, 260, 200]


def moved(*shifts):
    return [np.array([[x, 0, x + 10, 10] for x in at], np.float32).reshape(-1, 4) for at in shifts]


def chains(detections, ticks=None, **more):
    ticks = np.arange(len(detections)) * 5 if ticks is None else np.array(ticks)
    settings = SimpleNamespace(margin=0.0, iou=0.25, max_gap=15, rules="steady", **more)
    return [(c.samples, [b[0] for b in c.boxes]) for c in link_detections(detections, ticks, settings)]


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


def test_without_a_gap_a_missed_detection_cuts_a_tube():
    settings = SimpleNamespace(margin=0.0, iou=0.25, max_gap=0, rules="voxceleb")
    found = link_detections(moved([0], [1], [], [2], [3]), np.arange(5), settings)
    assert [chain.samples for chain in found] == [[0, 1], [3, 4]]


def test_sparse_samples_are_no_gap():
    assert [s for s, _ in chains(moved([0], [0], [0]), ticks=[0, 50, 100])] == [[0, 1, 2]]


def test_overlap_of_halves_is_a_third():
    assert box_iou(np.array([0, 0, 2, 2.0]), np.array([1, 0, 3, 2.0])) == pytest.approx(1 / 3)


def test_smoothing_drops_a_lone_jump_and_keeps_the_ends():
    boxes = np.tile(np.array([[1, 2, 3, 4]], np.float32), (20, 1))
    boxes[7] += 50
    np.testing.assert_array_equal(median_filter_boxes(boxes, 13), np.tile(boxes[:1], (20, 1)))


# --- one box a frame ----------------------------------------------------------------------------------------
STANDARD = replace(
    BASE, rules="voxceleb", out_of_frame="drop", min_frames=64, min_size=256, smooth=1, margin=0.0, lift=0.0
)
HD = {"width": 1280, "height": 720, "fps": 25.0, "seconds": 60.0}


def standard_tubes(boxes, **more):
    return split_into_tubes(np.array(boxes, np.float64), 0, 1.0, replace(STANDARD, **more))


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
    found = standard_tubes(boxes)
    wanted = reference_tubes(boxes)
    assert len(wanted) > 1
    assert spans(found) == [(a, b) for a, b, _ in wanted]
    for track, (_, _, union) in zip(found, wanted, strict=True):
        crop = fit_box_into_frame(track.region, 1280, 720, "drop", whole_pixels=True)
        assert (crop.tolist() if crop is not None else None) == reference_square(union, 1280, 720)


def test_long_tubes_start_anew_from_their_own_first_box():
    boxes = [[100 + k, 100, 400 + k, 400] for k in range(300)]  # 180 px of 300 leave an IoU of 0.25
    assert spans(standard_tubes(boxes, max_frames=100)) == [(0, 100), (100, 200), (200, 300)]
    assert spans(standard_tubes(boxes)) == [(0, 181), (181, 300)]


@pytest.mark.parametrize("seed", range(6))
def test_a_given_union_is_grown_to_the_published_square(seed):
    random = np.random.default_rng(seed)
    corner, sides = random.integers([200, 150], [700, 300]), random.integers(200, 350, 2)
    box = [*corner.tolist(), *(corner + sides).tolist()]
    (one,) = given([{**track(0, 100, box, 1280, 720), "grow": 0.1}], HD, STANDARD)
    crop = fit_box_into_frame(one.region, 1280, 720, "drop", whole_pixels=True)
    assert (crop.tolist() if crop is not None else None) == reference_square(box, 1280, 720)
    assert one.boxes[0].tolist() == box


def test_what_a_source_cannot_know_is_taken_from_the_recording():
    probed = {"width": 1280, "height": 720, "fps": 50.0, "seconds": 60.0}
    (one,) = given([track(100, 200, [0.25, 0.5, 0.5, 0.75], 1, 1, fps=0)], probed, BASE)
    assert (one.start, one.stop, one.boxes[0].tolist()) == (50, 100, [320, 360, 640, 540])
    (one,) = given([track(0, 100, [10, 20, 110, 120], 0, 360)], probed, BASE)
    assert one.boxes[0].tolist() == [20, 40, 220, 240]


def test_enlarging_makes_a_square_or_keeps_the_shape():
    box = np.array([100, 100, 200, 180.0])
    assert enlarge_box(box, 0.1, "square").tolist() == pytest.approx([90, 80, 210, 200])
    assert enlarge_box(box, 0.1, "stretch").tolist() == pytest.approx([90, 92, 210, 188])


def test_boxes_of_a_tube_are_smoothed_when_asked():
    boxes = [[100, 100, 400, 400]] * 100
    boxes[50] = [90, 90, 420, 420]
    (one,) = standard_tubes(boxes, smooth=13)
    assert one.region.tolist() == pytest.approx([70, 70, 430, 430])


def test_tracks_of_a_part_keep_the_recordings_clock():
    probed = {**HD, "offset": 10.0, "seconds": 4.0}
    (one,) = given([track(200, 500, [0, 0, 9, 9])], probed, BASE)
    assert (one.start, one.stop) == (250, 350)
    with pytest.raises(Rejected):
        given([track(0, 240, [0, 0, 9, 9])], probed, BASE)


def test_given_tracks_behind_the_end_are_counted():
    dropped, tracks = DroppedTracks(), [track(at, at + 100, [0, 0, 9, 9]) for at in (0, 1500, 1700)]
    assert spans(convert_source_tracks(tracks, HD, BASE, dropped)) == [(0, 100)]
    assert dropped.count_by_code() == {"tracks_outside": 2}


# --- where tracks break -------------------------------------------------------------------------------------
def view(portrait, frames, dark=(), white=()):
    out = np.repeat(portrait[None, :320, 60:380], frames, axis=0)
    out[list(dark)] //= 2
    out[list(white)] = 255
    return out


def found(path, settings, nets, embedder=None):
    return detect_tracks(path, media.probe_file(path), settings, nets["mp_face"], embedder)


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
    probed = media.probe_file(path)
    cuts = find_scene_cuts(path, probed, (10, 75), BASE)
    assert cuts == [43]
    parts = given([track(10, 75, [0, 0, 320, 320])], probed, BASE, cuts)
    assert spans(parts) == [(10, 43), (43, 75)]
    probed["offset"] = 2.0
    assert find_scene_cuts(path, probed, (60, 125), BASE) == [93]


def test_a_head_that_turns_to_its_profile_and_back_stays_one_track(tmp_path, helpers, nets):
    """To 80 degrees and back in 3 s, its identity looked at every second."""
    model, side = get_analytic_head(), 160
    looks = sample_person_appearance(np.random.default_rng(1), 1, model)
    setting = sample_synthetic_recording_appearance(np.random.default_rng(11), side, side)
    head = HeadRenderer(model, looks, setting, side, side)
    still = (side / IMAGE_HEIGHT_UNITS, side * np.array([0.5, 0.45, 0]), np.zeros(model.n_exp), np.zeros(2))
    yaws = 80 * np.sin(np.linspace(0, np.pi, 75))
    frames = np.stack(
        [head.render_frame(SyntheticHeadState(np.array([0.0, yaw, 0.0]), *still)) for yaw in yaws]
    )
    path = helpers.write_video(tmp_path / "a.mp4", frames)
    embedder = load_nets(["dlib128_mesh.litert"], Store(str(tmp_path)))["dlib128_mesh"]
    assert spans(found(path, replace(BASE, identity_every=25), nets, embedder)) == [(0, 75)]


class Brightness:
    """Stands for an embedder: one number, the mean of the face."""

    name = "brightness"

    def embed(self, frames, boxes, max_yaw=90.0):
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
    return FaceTracklet(list(range(n)), [0] * n, [np.zeros(4)] * n), faces


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ([0, None, 0, None, 0], [[0, 1, 2, 3, 4]]),
        ([0, None, 1, None, 0], [[0, 1, 2, 3, 4]]),  # one look may be a blur
        ([0, None, 0, None, 1, None, 1], [[0, 1, 2], [4, 5, 6]]),
        ([0, 0, 1, 1, 0, 0], [[0, 1], [2, 3], [4, 5]]),
        ([np.nan, 0, np.nan, np.nan, 0, 0], [[0, 1, 2, 3, 4, 5]]),  # a face that cannot be embedded
    ],
)
def test_two_strange_looks_in_a_row_are_another_person(values, parts):
    chain, faces = chain_of(values)
    assert [part.samples for part in split_at_identity_changes(chain, faces, 0.6)] == parts


# --- where faces are looked for -----------------------------------------------------------------------------
def searched(path, nets, span, **probed):
    return detect_tracks(path, media.probe_file(path) | probed, BASE, nets["mp_face"], span=span)


def test_faces_are_found_inside_the_span_only(face_video, nets):
    assert spans(searched(face_video, nets, [0.8, 2.2])) == [(20, 55)]
    assert spans(searched(face_video, nets, [0.0, 90.0])) == [(0, 75)]


def test_a_span_counts_the_recordings_seconds_where_the_file_is_a_part_of_it(face_video, nets):
    assert spans(searched(face_video, nets, [60.8, 62.2], offset=60.0)) == [(1520, 1555)]


def test_a_face_outside_the_span_is_none(portrait, tmp_path, helpers, nets):
    frames = view(portrait, 100)
    frames[40:] = 90
    path = helpers.write_video(tmp_path / "a.mp4", frames)
    assert spans(searched(path, nets, [0.0, 2.0])) == [(0, 40)]
    with pytest.raises(Rejected) as caught:
        searched(path, nets, [2.0, 4.0])
    assert caught.value.code == "no_face"


def test_a_span_behind_the_end_of_the_file_is_rejected(face_video, nets):
    with pytest.raises(Rejected, match="seconds 60 to 120 of the recording; the file has 0 to 3") as caught:
        searched(face_video, nets, [60.0, 120.0])
    assert caught.value.code == "span_outside"


def test_standard_rules_frame_found_tracks_by_their_union(face_video, nets):
    settings = replace(STANDARD, detect_every=1, min_size=64)
    tracks = found(face_video, settings, nets)
    assert len(tracks) == 2  # the face, of 110 px, moves by 74: a quarter of the first box is left on the way
    for one in tracks:
        union = [*one.boxes[:, :2].min(0), *one.boxes[:, 2:].max(0)]
        np.testing.assert_allclose(one.region, enlarge_box(np.array(union), 0.1, "square"), atol=1e-4)
