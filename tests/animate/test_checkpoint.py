"""The trained model that a run file names."""

from pathlib import Path

import pytest

from pipelines.animate import checkpoint as checkpoints
from pipelines.errors import UserError
from storage.files import Store


def test_a_run_gives_its_last_trained_phase_and_its_way_of_cropping(
    checkpoint, tmp_path, monkeypatch, messages
):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    run = Path(__file__).parents[2] / "configs" / "run" / "demo.yaml"
    with pytest.raises(UserError, match=r"no phase of fsrt .*reenact run"):
        checkpoints.model_source_from_run(run, (), None, messages.append)
    folder = tmp_path / "store" / "whole" / "train.fsrt.warmup" / f"{'a' * 32}-000000006"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(checkpoint.read_bytes())
    (folder / "record.json").write_text("{}")
    found = checkpoints.model_source_from_run(run, ("clips.margin=0.2",), None, messages.append)
    assert found.files[""] == folder / "model.safetensors"
    assert (found.clips.margin, found.clips.size) == (0.2, 128)
    assert "trained with other settings" in messages[0]
    assert found.load("cpu", "fp32").provenance == {"net": "untrained"}


def test_a_model_without_a_run_sees_faces_by_dlib_where_it_is_told_to(checkpoint, tmp_path, messages):
    store = Store(str(tmp_path))
    found = checkpoints.model_source_from_checkpoint(checkpoint, None, store, messages.append)
    assert (found.clips.detector, found.landmarker) == ("mp_face", "mesh468_iris")
    assert checkpoints.apply_face_net_settings(found, [], store) == found
    assert checkpoints.apply_face_net_settings(found, ["perception.faces=mediapipe"], store) == found
    on_dlib = checkpoints.apply_face_net_settings(found, ["perception.faces=dlib"], store)
    assert (on_dlib.clips.detector, on_dlib.landmarker) == ("dlib_hog", "dlib68")
    for text in ("clips.margin=0.2", "perception.faces=opencv"):
        with pytest.raises(UserError, match=f"--set {text}: without --run there is only perception.faces"):
            checkpoints.apply_face_net_settings(found, [text], store)
