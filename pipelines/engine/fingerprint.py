"""What a node's key is made of, as named components, so that the difference of two keys can be told."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from pipelines.engine.keys import dict_difference, hash_json, lookup_setting, make_config_view, to_json_value
from pipelines.engine.node import Node
from pipelines.engine.setting_renames import SettingRenames
from pipelines.engine.source_code import ReachedSymbol, SourceSymbolIndex

KEY_SCHEME = 3
"""Raised when keys are made in another way: every key of the old kind is then another one."""

MISSING_WEIGHTS = "missing"
"""In the place of the sha256 of weights that are not at hand."""


class Fingerprint(Struct, frozen=True):
    """The components of one node's key, each a flat name -> value."""

    node: str
    config: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return hash_json(KEY_SCHEME, self)

    def same_but_code(self, other: Fingerprint) -> bool:
        return replace(self, code="") == replace(other, code="")


def compute_fingerprint_components(node: Node, config: Any, env: KeyEnvironment) -> Fingerprint:
    """All components of `node`'s own key (its upstreams come in later, by content)."""
    values: dict[str, Any] = dict(node.arguments)
    for path, actual in node.config.items():
        if actual == "runtime" or actual.startswith("runtime."):
            raise ValueError(f"node {node.name!r} declares {actual!r}: runtime settings never enter a key")
        values |= flatten_settings(lookup_setting(config, actual), path)
    if node.key_values:
        values = {
            path: node.key_values.get(value, value) if isinstance(value, str) else value
            for path, value in values.items()
        }
    if node.resumable_budget is not None:
        values.pop(node.resumable_budget)
    return Fingerprint(
        node=node.stage,
        config=dict(env.renamed.former(path, value) for path, value in values.items()),
        code=env.code.digest(list_code_entry_points(node, config, env.code)),
        weights={
            # what a node leaves out for want of weights is made once they are here
            name: env.weights(name)
            if node.missing_weights == "error" or env.has_weights(name)
            else MISSING_WEIGHTS
            for name in node.weights
        },
        tools={name: env.tool(name) for name in node.tools},
        packages={name: env.package(name) for name in node.packages},
        inputs=resolve_entry_point(node.inputs)(node_config(node, config)) if node.inputs else {},
    )


def node_config(node: Node, config: Any) -> Any:
    """What the node's function is given of the run's config."""
    declared = make_config_view(config, node.config)
    return lookup_setting(declared, node.section) if node.section else declared


def flatten_settings(value: Any, path: str) -> dict[str, Any]:
    """Dotted path -> plain value, for every setting below a path; an empty container is one. Those that were
    added later are left out where they say that nothing changed."""
    if isinstance(value, Struct):
        left_out = _not_in_key(value)
        parts = {n: getattr(value, n) for n in value.__struct_fields__ if n not in left_out}
    elif isinstance(value, Mapping):
        parts = {str(name): one for name, one in value.items()}
    else:
        return {path: to_json_value(value)}
    found = [leaf for part, one in parts.items() for leaf in flatten_settings(one, f"{path}.{part}").items()]
    return dict(found) if parts else {path: {}}


def _not_in_key(value: Struct) -> set[str]:
    """What two class variables of settings say, those of the base classes too.

    `not_in_key`: settings that name an instance of another stage, or only say which units are wanted.
    `as_before`: settings that were added later, each with the value that means what was done before there
    was one; at that value it is in no key.
    """
    classes = [vars(kind) for kind in type(value).__mro__]
    instances = {name for one in classes for name in one.get("not_in_key", ())}
    added = {name: before for one in reversed(classes) for name, before in one.get("as_before", {}).items()}
    same = {
        name for name, before in added.items() if to_json_value(getattr(value, name)) == to_json_value(before)
    }
    return instances | same


def list_code_entry_points(node: Node, config: Any, code: SourceSymbolIndex) -> list[str]:
    """Where the node's code starts: its function, the code it finds by name, the methods of its settings."""
    loaders = [use.loader for use in node.uses.values()]
    named = [node.run, *node.code, *loaders, *([node.inputs] if node.inputs else [])]
    kinds = {kind for path in node.config.values() for kind in _kinds(lookup_setting(config, path))}
    return [*named, *sorted(kind for kind in kinds if code.has_symbol(kind))]


def _kinds(value: Any) -> set[str]:
    """ "module:class" of each class of settings in a config value."""
    if isinstance(value, Struct):
        own = f"{type(value).__module__}:{type(value).__qualname__}"
        return {own}.union(*(_kinds(getattr(value, name)) for name in value.__struct_fields__))
    if isinstance(value, Mapping):
        return set().union(*map(_kinds, value.values()))
    return set().union(*map(_kinds, value)) if isinstance(value, (tuple, list)) else set()


def resolve_entry_point(entry: str) -> Callable[..., Any]:
    """ "module:function" -> the function."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


PACKAGE_NOT_INSTALLED = "not installed"


def package_version(name: str) -> str:
    """Of an installed package, or PACKAGE_NOT_INSTALLED. Read from the first lines of its metadata: to parse
    all of them, with the package's whole description, takes a tenth of a plan's time."""
    from importlib import metadata  # brings the whole package email, which a plan seldom needs

    try:
        text = metadata.distribution(name).read_text("METADATA") or ""
    except metadata.PackageNotFoundError:
        return PACKAGE_NOT_INSTALLED
    found = _VERSION.search(text)
    return found[1] if found else metadata.version(name)


_VERSION = re.compile(r"^Version: *(\S+)", re.MULTILINE)


def describe_key_difference(
    old: Fingerprint,
    new: Fingerprint,
    code: Sequence[str] = (),
    paths: Mapping[str, str] | None = None,
    renamed: SettingRenames = SettingRenames(),  # noqa: B008
) -> list[str]:
    """The difference of two keys in the user's words, most telling first. code: what `changed_symbols` says.
    paths: `Node.config`."""
    before, after = (settings_in_run(one.config, paths or {}, renamed) for one in (old, new))
    found = [
        f"config {name} {_short(was)} -> {_short(now)}" for name, was, now in dict_difference(before, after)
    ]
    found += [f"code {one}" for one in code] if old.code != new.code else []
    found += [f"weights {name}" for name, _, _ in dict_difference(old.weights, new.weights)]
    found += [f"tool {name} {was} -> {now}" for name, was, now in dict_difference(old.tools, new.tools)]
    found += [
        f"package {name} {was} -> {now}" for name, was, now in dict_difference(old.packages, new.packages)
    ]
    found += _input_reasons(old.inputs, new.inputs)
    return found


def settings_in_run(
    held: Mapping[str, Any], paths: Mapping[str, str], renamed: SettingRenames
) -> dict[str, Any]:
    """The settings that a key holds, by their paths in the run file and with its values. paths:
    `Node.config`."""
    todays = (renamed.current(name, value) for name, value in held.items())
    return {setting_path_in_run(name, paths): value for name, value in todays}


def setting_path_in_run(name: str, paths: Mapping[str, str]) -> str:
    """Where the run file has a setting of a node. paths: as the node reads it -> in the run."""
    for path, actual in paths.items():
        if name == path or name.startswith(f"{path}."):
            return f"{actual}{name.removeprefix(path)}"
    return name


def changed_symbols(old: Mapping[str, Sequence[str]], new: Mapping[str, ReachedSymbol]) -> list[str]:
    """Symbols that differ between two closures, each with what became of it; those that only moved to another
    file do not. old: symbol -> its own hash, and that of all it reaches (`describe_closure`).
    """
    gone, come = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    moved = {(_bare(name), old[name][0]) for name in gone} & {(_bare(name), new[name].own) for name in come}
    both = sorted(old.keys() & new.keys())
    found = [name for name in both if old[name][0] != new[name].own]
    found += [f"{name} (new)" for name in come if (_bare(name), new[name].own) not in moved]
    found += [f"{name} (gone)" for name in gone if (_bare(name), old[name][0]) not in moved]
    if found:
        return found
    return [
        f"{name} (a name in it means something else)" for name in both if old[name][1] != new[name].digest
    ]


def _bare(name: str) -> str:
    return name.rpartition(".")[2]


def describe_closure(closure: Mapping[str, ReachedSymbol]) -> dict[str, list[str]]:
    return {name: [one.own, one.digest] for name, one in closure.items()}


def _input_reasons(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    changes = dict_difference(old, new)
    kinds = {
        "new": [n for n, was, _ in changes if was is None],
        "gone": [n for n, _, now in changes if now is None],
        "changed": [n for n, was, now in changes if was is not None and now is not None],
    }
    total = max(len(old), len(new))
    return [
        f"{len(names)} of {total:,} inputs {kind}: {', '.join([*names[:3], *['...'] * bool(names[3:])])}"
        for kind, names in kinds.items()
        if names
    ]


def _short(value: Any) -> str:
    if value is None:
        return "(unset)"
    if isinstance(value, float):
        text = f"{value:g}"
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class KeyEnvironment(Struct, frozen=True):
    """What fingerprints look at outside the config: code, weights, tools."""

    code: SourceSymbolIndex
    weights: Callable[[str], str] = lambda name: "missing"
    """Weights id -> pinned sha256, or "missing"; a wheel's are pinned whether it is installed or not."""
    has_weights: Callable[[str], bool] = lambda name: True
    """Whether the file is at hand."""
    tool: Callable[[str], str] = lambda name: "missing"
    """Tool name -> version line."""
    package: Callable[[str], str] = field(default_factory=lambda: cache(package_version))
    """Distribution name -> version."""
    renamed: SettingRenames = field(default_factory=SettingRenames)
