"""What every command starts from."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.runs.session import open_session

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
