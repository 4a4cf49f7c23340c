"""Arguments and options that several commands take."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from storage.errors import InvalidInput
from storage.uris import expand_home


class HomePath(click.Path):
    """A path whose ~ is expanded: shells leave that of --out=~/x.mp4 as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(expand_home(str(value)), param, ctx)
        except InvalidInput as error:
            self.fail(str(error), param, ctx)


def command(name: str, run_file: Path, sets: Iterable[str], *words: str) -> str:
    """A command about a run file, with its --set options, to be pasted into a shell."""
    options = [word for text in sets for word in ("--set", text)]
    return shlex.join(["reenact", name, str(run_file), *words, *options])


FILE = HomePath(path_type=Path)
STORE = click.option("--store", default=".reenact/store", envvar="REENACT_STORE", show_default=True,
                     help="Store folder or URI.")  # fmt: skip
