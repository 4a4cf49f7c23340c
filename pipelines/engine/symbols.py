"""A source file as symbols: each top-level function, class and constant as text of what it computes.

The text is `ast.unparse` of the definition without what changes no number: docstrings, comments, formatting,
annotations of functions, and what only speaks to a reader (engine/messages.py). Every name that may lead to
another symbol of the project is a numbered mark in it; engine/code.py follows them, so that where a symbol
lives, and what others call it, is no part of what it is.

Not seen: monkey-patching, `getattr` by string, C extensions, files read by path (declare them as inputs).
"""

from __future__ import annotations

import ast
import copy
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, field

from pipelines.engine.messages import is_reporting_call, strip_ast_error_messages, walk_own_scope

MODULE_BODY = "<module>"
_PARSING = threading.Lock()
"""Python 3.11 counts the depth of a tree for all threads together, and two that parse at once may end in a
SystemError."""
SYMBOL_PLACEHOLDER_PATTERN = re.compile("⟦(\\d+)⟧")
_ENTRY = re.compile(r"[a-z_]\w*(\.\w+)*:\w+")
_MODULE = re.compile(r"[a-z_]\w*(\.\w+)*(:\w+)?")


class SymbolReference(Struct, frozen=True):
    """A name in a symbol that may lead to another one."""

    written: str
    target: str
    """ "name.attribute" of the same module; "=package.module.name" through an import; "@module:function" for
    such a text."""


class SymbolText(Struct, frozen=True):
    template: str
    """With a mark ⟦i⟧ for each mention of refs[i]."""
    refs: tuple[SymbolReference, ...]

    @property
    def readable_text(self) -> str:
        return SYMBOL_PLACEHOLDER_PATTERN.sub(lambda mark: self.refs[int(mark[1])].written, self.template)


class CodeSymbol(Struct, frozen=True):
    text: SymbolText
    methods: SymbolText | None = None
    """Of a struct: the same without its fields and `__post_init__`, which is all that counts of a class of
    settings: their values are in the key."""
    table: tuple[str, ...] = ()
    """Of a dict whose values all begin with a text like "module" or "module:function": those texts."""


class ParsedModule(Struct, frozen=True):
    imports: dict[str, str]
    """Name at the top of the module -> dotted origin, "package.module" or "package.module.symbol"."""
    symbols: dict[str, CodeSymbol] = field(default_factory=dict)
    stars: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        table = {
            name: [_text_json(s.text), s.methods and _text_json(s.methods), list(s.table)]
            for name, s in self.symbols.items()
        }
        return {"imports": self.imports, "symbols": table, "stars": list(self.stars)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ParsedModule:
        table = {
            name: CodeSymbol(_text_of(text), methods and _text_of(methods), tuple(entries))
            for name, (text, methods, entries) in data["symbols"].items()
        }
        return ParsedModule(data["imports"], table, tuple(data["stars"]))


def _text_json(text: SymbolText) -> list[Any]:
    return [text.template, [[ref.written, ref.target] for ref in text.refs]]


def _text_of(data: Any) -> SymbolText:
    return SymbolText(data[0], tuple(SymbolReference(*ref) for ref in data[1]))


# --- a file ------------------------------------------------------------------------------------------------
def parse_module_symbols(
    source: str, module: str, is_package: bool, renamed: Mapping[str, str] | None = None
) -> ParsedModule:
    """Split a module into symbols and imports. `renamed`: attribute of a setting that got a new name -> the
    name it had, which is what the text goes on to say."""
    with _PARSING:
        tree = ast.parse(source)
    package = module.split(".") if is_package else module.split(".")[:-1]
    imports, stars = _imports(_outside_functions(tree.body), package)
    groups: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        if _only_typing(statement) or _text_only(statement):
            continue
        for name in _defines(statement) or [MODULE_BODY]:
            groups.setdefault(name, []).append(statement)
    known = _Names(frozenset(groups), imports, bool(stars), package, renamed or {})
    return ParsedModule(imports, {name: _symbol(some, known) for name, some in groups.items()}, stars)


class _Names(Struct, frozen=True):
    """What a name at the top of a module may mean."""

    symbols: frozenset[str]
    imports: Mapping[str, str]
    stars: bool
    package: list[str]
    renamed: Mapping[str, str]


def _symbol(statements: list[ast.stmt], known: _Names) -> CodeSymbol:
    methods = None
    if len(statements) == 1 and isinstance(cls := statements[0], ast.ClassDef) and _is_struct(cls):
        methods = _text([_without_fields(cls)], known)
    return CodeSymbol(_text(statements, known), methods, _table(statements))


def _text(statements: Iterable[ast.stmt], known: _Names) -> SymbolText:
    normal = _Normal(known)
    texts = []
    for statement in statements:
        done = normal.visit(copy.deepcopy(statement))  # the visitor changes what it visits
        texts.append(ast.unparse(ast.fix_missing_locations(done)) if done is not None else "")
    return SymbolText("\n".join(texts), tuple(normal.refs))


def _outside_functions(body: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    """Every node that is not inside a function."""
    stack: list[ast.AST] = list(body)
    while stack:
        node = stack.pop(0)
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            stack += ast.iter_child_nodes(node)


def _imports(nodes: Iterable[ast.AST], package: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Local name -> origin, and the modules whose every name is imported."""
    found: dict[str, str] = {}
    stars: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            stars += [origin for alias in node.names if alias.name == "*"]
            found |= {a.asname or a.name: f"{origin}.{a.name}" for a in node.names if a.name != "*"}
    return found, tuple(stars)


def _defines(statement: ast.stmt) -> list[str]:
    """Names that a definition or plain assignment gives to the module; empty for anything else."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        found = [n for target in statement.targets for n in ast.walk(target)]
    elif isinstance(statement, ast.AnnAssign):
        found = [*ast.walk(statement.target)]
    else:
        return []
    if any(isinstance(n, (ast.Attribute, ast.Subscript)) for n in found):
        return []
    return [n.id for n in found if isinstance(n, ast.Name)]


def _text_only(statement: ast.stmt) -> bool:
    """A docstring, of a module, a function or a field."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _only_typing(statement: ast.stmt) -> bool:
    """`if TYPE_CHECKING:` holds imports only; they are collected with the others."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING")


def _is_struct(cls: ast.ClassDef) -> bool:
    """A msgspec.Struct, or a frozen class that is derived from one."""
    bases = {ast.unparse(base).split(".")[-1] for base in cls.bases}
    return "Struct" in bases or any(keyword.arg == "frozen" for keyword in cls.keywords)


def _without_fields(cls: ast.ClassDef) -> ast.ClassDef:
    """A check of values changes none of them; one that sets some of a frozen class says `force_setattr`."""

    def counts(s: ast.stmt) -> bool:
        if isinstance(s, ast.FunctionDef) and s.name == "__post_init__":
            return "force_setattr" in ast.unparse(s)
        return not isinstance(s, ast.AnnAssign)

    bare = copy.copy(cls)
    bare.body = [s for s in cls.body if counts(s)] or [ast.Pass()]
    return bare


def _table(statements: list[ast.stmt]) -> tuple[str, ...]:
    """{"name": "module:symbol", ...}, or tuples or calls with such text first as values: those texts."""
    value = getattr(statements[0], "value", None)
    if len(statements) > 1 or not isinstance(value, ast.Dict) or not value.values:
        return ()
    entries = [_first_text(v) for v in value.values]
    return tuple(e for e in entries if e) if all(entries) else ()


def _first_text(value: ast.expr | None) -> str:
    if isinstance(value, ast.Call) and value.args:
        return _first_text(value.args[0])
    if isinstance(value, ast.Tuple) and value.elts:
        return _first_text(value.elts[0])
    text = value.value if isinstance(value, ast.Constant) else None
    return text if isinstance(text, str) and _MODULE.fullmatch(text) else ""


# --- what a definition computes ----------------------------------------------------------------------------
class _Normal(ast.NodeTransformer):
    """Leaves out what changes no number, and puts marks in place of names that may lead elsewhere."""

    def __init__(self, known: _Names):
        self.known = known
        self.refs: list[SymbolReference] = []
        self._local: list[set[str]] = []
        """Names of the functions around that are variables of theirs."""
        self._imported: list[dict[str, str]] = []
        """Names that those functions import."""

    # names
    def _ref(self, written: str, target: str) -> ast.Name:
        ref = SymbolReference(written, target)
        if ref not in self.refs:
            self.refs.append(ref)
        return ast.Name(f"⟦{self.refs.index(ref)}⟧", ast.Load())

    def _target(self, dotted: str) -> str | None:
        head, _, rest = dotted.partition(".")
        for local, imported in zip(reversed(self._local), reversed(self._imported), strict=True):
            if head in imported:
                return f"={imported[head]}" + (f".{rest}" if rest else "")
            if head in local:
                return None
        if head in self.known.symbols:
            return dotted
        if head in self.known.imports:
            return f"={self.known.imports[head]}" + (f".{rest}" if rest else "")
        return dotted if self.known.stars else None

    def visit_Name(self, node: ast.Name) -> ast.expr:
        target = self._target(node.id) if isinstance(node.ctx, ast.Load) else None
        return node if target is None else self._ref(node.id, target)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        parts: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and isinstance(node.ctx, ast.Load):
            dotted = ".".join([inner.id, *reversed(parts)])
            if (target := self._target(dotted)) is not None:
                return self._ref(dotted, target)
        self.generic_visit(node)
        node.attr = self.known.renamed.get(node.attr, node.attr)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        self.generic_visit(node)
        node.arg = self.known.renamed.get(node.arg, node.arg) if node.arg else None
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str) and _ENTRY.fullmatch(node.value):
            return self._ref(repr(node.value), f"@{node.value}")
        return node

    # scopes
    @contextmanager
    def _scope(self, local: set[str], imported: dict[str, str]) -> Iterator[None]:
        self._local.append(local)
        self._imported.append(imported)
        yield
        self._local.pop()
        self._imported.pop()

    def visit_FunctionDef(self, node: Any) -> Any:
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.returns = None
        self._arguments(node.args)
        with self._scope(
            _bound(node.args, node.body), _imports(walk_own_scope(node.body), self.known.package)[0]
        ):
            strip_ast_error_messages(node)
            node.body = self._statements(node.body)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        self._arguments(node.args)
        with self._scope(_bound(node.args, []), {}):
            node.body = self.visit(node.body)
        return node

    def _arguments(self, args: ast.arguments) -> None:
        """Annotations go; defaults belong to the scope around."""
        for arg in _args(args):
            arg.annotation = None
        args.defaults = [self.visit(d) for d in args.defaults]
        args.kw_defaults = [d and self.visit(d) for d in args.kw_defaults]

    def _comprehension(self, node: Any) -> Any:
        targets = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        node.generators[0].iter = self.visit(node.generators[0].iter)  # belongs to the scope around
        with self._scope(targets, {}):
            for i, generator in enumerate(node.generators):
                if i:
                    generator.iter = self.visit(generator.iter)
                generator.ifs = [self.visit(test) for test in generator.ifs]
            for part in ("elt", "key", "value"):
                if hasattr(node, part):
                    setattr(node, part, self.visit(getattr(node, part)))
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.bases = [self.visit(b) for b in node.bases]
        node.keywords = [self.visit(k) for k in node.keywords]
        node.body = self._statements(node.body)
        return node

    # what changes no number
    def _statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        kept = [self.visit(s) for s in body if not _text_only(s) and not is_reporting_call(s)]
        return [s for s in kept if s is not None] or [ast.Pass()]

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, part, None), list) and statements:
                kept = [s for s in statements if not _text_only(s) and not is_reporting_call(s)]
                setattr(node, part, kept or [ast.Pass()])
        return super().generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """A variable's annotation is for the reader; a field's may be read by the class."""
        if self._local:
            if node.value is None:
                return ast.Pass()
            return self.visit(ast.Assign([node.target], node.value, lineno=node.lineno))
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> ast.AST:
        return ast.Pass()  # what is imported counts where it is used

    visit_ImportFrom = visit_Import

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)


def _args(args: ast.arguments) -> list[ast.arg]:
    more = [a for a in (args.vararg, args.kwarg) if a]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *more]


def _bound(args: ast.arguments, body: Iterable[ast.stmt]) -> set[str]:
    """The variables of a function."""
    found = {arg.arg for arg in _args(args)}
    shared: set[str] = set()
    for node in walk_own_scope(body):
        match node:
            case ast.Global() | ast.Nonlocal():
                shared |= set(node.names)
            case ast.Name(ctx=ast.Store() | ast.Del()):
                found.add(node.id)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                found.add(name)
    return found - shared
