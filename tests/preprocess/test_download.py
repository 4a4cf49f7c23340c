import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.engine.node import Rejected
from pipelines.preprocess.download import download
from storage.shards import encode_sample

REQUIRED = SimpleNamespace(data=SimpleNamespace(sound="required"))
OPTIONAL = SimpleNamespace(data=SimpleNamespace(sound="optional"))


def row_of(path, sha256=""):
    return {"id": "rec", "source": "folder", "uri": str(path), "sha256": sha256, "seed": 0, "spec": ""}


@pytest.fixture
def silent(tmp_path, helpers):
    return helpers.write_video(tmp_path / "silent.mp4", np.zeros((10, 48, 64, 3), np.uint8))


def test_a_file_is_copied_and_probed(face_video):
    data = face_video.read_bytes()
    (sample,) = download({"recordings": [row_of(face_video, hashlib.sha256(data).hexdigest())]}, REQUIRED, {})
    assert sample["__key__"] == "rec"
    assert sample["video"] == data
    assert sample["probe"]["frames"] == 75
    assert sample["truth"] == {}
    encode_sample(sample)  # every field has its codec


def test_sound_is_asked_for_or_not(silent):
    with pytest.raises(Rejected) as caught:
        download({"recordings": [row_of(silent)]}, REQUIRED, {})
    assert caught.value.code == "no_sound"
    (sample,) = download({"recordings": [row_of(silent)]}, OPTIONAL, {})
    assert sample["probe"]["audio_rate"] == 0


def test_a_recording_that_is_not_in_the_mirror_is_rejected():
    with pytest.raises(Rejected) as caught:
        download({"recordings": [row_of("")]}, REQUIRED, {})
    assert caught.value.code == "not_in_mirror"


def test_reject_sentences_do_not_depend_on_where_the_file_was_unpacked(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video at all")
    sentences = set()
    for _ in range(2):
        with pytest.raises(Rejected) as caught:
            download({"recordings": [row_of(tmp_path / "bad.mp4")]}, REQUIRED, {})
        sentences.add(caught.value.sentence)
    (sentence,) = sentences
    assert sentence.startswith("rec ")


def test_a_file_that_changed_since_it_was_listed_is_not_an_answer(silent):
    with pytest.raises(OSError, match="changed since it was listed"):
        download({"recordings": [row_of(silent, "0" * 64)]}, OPTIONAL, {})


def test_a_file_that_went_away_is_not_an_answer(tmp_path):
    with pytest.raises(FileNotFoundError):
        download({"recordings": [row_of(tmp_path / "gone.mp4")]}, OPTIONAL, {})


def test_synthetic_recordings_come_with_their_truth():
    from models.perception.morphable import analytic
    from pipelines.preprocess.sources.synthetic import SyntheticConfig, recordings

    row = recordings(SyntheticConfig(identities=1, test_identities=0, seconds=0.4))[0]
    (sample,) = download({"recordings": [row]}, REQUIRED, {"analytic_head": analytic()})
    assert sample["probe"]["frames"] == len(sample["truth"]["angles"]) == 10
