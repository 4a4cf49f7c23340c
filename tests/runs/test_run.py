"""What a run refuses before any work, and before Ray starts."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.runs.run import Console, run_pipeline

DEMO = Path(__file__).parents[2] / "configs/run/demo.yaml"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))

    def run(*sets, **options):
        return run_pipeline(DEMO, sets, Console([].append, [].append), **options)

    return run


def test_a_run_without_the_split_that_it_needs_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"the test split is empty, and pairs\..* needs it"):
        run("data.main.synthetic.test_identities=0")
    assert not (tmp_path / "store").exists()


def test_a_node_that_is_not_in_the_graph_is_refused_with_those_that_are(run):
    with pytest.raises(UserError, match="no node 'clip'; the nodes are recordings, download, clips"):
        run(only=["clip"])
