"""What every command has in common: errors with a meaning are one line."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from pipelines.cli.main import report_errors_in_one_line
from pipelines.errors import Transient, UserError
from storage.errors import StoreError


def command_that(error: Exception) -> click.Command:
    @click.command()
    @report_errors_in_one_line
    def fails() -> None:
        raise error

    return fails


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UserError("no such node"), 2, "error: no such node\n"),
        (StoreError("the disk is full"), 1, "error: the disk is full\n"),
        (Transient("no answer"), 1, "error: no answer\n"),
    ],
    ids=["user", "store", "transient"],
)
def test_an_error_with_a_meaning_is_one_line(error, code, lines):
    done = CliRunner().invoke(command_that(error))
    assert (done.exit_code, done.output) == (code, lines)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("a bug"), FileNotFoundError("a bug")])
def test_an_error_of_a_builtin_class_is_a_fault_and_keeps_its_traceback(error):
    done = CliRunner().invoke(command_that(error))
    assert done.exception is error
    assert done.exit_code == 1
