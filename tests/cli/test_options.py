"""Options that several commands take."""

import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from pipelines.cli.options import PATH_PARAM_TYPE, HomePath, format_command


def test_a_path_behind_an_equals_sign_begins_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")

    @click.command()
    @click.option("--out", type=PATH_PARAM_TYPE)
    def write(out):
        click.echo(out)

    assert CliRunner().invoke(write, ["--out=~/x.mp4"]).output == "/home/ann/x.mp4\n"


def test_a_home_that_nobody_has_is_a_usage_error():
    done = CliRunner().invoke(main, ["graph", "x.yaml", "--svg=~no-such-user/g.svg"])
    assert done.exit_code == 2
    assert "no home folder is known for ~no-such-user" in done.output


def test_every_path_that_a_command_takes_begins_at_home():
    kinds = [p.type for one in every_command(main) for p in one.params if isinstance(p.type, click.Path)]
    assert len(kinds) > 15
    assert all(isinstance(kind, HomePath) for kind in kinds)


def every_command(group):
    for one in group.commands.values():
        yield from every_command(one) if isinstance(one, click.Group) else [one]


@pytest.mark.parametrize("path", ["my runs/a.yaml", "it's.yaml", "a;b.yaml"])
def test_a_command_about_a_run_file_can_be_pasted(path):
    words = ["reenact", "why", path, "clips", "--set", "data.main.folder.path=/videos/Take #2"]
    assert (
        shlex.split(format_command("why", Path(path), ["data.main.folder.path=/videos/Take #2"], "clips"))
        == words
    )
