"""Arguments and options that several commands take."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from storage.errors import InvalidInput
from storage.uris import expand_home


class HomePath(click.Path):
    """A path whose ~ is expanded: shells leave that of --out=~/x.mp4 as it is."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(expand_home(str(value)), param, ctx)
        except InvalidInput as error:
            self.fail(str(error), param, ctx)


def format_command(name: str, run_file: Path, sets: Iterable[str], *words: str) -> str:
    """A command about a run file, with its --set options, to be pasted into a shell."""
    options = [word for text in sets for word in ("--set", text)]
    return shlex.join(["reenact", name, str(run_file), *words, *options])


PATH_PARAM_TYPE = HomePath(path_type=Path)
STORE_OPTION = click.option("--store", default=".reenact/store", envvar="REENACT_STORE", show_default=True,
                     help="Store folder or URI.")  # fmt: skip
RUN_FILE_ARGUMENT = click.argument("run_file", type=PATH_PARAM_TYPE, metavar="RUN.yaml")
SET_OPTION = click.option("--set", "sets", multiple=True, metavar="A.B=VALUE",
                    help="Change one setting (repeatable).")  # fmt: skip
LIMIT_OPTION = click.option(
    "--limit", type=int, help="Only the first N recordings (of each corpus; same as --set data.*.limit=N)."
)
ONLY_OPTION = click.option("--only", multiple=True, metavar="NODE",
                    help="This node and what it needs (repeatable).")  # fmt: skip
FORCE_OPTION = click.option("--force", multiple=True, metavar="NODE",
                     help="Run this node even if it is cached (repeatable).")  # fmt: skip
KEEP_GOING_OPTION = click.option("--keep-going", is_flag=True,
                          help="After a failure, still run what does not depend on it.")  # fmt: skip
RAY_DASHBOARD_ADDRESS_OPTION = click.option(
    "--address", default="http://127.0.0.1:8265", envvar="RAY_JOBS_ADDRESS", show_default=True,
    help="Ray dashboard, where jobs are submitted.",
)  # fmt: skip


def add_data_limit_setting(sets: tuple[str, ...], limit: int | None) -> tuple[str, ...]:
    return sets if limit is None else (*sets, f"data.*.limit={limit}")


P = ParamSpec("P")
R = TypeVar("R")


def add_help_example(text: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Appends an example to a command's help."""

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:\n  {text}"
        return function

    return mark
