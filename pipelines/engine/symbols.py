"""What code a node runs: the closure of symbols reached from its entry through the project's own imports.

A symbol is a top-level function, class or constant of a project module, hashed as `ast.unparse` text without
docstrings and comments, so formatting never counts. Names are followed through imports (also those inside
functions) and through annotations. A visited module's other top-level statements always count.

Left out: `outside` packages (the engine itself), and lookup tables, i.e. constants that only map names to
"package.module" or "package.module:symbol" text; a node names the entries it uses in its own declaration.
Not seen: monkey-patching, `getattr` by string, C extensions, files read by path (declare them as inputs).
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.engine.keys import digest

BODY = "<module>"
_ENTRY = re.compile(r"[a-z_]\w*(\.\w+)+(:\w+)?")
_BUILTINS = frozenset(dir(builtins))


@dataclass(frozen=True, slots=True)
class Symbol:
    hash: str
    text: str
    names: tuple[str, ...]
    """Dotted names it mentions: `x`, or `x.y.z` for an attribute chain."""


@dataclass(frozen=True, slots=True)
class Module:
    imports: dict[str, str]
    """Local name -> dotted origin, as "package.module" or "package.module.symbol"."""
    symbols: dict[str, Symbol] = field(default_factory=dict)
    stars: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        table = {name: [s.hash, s.text, list(s.names)] for name, s in self.symbols.items()}
        return {"imports": self.imports, "symbols": table, "stars": list(self.stars)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Module:
        table = {name: Symbol(h, text, tuple(names)) for name, (h, text, names) in data["symbols"].items()}
        return Module(data["imports"], table, tuple(data["stars"]))


class _Strip(ast.NodeTransformer):
    """Removes docstrings and other bare string statements."""

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        kept = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
                                             and isinstance(s.value.value, str))]  # fmt: skip
        node.body = kept or [ast.Pass()]
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _body


class _Names(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self.found.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self.found.add(".".join([inner.id, *reversed(parts)]))
        else:
            self.visit(inner)


def parse(source: str, module: str, is_package: bool) -> Module:
    """Split a module into symbols and imports."""
    tree = ast.parse(source)
    imports, stars = _imports(tree, module, is_package)
    groups: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # the module's docstring
        if isinstance(statement, (ast.Import, ast.ImportFrom)) or _only_typing(statement):
            continue
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            groups.setdefault(statement.name, []).append(statement)
        elif (targets := _targets(statement)) and not _is_table(statement):
            for name in targets:
                groups.setdefault(name, []).append(statement)
        elif not _is_table(statement):
            groups.setdefault(BODY, []).append(statement)
    return Module(imports, {name: _symbol(statements) for name, statements in groups.items()}, stars)


def _symbol(statements: list[ast.stmt]) -> Symbol:
    names = _Names()
    texts = []
    for statement in statements:
        stripped = _Strip().visit(statement)
        names.visit(stripped)
        texts.append(ast.unparse(ast.fix_missing_locations(stripped)))
    text = "\n".join(texts)
    return Symbol(digest(text), text, tuple(sorted(names.found - _BUILTINS)))


def _targets(statement: ast.stmt) -> list[str]:
    """Names a plain assignment defines; empty for anything else."""
    if isinstance(statement, ast.Assign):
        found = [n for target in statement.targets for n in ast.walk(target)]
    elif isinstance(statement, ast.AnnAssign):
        found = [*ast.walk(statement.target)]
    else:
        return []
    if any(isinstance(n, (ast.Attribute, ast.Subscript)) for n in found):
        return []
    return [n.id for n in found if isinstance(n, ast.Name)]


def _is_table(statement: ast.stmt) -> bool:
    """A lookup table: {"name": "module:symbol", ...}, or tuples or calls with such text first as values."""
    value = getattr(statement, "value", None)
    if not isinstance(value, ast.Dict) or not value.values:
        return False
    return all(_entry_text(v) for v in value.values)


def _entry_text(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call) and value.args:
        return _entry_text(value.args[0])
    if isinstance(value, ast.Tuple) and value.elts:
        return _entry_text(value.elts[0])
    text = value.value if isinstance(value, ast.Constant) else None
    return isinstance(text, str) and bool(_ENTRY.fullmatch(text))


def _only_typing(statement: ast.stmt) -> bool:
    """`if TYPE_CHECKING:` holds imports only; they are collected with the others."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING")


def _imports(tree: ast.Module, module: str, is_package: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    found: dict[str, str] = {}
    stars: list[str] = []
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                if alias.name == "*":
                    stars.append(origin)
                else:
                    found[alias.asname or alias.name] = f"{origin}.{alias.name}"
    return found, tuple(stars)


class Code:
    """The project's source as symbols. `load(path, parse)` may answer from a cache (see FileCache)."""

    def __init__(
        self,
        root: Path,
        packages: Sequence[str],
        outside: Sequence[str] = (),
        load: Callable[[Path, Callable[[], dict[str, Any]]], dict[str, Any]] | None = None,
    ):
        self.root, self.packages, self.outside = root, tuple(packages), tuple(outside)
        self._load = load or (lambda _path, make: make())
        self._modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """A project module by dotted name, or None when there is no such file."""
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            for path, is_package in ((base.with_suffix(".py"), False), (base / "__init__.py", True)):
                if name.split(".")[0] in self.packages and path.is_file():
                    data = self._load(
                        path, lambda p=path, k=is_package: parse(p.read_text(), name, k).as_json()
                    )
                    self._modules[name] = Module.from_json(data)
                    break
            else:
                self._modules[name] = None
        return self._modules[name]

    def closure(self, entries: Iterable[str]) -> dict[str, Symbol]:
        """Entries "module:symbol" -> every project symbol they reach, by "module.symbol"."""
        found: dict[str, Symbol] = {}
        stack: list[tuple[str, str]] = []
        for entry in entries:
            module, _, name = entry.partition(":")
            if (parsed := self.module(module)) is None or name not in parsed.symbols:
                raise ValueError(f"no {name!r} in module {module!r} (entry {entry!r} of the graph)")
            stack.append((module, name))
        entered = {module for module, _ in stack}
        while stack:
            module, name = stack.pop()
            if f"{module}.{name}" in found or (parsed := self.module(module)) is None:
                continue
            if name not in parsed.symbols:
                continue
            found[f"{module}.{name}"] = parsed.symbols[name]
            if BODY in parsed.symbols:
                stack.append((module, BODY))
            for mentioned in parsed.symbols[name].names:
                stack += [t for t in self._resolve(module, mentioned) if not self._is_outside(t[0], entered)]
        return dict(sorted(found.items()))

    def _is_outside(self, module: str, entered: set[str]) -> bool:
        return module not in entered and any(module == o or module.startswith(f"{o}.") for o in self.outside)

    def _resolve(self, module: str, dotted: str) -> list[tuple[str, str]]:
        """What a dotted name in a module may mean, as (module, symbol)."""
        head, *rest = dotted.split(".")
        parsed = self.module(module)
        if parsed is None:
            return []
        if head in parsed.symbols:
            return [(module, head)]
        if head in parsed.imports:
            return self._follow([*parsed.imports[head].split("."), *rest])
        return [hit for star in parsed.stars for hit in self._follow([*star.split("."), head])]

    def _follow(self, parts: list[str]) -> list[tuple[str, str]]:
        """Longest prefix that is a module; the next part is the symbol (perhaps re-exported)."""
        for cut in range(len(parts), 0, -1):
            name = ".".join(parts[:cut])
            parsed = self.module(name)
            if parsed is None:
                continue
            if cut == len(parts):
                return [(name, s) for s in parsed.symbols]  # a module used as a value: all of it
            symbol = parts[cut]
            if symbol in parsed.symbols:
                return [(name, symbol)]
            return self._resolve(name, symbol) if symbol in parsed.imports or parsed.stars else []
        return []
