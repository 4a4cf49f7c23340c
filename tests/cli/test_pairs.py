"""`reenact pairs` without a finished run; with one, see tests/e2e/test_external_frames.py."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.main import main

MICRO = str(Path(__file__).parents[1] / "e2e/micro.yaml")


@pytest.fixture
def run(tmp_path):
    def call(*arguments):
        words = ["pairs", MICRO, "--out", str(tmp_path / "out"), *arguments]
        return CliRunner().invoke(main, words, env={"REENACT_STORE": str(tmp_path / "store")})

    return call


def test_a_run_that_has_not_been_done_is_one_line_with_the_command(run, tmp_path):
    done = run("--set", "name=other")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert f"`reenact run {MICRO} --only pairs.self --set name=other`" in done.output
    assert not (tmp_path / "out").exists()


def test_a_protocol_that_the_run_lacks_is_one_line(run):
    done = run("--protocol", "cross")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "expected one of self" in done.output
