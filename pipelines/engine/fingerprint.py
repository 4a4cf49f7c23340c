"""What a node's key is made of, as named components, so that the difference of two keys can be told."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.engine.keys import View, difference, digest, leaves, lookup
from pipelines.engine.node import Node
from pipelines.engine.symbols import Code

SCHEME = 1  # raise when the way keys are computed changes


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The components of one node's key, each a flat name -> value."""

    node: str
    config: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return digest(SCHEME, asdict(self))

    def same_but_code(self, other: Fingerprint) -> bool:
        mine, theirs = asdict(self), asdict(other)
        return all(mine[part] == theirs[part] for part in mine if part != "code")


def fingerprint(node: Node, config: Any, env: Environment) -> Fingerprint:
    """All components of `node`'s own key (its upstreams come in later, by content)."""
    settings: dict[str, Any] = {}
    for path in node.config:
        if path == "runtime" or path.startswith("runtime."):
            raise ValueError(f"node {node.name!r} declares {path!r}: runtime settings never enter a key")
        settings |= leaves(lookup(config, path), path)
    if node.extend is not None:
        settings.pop(node.extend)
    view = View(config, node.config)
    return Fingerprint(
        node=node.name,
        config=settings,
        code={name: symbol.hash for name, symbol in env.code.closure(entries(node)).items()},
        weights={name: env.weights(name) for name in node.weights},
        tools={name: env.tool(name) for name in node.tools},
        packages={name: package_version(name) for name in node.packages},
        inputs=resolve(node.inputs)(view) if node.inputs else {},
    )


def entries(node: Node) -> list[str]:
    """Where the node's code starts: its function, and the code it finds by name."""
    return [node.run, *node.code, *([node.inputs] if node.inputs else [])]


def resolve(entry: str) -> Callable[..., Any]:
    """ "module:function" -> the function."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def reasons(old: Fingerprint, new: Fingerprint) -> list[str]:
    """The difference of two keys in the user's words, most telling first."""
    told = [
        f"config {name} {_short(was)} -> {_short(now)}"
        for name, was, now in difference(old.config, new.config)
    ]
    told += [_code_reason(name, was, now) for name, was, now in difference(old.code, new.code)]
    told += [f"weights {name}" for name, _, _ in difference(old.weights, new.weights)]
    told += [f"tool {name} {was} -> {now}" for name, was, now in difference(old.tools, new.tools)]
    told += [f"package {name} {was} -> {now}" for name, was, now in difference(old.packages, new.packages)]
    told += _input_reasons(old.inputs, new.inputs)
    return told


def _code_reason(name: str, was: str | None, now: str | None) -> str:
    change = "" if was and now else " (new)" if now else " (gone)"
    return f"code {name}{change}"


def _input_reasons(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    changes = difference(old, new)
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


@dataclass(frozen=True)
class Environment:
    """What fingerprints look at outside the config: code, weights, tools."""

    code: Code
    weights: Callable[[str], str] = lambda name: "missing"
    """Weights id -> pinned sha256, or "missing"."""
    tool: Callable[[str], str] = lambda name: "missing"
    """Tool name -> version line."""


class FileCache:
    """Derived facts about local files, kept by (path, size, mtime, inode) in one small JSON file."""

    def __init__(self, path: Path):
        self.path = path
        self._dirty = False
        self._facts: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            self._facts = json.loads(path.read_text())

    def get(self, file: Path, make: Callable[[], Any]) -> Any:
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        name = str(file.resolve())
        if (known := self._facts.get(name)) is None or known[0] != stamp:
            self._facts[name] = known = [stamp, make()]
            self._dirty = True
        return known[1]

    def save(self) -> None:
        """Write aside and rename; a cache that cannot be written is only slower, so that is not an error."""
        if not self._dirty:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            aside.write_text(json.dumps(self._facts))
            aside.replace(self.path)
        self._dirty = False
