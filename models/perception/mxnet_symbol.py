"""The graph of an MXNet symbol (its JSON) as a torch module, for inference: the operators that regressors of
the ResNet kind use, and no others.

A symbol is a list of nodes, each after those that it reads; the operator `null` is an input or a parameter,
whose array lies in the .params file (storage/mxnet_params.py) under `arg:` or, of running statistics, `aux:`.
Settings are texts. Whatever would change the numbers and is not understood here is an error that names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from msgspec import Struct
from torch import Tensor, nn

from models.errors import InvalidFile

NO_EFFECT = {
    "workspace", "cudnn_off", "cudnn_tune", "momentum", "output_mean_var", "use_global_stats", "p", "mode",
    "lr_mult", "wd_mult", "lower_bound", "upper_bound", "num_args", "num_filter", "num_hidden",
    "min_calib_range", "max_calib_range", "dtype", "grad_scale",
}  # fmt: skip
"""Settings that inference does not depend on, or that the arrays' shapes tell too."""
MAX_NODES = 100_000


class SymbolNode(Struct, frozen=True):
    op: str
    name: str
    settings: Mapping[str, str]
    inputs: tuple[int, ...]
    """Numbers of earlier nodes"""


def parse_symbol(graph: object) -> list[SymbolNode]:
    """Parsed JSON -> nodes. InvalidFile for what is no symbol."""
    nodes = graph.get("nodes") if isinstance(graph, Mapping) else None
    if not isinstance(nodes, list) or not 0 < len(nodes) <= MAX_NODES:
        raise InvalidFile("no MXNet symbol: expected an object with a list `nodes`")
    return [_parse_node(node, at) for at, node in enumerate(nodes)]


def _parse_node(node: Any, at: int) -> SymbolNode:
    try:
        settings = node.get("attrs", node.get("attr", node.get("param", {})))
        inputs = [(int(one[0]), int(one[1])) for one in node["inputs"]]
        made = SymbolNode(
            str(node["op"]), str(node["name"]), {str(k): str(v) for k, v in settings.items()},
            tuple(one for one, _ in inputs),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InvalidFile(f"node {at} of the symbol is none: {error!r}") from None
    if any(not 0 <= one < at for one in made.inputs) or any(output for _, output in inputs):
        raise InvalidFile(
            f"node {made.name} of the symbol reads {inputs}: expected first outputs of earlier nodes"
        )
    return made


class _Settings:
    """Texts of a node, read as what they mean."""

    def __init__(self, node: SymbolNode) -> None:
        self.node, self.read = node, set(NO_EFFECT)

    def text(self, name: str, default: str, known: Sequence[str] = ()) -> str:
        self.read.add(name)
        value = self.node.settings.get(name, default)
        if known and value not in known:
            raise self.error(name, value, " or ".join(known))
        return value

    def flag(self, name: str, default: bool) -> bool:
        return self.text(name, str(default), ("True", "False", "1", "0", "true", "false")).lower() in (
            "true",
            "1",
        )

    def number(self, name: str, default: float | None = None) -> float:
        value = self.text(name, "" if default is None else str(default))
        try:
            found = float(value)
        except ValueError:
            raise self.error(name, value, "a number") from None
        if not math.isfinite(found):
            raise self.error(name, value, "a finite number")
        return found

    def numbers(self, name: str, default: str, count: int = 0) -> tuple[int, ...]:
        """ "(3, 3)" -> (3, 3); count: how many there must be, of which one text for all may stand."""
        value = self.text(name, default)
        if not re.fullmatch(r"[(\[]?\s*(-?\d+L?\s*,?\s*)*[)\]]?", value):
            raise self.error(name, value, "whole numbers")
        found = tuple(int(one) for one in re.findall(r"-?\d+", value))
        if count and not found:
            return tuple(int(one) for one in re.findall(r"-?\d+", default))
        if count and len(found) != count:
            raise self.error(name, value, f"{count} whole numbers")
        return found

    def error(self, name: str, value: str, expected: str) -> InvalidFile:
        return InvalidFile(f"{self.node.op} {self.node.name}: {name} {value[:60]!r}: expected {expected}")

    def check_all_read(self) -> None:
        left = sorted(n for n in self.node.settings if n not in self.read and not n.startswith("__"))
        if left:
            raise InvalidFile(f"{self.node.op} {self.node.name}: setting {left[0]!r} is not understood")


Operator = Callable[..., Tensor]


# --- operators: (settings) -> function of the inputs --------------------------------------------------------
def _convolution(s: _Settings) -> Operator:
    size = len(s.numbers("kernel", ""))
    if size != 2:
        raise s.error("kernel", s.text("kernel", ""), "two whole numbers")
    stride, pad = s.numbers("stride", "(1, 1)", 2), s.numbers("pad", "(0, 0)", 2)
    dilate, groups = s.numbers("dilate", "(1, 1)", 2), int(s.number("num_group", 1))
    s.flag("no_bias", False)
    s.text("layout", "NCHW", ("NCHW", "None"))

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, stride, pad, dilate, groups)  # pyright: ignore[reportArgumentType]

    return run


def _batch_norm(s: _Settings) -> Operator:
    eps, fixed = s.number("eps", 1e-3), s.flag("fix_gamma", True)
    s.text("axis", "1", ("1",))

    def run(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, None if fixed else gamma, beta, training=False, eps=eps)

    return run


def _activation(s: _Settings) -> Operator:
    kinds: dict[str, Operator] = {
        "relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softrelu": F.softplus,
        "softsign": F.softsign,
    }  # fmt: skip
    return kinds[s.text("act_type", "", tuple(kinds))]


def _leaky_relu(s: _Settings) -> Operator:
    kind, slope = s.text("act_type", "leaky", ("leaky", "prelu", "elu")), s.number("slope", 0.25)
    if kind == "prelu":
        return lambda x, gamma: F.prelu(x, gamma.flatten())
    return lambda x: F.leaky_relu(x, slope) if kind == "leaky" else F.elu(x, slope)


def _pooling(s: _Settings) -> Operator:
    kind = s.text("pool_type", "max", ("max", "avg", "sum"))
    whole, full = (
        s.flag("global_pool", False),
        s.text("pooling_convention", "valid", ("valid", "full")) == "full",
    )
    kernel = s.numbers("kernel", "(1, 1)", 2)
    stride, pad = s.numbers("stride", "(1, 1)", 2), s.numbers("pad", "(0, 0)", 2)
    counted = s.flag("count_include_pad", True)
    s.text("layout", "NCHW", ("NCHW", "None"))

    def run(x: Tensor) -> Tensor:
        if whole:
            return {"max": x.amax, "avg": x.mean, "sum": x.sum}[kind]((2, 3), keepdim=True)
        sides = [x.shape[2], x.shape[3]]
        beyond = []  # "full" lets the last window reach over the padding
        for side, k, step, p in zip(sides, kernel, stride, pad, strict=True):
            steps = (side + 2 * p - k) / step
            last = (math.ceil(steps) if full else math.floor(steps)) * step + k
            beyond.append(max(0, last - side - 2 * p))
        edges = (pad[1], pad[1] + beyond[1], pad[0], pad[0] + beyond[0])
        if kind == "max":
            return F.max_pool2d(F.pad(x, edges, value=-torch.inf), kernel, stride)  # pyright: ignore
        total = F.avg_pool2d(F.pad(x, edges), kernel, stride, divisor_override=1)  # pyright: ignore
        if kind == "sum":
            return total
        ones = torch.ones_like(x[:1, :1])
        ones = F.pad(ones, (pad[1], pad[1], pad[0], pad[0]), value=1.0 if counted else 0.0)
        ones = F.pad(ones, (0, beyond[1], 0, beyond[0]))
        return total / F.avg_pool2d(ones, kernel, stride, divisor_override=1)  # pyright: ignore

    return run


def _fully_connected(s: _Settings) -> Operator:
    flat = s.flag("flatten", True)
    s.flag("no_bias", False)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x.flatten(1) if flat else x, weight, bias)

    return run


def _concat(s: _Settings) -> Operator:
    dim = int(s.number("dim", 1))
    return lambda *parts: torch.cat(parts, dim)


def _reshape(s: _Settings) -> Operator:
    shape = s.numbers("shape", "")
    if not shape or min(shape) < -1:
        raise s.error("shape", s.text("shape", ""), "lengths, 0 for one that stays, or -1")
    return lambda x: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


def _scalar(work: Callable[[Tensor, float], Tensor]) -> Callable[[_Settings], Operator]:
    def make(s: _Settings) -> Operator:
        value = s.number("scalar")
        s.flag("is_int", True)
        return lambda x: work(x, value)

    return make


def _plain(work: Operator) -> Callable[[_Settings], Operator]:
    return lambda s: work


OPERATORS: dict[str, Callable[[_Settings], Operator]] = {
    "Convolution": _convolution,
    "BatchNorm": _batch_norm,
    "Activation": _activation,
    "LeakyReLU": _leaky_relu,
    "Pooling": _pooling,
    "FullyConnected": _fully_connected,
    "Flatten": _plain(lambda x: x.flatten(1)),
    "Concat": _concat,
    "Reshape": _reshape,
    **dict.fromkeys(("elemwise_add", "_plus", "_Plus", "broadcast_add"), _plain(torch.add)),
    **dict.fromkeys(("elemwise_mul", "_mul", "broadcast_mul"), _plain(torch.mul)),
    **dict.fromkeys(("Dropout", "identity", "_copy", "BlockGrad"), _plain(lambda x: x)),
    "_plus_scalar": _scalar(lambda x, value: x + value),
    "_minus_scalar": _scalar(lambda x, value: x - value),
    "_mul_scalar": _scalar(lambda x, value: x * value),
    "_div_scalar": _scalar(lambda x, value: x / value),
}
"""What is understood; the Dropout of inference lets all through."""


class SymbolNet(nn.Module):
    """A symbol up to one of its nodes: images in, that node's first output out."""

    def __init__(self, graph: object, arrays: Mapping[str, Tensor], output: str, data: str = "data") -> None:
        """graph: the parsed JSON; arrays: by the file's names. output: name of a node, data: of the input.
        InvalidFile, naming the node, for operators and settings that are not understood, and for arrays that
        are missing."""
        super().__init__()
        nodes = parse_symbol(graph)
        ends = [i for i, node in enumerate(nodes) if node.name == output]
        if len(ends) != 1:
            raise InvalidFile(f"{len(ends)} nodes of the symbol are called {output!r}, expected one")
        needed, waiting = set(), [ends[0]]
        while waiting:
            if (at := waiting.pop()) not in needed:
                needed.add(at)
                waiting += nodes[at].inputs
        self._end, self._steps = ends[0], []
        for at in sorted(needed):
            node = nodes[at]
            if node.op == "null":
                if node.name != data:
                    self.register_buffer(f"array_{at}", _array(arrays, node.name), persistent=False)
                self._steps.append((at, None if node.name == data else f"array_{at}", None, ()))
                continue
            if node.op not in OPERATORS:
                raise InvalidFile(
                    f"operator {node.op} of node {node.name} is not among {', '.join(OPERATORS)}"
                )
            settings = _Settings(node)
            operator = OPERATORS[node.op](settings)
            settings.check_all_read()
            self._steps.append((at, None, operator, node.inputs))
        if not any(node.name == data and at in needed for at, node in enumerate(nodes)):
            raise InvalidFile(f"{output!r} of the symbol does not depend on an input {data!r}")

    def forward(self, images: Tensor) -> Tensor:
        values: dict[int, Tensor] = {}
        for at, array, operator, inputs in self._steps:
            if operator is not None:
                values[at] = operator(*(values[one] for one in inputs))
            else:
                values[at] = images if array is None else self.get_buffer(array)
        return values[self._end]


def _array(arrays: Mapping[str, Tensor], name: str) -> Tensor:
    for prefix in ("arg:", "aux:", ""):
        if f"{prefix}{name}" in arrays:
            return arrays[f"{prefix}{name}"].float()
    raise InvalidFile(f"the symbol's {name} is not among the {len(arrays)} arrays of the file")
