"""What a checkpoint says of itself, checked before anything is built of it: the file may come from anyone."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from models.errors import InvalidFile

MAX_PARTS, MAX_TEXT_LENGTH = 100, 200
"""Parts whose provenance a checkpoint states, and characters of each text."""
MAX_QUOTED_CHARACTERS = 1000
"""Characters that a message repeats of a file."""
JSON_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}

T = TypeVar("T")


def parse_checkpoint_settings(kind: type[T], described: object, name: str) -> T:
    """Parsed JSON -> a struct whose fields are of KINDS, choices, tuples, such structs, or one of these or
    None. What is left out keeps its default. name: for errors.

    Raises InvalidFile naming a setting that is unknown, of another type or no choice; the struct may
    refuse its value too.
    """
    if not isinstance(described, Mapping):
        raise InvalidFile(f"{name}: found {reprlib.repr(described)}, expected an object of settings")
    hints = get_type_hints(kind)
    if unknown := [one for one in described if one not in hints]:
        raise InvalidFile(f"{name}: unknown {reprlib.repr(unknown[0])}; known: {', '.join(hints)}")
    values = {one: _parse_value(hints[one], value, f"{name}.{one}") for one, value in described.items()}
    try:
        return kind(**values)
    except ValueError as error:  # how a struct refuses a value
        raise InvalidFile(str(error)) from error


def _parse_value(kind: Any, value: Any, name: str) -> Any:
    """JSON has no tuples; all else must be as it is."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return parse_checkpoint_settings(kind, value, name)
    if get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        return tuple(_parse_value(get_args(kind)[0], one, name) for one in value)
    if get_origin(kind) in (Union, UnionType):  # of one kind and None
        return None if value is None else _parse_value(get_args(kind)[0], value, name)
    if get_origin(kind) is Literal:
        fits, expected = value in get_args(kind), f"one of {', '.join(get_args(kind))}"
    elif kind is float:  # NaN is not at most anything
        fits, expected = type(value) in (int, float) and abs(value) <= sys.float_info.max, "a finite number"
    else:
        fits, expected = type(value) is kind, JSON_TYPE_NAMES.get(kind, "a list")
    if not fits:
        raise InvalidFile(f"{name} {reprlib.repr(value)}: expected {expected}")
    return value


def parse_provenance(about: Mapping[str, Any]) -> dict[str, str]:
    """`provenance` of a checkpoint's metadata: part of the net -> whose weights it carries, for people.

    Raises InvalidFile where they are missing, or other than short printable texts."""
    found = about.get("provenance")
    if not isinstance(found, Mapping) or len(found) > MAX_PARTS:
        raise InvalidFile(
            f"provenance {reprlib.repr(found)}: expected an object of at most {MAX_PARTS} texts"
        )
    for text in (one for pair in found.items() for one in pair):
        if not isinstance(text, str) or not text.isprintable() or len(text) > MAX_TEXT_LENGTH:
            raise InvalidFile(
                f"provenance: found {reprlib.repr(text)}, expected printable texts of at most "
                f"{MAX_TEXT_LENGTH} "
                "characters"
            )
    return dict(found)


def printable_text(text: object) -> str:
    """For an error: without what would steer a terminal, and cut where it is long."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[:MAX_QUOTED_CHARACTERS])
