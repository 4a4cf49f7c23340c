"""The nets that `animate` sees and hears with."""

from pipelines.animate.perception import load_perception_nets, resolve_device
from storage.files import Store


def test_nets_are_parted_by_their_use(tmp_path):
    names = {"detector": "dlib_hog", "landmarker": "dlib68", "analytic_head": "analytic_head"}
    nets = load_perception_nets(names, Store(str(tmp_path)), "cpu")
    assert nets.detector.name == "dlib_hog"
    assert nets.landmarker is not None
    assert list(nets.others) == ["analytic_head"]


def test_without_a_landmarker_there_is_none(tmp_path):
    nets = load_perception_nets({"detector": "dlib_hog"}, Store(str(tmp_path)), "cpu")
    assert (nets.landmarker, dict(nets.others), nets.device) == (None, {}, "cpu")


def test_a_device_that_is_named_is_used():
    assert resolve_device("cpu") == "cpu"
