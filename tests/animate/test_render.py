"""`reenact animate`: frames, times and sound of the driving video; faces found, missed and pasted back."""

import hashlib
import json
import subprocess
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from models.reenactor import Shown, Transfer
from pipelines import media
from pipelines.animate import checkpoint as checkpoints
from pipelines.animate.canvas import Canvas, fading
from pipelines.animate.driving import Film, Likeness, ahead, find_driving
from pipelines.animate.face import cut_of, portrait
from pipelines.animate.render import Wish, animate
from pipelines.cli.animate import Ticker, perception
from pipelines.cli.main import main
from pipelines.errors import UserError
from pipelines.media import ffmpeg_path
from pipelines.media.encoding import timeline
from pipelines.media.still_image import read_picture
from pipelines.preprocess.clips import ClipsConfig
from storage.files import Store

CLIPS = ClipsConfig(size=64)
SIDE = 32


class Mirror:
    """A model that shows the driving square itself: what goes in can be compared with what comes out."""

    def __init__(self, batch=8):
        self.image_size, self.batch, self.labels = SIDE, batch, {"net": "none"}
        self.reads, self.needs, self.hears, self.whole, self.notes = (), (), {}, False, []
        self.asked, self.drawn = 0, []

    def check(self, how):
        if how.adapt_scale:
            raise ValueError("a mirror has no scale")

    def scene(self, sources):
        return sources

    def motion(self, driving):
        self.asked += len(driving.frames)
        small = driving.frames.reshape(-1, SIDE, 2, SIDE, 2, 3).mean((2, 4))
        return {"picture": torch.from_numpy(small / 255)}

    def transfer(self, scene, driving, first, how):
        if how.motion == "absolute":
            return driving
        return {"picture": (0.5 + driving["picture"] - first["picture"]).clamp(0, 1)}

    def render(self, scene, motion):
        self.drawn += list(motion["picture"].numpy().astype(np.float32))
        return np.stack(self.drawn[-len(motion["picture"]) :])


# --- files made on the spot ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def face():
    """(512,512,3) uint8: one face of about 110 px near x 225, y 125; it ships with scikit-image."""
    from skimage.data import astronaut

    return astronaut()


def encode(path, frames, *arguments, rate="25"):
    """frames (T,H,W,3) through the ffmpeg command, with further arguments for input 1.. and output."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate, "-i", "pipe:", *arguments)
    wanted = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-pix_fmt", "yuv420p", str(path))
    command = [ffmpeg_path(), "-v", "error", "-y", *given, *wanted]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return path


SINE = ("-f", "lavfi", "-i", "sine=frequency=220:sample_rate=44100:duration=2", "-map", "0:v", "-map", "1:a")


@pytest.fixture(scope="module")
def moving(face):
    """(50,256,256,3): the face moves to the right by half a pixel a frame."""
    return np.stack([face[:256, 100 - t // 2 : 356 - t // 2] for t in range(50)])


@pytest.fixture(scope="module")
def videos(moving, tmp_path_factory):
    """By name: odd rate with sound, uneven times, no sound, sound that mp4 does not take."""
    folder = tmp_path_factory.mktemp("videos")
    late = "settb=1/90000,setpts=PTS+0.013*mod(N\\,3)/TB"
    uneven = ("-vf", late, "-fps_mode", "vfr", "-enc_time_base", "1:90000")
    return {
        "ntsc": encode(folder / "ntsc.mp4", moving, *SINE, "-c:a", "aac", rate="30000/1001"),
        "matroska": encode(folder / "ntsc.mkv", moving[:20], *SINE, "-c:a", "aac", rate="30000/1001"),
        "uneven": encode(folder / "uneven.mp4", moving, *SINE, "-c:a", "aac", *uneven),
        "transport": encode(folder / "stream.ts", moving[:20], *SINE, "-t", "0.8", "-c:a", "aac"),
        "silent": encode(folder / "silent.mp4", moving[:20]),
        "pcm": encode(folder / "pcm.mov", moving[:20], *SINE, "-t", "0.8", "-c:a", "pcm_s16le"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def source(face, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "portrait.png"
    Image.fromarray(face[:300, 80:400]).save(path)
    return path


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("store")))
    return perception({"detector": "dlib_hog", "landmarker": "dlib68"}, store, "cpu")


@pytest.fixture
def said():
    return []


@pytest.fixture
def make(source, nets, said, tmp_path):
    """Animate with the mirror -> the file, and what was made."""

    def run(driving, sources=(source,), name="out.mp4", tags=None, model=None, **wish):
        out = tmp_path / name
        wanted = Wish(clips=CLIPS, **wish)
        made = animate(model or Mirror(), sources, driving, out, wanted, nets, tags or {}, said.append)
        return out, made

    return run


def times_of(path):
    """Seconds, from the start of the file, at which frames appear, and when the last one ends."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        base, start = video.time_base, Fraction(container.start_time or 0, 1_000_000)
        shown = sorted((p.pts * base - start, p.duration * base) for p in container.demux(video) if p.size)
    return [begin for begin, _ in shown], sum(shown[-1])


def sound_of(path):
    """Digest of all packets, and when the first one begins."""
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        packets = [(p.pts * p.time_base, bytes(p)) for p in container.demux(sound) if p.size]
    return hashlib.sha256(b"".join(data for _, data in packets)).hexdigest(), float(packets[0][0])


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


# --- frames, times, sound -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["ntsc", "uneven", "silent"])
def test_frames_and_times_are_those_of_the_driving_video(make, videos, name):
    out, made = make(videos[name])
    wanted, found = times_of(videos[name]), times_of(out)
    assert made.frames == len(wanted[0]) == len(found[0])
    assert [float(t) for t in found[0]] == pytest.approx([float(t) for t in wanted[0]], abs=1e-9)
    assert float(found[1]) == pytest.approx(float(wanted[1]), abs=1e-9)


def test_an_odd_rate_stays_the_exact_fraction(make, videos):
    for name in ("ntsc", "matroska"):  # Matroska rounds times to milliseconds
        out, made = make(videos[name])
        with av.open(str(out)) as container:
            assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        assert made.rate == "30000/1001 frames/s"


def test_an_uneven_video_is_said_to_be_uneven(make, videos):
    assert make(videos["uneven"])[1].rate.endswith("on average")


@pytest.mark.parametrize("name", ["ntsc", "uneven", "matroska"])
def test_sound_is_copied_bit_by_bit(make, videos, name):
    out, made = make(videos[name])
    wanted, found = sound_of(videos[name]), sound_of(out)
    assert found[0] == wanted[0]
    assert found[1] == pytest.approx(wanted[1], abs=1e-3)
    assert made.sound == "sound copied (aac)"


def test_sound_that_mp4_does_not_take_is_encoded_and_said(make, videos):
    out, made = make(videos["pcm"])
    assert made.sound == "sound encoded as AAC (was pcm_s16le)"
    with av.open(str(out)) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    crossings = np.flatnonzero((sound[:-1] < 0) & (sound[1:] >= 0))
    assert len(sound) / 44_100 == pytest.approx(0.8, abs=0.03)
    assert np.median(np.diff(crossings)) == pytest.approx(44_100 / 220, abs=1)


def test_without_sound_there_is_none(make, videos):
    out, made = make(videos["silent"])
    assert made.sound == "no sound"
    with av.open(str(out)) as container:
        assert not container.streams.audio


def test_a_stream_that_starts_late_keeps_picture_and_sound_together(make, videos):
    out, _ = make(videos["transport"])
    lead = float(times_of(videos["transport"])[0][0])
    assert float(times_of(out)[0][0]) == pytest.approx(lead, abs=1e-4)
    with av.open(str(out)) as container:
        assert container.start_time == pytest.approx(0, abs=1_000)


def test_the_driving_face_is_what_the_model_sees(make, videos, moving):
    pictures = frames_of(make(videos["silent"])[0])
    assert pictures.shape == (20, SIDE, SIDE, 3)
    # the square stands still while the face moves through it
    assert np.abs(pictures[0].astype(int) - pictures[19]).mean() > 4
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 4


def test_the_same_inputs_give_the_same_bytes(make, videos):
    one, other = (make(videos["ntsc"], name=f"{n}.mp4", model=Mirror(batch=n))[0] for n in (8, 3))
    assert one.read_bytes() == other.read_bytes()


def test_the_file_says_that_it_is_synthetic_and_plays_before_it_is_all_there(make, videos):
    tags = {"comment": "Synthetic media", "digitalSourceType": "x", "reenact.labels": "y"}
    out, _ = make(videos["silent"], tags=tags)
    with av.open(str(out)) as container:
        assert tags.items() <= container.metadata.items()
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


# --- frames without a face ----------------------------------------------------------------------------------
def blanked(moving, begin, end):
    frames = moving.copy()
    frames[begin:end] = 90
    return frames


def test_frames_without_a_face_keep_the_last_motion_and_are_counted(make, moving, tmp_path, said):
    driving = encode(tmp_path / "gap.mp4", blanked(moving, 15, 31))
    model = Mirror()
    _, made = make(driving, model=model)
    assert any(f"no face in {made.lost} of 50 frames" in text for text in said)
    assert made.lost == 24  # from the last look with a face, frame 10, to the next, frame 35
    assert model.asked == 50 - made.lost
    assert all(np.array_equal(model.drawn[10], picture) for picture in model.drawn[11:35])
    assert not np.array_equal(model.drawn[10], model.drawn[35])


def test_frames_before_the_first_face_have_its_motion(make, moving, tmp_path):
    driving, model = encode(tmp_path / "begin.mp4", blanked(moving, 0, 12)), Mirror()
    _, made = make(driving, model=model)
    assert (made.frames, made.lost, len(model.drawn)) == (50, 15, 50)
    assert all(np.array_equal(model.drawn[15], picture) for picture in model.drawn[:15])


def test_a_video_without_a_face_in_most_frames_is_an_error(make, moving, tmp_path):
    driving = encode(tmp_path / "most.mp4", blanked(moving, 5, 40))
    with pytest.raises(UserError, match=r"no face in \d+ of 50 frames, more than 50%"):
        make(driving)


def test_a_video_without_any_face_is_an_error(make, tmp_path):
    driving = encode(tmp_path / "none.mp4", np.full((20, 128, 128, 3), 90, np.uint8))
    with pytest.raises(UserError, match="sees no face in any frame"):
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
    out, made = make(path, name="out.png")
    assert (made.frames, made.sound) == (1, "no sound")
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(make(source, name="o.png")[0])))


def test_a_video_drives_whatever_it_is_called(make, videos, tmp_path):
    path = tmp_path / "video.jpg"
    path.write_bytes(videos["silent"].read_bytes())
    assert make(path)[1].frames == 20


def test_a_video_of_one_frame_drives_as_a_picture_and_can_be_a_source(make, moving, tmp_path, said):
    path = encode(tmp_path / "one.mp4", moving[:1], *SINE, "-c:a", "aac")
    assert make(path, [path])[1].frames == 1
    assert said.count(f"{path}: a video of one frame, taken as a picture, without its sound") == 2


def test_a_picture_that_moves_drives_as_a_video_where_ffmpeg_reads_it(make, moving, tmp_path, said):
    frames = [Image.fromarray(frame) for frame in moving[:40:10]]
    for name in ("moves.gif", "moves.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=80)
    assert make(tmp_path / "moves.gif")[1].frames == 4
    assert make(tmp_path / "moves.webp")[1].frames == 1
    assert f"{tmp_path / 'moves.webp'}: holds several frames: the first is used" in said


def test_a_face_that_moves_far_keeps_one_square_and_is_told_of(face, tmp_path, nets, said):
    frames = np.full((30, 260, 640, 3), 128, np.uint8)
    for t in range(30):
        frames[t, :, 13 * t : 13 * t + 240] = face[:260, 110:350]
    path = encode(tmp_path / "far.mp4", frames)
    probed = media.probe(path)
    track, lost = find_driving(path, probed, timeline(path, 0.0), CLIPS, nets["detector"], said.append)
    assert lost == 0
    assert track.square[2] - track.square[0] > 400  # higher than the frame, but the face stays inside
    assert (track.square[:2] < track.boxes[:, :2].min(0)).all()
    assert (track.square[2:] > track.boxes[:, 2:].max(0)).all()
    assert "moves far" in said[-1]
    (crop,) = [s.frames for s in Film(path, probed, timeline(path, 0.0), track, 64, Mirror(batch=99)).shown()]
    assert crop.shape == (30, 64, 64, 3)
    top = cut_of(track.square, 640, 260, 64).margins[0][0]
    np.testing.assert_array_equal(crop[9, :top], crop[9, top : 2 * top][::-1])


def test_an_error_half_way_is_passed_on(make, videos):
    class Failing(Mirror):
        def render(self, scene, motion):
            if len(self.drawn) >= 16:
                raise RuntimeError("out of memory")
            return super().render(scene, motion)

    with pytest.raises(RuntimeError, match="out of memory"):
        make(videos["ntsc"], model=Failing())


# --- sources ------------------------------------------------------------------------------------------------
def test_a_source_without_a_face_is_an_error(make, videos, tmp_path):
    path = tmp_path / "wall.png"
    Image.new("RGB", (200, 100), (90, 90, 90)).save(path)
    with pytest.raises(UserError, match=r"wall\.png: dlib_hog sees no face in its 200 x 100 pixels"):
        make(videos["silent"], [path])


def test_of_several_faces_the_largest_is_taken_and_said(make, videos, face, tmp_path, said, nets):
    small = Image.fromarray(face[20:240, 120:340])
    both = Image.new("RGB", (510, 290), (128, 128, 128))
    both.paste(small, (0, 0))
    both.paste(small.resize((290, 290)), (220, 0))
    path = tmp_path / "both.png"
    both.save(path)
    make(videos["silent"], [path])
    assert any("2 faces; the largest is used" in text for text in said)
    found = portrait(np.asarray(both), CLIPS, nets["detector"])
    assert found.square[0] > 200


def test_the_square_of_a_portrait_is_that_of_training(face, nets):
    found = portrait(face[:300, 80:400], CLIPS, nets["detector"])
    boxes = nets["detector"].detect(face[None, :300, 80:400])[0][0]
    side = (boxes[2] - boxes[0]) * (1 + 2 * CLIPS.margin)
    centre = (boxes[:2] + boxes[2:4]) / 2 - [0, CLIPS.lift * (boxes[2] - boxes[0])]
    wanted = np.concatenate([centre - side / 2, centre + side / 2])
    np.testing.assert_allclose(found.square, wanted, atol=2.01)  # even edges
    assert found.crop.shape == (64, 64, 3)
    np.testing.assert_allclose(found.box[2] - found.box[0], 64 / (1 + 2 * CLIPS.margin), rtol=0.03)


def test_a_small_face_in_a_large_picture_is_found(face, nets):
    wide = np.full((1600, 2000, 3), 128, np.uint8)
    wide[900:1412, 1200:1712] = face
    assert portrait(wide, CLIPS, nets["detector"]).square[0] > 1200


# --- pictures -----------------------------------------------------------------------------------------------
def test_a_file_that_cannot_drive_is_found_before_a_model_is_looked_for(source, tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
    given = [
        "animate",
        str(source),
        "--driving",
        str(path),
        "-o",
        str(tmp_path / "o.mp4"),
        "--weights",
        "none",
    ]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 2
    assert (
        "sound.wav holds no video stream, only ['audio']; a picture or a video shows the face" in done.output
    )


# --- motion -------------------------------------------------------------------------------------------------
def test_relative_motion_starts_at_the_first_frame(make, videos):
    pictures = frames_of(make(videos["silent"], transfer=Transfer(motion="relative"))[0]).astype(int)
    assert np.abs(pictures[0] - 128).mean() < 2
    assert np.abs(pictures[19] - 128).mean() > 3


def test_best_frame_is_where_the_face_is_posed_as_the_source(make, face, moving, tmp_path, said):
    def turned(image, degrees):
        return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC, center=(125, 125)))

    frames = np.stack([turned(moving[0], 1.0 * (t - 14)) for t in range(24)])  # upright, as the source, at 14
    driving = encode(tmp_path / "turning.mp4", frames)
    out, made = make(driving, transfer=Transfer(motion="relative"), best_frame=True)
    assert made.start == pytest.approx(14, abs=2)
    assert np.abs(frames_of(out)[made.start].astype(int) - 128).mean() < 2
    assert any(f"starts at driving frame {made.start}" in text for text in said)


class Placed:
    """A landmarker to which the source shows the first of these faces (n,68,2), driving frames the others."""

    name = "placed"

    def __init__(self, points):
        self.points = points

    def landmarks(self, frames, boxes):
        return self.points[:1] if len(frames) == 1 else self.points[1:]


def likeness_of(face, nets, points):
    likeness = Likeness(portrait(face[:300, 80:400], CLIPS, nets["detector"]), Placed(points))
    count = len(points) - 1
    likeness.look(Shown(frames=np.zeros((count, 1, 1, 3), np.uint8), boxes=np.zeros((count, 4), np.float32)))
    return likeness


def test_likeness_sees_neither_place_nor_size(face, nets):
    points = np.random.default_rng(0).uniform(0, 60, (3, 68, 2)).astype(np.float32)
    likeness = likeness_of(face, nets, np.stack([points[0], points[1], 0.3 * points[0] + 7, points[2]]))
    assert likeness.best() == 1


def test_without_landmarks_in_any_frame_there_is_no_best_one(face, nets):
    points = np.full((3, 68, 2), np.nan, np.float32)
    points[0] = np.random.default_rng(0).uniform(0, 60, (68, 2))
    with pytest.raises(UserError, match="placed places no landmarks on any driving frame; leave out --best"):
        likeness_of(face, nets, points).best()


def test_best_frame_without_relative_motion_means_nothing():
    with pytest.raises(UserError, match="--motion relative"):
        Wish(best_frame=True)


def test_motion_that_the_model_cannot_transfer_is_refused_before_any_work(make, tmp_path):
    with pytest.raises(ValueError, match="a mirror has no scale"):
        make(tmp_path / "not there.mp4", transfer=Transfer(motion="relative", adapt_scale=True))


# --- stills -------------------------------------------------------------------------------------------------
def test_a_picture_drives_one_frame(make, source, nets):
    out, made = make(source, name="out.png", tags={"reenact.edits": "none"})
    assert (made.frames, made.size, made.sound) == (1, (SIDE, SIDE), "no sound")
    picture = Image.open(out)
    assert picture.text["reenact.edits"] == "none"
    crop = portrait(read_picture(source).pixels, CLIPS, nets["detector"]).crop
    small = crop.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
    np.testing.assert_allclose(np.asarray(picture), small, atol=1)


def test_a_picture_may_become_a_video_of_one_frame(make, source):
    out, made = make(source)
    assert (made.frames, made.seconds, made.rate) == (1, 0.04, "25 frames/s")
    assert frames_of(out).shape == (1, SIDE, SIDE, 3)


def test_a_video_does_not_fit_into_a_picture(make, videos):
    with pytest.raises(UserError, match=r"20 frames drive, and out\.png holds one; name it \.mp4"):
        make(videos["silent"], name="out.png")


def test_without_anything_that_drives_there_is_nothing_to_make(make):
    with pytest.raises(UserError, match="nothing drives: give --driving, or an edit"):
        make(None)


# --- paste back ---------------------------------------------------------------------------------------------
def test_pasting_back_changes_the_square_alone(make, videos, source):
    out, made = make(videos["silent"], paste_back=True)
    whole = np.asarray(Image.open(source).convert("RGB")).astype(int)
    pictures = frames_of(out).astype(int)
    assert made.size == (320, 300)
    assert np.abs(pictures[5, 260:, :] - whole[260:, :]).mean() < 3  # below the square: the codec's loss
    assert np.abs(pictures[5, 80:160, 110:190] - whole[80:160, 110:190]).mean() > 5


def test_the_pasted_face_fades_out_at_its_edges():
    canvas = Canvas(np.zeros((100, 121, 3), np.uint8), np.array([20, 20, 80, 80]))
    pasted = canvas.with_face(np.full((8, 8, 3), 200, np.uint8))
    assert pasted.shape == (100, 120, 3)
    assert pasted[50, 50, 0] == 200
    row = pasted[50, 18:52, 0].astype(int)
    assert row[0] == 0
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 60


def test_an_edge_on_the_pictures_border_does_not_fade():
    weights = fading(200, left=False, right=True)
    assert weights[0] == 1
    assert weights[-1] < 0.05


def test_a_large_portrait_is_scaled_to_fit():
    canvas = Canvas(np.zeros((3001, 4000, 3), np.uint8), np.array([1000, 1000, 3000, 3000]))
    assert canvas.size == (1920, 1440)
    assert canvas.with_face(np.full((8, 8, 3), 255, np.uint8))[960, 960, 0] == 255


# --- side by side -------------------------------------------------------------------------------------------
def test_reading_ahead_is_bounded_and_passes_errors_on():
    made = []

    def items():
        for k in range(9):
            made.append(k)
            yield k
        raise OSError("disk")

    reader = ahead(items(), 2)
    assert next(reader) == 0
    assert len(made) <= 4
    with pytest.raises(OSError, match="disk"):
        list(reader)


def test_the_progress_line_tells_rate_and_time_left(capsys):
    import io

    stream = io.StringIO()
    ticker = Ticker(stream, live=True)
    ticker(1, 100)
    ticker._first = (ticker._first[0] - 10, 1)
    ticker(100, 100)
    assert "100/100 frames  9.9 frames/s  ETA 0:00" in stream.getvalue()


# --- the command --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The tiny FSRT with initial weights, as a training phase would publish it."""
    from safetensors.torch import save_file

    from models.fsrt.config import tiny
    from models.fsrt.network import Fsrt

    torch.manual_seed(0)
    about = {"model": "fsrt", "architecture": asdict(tiny()), "labels": {"net": "untrained"}}
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    state = {name: tensor.contiguous() for name, tensor in Fsrt(tiny()).state_dict().items()}
    save_file(state, path, metadata={"reenact": json.dumps(about)})
    return path


def invoke(*arguments):
    return CliRunner().invoke(main, ["animate", *map(str, arguments)])


def test_the_command_makes_a_video_that_tells_its_weights(checkpoint, videos, source, tmp_path):
    out = tmp_path / "out.mp4"
    done = invoke(source, source, "--driving", videos["pcm"], "-o", out, "--checkpoint", checkpoint,
                  "--motion", "relative", "--adapt-scale", "--device", "cpu")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "20 frames of 64 x 64, 0.800 s, 25 frames/s" in done.output
    assert "fsrt · net: untrained" in done.output
    with av.open(str(out)) as container:
        tags = container.metadata
    assert tags["reenact.labels"] == "net: untrained"
    assert tags["reenact.motion"] == "relative, adapt-scale"
    assert tags["reenact.checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert tags["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert tags["comment"].startswith("Synthetic media")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "give one of --checkpoint"),
        (["--weights", "fsrt_none"], 2, "no released weights 'fsrt_none'; known: fsrt_vox"),
        (["--weights", "fsrt_vox"], 2, "reenact weights import fsrt_vox"),
        (["--checkpoint", "SOURCE"], 2, "is no safetensors file"),
        (["--checkpoint", "MODEL", "--model", "headgan"], 2, "holds fsrt, not headgan"),
        (["--checkpoint", "MODEL", "--best-frame"], 2, "--motion relative"),
        (["--checkpoint", "MODEL", "--turn", "yaw=20"], 2, "fsrt cannot make a head's yaw +20 degrees"),
        (["--checkpoint", "MODEL", "--turn", "nod=20"], 2, "turn nod: expected some of pitch, yaw, roll"),
        (["--checkpoint", "MODEL", "--pose", "yaw"], 2, "--pose yaw: expected NAME=NUMBER"),
        (["--checkpoint", "MODEL", "-o", "x.avi"], 2, "ends with .mp4"),
        (["--checkpoint", "MODEL", "-o", "none/x.mp4"], 2, "no such folder"),
        (["--checkpoint", "MODEL", "--driving", "gone.mp4"], 2, "gone.mp4: no such file"),
    ],
)
def test_a_wrong_wish_is_one_line(arguments, code, told, checkpoint, videos, source, tmp_path):
    swap = {"SOURCE": source, "MODEL": checkpoint}
    options = ["--driving", videos["silent"], "-o", tmp_path / "o.mp4", "--store", tmp_path / "store"]
    done = invoke(source, *options, *(swap.get(word, word) for word in arguments))
    assert done.exit_code == code, done.output
    assert told in done.output
    assert not list(tmp_path.glob("*.mp4"))


def test_an_input_is_not_overwritten(checkpoint, videos, source):
    done = invoke(source, "--driving", videos["silent"], "-o", videos["silent"], "--checkpoint", checkpoint)
    assert done.exit_code == 2
    assert "would overwrite an input" in done.output


def test_a_failure_leaves_nothing_behind(checkpoint, source, tmp_path):
    grey = encode(tmp_path / "grey.mp4", np.full((20, 128, 128, 3), 90, np.uint8))
    (tmp_path / "out").mkdir()
    done = invoke(source, "--driving", grey, "-o", tmp_path / "out" / "o.mp4", "--checkpoint", checkpoint)
    assert done.exit_code == 2
    assert list((tmp_path / "out").iterdir()) == []


# --- which checkpoint ---------------------------------------------------------------------------------------
def test_a_run_gives_its_last_trained_phase_and_its_way_of_cropping(checkpoint, tmp_path, monkeypatch, said):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("REENACT_CACHE", str(tmp_path / "cache"))
    run = Path(__file__).parents[2] / "configs" / "run" / "demo.yaml"
    with pytest.raises(UserError, match=r"no phase of fsrt .*reenact run"):
        checkpoints.of_run(run, (), None, said.append)
    folder = tmp_path / "store" / "whole" / "train.fsrt.warmup" / f"{'a' * 32}-000000006"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(checkpoint.read_bytes())
    (folder / "record.json").write_text("{}")
    found = checkpoints.of_run(run, ("clips.margin=0.2",), None, said.append)
    assert found.files[""] == folder / "model.safetensors"
    assert (found.clips.margin, found.clips.size) == (0.2, 128)
    assert "trained with other settings" in said[0]
    assert found.load("cpu", "fp32").labels == {"net": "untrained"}
