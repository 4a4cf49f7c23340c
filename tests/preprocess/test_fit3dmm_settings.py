"""Settings of fits name what exists, and read what they need."""

import pytest
from msgspec.structs import replace

from models.perception import NETS
from models.weights import THIRD_PARTY_WEIGHTS
from pipelines.config import CONFIGS_FOLDER, load_config
from pipelines.engine.fingerprint import flatten_settings
from pipelines.errors import UserError
from pipelines.graph import build_graph
from pipelines.preprocess.fit3dmm import Fit3dmmConfig
from storage.shards import FIELD_EXTENSIONS

OF_NETS = {"deca": "flame", "deep3d": "bfm_deep3d"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"identity": "frame"},
        {"backend": "algorithm1", "points": "landmarks3d"},
        {"backend": "algorithm1", "points": "dense"},
        {"backend": "deca", "model": "flame"},
        {"backend": "deep3d", "model": "bfm_deep3d"},
    ],
)
def test_settings_name_fields_nets_and_weights_that_exist(settings):
    config = Fit3dmmConfig(**settings)
    assert {w for net in config.nets for w in NETS[net].weights} <= set(THIRD_PARTY_WEIGHTS)
    assert set(config.nets) <= set(NETS)
    assert set(config.writes) <= set(FIELD_EXTENSIONS)
    assert {field for fields in config.reads.values() for field in fields} <= set(FIELD_EXTENSIONS)
    assert list(config.reads)[-1] == "keypoints"


@pytest.mark.parametrize("backend", ["landmarks", "deca", "deep3d"])
def test_the_node_reads_what_its_backend_needs(backend):
    fit = Fit3dmmConfig(backend=backend, model=OF_NETS.get(backend, "analytic_head"))
    node = build_graph(
        replace(
            load_config(CONFIGS_FOLDER / "run" / "demo.yaml", ["models=[fsrt]", "also=[fits.main]"]).config,
            fits={"main": fit},
        )
    )["fit3dmm.main"]
    assert ("clips" in node.reads) == (backend in OF_NETS)
    assert node.nets == fit.nets


@pytest.mark.parametrize(
    ("sets", "landmarker"),
    [(["perception.faces=dlib"], "dlib68"), (["keypoints.main.landmarker=fan2d"], "fan2d")],
)
def test_a_fit_to_points_that_the_landmarker_does_not_give_is_refused_before_anything_runs(sets, landmarker):
    run = load_config(
        CONFIGS_FOLDER / "run" / "headgan_official.yaml",
        ["data.main.voxceleb_csv.csv=a.csv", "data.main.voxceleb_csv.mirror=/a", *sets],
    )
    told = (
        f"fits.main.points dense: keypoints.main by {landmarker} has none; --set fits.main.points=landmarks"
    )
    with pytest.raises(UserError, match=told):
        build_graph(run.config)


@pytest.mark.parametrize(
    "bad",
    [
        {"noise": 0}, {"rounds": 0}, {"contour_weight": 2}, {"max_error": 0}, {"max_gap": -1},
        {"ridge": -1.0}, {"smooth_sigma": 0}, {"smooth_beta": -1}, {"backend": "deca"},
        {"backend": "deep3d", "model": "flame"}, {"points": "landmarks3d"},
        {"eyelid_weight": -1.0},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        Fit3dmmConfig(**bad)


def test_a_say_of_the_eyelids_as_before_it_was_a_setting_is_in_no_key():
    assert "fit.eyelid_weight" not in flatten_settings(Fit3dmmConfig(eyelid_weight=1.0), "fit")
    assert flatten_settings(Fit3dmmConfig(eyelid_weight=3.0), "fit")["fit.eyelid_weight"] == 3
