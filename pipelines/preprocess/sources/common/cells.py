"""Cells of tables, as people, spreadsheets and pandas write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import UserError

EMPTY_CELLS = ("nan", "NaN", "None", "NULL", "<NA>")
"""What an empty cell becomes where programs write it as text."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_INTEGER_AS_FLOAT = re.compile(r"([0-9]+)\.0*")
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def parse_number_cell(text: str) -> float:
    """A finite number; ValueError, with what was found, for other text."""
    text = text.strip()
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is not a number")
    return value


def parse_integer_cell(text: str) -> int:
    """Also one that is written as a float: pandas writes whole numbers as 3657.0 where a cell of their column
    was empty."""
    value = parse_number_cell(text)
    if not value.is_integer():
        raise ValueError(f"{text.strip()[:40]!r} is not a whole number")
    return int(value)


def parse_name_cell(text: str) -> str:
    """A cell that names somebody or something; a number that pandas wrote as a float is that number."""
    found = _INTEGER_AS_FLOAT.fullmatch(text.strip())
    return found[1] if found else text.strip()


def split_csv_line(text: str) -> list[str]:
    """The cells of a line. A quote that is not closed must not swallow the lines after it, and none of the
    published tables has a comma in a cell."""
    return [cell.strip().strip('"').strip() for cell in text.split(",")]


def check_columns(path: Path, found: Sequence[str], expected: Sequence[str]) -> None:
    """UserError, with what was found, where columns are missing or something else than commas parts them."""
    missing = [column for column in expected if column not in found]
    if missing:
        check_comma_separator(path, ",".join(found))
        raise UserError(f"{path}: no column {', '.join(missing)}; found {', '.join(found)}"[:500])


def check_comma_separator(path: Path, line: str) -> None:
    """UserError where a line of a table has no comma but another separator."""
    other = next((sep for sep in _OTHER_SEPARATORS if sep in line), None)
    if other is not None and line.count(other) > line.count(","):
        raise UserError(
            f"{path}: {_OTHER_SEPARATORS[other]} part the columns, expected commas; save it with commas"
        )
