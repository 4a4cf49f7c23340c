"""The nets of validation's figures: loaded once, asked once of pictures that come again."""

import pickle

import numpy as np
import pytest

from pipelines.eval.features import MESH_LANDMARKS_FEATURE
from pipelines.train import validation_figures
from pipelines.train.validation_nets import MAX_REMEMBERED_FEATURES, ValidationNets
from storage.files import Store


def pictures(level):
    return np.full((2, 16, 16, 3), level, np.uint8)


@pytest.fixture
def counted(monkeypatch):
    """What was loaded, and of which pictures' level a feature was computed."""
    seen = {"loaded": [], "levels": []}

    def load(names, store, missing):
        seen["loaded"].append(names)
        return dict.fromkeys(names)

    def compute(shown, nets):
        seen["levels"].append(int(shown.max()))
        return {"angles": np.zeros((len(shown), 3))}

    monkeypatch.setattr("pipelines.nets.load_nets", load)
    monkeypatch.setitem(validation_figures.FIGURE_FEATURES, MESH_LANDMARKS_FEATURE, compute)
    return seen


def test_nets_are_loaded_once_and_asked_once_of_the_same_pictures(counted, tmp_path):
    nets = ValidationNets(Store(str(tmp_path)))
    for level in (1, 2, 1, 3, 1):
        nets(MESH_LANDMARKS_FEATURE, pictures(level))
    assert len(counted["loaded"]) == 1
    assert counted["levels"] == [1, 2, 3]


def test_what_is_remembered_has_a_bound_and_old_pictures_of_the_data_stay(counted, tmp_path):
    nets = ValidationNets(Store(str(tmp_path)))
    for level in range(1, 3 * MAX_REMEMBERED_FEATURES):
        nets(MESH_LANDMARKS_FEATURE, pictures(level))
        nets(MESH_LANDMARKS_FEATURE, pictures(0))
    assert len(nets._known) == MAX_REMEMBERED_FEATURES
    assert counted["levels"].count(0) == 1


def test_missing_weights_give_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.nets.load_nets", lambda names, store, missing: {})
    assert ValidationNets(Store(str(tmp_path)))(MESH_LANDMARKS_FEATURE, pictures(1)) is None


def test_they_travel_to_workers_unloaded(counted, tmp_path):
    nets = ValidationNets(Store(str(tmp_path)))
    nets(MESH_LANDMARKS_FEATURE, pictures(1))
    again = pickle.loads(pickle.dumps(nets))
    assert again.store.uri == nets.store.uri
    assert not again._nets
