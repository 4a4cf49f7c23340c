"""What drives: faces found and missed, whatever a file is called; arrays."""

import io
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.perception.interfaces import LandmarkPrediction
from pipelines import media
from pipelines.animate.driving import (
    SourceFace,
    VideoDriver,
    constant_timeline,
    parse_fps_array,
    prefetch,
    read_motion_arrays,
    source_face_frames,
    track_driving_face,
)
from pipelines.animate.face import cut_portrait
from pipelines.animate.perception import PerceptionNets
from pipelines.errors import UserError
from pipelines.media.encoding import read_timeline
from tests.animate.stand_ins import (
    CLIPS,
    SINE,
    Mirror,
    blanked,
    encode,
)


def test_frames_without_a_face_keep_the_last_motion_and_are_counted(make, moving, tmp_path, messages):
    driving = encode(tmp_path / "gap.mp4", blanked(moving, 15, 31))
    model = Mirror()
    _, result = make(driving, model=model)
    assert any(f"no face in {result.missing} of 50 frames" in text for text in messages)
    assert result.missing == 24  # from the last look with a face, frame 10, to the next, frame 35
    assert model.asked == 50 - result.missing
    assert all(np.array_equal(model.drawn[10], picture) for picture in model.drawn[11:35])
    assert not np.array_equal(model.drawn[10], model.drawn[35])


def test_frames_before_the_first_face_have_its_motion(make, moving, tmp_path):
    driving, model = encode(tmp_path / "begin.mp4", blanked(moving, 0, 12)), Mirror()
    _, result = make(driving, model=model)
    assert (result.frames, result.missing, len(model.drawn)) == (50, 15, 50)
    assert all(np.array_equal(model.drawn[15], picture) for picture in model.drawn[:15])


def test_a_video_without_a_face_in_most_frames_is_an_error(make, moving, tmp_path):
    driving = encode(tmp_path / "most.mp4", blanked(moving, 5, 40))
    with pytest.raises(UserError, match=r"no face in \d+ of 50 frames, more than 50%"):
        make(driving)


def test_a_video_without_any_face_is_an_error(make, tmp_path):
    driving = encode(tmp_path / "none.mp4", np.full((20, 128, 128, 3), 90, np.uint8))
    with pytest.raises(UserError, match="finds no face in any frame"):
        make(driving)


def test_a_file_that_is_no_video_is_an_error_that_names_it(make, tmp_path):
    path = tmp_path / "portrait.dat"
    path.write_bytes(b"neither of the two")
    with pytest.raises(UserError, match=r"portrait\.dat is not a picture .*, and not a video"):
        make(path)


@pytest.mark.parametrize("name", ["portrait.dat", "portrait.mp4"])
def test_a_picture_drives_whatever_it_is_called(make, source, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(source.read_bytes())
    out, result = make(path, name="out.png")
    assert (result.frames, result.sound) == (1, "no sound")
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(make(source, name="o.png")[0])))


def test_a_video_drives_whatever_it_is_called(make, videos, tmp_path):
    path = tmp_path / "video.jpg"
    path.write_bytes(videos["silent"].read_bytes())
    assert make(path)[1].frames == 20


def test_a_video_of_one_frame_drives_as_a_picture_and_can_be_a_source(make, moving, tmp_path, messages):
    path = encode(tmp_path / "one.mp4", moving[:1], *SINE, "-c:a", "aac")
    assert make(path, [path])[1].frames == 1
    assert messages.count(f"{path}: a video of one frame, taken as a picture, without its sound") == 2


def test_a_picture_that_moves_drives_as_a_video_where_ffmpeg_reads_it(make, moving, tmp_path, messages):
    frames = [Image.fromarray(frame) for frame in moving[:40:10]]
    for name in ("moves.gif", "moves.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=80)
    assert make(tmp_path / "moves.gif")[1].frames == 4
    assert make(tmp_path / "moves.webp")[1].frames == 1
    assert f"{tmp_path / 'moves.webp'}: holds several frames: the first is used" in messages


def test_a_source_without_a_face_is_an_error(make, videos, tmp_path):
    path = tmp_path / "wall.png"
    Image.new("RGB", (200, 100), (90, 90, 90)).save(path)
    with pytest.raises(UserError, match=r"wall\.png: mp_face sees no face in its 200 x 100 pixels"):
        make(videos["silent"], [path])


def test_of_several_faces_the_largest_is_taken_and_said(make, videos, face, tmp_path, messages, nets):
    small = Image.fromarray(face[20:240, 120:340])
    both = Image.new("RGB", (510, 290), (128, 128, 128))
    both.paste(small, (0, 0))
    both.paste(small.resize((290, 290)), (220, 0))
    path = tmp_path / "both.png"
    both.save(path)
    make(videos["silent"], [path])
    assert any("2 faces; the largest is used" in text for text in messages)
    found = cut_portrait(np.asarray(both), CLIPS, nets.detector)
    assert found.square[0] > 200


def test_reading_ahead_is_bounded_and_passes_errors_on():
    result = []

    def items():
        for k in range(9):
            result.append(k)
            yield k
        raise OSError("disk")

    reader = prefetch(items(), 2)
    assert next(reader) == 0
    assert len(result) <= 4
    with pytest.raises(OSError, match="disk"):
        list(reader)


# --- arrays ------------------------------------------------------------------------------------------------
def test_other_files_are_no_numbers(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no")
    for name in ("one.npy", "text.npz"):
        with pytest.raises(UserError, match=rf"{name} is no file of arrays"):
            read_motion_arrays(tmp_path / name)


def declared(shape):
    """A member of a zip that says it is an array of this shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return header.getvalue()


def with_bytes(path, at, *changes):
    """Some bytes of a file, from a place on, changed."""
    data = bytearray(path.read_bytes())
    data[at : at + len(changes)] = bytes(changes)
    path.write_bytes(data)


def test_broken_files_of_numbers_are_told_by_their_field(tmp_path):
    path = tmp_path / "motion.npz"

    def refused(why):
        with pytest.raises(UserError, match=rf"motion\.npz is no file of arrays: scale: .*{why}"):
            read_motion_arrays(path)

    np.savez_compressed(path, scale=np.arange(999.0))
    with_bytes(path, 400, 255, 255, 255, 255)
    refused("decompressing")  # zlib.error
    np.savez(path, scale=np.ones(2))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        with_bytes(path, path.read_bytes().index(mark) + flags, 1)
    refused("encrypted")  # RuntimeError
    for member, why in (
        (declared((10**13,)), "Unable to allocate"),  # MemoryError
        (declared((9,)) + bytes(9), "expected 72 bytes got 9"),
        (declared((9,)).replace(b"}", b" "), "EOF"),  # tokenize.TokenError
        (b"no array", "expected an array"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("scale.npy", member)
        refused(why)


def test_steady_times_are_exact():
    assert constant_timeline(3).seconds.tolist() == [0, 0.04, 0.08]
    ntsc = parse_fps_array(np.array(30000 / 1001))
    assert ntsc == Fraction(30000, 1001)
    assert constant_timeline(4, ntsc).rate == ntsc


class SlippingInFrames:
    """Looks at faces twice; in some frames of a video, which it is shown in order, its two looks differ."""

    name = "mesh468"

    def __init__(self, slipping):
        self.slipping, self.shown = slipping, 0

    def predict(self, frames, boxes, rolls=None, detected=None):
        numbers = self.shown + np.arange(len(frames))
        self.shown += len(frames)
        points = np.random.default_rng(0).uniform(20, 60, (68, 3)) + np.zeros((len(frames), 1, 1))
        points[:, [36, 45, 27, 33], :2] = [[20, 30], [60, 30], [40, 30], [40, 45]]
        before = points[..., :2] + 40.0 * np.isin(numbers, self.slipping)[:, None, None]
        flat, before = points[..., :2].astype(np.float32), before.astype(np.float32)
        return LandmarkPrediction(landmarks=flat, dense=points.astype(np.float32), previous_pass=before)


@pytest.fixture(scope="module")
def driver_of(moving, nets, tmp_path_factory):
    """Frames whose landmarks slip -> what drives a model that reads landmarks and dense points."""
    path = encode(tmp_path_factory.mktemp("slips") / "drives.mp4", moving[:20])
    probed = media.probe_file(path)
    times = read_timeline(path, 0.0)
    track, _ = track_driving_face(path, probed, times, CLIPS, nets.detector, lambda text: None)

    def make_driver(slipping, **more):
        model = Mirror()
        model.reads = ("landmarks", "dense")
        return VideoDriver(path, probed, times, track, 64, model, SlippingInFrames(slipping), **more)

    return make_driver


@pytest.mark.parametrize("slipping", [[], [5, 6, 12], [0, 19], [*range(7, 17)]])
def test_a_video_is_not_driven_by_frames_whose_landmarks_slip(driver_of, slipping):
    driver = driver_of(slipping)
    batches = list(driver.faces())
    for name in ("boxes", "landmarks", "dense"):
        values = np.concatenate([getattr(batch, name) for batch in batches])
        assert np.flatnonzero(np.isnan(values.reshape(20, -1)).all(1)).tolist() == slipping
        assert np.isfinite(np.delete(values, slipping, axis=0)).all()
    assert driver.slipped == len(slipping)
    assert np.flatnonzero(np.logical_not(driver.has_face)).tolist() == slipping


def test_the_limit_of_the_trained_model_says_which_frames_slip(driver_of):
    for max_slip in (0.0, 9.0):
        driver = driver_of([5, 6, 12], max_slip=max_slip)
        assert all(np.isfinite(batch.landmarks).all() for batch in driver.faces())
        assert driver.slipped == 0


def test_a_video_whose_landmarks_slip_in_every_frame_drives_nothing(driver_of):
    driver = driver_of(range(20))
    with pytest.raises(
        UserError, match=r"drives\.mp4: none of 20 frames has a face that drives; in 20 of them"
    ):
        list(driver.motions())


@pytest.mark.parametrize("slipping", [[], [1]])
def test_a_portrait_whose_landmarks_slip_is_used_and_said(face, nets, slipping):
    portrait = cut_portrait(face, CLIPS, nets.detector)
    sources = [SourceFace(path=Path(f"{name}.png"), picture=face, portrait=portrait) for name in "ab"]
    said = []
    seeing = PerceptionNets(detector=nets.detector, landmarker=SlippingInFrames(slipping))
    faces = source_face_frames(sources, seeing, said.append, ("landmarks", "dense"))
    assert np.isfinite(faces.landmarks).all()
    assert np.isfinite(faces.dense).all()
    assert len(said) == len(slipping)
    assert all(text.startswith("b.png: its landmarks depend on the box") for text in said)
