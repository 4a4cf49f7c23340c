"""What code a node runs, as one digest: that of the symbols its entries reach through the project's imports.

A symbol's digest is the hash of its text (engine/symbols.py) in which every name, or "module:function" text,
that leads to a symbol of the project is replaced by that symbol's digest. So it changes with anything that is
reached, through however many files, and with an import that leads elsewhere; and it knows no path: moving or
renaming a file changes nothing. Symbols that reach each other are hashed together.

Left out: `outside`, the files that only move bytes, messages and processes (but for those that `inside` names
among them); and lookup tables, constants that
only map names to modules or "module:function" of the project: a node names the entries it uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from pipelines.engine.symbols import (
    MODULE_BODY,
    SYMBOL_PLACEHOLDER_PATTERN,
    CodeSymbol,
    ParsedModule,
    SymbolReference,
    SymbolText,
    parse_module_symbols,
)

SymbolPlace = tuple[str, str]
"""Module and symbol."""


class ReachedSymbol(Struct, frozen=True):
    """A symbol of a closure."""

    own: str
    """Hash of its text alone, as it is written."""
    digest: str
    """Of all that it is and reaches."""
    text: str


class SourceSymbolIndex:
    """The project's source as symbols; files are read once, so the source must not change meanwhile.

    settings: "module:class" of configuration, whose fields do not count (the values are in the key).
    renamed: a setting's new attribute -> the name it had. load(path, make) may answer from a cache; so may
    recall(question, make), as long as no source file changes.
    """

    def __init__(
        self,
        root: Path,
        packages: Sequence[str],
        outside: Sequence[str] = (),
        inside: Sequence[str] = (),
        settings: Iterable[str] = (),
        renamed: Mapping[str, str] | None = None,
        load: Callable[[Path, Callable[[], dict[str, Any]]], dict[str, Any]] | None = None,
        recall: Callable[[str, Callable[[], Any]], Any] | None = None,
    ):
        self.root, self.packages = root, tuple(packages)
        self.outside, self.inside = tuple(outside), frozenset(inside)
        self.settings, self.renamed = frozenset(settings), dict(renamed or {})
        self._load = load or (lambda _path, make: make())
        self._recall = recall or (lambda _question, make: make())
        self._scope = _hash(repr((packages, outside, sorted(inside), sorted(self.settings), self.renamed)))
        self._modules: dict[str, ParsedModule | None] = {}
        self._outside: dict[str, bool] = {}
        self._edges: dict[SymbolPlace, list[SymbolPlace]] = {}
        self._digests: dict[SymbolPlace, str] = {}

    # --- the questions ---
    def digest(self, entries: Iterable[str]) -> str:
        """Of everything that these entries ("module:symbol") reach; those in `outside` files add nothing."""
        entries = sorted(set(entries))
        return self._recall(f"digest {self._scope} {_hash(repr(entries))}", lambda: self._digest_of(entries))

    def _digest_of(self, entries: Iterable[str]) -> str:
        places = [place for entry in entries if not self._is_outside((place := self._entry(entry))[0])]
        return _hash("\n".join(sorted({self._digest(place) for place in places})))

    def reachable_symbols(self, entries: Iterable[str]) -> dict[str, ReachedSymbol]:
        """Every symbol they reach, by "module.symbol"."""
        stack = [place for entry in entries if not self._is_outside((place := self._entry(entry))[0])]
        found: set[SymbolPlace] = set()
        while stack:
            place = stack.pop()
            if place not in found:
                found.add(place)
                stack += self._reaches(place)
        return {f"{module}.{name}": self._reached((module, name)) for module, name in sorted(found)}

    def has_symbol(self, entry: str) -> bool:
        """Whether there is such a symbol in the project."""
        return self._recall(f"holds {self._scope} {entry}", lambda: self._holds(entry))

    def _holds(self, entry: str) -> bool:
        module, _, name = entry.partition(":")
        return (parsed := self.load_module(module)) is not None and name in parsed.symbols

    def load_module(self, name: str) -> ParsedModule | None:
        """A project module by dotted name, or None when there is no such file."""
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    # --- files ---
    def _read(self, name: str) -> ParsedModule | None:
        if name.split(".")[0] not in self.packages:
            return None
        base = self.root.joinpath(*name.split("."))
        for path, is_package in ((base.with_suffix(".py"), False), (base / "__init__.py", True)):
            if path.is_file():

                def make(path: Path = path, is_package: bool = is_package) -> dict[str, Any]:
                    return parse_module_symbols(path.read_text(), name, is_package, self.renamed).as_json()

                return ParsedModule.from_json(self._load(path, make))
        return None

    def _entry(self, entry: str) -> SymbolPlace:
        module, _, name = entry.partition(":")
        if not self._holds(entry):
            raise ValueError(f"no {name!r} in module {module!r} (entry {entry!r} of the graph)")
        return module, name

    def _is_outside(self, module: str) -> bool:
        if module not in self._outside:
            within = any(module == o or module.startswith(f"{o}.") for o in self.outside)
            self._outside[module] = within and module not in self.inside
        return self._outside[module]

    def _symbol(self, place: SymbolPlace) -> CodeSymbol:
        module = self.load_module(place[0])
        assert module is not None
        return module.symbols[place[1]]

    def _text(self, place: SymbolPlace) -> SymbolText:
        symbol = self._symbol(place)
        is_settings = symbol.methods is not None and f"{place[0]}:{place[1]}" in self.settings
        return symbol.methods if is_settings and symbol.methods else symbol.text

    # --- what a name leads to ---
    def _leads(self, module: str, ref: SymbolReference) -> tuple[list[SymbolPlace], str]:
        """The symbols that a name means, and the attributes asked of them; no symbols: it is not ours."""
        kind, rest = ref.target[0], ref.target[1:]
        if kind == "@":
            place = rest.partition(":")
            return ([(place[0], place[2])] if self._holds(rest) else []), ""
        if kind == "=":
            return self._follow(rest.split("."))
        return self._resolve(module, ref.target)

    def _resolve(self, module: str, dotted: str) -> tuple[list[SymbolPlace], str]:
        """A dotted name at the top of a module."""
        head, _, rest = dotted.partition(".")
        parsed = self.load_module(module)
        if parsed is None:
            return [], ""
        if head in parsed.symbols:
            return [(module, head)], rest
        if head in parsed.imports:
            return self._follow([*parsed.imports[head].split("."), *([rest] if rest else [])])
        for star in parsed.stars:
            if found := self._follow([*star.split("."), *dotted.split(".")])[0]:
                return found, rest
        return [], ""

    def _follow(self, parts: list[str]) -> tuple[list[SymbolPlace], str]:
        """Longest prefix that is a module; the next part is the symbol (perhaps imported there)."""
        parts = ".".join(parts).split(".")
        for cut in range(len(parts), 0, -1):
            name = ".".join(parts[:cut])
            parsed = self.load_module(name)
            if parsed is None:
                continue
            if cut == len(parts):
                return [(name, s) for s in parsed.symbols], ""  # a module used as a value: all of it
            return self._resolve(name, ".".join(parts[cut:]))
        return [], ""

    def _is_lookup(self, place: SymbolPlace) -> bool:
        """A table whose every text leads to a module or symbol of the project."""
        table = self._symbol(place).table
        return bool(table) and all(
            self._holds(t) if ":" in t else self.load_module(t) is not None for t in table
        )

    # --- digests ---
    def _counted(self, places: Iterable[SymbolPlace]) -> list[SymbolPlace]:
        return [p for p in places if not self._is_outside(p[0]) and not self._is_lookup(p)]

    def _reaches(self, place: SymbolPlace) -> list[SymbolPlace]:
        """The symbols that this one mentions, and what its module does when it is imported."""
        if place not in self._edges:
            found = [
                p for ref in self._text(place).refs for p in self._counted(self._leads(place[0], ref)[0])
            ]
            module = self.load_module(place[0])
            if module is not None and MODULE_BODY in module.symbols:
                found.append((place[0], MODULE_BODY))
            self._edges[place] = list(dict.fromkeys(found))
        return self._edges[place]

    def _digest(self, start: SymbolPlace) -> str:
        if start not in self._digests:
            for group in _together(start, self._reaches, self._digests):
                self._hash_group(group)
        return self._digests[start]

    def _hash_group(self, group: list[SymbolPlace]) -> None:
        """One symbol, or several that reach each other: these are told apart by their texts, then by what
        they reach of the group, and so on, until a round tells no more of them apart. All of them reach all.
        """
        known, kinds = dict.fromkeys(group, ""), 0
        while len(set(known.values())) > kinds:
            kinds = len(set(known.values()))
            known = {place: _hash(self._filled(place, known)) for place in group}
        if len(group) > 1:
            together = " ".join(sorted(set(known.values())))
            known = {place: _hash(f"{one} {together}") for place, one in known.items()}
        self._digests |= known

    def _filled(self, place: SymbolPlace, group: Mapping[SymbolPlace, str]) -> str:
        """Its text with digests in place of the marks."""
        text = self._text(place)
        filled = [self._stands_for(place[0], ref, group) for ref in text.refs]
        done = SYMBOL_PLACEHOLDER_PATTERN.sub(lambda mark: filled[int(mark[1])], text.template)
        module = self.load_module(place[0])
        if module is not None and MODULE_BODY in module.symbols and place[1] != MODULE_BODY:
            done += "\n" + self._value((place[0], MODULE_BODY), group)
        return done

    def _stands_for(self, module: str, ref: SymbolReference, group: Mapping[SymbolPlace, str]) -> str:
        places, rest = self._leads(module, ref)
        if not places:
            return ref.target[1:] if ref.target[0] == "=" else ref.written
        return " ".join([*(self._value(place, group) for place in places), rest])

    def _value(self, place: SymbolPlace, group: Mapping[SymbolPlace, str]) -> str:
        if not self._counted([place]):
            return f"<{place[1]}>"
        return group[place] if place in group else self._digests[place]

    def _reached(self, place: SymbolPlace) -> ReachedSymbol:
        text = self._text(place).readable_text
        return ReachedSymbol(_hash(text), self._digest(place), text)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _together(
    start: SymbolPlace, reaches: Callable[[SymbolPlace], list[SymbolPlace]], done: Mapping[SymbolPlace, str]
) -> Iterable[list[SymbolPlace]]:
    """Groups of symbols that reach each other, each after the groups it reaches (Tarjan's algorithm, without
    recursion: chains of calls are longer than Python's stack)."""
    order: dict[SymbolPlace, int] = {}
    low: dict[SymbolPlace, int] = {}
    open_: list[SymbolPlace] = []
    stack = [(start, iter(reaches(start)))]
    order[start] = low[start] = 0
    open_.append(start)
    while stack:
        place, ahead = stack[-1]
        for one in ahead:
            if one in done:
                continue
            if one not in order:
                order[one] = low[one] = len(order)
                open_.append(one)
                stack.append((one, iter(reaches(one))))
                break
            if one in open_:
                low[place] = min(low[place], order[one])
        else:
            stack.pop()
            if stack:
                low[stack[-1][0]] = min(low[stack[-1][0]], low[place])
            if low[place] == order[place]:
                at = open_.index(place)
                group, open_[at:] = open_[at:], []
                yield group
