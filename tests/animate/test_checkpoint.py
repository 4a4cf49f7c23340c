"""The trained model that a run file names."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from pipelines.animate import checkpoint as checkpoints
from pipelines.animate.render import AnimateOptions, required_perception_nets
from pipelines.config import load_config
from pipelines.errors import UserError
from storage.files import Store
from tests.animate.stand_ins import ABOUT


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


def test_the_best_weights_are_animated_where_the_run_asks_for_them_and_there_are_any(
    checkpoint, tmp_path, monkeypatch, messages
):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    run = Path(__file__).parents[2] / "configs" / "run" / "demo.yaml"
    folder = tmp_path / "store" / "whole" / "train.fsrt.warmup" / f"{'a' * 32}-000000006"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "best.safetensors"):
        (folder / name).write_bytes(checkpoint.read_bytes())
    (folder / "record.json").write_text("{}")

    def used() -> str:
        found = checkpoints.model_source_from_run(run, ("eval.checkpoint=best",), None, messages.append)
        return found.files[""].name

    assert used() == "best.safetensors"
    assert not [text for text in messages if "no best weights" in text]
    (folder / "best.safetensors").unlink()
    assert used() == "model.safetensors"
    assert [text for text in messages if "train.fsrt.warmup kept no best weights" in text]


def test_a_model_without_a_run_sees_faces_by_dlib_where_it_is_told_to(checkpoint, tmp_path, messages):
    store = Store(str(tmp_path))
    found = checkpoints.model_source_from_checkpoint(checkpoint, None, store, messages.append)
    assert (found.clips.detector, found.landmarker) == ("mp_face", "mesh468_iris")
    assert checkpoints.apply_settings_without_run(found, [], store) == found
    assert checkpoints.apply_settings_without_run(found, ["perception.faces=mediapipe"], store) == found
    on_dlib = checkpoints.apply_settings_without_run(found, ["perception.faces=dlib"], store)
    assert (on_dlib.clips.detector, on_dlib.landmarker) == ("dlib_hog", "dlib68")
    for text in ("clips.margin=0.2", "perception.faces=opencv"):
        with pytest.raises(UserError, match=f"--set {text}: without --run there is only perception.faces"):
            checkpoints.apply_settings_without_run(found, [text], store)


# --- HeadGAN: head and fitter -------------------------------------------------------------------------------
@pytest.fixture
def recorded(headgan_state, tmp_path):
    """A checkpoint of the tiny HeadGAN that learned from Algorithm 1 on the mesh's points."""

    def saved(**more):
        about = ABOUT | {"fit3dmm": {"backend": "algorithm1", "points": "dense"},
                         "keypoints": {"landmarker": "mesh468"}} | more  # fmt: skip
        save_file(headgan_state, tmp_path / "m.safetensors", metadata={"reenact": json.dumps(about)})
        return tmp_path / "m.safetensors"

    return saved


def test_a_checkpoint_brings_its_landmarker_and_its_fits(recorded, tmp_path, messages):
    found = checkpoints.model_source_from_checkpoint(recorded(), None, Store(str(tmp_path)), messages.append)
    assert found.landmarker == "mesh468"
    made = found.load("cpu", "fp32")
    assert (made.fit_settings.backend, made.fit_settings.points, made.notes) == ("algorithm1", "dense", [])
    needed = required_perception_nets(made, AnimateOptions(), found.landmarker)
    assert needed["landmarker"] == "mesh468"


def test_dlibs_points_do_not_drive_what_learned_from_a_mesh(recorded, tmp_path, messages):
    store = Store(str(tmp_path))
    found = checkpoints.model_source_from_checkpoint(recorded(), None, store, messages.append)
    on_dlib = checkpoints.apply_settings_without_run(found, ["perception.faces=dlib"], store)
    with pytest.raises(
        UserError, match="fitted to points dense, and landmarker dlib68 gives none; those do: me"
    ):
        required_perception_nets(on_dlib.load("cpu", "fp32"), AnimateOptions(), on_dlib.landmarker)


def test_a_landmarker_that_nobody_knows_is_an_error(recorded, tmp_path, messages):
    path = recorded(keypoints={"landmarker": "os.system"})
    with pytest.raises(
        UserError, match=r"landmarker 'os\.system': expected one of mesh468_iris, mesh468, dlib68"
    ):
        checkpoints.model_source_from_checkpoint(path, None, Store(str(tmp_path)), messages.append)


@pytest.mark.parametrize(
    ("record", "limit"), [({}, None), ({"max_slip": 0.0}, 0.0), ({"max_slip": 0.2}, 0.2)]
)
def test_a_checkpoint_brings_the_slip_limit_of_its_landmarks(recorded, tmp_path, messages, record, limit):
    """None: it is older than the limit, or had the landmarker's own."""
    path, store = recorded(keypoints={"landmarker": "mesh468"} | record), Store(str(tmp_path))
    found = checkpoints.model_source_from_checkpoint(path, None, store, messages.append)
    assert found.max_slip == limit
    found.load("cpu", "fp32")
    on_dlib = checkpoints.apply_settings_without_run(found, ["perception.faces=dlib"], store)
    assert on_dlib.max_slip == (0.0 if limit == 0 else None)


@pytest.mark.parametrize("limit", [-1.0, "0.1", True, {}])
def test_a_slip_limit_that_cannot_be_is_an_error(recorded, tmp_path, messages, limit):
    path = recorded(keypoints={"landmarker": "mesh468", "max_slip": limit})
    with pytest.raises(UserError, match=r"m\.safetensors: keypoints: .*max_slip"):
        checkpoints.model_source_from_checkpoint(path, None, Store(str(tmp_path)), messages.append)


def test_a_run_brings_the_slip_limit_of_a_model_that_records_none(
    checkpoint, tmp_path, monkeypatch, messages
):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    run = Path(__file__).parents[2] / "configs" / "run" / "demo.yaml"
    folder = tmp_path / "store" / "whole" / "train.fsrt.warmup" / f"{'a' * 32}-000000006"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(checkpoint.read_bytes())
    (folder / "record.json").write_text("{}")
    sets = [f"keypoints.{name}.max_slip=0.3" for name in load_config(run).config.keypoints]
    assert checkpoints.model_source_from_run(run, sets, None, messages.append).max_slip == 0.3


def test_a_head_is_chosen_by_name_and_its_lack_names_the_option(recorded, tmp_path, messages):
    store, path = Store(str(tmp_path)), recorded(head="lsfm")
    found = checkpoints.model_source_from_checkpoint(path, None, store, messages.append)
    made = found.load("cpu", "fp32")
    told = (
        r"draws head lsfm: weights lsfm .* are missing: .*; or --set headgan.head=analytic_head draws another"
    )
    with pytest.raises(UserError, match=told):
        checkpoints.check_chosen_nets(found, made)
    by_name = checkpoints.apply_settings_without_run(found, ["headgan.head=analytic_head"], store)
    made = by_name.load("cpu", "fp32")
    checkpoints.check_chosen_nets(by_name, made)
    assert made.nets == ("analytic_head",)
    assert made.provenance["head"] == "analytic_head"
    with pytest.raises(
        UserError, match=r"--set headgan.head=medusa: without --run there is only .* headgan.head="
    ):
        checkpoints.apply_settings_without_run(found, ["headgan.head=medusa"], store)


def test_a_model_without_a_record_says_its_default_once(headgan_state, tmp_path, messages):
    save_file(headgan_state, tmp_path / "m.safetensors", metadata={"reenact": json.dumps(ABOUT)})
    found = checkpoints.model_source_from_checkpoint(
        tmp_path / "m.safetensors", None, Store(str(tmp_path)), messages.append
    )
    (note,) = found.load("cpu", "fp32").notes
    assert note.startswith("this checkpoint does not record how faces were fitted: by default, 68 landmarks")
    assert not any("fitted" in line for line in messages)
