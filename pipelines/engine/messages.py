"""What code says to a reader, and what therefore changes no number: the words of errors, and reports."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator

from pipelines.errors import ERROR_MEANINGS

ERROR_CLASS_NAMES = frozenset(kind.__name__ for kind in ERROR_MEANINGS) | frozenset(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
)
"""Classes of errors, by name: a text given to one is for a reader, whether the error is raised, returned, or
put into a list first."""
FINGERPRINT_IGNORED_METHODS = frozenset({"report_progress", "log_params", "log_metrics", "warn"})
"""Methods that only report (engine.node.Context, warnings): a statement that calls one is left out."""
_OWN_SCOPE = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


def walk_own_scope(body: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    """Every node of a function that is not in a scope of its own."""
    stack: list[ast.AST] = list(body)
    while stack:
        node = stack.pop(0)
        yield node
        if not isinstance(node, _OWN_SCOPE):
            stack += ast.iter_child_nodes(node)


def is_reporting_call(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in FINGERPRINT_IGNORED_METHODS
    )


def strip_ast_error_messages(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Take the sentences out of every error that the function makes, and the variables that hold nothing but
    such sentences. What is no sentence stays: the code of a Rejected is a result."""
    own = list(walk_own_scope(function.body))
    assigned: dict[str, list[ast.expr]] = {}
    for node in own:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            assigned.setdefault(node.targets[0].id, []).append(node.value)
    words = {name for name, values in assigned.items() if all(_is_sentence(v, frozenset()) for v in values)}
    for call in _errors(own):
        call.args = [a for a in call.args if not _is_sentence(a, words)]
        call.keywords = [k for k in call.keywords if not _is_sentence(k.value, words)]
    read = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    _Without(words - read).visit(function)


def _errors(own: Iterable[ast.AST]) -> Iterator[ast.Call]:
    """Calls that make an error: of anything in a `raise`, of a class in ERRORS elsewhere."""
    for node in own:
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield node.exc
        elif isinstance(node, ast.Call) and _last_name(node.func) in ERROR_CLASS_NAMES:
            yield node


def _last_name(function: ast.expr) -> str:
    """`Rejected` of both Rejected(...) and errors.Rejected(...)."""
    return ast.unparse(function).rpartition(".")[2]


class _Without(ast.NodeTransformer):
    """Leaves out assignments to these names."""

    def __init__(self, names: Iterable[str]):
        self.names = frozenset(names)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        target = node.targets[0] if len(node.targets) == 1 else None
        return ast.Pass() if isinstance(target, ast.Name) and target.id in self.names else node


def _is_sentence(node: ast.expr, words: Iterable[str]) -> bool:
    """Text for a reader: with blanks in it, or put together from values; a bare word may be a code."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and " " in node.value
    if isinstance(node, ast.Name):
        return node.id in words
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.BinOp):
        return _is_sentence(node.left, words) or _is_sentence(node.right, words)
    if isinstance(node, ast.IfExp):
        return _is_sentence(node.body, words) or _is_sentence(node.orelse, words)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _is_sentence(node.func.value, words)  # "...".format(...)
    return False
