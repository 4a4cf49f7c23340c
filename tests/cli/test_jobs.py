"""Commands about jobs of a cluster that is not there."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.main import main

DEMO = str(Path(__file__).parents[2] / "configs/run/demo.yaml")


@pytest.fixture
def closed():
    """An address at which nothing listens."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{place.getsockname()[1]}"


def test_a_node_that_is_not_in_the_graph_is_a_mistake_before_a_job_is_sent(closed):
    done = CliRunner().invoke(main, ["submit", DEMO, "--address", closed, "--only", "clip"])
    assert done.exit_code == 2
    assert "no node 'clip'; the nodes are recordings, download, clips" in done.output


@pytest.mark.parametrize("words", [["jobs"], ["stop", "raysubmit_a1b2"], ["logs", "raysubmit_a1b2"]])
def test_a_cluster_that_is_not_there_is_one_line(closed, words):
    done = CliRunner().invoke(main, [*words, "--address", closed])
    assert done.exit_code in (1, 2)
    assert done.output.count("\n") == 1, done.output
    assert closed in done.output
