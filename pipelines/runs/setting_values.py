"""Settings from YAML and `--set` as objects of their classes, or one line that says what is wrong.

A class of settings is a frozen msgspec.Struct, which takes a thirtieth of the time of a dataclass to define:
a plan defines a hundred. msgspec makes the objects; it reads a text as a number where one is
wanted. The texts of a command line need a little more: `parse_setting_value`.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import msgspec
import yaml

from storage.errors import InvalidInput
from storage.uris import ExpandedPath, expand_home

Settings = TypeVar("Settings")


class SettingError(Exception):
    """A setting that cannot be used.

    path: of the setting, dotted. reason: what was found and expected.
    """

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


def convert_settings(tree: Any, kind: type[Settings]) -> Settings:
    """The tree as an object of this class. Raises SettingError for the first value that does not fit."""
    try:
        return msgspec.convert(tree, kind, strict=False)
    except msgspec.ValidationError as error:
        path, reason = _fault(tree, kind, error)
        raise SettingError(".".join(path), reason) from None


def _fault(value: Any, kind: Any, error: msgspec.ValidationError) -> tuple[list[str], str]:
    """Path and reason of the innermost value that does not fit: msgspec leaves out keys and found values."""
    for name, inner, inner_kind in _parts(value, kind):
        try:
            msgspec.convert(inner, inner_kind, strict=False)
        except msgspec.ValidationError as inner_error:
            path, reason = _fault(inner, inner_kind, inner_error)
            return [name, *path], reason
    if error.__cause__ is not None:  # raised by the class itself
        return [], str(error.__cause__)
    return [], f"expected {' or '.join(sorted(_expected(kind)))}, found {value!r}"


def _parts(value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and type of what lies directly below a value."""
    for one in _alternatives(kind):
        if is_settings_class(one) and isinstance(value, Mapping):
            known = setting_names(one)
            yield from (
                (name, inner, setting_type(one, name)) for name, inner in value.items() if name in known
            )
        elif typing.get_origin(one) is dict and isinstance(value, Mapping):
            yield from ((str(name), inner, typing.get_args(one)[1]) for name, inner in value.items())
        elif typing.get_origin(one) is tuple and isinstance(value, (list, tuple)):
            yield from ((str(i), inner, typing.get_args(one)[0]) for i, inner in enumerate(value))


def _expected(kind: Any) -> Iterator[str]:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    for one in _alternatives(kind):
        if typing.get_origin(one) is typing.Literal:
            yield "one of " + ", ".join(repr(choice) for choice in typing.get_args(one))
        elif typing.get_origin(one) is tuple:
            yield "a list"
        elif one is not type(None):
            yield words.get(one, "a mapping of settings")


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The types that a value may have; of an annotated type the type alone."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return tuple(inner for one in typing.get_args(kind) for inner in _alternatives(one))
    return (typing.get_args(kind)[0],) if typing.get_origin(kind) is typing.Annotated else (kind,)


def setting_names(kind: Any) -> Iterable[str]:
    """The settings of a class."""
    return kind.__struct_fields__


def is_settings_class(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


@cache
def setting_type(kind: type, name: str) -> Any:
    """The type of one setting of a class. Python's get_type_hints evaluates those of all its settings, which
    would take a tenth of the time of `plan`. What is evaluated is an annotation of our own source, and never
    a text of a user."""
    home = next(one for one in kind.__mro__ if name in vars(one).get("__annotations__", {}))
    annotation = vars(home)["__annotations__"][name]
    return eval(annotation, vars(sys.modules[home.__module__])) if isinstance(annotation, str) else annotation


class UniqueKeyLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # pyright: ignore
    """Refuses a key given twice, which plain YAML lets the last one win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable) or name in seen:
                problem = "is given twice" if isinstance(name, Hashable) else "is no text"
                message = f"key {name!r} {problem}"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def expand_home_paths(tree: Any, kind: Any, path: str = "") -> Any:
    """The tree with ~ expanded in the settings that are paths. Raises SettingError where there is no such
    home."""
    if isinstance(tree, str):
        if ExpandedPath not in (kind, *typing.get_args(kind)):
            return tree
        try:
            return expand_home(tree)
        except InvalidInput as error:
            raise SettingError(path, str(error)) from None
    below = {
        name: expand_home_paths(inner, one, f"{path}.{name}".lstrip("."))
        for name, inner, one in _parts(tree, kind)
    }
    if isinstance(tree, Mapping):
        return {**tree, **below}
    return [below[str(i)] for i in range(len(below))] if below else tree


# --- texts of a command line -------------------------------------------------------------------------------
_ON, _OFF = ("1", "on", "true", "yes"), ("0", "off", "false", "no")
_SWITCHES: dict[str, bool] = {word: word in _ON for word in (*_ON, *_OFF)}


def parse_setting_value(kind: Any, path: str, text: str) -> Any:
    """What was typed, as a value of its setting's type: a text where that is one, of an unknown setting too.
    Raises SettingError for brackets that are no YAML list or mapping."""
    kinds = _types_at(kind, path.split("."))
    mapping = text.lstrip().startswith("{") and any(typing.get_origin(one) is dict for one in kinds)
    if str in kinds and not mapping and not (text in ("", "null") and type(None) in kinds):
        return text
    if text in ("", "null") and type(None) in kinds:
        return None
    if text.lstrip().startswith(("[", "{")):
        try:
            return yaml.load(text, Loader=UniqueKeyLoader)
        except (yaml.YAMLError, ValueError):  # ValueError: of a date that no calendar has
            raise SettingError(path, f"{text!r} is not a YAML list or mapping") from None
    if bool in kinds:
        return _SWITCHES.get(text.strip().lower(), text)
    for number in (one for one in (int, float) if kinds & {int, float}):
        with suppress(ValueError):  # a setting of whole numbers takes 2e5 as well
            return number(text)
    return text


def _types_at(kind: Any, path: Sequence[str]) -> set[Any]:
    """The types that the setting at this path may have, str and int and so on; of an unknown one none."""
    found: set[Any] = set()
    for one in _alternatives(kind):
        if not path:
            found.add(one)
        elif is_settings_class(one):
            found |= (
                _types_at(setting_type(one, path[0]), path[1:]) if path[0] in setting_names(one) else set()
            )
        elif typing.get_origin(one) is dict:
            found |= _types_at(typing.get_args(one)[1], path[1:])
    return found
