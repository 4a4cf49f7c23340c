import tracemalloc

import numpy as np
import pytest
from msgspec.structs import replace

from pipelines import media
from pipelines.config import CONFIGS_FOLDER, load_config
from pipelines.errors import Rejected
from pipelines.graph import build_graph
from pipelines.preprocess import clips
from pipelines.preprocess.clips import ClipsConfig, cut_clips, fit_box_into_frame
from storage import frame_codec
from storage.shards import encode_sample
from tests.video_files import RUNTIME

BASE = ClipsConfig(size=128, min_frames=30, min_size=64)
EXACT = replace(BASE, frames=clips.FrameCodecConfig(codec="png"))


def inputs_of(path, tracks=()):
    row = {"id": "rec", "identity": "ann", "tracks": list(tracks)}
    return {"recordings": [row], "download": [{"video": path.read_bytes(), "probe": media.probe_file(path)}]}


def cut(path, settings, nets, tracks=()):
    return list(cut_clips(inputs_of(path, tracks), settings, nets, RUNTIME))


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
    assert clip["frames"].decode().shape == (75, 128, 128, 3)
    assert clip["sound"].shape == (75 * 640,)
    assert clip["boxes"].shape == clip["crop"].shape == (75, 4)
    assert clip["boxes"].dtype == clip["crop"].dtype == clip["sound"].dtype == np.float32
    assert (clip["clip"]["detector"], clip["clip"]["detected"]) == ("mp_face", 1.0)


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
        sample["sound"][:640], media.read_sound(face_video, media.probe_file(face_video), 0, 75)[6400:7040]
    )


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
    assert sample["frames"].decode([0]).shape[1:3] == (128, 128)


def test_padding_mirrors_the_border(face_video):
    (sample,) = cut(face_video, replace(EXACT, out_of_frame="pad"), {}, [track(0, 40, [-32, 0, 96, 128])])
    frame = sample["frames"].decode([0])[0]
    assert frame.shape == (128, 128, 3)
    np.testing.assert_array_equal(frame[:, :32], frame[:, 63:31:-1])


def test_clamping_moves_then_shrinks():
    assert fit_box_into_frame(np.array([-10.0, 20, 90, 120]), 200, 150, "clamp").tolist() == [0, 20, 100, 120]
    x0, y0, x1, y1 = fit_box_into_frame(np.array([-50.0, -50, 350, 350]), 200, 150, "clamp")
    assert x1 - x0 == y1 - y0 == 150
    assert 0 <= x0 < x1 <= 200
    assert (y0, y1) == (0, 150)


def test_a_second_face_of_a_long_identity_has_a_name_that_fits(portrait, tmp_path, helpers, nets):
    pair = np.concatenate([portrait[None, :200, 140:340]] * 2, axis=2).repeat(40, axis=0)
    path = helpers.write_video(tmp_path / "two.mp4", pair)
    inputs = inputs_of(path)
    inputs["recordings"][0]["identity"] = "x" * 32
    settings = replace(BASE, faces="all", margin=0.1)
    first, second = (clip["clip"]["identity"] for clip in cut_clips(inputs, settings, nets, RUNTIME))
    assert first == "x" * 32 != second
    assert len(second) == 32


def test_only_the_span_of_a_recording_is_searched(face_video, nets):
    inputs = inputs_of(face_video)
    inputs["recordings"][0]["span"] = [0.8, 2.2]
    (sample,) = cut_clips(inputs, BASE, nets, RUNTIME)
    assert sample["__key__"] == "ann#rec#000020#000055"


def test_the_graph_hands_the_span_to_clips():
    config = load_config(CONFIGS_FOLDER / "run" / "demo.yaml", ["data.main.source=folder"]).config
    assert "span" in build_graph(config)["clips"].reads["recordings"].fields


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


# --- one at a time ------------------------------------------------------------------------------------------
class Blob:
    """As storage.shards.LazyMember: too large to hold."""

    def __init__(self, path):
        self.path, self.copies = path, []

    def copy_to(self, path):
        self.copies.append(path)
        path.write_bytes(self.path.read_bytes())


def test_clips_come_one_at_a_time_and_the_copy_goes_at_the_end(face_video, monkeypatch):
    read, cropped = Blob(face_video), []
    cut_out = clips.stream_crop
    monkeypatch.setattr(clips, "stream_crop", lambda *a: cropped.append(a[-2:]) or cut_out(*a))
    inputs = inputs_of(face_video, [track(0, 30, [0, 0, 160, 160]), track(40, 75, [0, 0, 160, 160])])
    inputs["download"][0]["video"] = read
    samples = cut_clips(inputs, BASE, {}, RUNTIME)
    assert (cropped, read.copies) == ([], [])
    assert next(samples)["clip"]["end"] == 30
    assert cropped == [(0, 30)]
    assert read.copies[0].exists()
    assert next(samples)["clip"]["end"] == 75
    assert next(samples, None) is None
    assert not read.copies[0].exists()


def test_a_clips_pictures_are_never_there_at_once(face_video):
    pictures = 75 * 512 * 512 * 3
    settings = replace(BASE, size=512)
    inputs = inputs_of(face_video, [track(0, 75, [100, 40, 260, 200])])
    list(cut_clips(inputs, settings, {}, RUNTIME))  # what is imported stays
    tracemalloc.start()
    list(cut_clips(inputs, settings, {}, RUNTIME))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.3 * pictures  # the packed JPEG files, twice while they are put together


@pytest.mark.parametrize("kind", ["bytes", "path", "blob"])
def test_a_recording_comes_as_bytes_a_file_or_a_blob(face_video, kind):
    video = {"bytes": face_video.read_bytes(), "path": face_video, "blob": Blob(face_video)}[kind]
    with media.open_as_local_file(video) as path:
        assert media.probe_file(path)["frames"] == 75
    assert face_video.exists()


def test_a_part_of_a_recording_gives_the_clips_of_the_whole(face_video, tmp_path, helpers):
    given = [track(25, 70, [100, 40, 260, 200])]
    (whole,) = cut(face_video, EXACT, {}, given)
    part = helpers.ffmpeg(
        "-ss", 0.6, "-i", face_video, "-c:v", "libx264", "-qp", 0, "-threads", 1, "-c:a", "flac",
        tmp_path / "part.mkv",
    )  # fmt: skip
    inputs = inputs_of(part, given)
    inputs["download"][0]["probe"]["offset"] = 0.6
    (sample,) = cut_clips(inputs, EXACT, {}, RUNTIME)
    assert sample["__key__"] == whole["__key__"] == "ann#rec#000025#000070"
    shown, wanted = (one["frames"].decode().astype(int) for one in (sample, whole))
    np.testing.assert_allclose(shown, wanted, atol=3)
    np.testing.assert_allclose(sample["sound"], whole["sound"], atol=0.01)


# --- gates --------------------------------------------------------------------------------------------------
FACE = [60, 20, 260, 220]


def test_scores_are_recorded_without_gates(face_video):
    (sample,) = cut(face_video, BASE, {}, [track(0, 75, FACE)])
    told = sample["clip"]
    assert (told["audible"], told["has_sound"], told["visible"], told["side"]) == (1.0, True, None, 200)
    assert told["sharpness"] > 100
    assert told["dropped"] == {}


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ({"min_sharpness": 1e6}, "blurred"),
        ({"min_visible": 0.5}, "not_visible"),
        ({"min_audible": 0.9}, "silent"),
    ],
)
def test_a_gate_that_leaves_nothing_rejects_the_recording(tmp_path, helpers, nets, gate, code):
    frames = np.random.default_rng(0).integers(0, 255, (1, 240, 240, 3), np.uint8).repeat(75, axis=0)
    path = helpers.write_video(tmp_path / "a.mp4", frames, sound=helpers.tone(1.5))
    tracks = [track(0, 75, [0, 0, 240, 240], 240, 240)]
    assert code_of(path, replace(BASE, **gate), nets, tracks) == code
    (sample,) = cut(path, BASE, nets, tracks)
    assert sample["clip"]["audible"] == pytest.approx(0.5, abs=0.02)


def test_gates_that_pass_change_nothing(face_video, nets):
    gated = replace(BASE, min_sharpness=10, min_visible=0.9, min_audible=0.9)
    (sample,) = cut(face_video, gated, nets, [track(0, 75, FACE)])
    (free,) = cut(face_video, BASE, nets, [track(0, 75, FACE)])
    assert sample["clip"]["visible"] == 1.0
    assert sample["clip"] == {**free["clip"], "visible": 1.0}
    assert sample["frames"] == free["frames"]


def test_what_was_dropped_stands_in_the_clips_that_are_left(face_video, portrait, tmp_path, helpers, nets):
    early = [track(0, 10, FACE), track(0, 40, [0, 0, 20, 20]), track(0, 40, FACE), track(0, 40, FACE)]
    (sample,) = cut(face_video, BASE, nets, early)
    assert sample["clip"]["dropped"] == {"duplicate": 1, "too_short": 1, "too_small": 1}
    (sample,) = cut(face_video, BASE, nets, [track(0, 40, FACE), track(75, 400, FACE)])
    assert sample["clip"]["dropped"] == {"tracks_outside": 1}
    # the second half is silent: its track is dropped after the first clip was cut
    frames = np.repeat(portrait[None, :320, 60:380], 75, axis=0)
    path = helpers.write_video(tmp_path / "a.mp4", frames, sound=helpers.tone(1.4))
    late = [track(0, 35, FACE), track(40, 75, FACE)]
    (sample,) = cut(path, replace(BASE, min_audible=0.9), nets, late)
    assert sample["clip"]["dropped"] == {"silent": 1}


# --- crops --------------------------------------------------------------------------------------------------
def test_standard_crops_are_cut_to_the_pixel(face_video):
    standard = replace(BASE, rules="voxceleb", out_of_frame="drop", aspect="stretch", min_size=64)
    (sample,) = cut(face_video, standard, {}, [track(0, 40, [101.7, 41.2, 262.9, 200.9])])
    assert sample["crop"][0].tolist() == [101, 41, 262, 200]
    assert fit_box_into_frame(np.array([-0.9, 0, 99, 99]), 100, 100, "drop", whole_pixels=True).tolist() == [
        0,
        0,
        99,
        99,
    ]
    assert fit_box_into_frame(np.array([0, 0, 101, 99.0]), 100, 100, "drop", whole_pixels=True) is None


@pytest.mark.parametrize(("side", "kept"), [(219, False), (220, True)])
def test_the_standards_gate_looks_at_the_box_before_it_grows(face_video, side, kept):
    standard = replace(BASE, rules="voxceleb", out_of_frame="drop", min_size=220)
    given = [{**track(0, 40, [50, 110, 50 + side, 210]), "grow": 0.1}]
    if kept:
        (sample,) = cut(face_video, standard, {}, given)
        assert sample["crop"][0].tolist() == [28, 28, 292, 292]
    else:
        assert code_of(face_video, standard, {}, given) == "too_small"


def test_odd_crops_show_the_pixels_that_even_ones_show(face_video):
    probed = media.probe_file(face_video)
    even, odd = (
        np.stack([f.copy() for f in clips.stream_crop(face_video, probed, np.array(box), 128, 0, 5)])
        for box in ([100, 40, 228, 168], [101, 41, 229, 169])
    )
    near = np.abs(odd[:, :-1, :-1].astype(int) - even[:, 1:, 1:])
    assert near.mean() < 0.5
    assert np.percentile(near, 99) <= 3


def test_fewer_frames_than_promised_are_noticed(face_video, nets):
    inputs = inputs_of(face_video)
    inputs["download"][0]["probe"]["seconds"] = 6.0
    with pytest.raises(Rejected) as caught:
        list(cut_clips(inputs, BASE, nets, RUNTIME))
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("tracks", [[], [track(0, 75, [100, 40, 260, 200])]])
def test_a_hole_in_the_middle_is_noticed(portrait, tmp_path, helpers, nets, tracks):
    frames = np.repeat(portrait[None, :320, 60:380], 75, axis=0)
    times = np.r_[np.arange(35) * 0.04, np.arange(40) * 0.04 + 2.9]
    # Matroska's frames end when they end; those of an mp4 are shown until the next
    path = helpers.write_video(tmp_path / "hole.mkv", frames, times=times)
    assert code_of(path, BASE, nets, tracks) == "damaged"


@pytest.mark.parametrize(("codec", "extension"), [("jpeg", "jpgs"), ("png", "pngs"), ("h264", "mp4")])
def test_frames_are_stored_as_asked(face_video, codec, extension):
    settings = replace(BASE, frames=clips.FrameCodecConfig(codec=codec, quality=90))
    given = [track(0, 30, FACE)]
    (sample,) = cut(face_video, settings, {}, given)
    (exact,) = cut(face_video, EXACT, {}, given)
    assert sample["frames"] == frame_codec.encode_images(exact["frames"].decode(), codec, 90)
    assert (sample["frames"].extension, len(sample["frames"])) == (extension, 30)


@pytest.fixture(scope="module")
def still_between(portrait, tmp_path_factory, helpers):
    """1.4 s of a moving portrait, its last frame for two seconds more, then 1.6 s that move again."""
    frames = np.stack([portrait[:320, 100 - t : 420 - t] for t in range(75)])
    times = np.r_[np.arange(35) * 0.04, 3.36 + np.arange(40) * 0.04]
    path = helpers.write_video(tmp_path_factory.mktemp("still") / "a.mp4", frames, times=times)
    return helpers.ffmpeg("-i", path, "-c", "copy", path.with_name("b.mp4"))  # which states durations


@pytest.mark.parametrize("given", [False, True])
def test_a_held_frame_parts_a_track_and_is_no_clip(still_between, nets, given):
    tracks = [track(0, 124, [80, 40, 240, 200])] if given else []
    before, after = cut(still_between, BASE, nets, tracks)
    assert (before["clip"]["start"], before["clip"]["end"]) == (0, 35)
    assert (after["clip"]["start"], after["clip"]["end"]) == (84, 124)
    assert after["clip"]["dropped"] == ({"frozen": 1} if given else {})


def test_a_track_of_one_held_frame_is_frozen(still_between, nets):
    assert code_of(still_between, BASE, nets, [track(40, 80, [80, 40, 240, 200])]) == "frozen"
