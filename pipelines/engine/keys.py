"""Hashes, and the view that lets a node read exactly the config in its key."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class UndeclaredConfigError(Exception):
    """A node's code read a config value that is not in its key."""


def to_json_value(value: Any) -> Any:
    """Structs and tuples to dicts and lists; refuses what JSON cannot say exactly."""
    if value is None or isinstance(value, (str, bool, int)):  # most are: asked first
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be part of a key")
        return value
    if isinstance(value, Mapping):
        return {str(k): to_json_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(v) for v in value]
    if isinstance(value, Struct):
        return {name: to_json_value(getattr(value, name)) for name in value.__struct_fields__}
    raise TypeError(f"{type(value).__name__} cannot be part of a key")


def hash_json(*parts: Any) -> str:
    """32 hex digits over canonical JSON: sorted keys, ints and floats distinct, floats by repr."""
    plain = to_json_value(parts)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def lookup_setting(root: Any, path: str) -> Any:
    """The value at a dotted path through structs and mappings."""
    value = root
    for i, part in enumerate(parts := path.split(".")):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, (DeclaredConfigView, Struct)) and hasattr(value, part):
            value = getattr(value, part)
        else:
            above = ".".join(parts[:i]) or "the root"
            raise ValueError(f"no config {path!r}: nothing named {part!r} under {above}")
    return value


def flatten_leaves(value: Any, prefix: str) -> dict[str, Any]:
    """Dotted path -> plain value, for every leaf under a config value; an empty container is a leaf."""
    value = to_json_value(value)
    if isinstance(value, dict) and value:
        return {
            path: leaf for k, v in value.items() for path, leaf in flatten_leaves(v, f"{prefix}.{k}").items()
        }
    return {prefix: value}


class DeclaredConfigView:
    """Attribute access to the settings that a node declares; reading any other is an error."""

    __slots__ = ("_declared", "_tree")

    def __init__(self, tree: Mapping[str, Any], declared: str):
        object.__setattr__(self, "_tree", tree)
        object.__setattr__(self, "_declared", declared)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle probe for these
            raise AttributeError(name)
        if name not in self._tree:
            raise UndeclaredConfigError(
                f"config {name!r} is read but not declared (declared: {self._declared or 'nothing'}); "
                "add it to the node's `config` in pipelines/graph.py"
            )
        value = self._tree[name]
        return DeclaredConfigView(value, self._declared) if isinstance(value, DeclaredSettings) else value

    __getitem__ = __getattr__  # a dict of settings, as in phases["warmup"]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"config is frozen: {name} cannot be set")

    def __reduce__(self):
        return (DeclaredConfigView, (self._tree, self._declared))


class DeclaredSettings(dict[str, Any]):
    """Settings of which only some are declared."""


def make_config_view(config: Any, declared: Mapping[str, str]) -> DeclaredConfigView:
    """declared: path as the node reads it -> path in `config`."""
    tree = DeclaredSettings()
    for path, actual in declared.items():
        *above, last = path.split(".")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, DeclaredSettings())
        branch[last] = lookup_setting(config, actual)
    return DeclaredConfigView(tree, ", ".join(declared))


def dict_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, old, new) for every entry that differs; absent = None."""
    names = sorted({*old, *new})
    return [(n, old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)]
