import hashlib
import json

import numpy as np
import pytest
from msgspec.structs import replace

from pipelines.config import CONFIGS_FOLDER, load_config
from pipelines.errors import UserError
from pipelines.graph import build_graph
from pipelines.preprocess.speech import SpeechFeaturesConfig, digest_external_files, encode_speech
from pipelines.preprocess.transcripts import read_character_onsets, read_transcripts
from tests.video_files import RUNTIME

SAID = {"talk": [["h", 1.0], ["i", 1.2], [" ", 1.4], ["y", 5.0]], "other": []}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "said.json"
    file.write_text(json.dumps(SAID))
    return str(file)


def encode(clip, **settings):
    config = SpeechFeaturesConfig(encoder="headgan", **settings)
    return next(iter(encode_speech({"clips": [clip]}, config, {}, RUNTIME)))["speech"]


def clip(start=25, frames=40, recording="talk", has_sound=True):
    sound = np.random.default_rng(0).normal(size=frames * 640).astype(np.float32) * 0.1
    about = {"recording": recording, "start": start, "frames": frames, "has_sound": has_sound}
    return {"__key__": "a#r#000000#000010", "sound": sound, "clip": about}


def letters(speech):
    """(T,8) classes."""
    return speech[:, 84:].reshape(len(speech), 8, 27).argmax(2)


def test_a_clip_has_its_own_part_of_the_recording_in_its_own_time(path):
    found = read_character_onsets(path, "talk", 1.1, 1.0)
    assert [token.character for token in found] == ["h", "i", " "]
    np.testing.assert_allclose([token.start for token in found], [-0.1, 0.1, 0.3])


def test_characters_reach_the_frames_in_which_they_are_said(path):
    """The clip begins a second in, so that h fills frames 0 to 4 and i frames 5 to 9."""
    found = letters(encode(clip(), transcripts=path))
    assert found[2, 2:6].tolist() == [7] * 4  # frames 0.5 to 4.5
    assert set(found[20]) == {26}
    # the nearest characters of a window lie half a frame on either side of the frame's middle
    assert (found[7, 3], found[7, 4]) == (8, 8)


def test_a_recording_that_is_not_in_the_file_says_nothing(path):
    assert (letters(encode(clip(recording="third"), transcripts=path)) == 26).all()
    assert (letters(encode(clip())) == 26).all()


def test_a_clip_without_sound_has_zero_features(path):
    found = encode(clip(has_sound=False), transcripts=path)
    assert found.shape == (40, 300)
    assert (found == 0).all()


def test_labels_say_where_the_characters_come_from(path):
    assert SpeechFeaturesConfig(encoder="headgan").tokens == "none"
    assert SpeechFeaturesConfig(encoder="headgan", transcripts=path).tokens == "transcripts"


def test_the_file_s_content_is_in_the_key_of_speech(path, tmp_path):
    speech = SpeechFeaturesConfig(encoder="headgan", transcripts=path)
    assert digest_external_files(speech) == {
        "transcripts": hashlib.sha256(json.dumps(SAID).encode()).hexdigest()
    }
    assert digest_external_files(SpeechFeaturesConfig()) == {}
    assert (
        build_graph(
            replace(load_config(CONFIGS_FOLDER / "run" / "demo.yaml").config, speech={"main": speech})
        )["speech.main"].nets
        == ()
    )


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"speech\.NAME\.transcripts '/nowhere/said\.json' is not a file"):
        digest_external_files(SpeechFeaturesConfig(encoder="headgan", transcripts="/nowhere/said.json"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no JSON"),
        ("[]", "found list, expected recording id"),
        ('{"talk": 3}', r"talk, token 0 is 3; expected \[one character, seconds\]"),
        ('{"talk": [["hi", 1]]}', r'token 0 is \["hi", 1\]'),
        ('{"talk": [["h", 1], ["i", NaN]]}', "token 1 is"),
        ('{"talk": [["h", 1], ["i", 0.5]]}', "token 1 is .* in order of time"),
        ('{"talk": [["h", true]]}', "token 0 is"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, told):
    file = tmp_path / "said.json"
    file.write_text(content)
    with pytest.raises(UserError, match=told):
        read_transcripts(str(file))


def test_other_encoders_read_no_transcript():
    with pytest.raises(ValueError, match="encoder log_mel reads none"):
        SpeechFeaturesConfig(transcripts="said.json")
