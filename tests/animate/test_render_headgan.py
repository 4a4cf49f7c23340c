"""`reenact animate` with HeadGAN: a video, a picture, numbers or the source itself drives; sound is heard on
the times of the frames; edits are told.
"""

import io
import json
import subprocess
import zipfile
from dataclasses import asdict, replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from models.headgan import released
from models.headgan.config import Architecture, Hearing
from models.headgan.inference import reenactor_of
from models.headgan.network import Generator
from models.perception.head.morphable import analytic
from models.reenactor import Edit, Transfer
from pipelines import media
from pipelines.animate.driving import Film, find_driving, read_numbers, stated_rate, steady
from pipelines.animate.render import Wish, animate
from pipelines.animate.sound import encoder_of, heard_at, rows_of, silence, speech_of
from pipelines.cli.animate import nets_of, perception
from pipelines.cli.main import main
from pipelines.errors import UserError
from pipelines.media import ffmpeg_path
from pipelines.media.encoding import Timeline, timeline
from pipelines.preprocess.clips import ClipsConfig
from pipelines.preprocess.speech import SpeechConfig, encode_speech
from storage.files import Store

NET = Architecture(image_size=32, width=4, hidden=8)
CLIPS = ClipsConfig(size=128)
LOOKED = ClipsConfig(size=128, detect_every=1)
ABOUT = {
    "model": "headgan", "phase": "decay", "architecture": asdict(NET), "labels": {"tokens": "none"},
    "head": "analytic_head", "identity": "clip_mean", "shading": "smooth", "hearing": asdict(Hearing()),
    "speech": {"encoder": "headgan", "audio_align": "centred", "dtype": "float32"},
}  # fmt: skip
TALK = "aevalsrc='0.4*sin(2*PI*t*(200+150*sin(9*t)))*(1+sin(17*t))':s=22050:d=2"


def encode(path, frames, *sound, rate="25"):
    """frames (T,H,W,3) through the ffmpeg command."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate, "-i", "pipe:", *sound)
    wanted = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-pix_fmt", "yuv420p", str(path))
    command = [ffmpeg_path(), "-v", "error", "-y", *given, *wanted]
    subprocess.run(command, input=frames.tobytes(), capture_output=True, timeout=60, check=True)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("headgan")


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return Generator(NET).state_dict()


@pytest.fixture(scope="module")
def moving():
    """(16,256,256,3): a face of about 110 px goes to the right."""
    from skimage.data import astronaut

    return np.stack([astronaut()[:256, 100 - t // 2 : 356 - t // 2] for t in range(16)])


@pytest.fixture(scope="module")
def source(moving, folder):
    Image.fromarray(moving[0, 10:]).save(folder / "portrait.png")
    return folder / "portrait.png"


@pytest.fixture(scope="module")
def videos(moving, folder):
    talk = ("-f", "lavfi", "-i", TALK, "-map", "0:v", "-map", "1:a", "-shortest", "-c:a", "aac")
    gap = moving.copy()
    gap[6:9] = 90
    return {
        "talk": encode(folder / "talk.mp4", moving, *talk),
        "ntsc": encode(folder / "ntsc.mp4", moving, *talk, rate="30000/1001"),
        "silent": encode(folder / "silent.mp4", moving[:8]),
        "gap": encode(folder / "gap.mp4", gap),
    }


@pytest.fixture(scope="module")
def reenactor(state):
    made = reenactor_of(state, ABOUT)
    made.use({"analytic_head": analytic()})
    return made


@pytest.fixture(scope="module")
def nets(folder):
    names = {"detector": "dlib_hog", "landmarker": "dlib68"}
    return perception(names, Store(str(folder / "store")), "cpu")


@pytest.fixture
def said():
    return []


@pytest.fixture
def make(reenactor, source, nets, said, tmp_path):
    """Animate -> the file and what was made; what was rendered is in `make.motions`."""

    def run(driving, name="out.mp4", transfer=None, **wish):
        wanted = Wish(clips=CLIPS, transfer=transfer or Transfer(motion="relative"), **wish)
        out = tmp_path / name
        return out, animate(reenactor, [source], driving, out, wanted, nets, {}, said.append)

    return run


@pytest.fixture
def rendered(reenactor, monkeypatch):
    """The motion that was rendered, batch by batch."""
    seen = []
    render = reenactor.render

    def kept(scene, motion):
        seen.append(motion)
        return render(scene, motion)

    monkeypatch.setattr(reenactor, "render", kept)
    return seen


def packed(rendered):
    """(T,P) of all frames."""
    return torch.cat([motion["packed"][:, -1] for motion in rendered]).numpy()


def film_of(path, reenactor, nets):
    probed = media.probe(path)
    times = timeline(path, probed["start"])
    track, lost = find_driving(path, probed, times, LOOKED, nets["detector"], lambda text: None, True)
    return Film(path, probed, times, track, 128, reenactor, nets["landmarker"]), lost


# --- what drives --------------------------------------------------------------------------------------------
def test_a_video_drives_with_the_sources_size_and_place(make, videos, rendered, reenactor):
    out, made = make(videos["silent"])
    assert (made.frames, made.size) == (8, (32, 32))
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames == 8
    scales = packed(rendered)[:, analytic().n_id + analytic().n_exp]
    assert len(scales) == 8
    assert scales.std() < 0.05 * scales.mean()


def test_frames_without_a_face_are_bridged_and_still_heard(videos, reenactor, nets):
    film, lost = film_of(videos["gap"], reenactor, nets)
    (motion,) = film.motions()
    assert lost == film.there.count(False) == 3
    missing = torch.isnan(motion["landmarks"]).all(2).all(1)
    assert missing.tolist() == [not there for there in film.there]
    assert len(motion["speech"]) == 16


def test_what_stands_for_frames_without_a_face_is_said(reenactor, source, videos, nets, said, tmp_path):
    wish = Wish(clips=LOOKED, transfer=Transfer(motion="relative"))
    animate(reenactor, [source], videos["gap"], tmp_path / "o.mp4", wish, nets, {}, said.append)
    assert f"{videos['gap']}: no face in 3 of 16 frames" in said
    assert "driving frames 6 to 8: no face; bridged from both sides" in said


def test_the_source_drives_itself_into_a_picture(make, rendered):
    edit = Edit(frontal=True, turn={"yaw": 20.0})
    out, _ = make(None, "out.png", Transfer(motion="relative", edit=edit))
    assert np.asarray(Image.open(out)).shape == (32, 32, 3)
    at = analytic().n_id + analytic().n_exp + 1
    turn = np.diag([1, -1, -1]) @ packed(rendered)[0, at : at + 9].reshape(3, 3)
    assert np.degrees(np.arctan2(-turn[2, 0], turn[0, 0])) == pytest.approx(20, abs=0.1)


def test_a_picture_lends_its_expression(make, source, rendered):
    make(source, "a.png")
    make(source, "b.png", expression_of=source)
    one, other = (packed([motion])[0] for motion in rendered)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_numbers_drive_at_their_own_rate(make, tmp_path, rendered):
    frames, n_exp = 6, analytic().n_exp
    angles = np.zeros((frames, 3))
    angles[:, 1] = np.linspace(-10, 10, frames)
    path = tmp_path / "motion.npz"
    np.savez(path, scale=np.full(frames, 30.0), translation=np.tile([64.0, 64.0, 0.0], (frames, 1)),
             exp_coeffs=np.zeros((frames, n_exp)), angles=angles, size=128, fps=30)  # fmt: skip
    _, made = make(path, transfer=Transfer())
    assert (made.frames, made.rate, made.seconds) == (6, "30 frames/s", pytest.approx(0.2))
    np.testing.assert_allclose(packed(rendered)[:, analytic().n_id + n_exp], 30.0 * 32 / 128, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"angles": np.zeros((2, 2))}, r"motion\.npz: angles: found shape \(2, 2\), expected \(2, 3\)"),
        ({"fps": np.array(0)}, "fps: found .* expected one number from 1 to 240"),
        ({"extra": np.zeros(2)}, "unknown extra in a head's motion"),
        ({"scale": np.array([object(), 1])}, r"motion\.npz is no file of numbers: scale: Object arrays"),
        ({"scale": np.full(2, 1e300)}, r"motion\.npz: scale, frame 0: found 1e\+300, expected numbers from"),
        ({"size": np.array("64")}, r"motion\.npz: size: found <U2, expected numbers"),
    ],
)
def test_wrong_numbers_are_told_with_their_file(make, tmp_path, change, told):
    fields = {"scale": np.ones(2), "translation": np.zeros((2, 3)), "angles": np.zeros((2, 3)),
              "exp_coeffs": np.zeros((2, analytic().n_exp))} | change  # fmt: skip
    path = tmp_path / "motion.npz"
    np.savez(path, **fields)
    with pytest.raises(UserError, match=told):
        make(path)


def test_other_files_are_no_numbers(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no")
    for name in ("one.npy", "text.npz"):
        with pytest.raises(UserError, match=rf"{name} is no file of numbers"):
            read_numbers(tmp_path / name)


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
        with pytest.raises(UserError, match=rf"motion\.npz is no file of numbers: scale: .*{why}"):
            read_numbers(path)

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
    assert steady(3).seconds.tolist() == [0, 0.04, 0.08]
    ntsc = stated_rate(np.array(30000 / 1001))
    assert ntsc == Fraction(30000, 1001)
    assert steady(4, ntsc).rate == ntsc


def test_a_face_that_does_not_fit_is_an_error_that_names_the_file(make, videos, monkeypatch, nets):
    place = nets["landmarker"].landmarks
    monkeypatch.setattr(nets["landmarker"], "landmarks", lambda frames, boxes: place(frames, boxes)[:, ::-1])
    with pytest.raises(UserError, match=r"portrait\.png: source frame 0: the 3D face does not fit"):
        make(videos["silent"])


def test_best_frame_means_nothing_to_it(make, videos):
    with pytest.raises(UserError, match="from the mean of the whole driving video"):
        make(videos["silent"], best_frame=True)


# --- what is heard ------------------------------------------------------------------------------------------
def test_features_are_those_of_the_stage_on_the_frame_clock(videos, reenactor, nets):
    path = videos["talk"]
    probed, settings = media.probe(path), encoder_of(reenactor)
    times = timeline(path, probed["start"])
    heard = heard_at(path, probed, times, reenactor, nets, "cpu", print)
    clip = {"frames": 16, "has_sound": True}
    stage = {"__key__": "k", "sound": media.read_sound(path, probed, 0, 16), "clip": clip}
    config = type("Config", (), {"speech": settings})
    (stored,) = encode_speech({"clips": [stage]}, config, {})
    assert heard.shape == (16, 300)
    np.testing.assert_allclose(heard, stored["speech"], atol=1e-6)
    assert heard[:, :84].std(0).max() > 0.01


def test_another_rate_hears_the_row_that_its_frame_lies_in(videos, reenactor, nets):
    path = videos["ntsc"]
    probed, settings = media.probe(path), encoder_of(reenactor)
    times = timeline(path, probed["start"])
    rows = rows_of(times, 99)
    assert rows.tolist() == [int((t + 0.5) * 1001 / 30000 * 25) for t in range(16)]
    heard = heard_at(path, probed, times, reenactor, nets, "cpu", print)
    sound = media.read_sound(path, probed, 0, 14)
    np.testing.assert_array_equal(heard, speech_of(sound, settings, nets, "cpu")[rows])


def test_rows_follow_uneven_times():
    times = Timeline(Fraction(1, 100), (0, 3, 9, 20), 24, Fraction(25), False)
    assert rows_of(times, 6).tolist() == [0, 1, 3, 5]


def test_without_sound_silence_is_heard_and_said(make, videos, said, rendered, reenactor, nets, source):
    make(videos["silent"])
    assert any("silent.mp4: no sound: the model hears silence" in text for text in said)
    make(source, "still.png")
    quiet = silence(1, reenactor, nets, "cpu")
    assert quiet.any()
    for motion in rendered:
        np.testing.assert_array_equal(motion["audio"], np.tile(quiet, (len(motion["audio"]), 1)))


def test_released_weights_which_learned_with_letters_say_that_they_hear_none(
    videos, nets, said, tmp_path, monkeypatch
):
    from safetensors.torch import save_file

    small = replace(NET, residual=True, mask=True)
    monkeypatch.setattr(released, "official", lambda: small)
    save_file(released.published(Generator(small).state_dict())["headgan_vox"], tmp_path / "g.safetensors")
    net = reenactor_of(*released.load({"headgan_vox": tmp_path / "g.safetensors"}))
    probed = media.probe(videos["talk"])
    times = timeline(videos["talk"], probed["start"])
    heard_at(videos["talk"], probed, times, net, nets, "cpu", said.append)
    assert said == [f"{videos['talk']}: no transcript: the model, which learned with letters, hears none"]


def test_what_a_checkpoint_tells_of_its_encoder_is_checked(reenactor, monkeypatch):
    assert encoder_of(reenactor) == SpeechConfig(encoder="headgan")
    wrong = {
        "does not tell": {},
        "encoder": {"encoder": "../x"},
        "mels 999": {"encoder": "log_mel", "mels": 999},
    }
    for told, hears in wrong.items():
        monkeypatch.setattr(reenactor, "hears", hears)
        with pytest.raises(UserError, match=told):
            encoder_of(reenactor)
    monkeypatch.setattr(reenactor, "hears", {"encoder": "headgan", "transcripts": "/etc/passwd"})
    assert encoder_of(reenactor).transcripts == ""
    monkeypatch.setattr(reenactor, "hears", {"encoder": "wav2vec2_base"})
    wish = Wish(clips=CLIPS)
    assert nets_of(reenactor, wish, "dlib68").keys() == {
        "detector", "analytic_head", "landmarker", "wav2vec2_base"
    }  # fmt: skip


# --- the command --------------------------------------------------------------------------------------------
def test_the_command_tells_edits_and_copies_the_sound(state, videos, source, folder, tmp_path):
    from safetensors.torch import save_file

    checkpoint, out = folder / "model.safetensors", tmp_path / "out.mp4"
    save_file(state, checkpoint, metadata={"reenact": json.dumps(ABOUT)})
    done = CliRunner().invoke(main, ["animate", *map(str, (
        source, "--driving", videos["talk"], "-o", out, "--checkpoint", checkpoint, "--device", "cpu",
        "--turn", "yaw=20", "--expression", "jaw_open=1.5", "--identity", "0=2.0",
        "--size", 128))])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "16 frames of 32 x 32, 0.640 s, 25 frames/s, sound copied (aac)" in done.output
    with av.open(str(out)) as container:
        tags = container.metadata
    assert tags["reenact.model"] == "headgan"
    assert tags["reenact.motion"] == "relative"
    assert tags["reenact.edits"] == "yaw +20 degrees, expression jaw_open +1.5 sigmas, identity 0 +2 sigmas"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_an_identity_that_the_head_does_not_have_is_one_line(state, source, folder, tmp_path):
    from safetensors.torch import save_file

    checkpoint = folder / "identity.safetensors"
    save_file(state, checkpoint, metadata={"reenact": json.dumps(ABOUT)})
    done = CliRunner().invoke(main, ["animate", *map(str, (
        source, "-o", tmp_path / "o.png", "--checkpoint", checkpoint, "--device", "cpu",
        "--identity", "chin=2"))])  # fmt: skip
    assert done.exit_code == 2, done.output
    assert "identity chin: analytic has components 0 to 16 or one of head_width, face_length" in done.output
    assert not list(tmp_path.iterdir())
