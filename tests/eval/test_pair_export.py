"""Pairs as files: what other code is given, and what it gives back."""

import io

import numpy as np
import pytest
import soundfile
from msgspec.structs import replace
from PIL import Image

from pipelines.errors import UserError
from pipelines.eval import pair_export as export
from pipelines.eval.pairs import ClipPair, pair_file_name
from tests.eval.conftest import MemoryFamily

SOURCE, DRIVING = "ann#rec1#000000#000009", "bob#rec2#000000#000009"


def random_frames(seed, count, size):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


@pytest.fixture
def pair():
    return ClipPair(
        id=f"{SOURCE}-{DRIVING}", source_recording="rec1", source_clip=SOURCE, source_frames=(0, 8),
        driving_recording="rec2", driving_clip=DRIVING, driving_frames=(2, 3, 4),
    )  # fmt: skip


@pytest.fixture
def inputs(pair):
    sound = np.arange(9 * 640, dtype=np.float32) / 2**15
    spoken = {"sound": sound, "clip": {"has_sound": True}}
    return export.PairInputs(
        source_clips=MemoryFamily({SOURCE: random_frames(1, 9, 64)}),
        driving=MemoryFamily({pair.id: random_frames(2, 3, 32)}),
        sound_clips=MemoryFamily({DRIVING: random_frames(3, 9, 64)}, fields={DRIVING: spoken}),
        size=32,
    )


def picture(path):
    return np.asarray(Image.open(path))


def test_a_pair_is_sources_driving_frames_and_sound(pair, inputs, tmp_path):
    assert export.export_pair_inputs(pair, inputs, tmp_path)
    own = tmp_path / pair_file_name(pair.id)
    assert sorted(path.relative_to(own).as_posix() for path in own.rglob("*") if path.is_file()) == [
        "driving.wav", "driving/00000.png", "driving/00001.png", "driving/00002.png",
        "source_0.png", "source_1.png",
    ]  # fmt: skip
    assert picture(own / "source_1.png").shape == (32, 32, 3)
    np.testing.assert_array_equal(picture(own / "driving/00001.png"), random_frames(2, 3, 32)[1])


def test_the_sound_is_that_of_the_driving_frames_to_the_sample(pair, inputs, tmp_path):
    export.export_pair_inputs(pair, inputs, tmp_path)
    sound, rate = soundfile.read(tmp_path / pair_file_name(pair.id) / "driving.wav", dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(sound, np.arange(2 * 640, 5 * 640))


def test_the_sound_is_that_of_the_clip_that_is_heard(pair, inputs, tmp_path):
    other = "eve#rec3#000000#000009"
    heard = {"sound": np.full(9 * 640, 0.5, np.float32), "clip": {"has_sound": True}}
    inputs.sound_clips.members[other] = heard
    export.export_pair_inputs(replace(pair, sound_clip=other), inputs, tmp_path)
    sound, _ = soundfile.read(next(tmp_path.rglob("driving.wav")))
    np.testing.assert_array_equal(sound, 0.5)


def test_a_clip_without_sound_gives_no_silence(pair, inputs, tmp_path):
    inputs.sound_clips.members[DRIVING]["clip"] = {"has_sound": False}
    assert not export.export_pair_inputs(pair, inputs, tmp_path)
    assert not list(tmp_path.rglob("*.wav"))


def test_frames_of_a_method_are_a_picture_for_each_driving_frame(pair, tmp_path):
    frames = random_frames(4, 3, 32)
    assert export.export_pair_frames(pair, MemoryFamily({pair.id: frames}), tmp_path)
    files = sorted((tmp_path / pair_file_name(pair.id)).iterdir())
    np.testing.assert_array_equal([picture(file) for file in files], frames)


def test_a_single_picture_is_written_for_every_driving_frame(pair, tmp_path):
    export.export_pair_frames(pair, MemoryFamily({pair.id: random_frames(5, 1, 32)}), tmp_path)
    assert len(list((tmp_path / pair_file_name(pair.id)).iterdir())) == 3


def test_a_pair_that_the_method_has_not_leaves_no_folder(pair, tmp_path):
    assert not export.export_pair_frames(pair, MemoryFamily({}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_refused(tmp_path):
    export.make_export_folder(tmp_path / "new")
    (tmp_path / "new/old.png").touch()
    with pytest.raises(UserError, match=r"new is not empty, it holds old\.png"):
        export.make_export_folder(tmp_path / "new")
    with pytest.raises(UserError, match=r"old\.png: File exists"):
        export.make_export_folder(tmp_path / "new/old.png")


def test_wav_keeps_the_loudest_samples():
    samples = np.array([-1.0, 1 - 2**-15, 0], np.float32)
    sound, _ = soundfile.read(io.BytesIO(export.encode_wav(samples)), dtype="int16")
    assert sound.tolist() == [-(2**15), 2**15 - 1, 0]


def test_what_pairs_lack_is_named(tmp_path):
    lines = export.describe_export("self", 5, tmp_path, "sound", ["a", "b", "c", "d"])
    assert lines == [f"wrote 5 pairs of protocol self to {tmp_path}", "  without sound: a, b, c and 1 more"]
