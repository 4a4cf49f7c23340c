"""The graph of a .tflite file as a torch module: for GPUs, and wherever a gradient is wanted.

Images are (B,C,H,W) inside. Shapes of the file are (1,H,W,C): where the file reshapes or concatenates, and
where results leave the net, channels come last as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models.errors import InvalidFile
from models.perception.interfaces import InferenceSettings
from models.perception.tflite_file import (
    TfliteGraph,
    TfliteOperator,
    TfliteSignature,
    TfliteTensor,
    read_tflite_graph,
)
from models.perception.torch_net import TorchNet, map_batches_with_oom_backoff, same_padding


# --- operators ----------------------------------------------------------------------------------------------
class PaddedConv2d(nn.Module):
    """A convolution after zeros around the image: left, right, top, bottom. TFLite's SAME puts the odd one to
    the right and at the bottom, which nn.Conv2d cannot say."""

    def __init__(
        self, weight: Tensor, bias: Tensor, stride: tuple[int, int], padding: tuple[int, ...], groups: int
    ):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.padding) if any(self.padding) else x
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class PaddedMaxPool2d(nn.Module):
    def __init__(self, window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...]):
        super().__init__()
        self.window, self.stride, self.padding = window, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.padding, value=-torch.inf) if any(self.padding) else x
        return F.max_pool2d(x, self.window, self.stride)


class ZeroPad(nn.Module):
    """padding: as torch.nn.functional.pad has it."""

    def __init__(self, padding: tuple[int, ...]):
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding)


class Add(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class ResizeBilinear(nn.Module):
    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, self.size, mode="bilinear", align_corners=False)


class ReshapeChannelsLast(nn.Module):
    """(B,C,H,W) -> (B,*shape), as if it were (B,H,W,C)."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(len(x), *self.shape)


class Concatenate(nn.Module):
    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, self.axis)


# --- the graph ----------------------------------------------------------------------------------------------
class TfliteModule(nn.Module):
    """Runs the operators of a graph one after the other. Where their shapes do not go together it raises what
    torch does: see `build_module`."""

    def __init__(self, graph: TfliteGraph):
        super().__init__()
        constants = {i: one for i, one in enumerate(graph.tensors) if one.values is not None}
        self.layers, self._wiring = nn.ModuleList(), list[tuple[tuple[int, ...], int]]()
        for operator in graph.operators:
            if operator.kind == "DEQUANTIZE":  # float16 constants, cast once
                constants[operator.output] = constants[operator.inputs[0]]
                continue
            self.layers.append(_layer(graph, operator, constants))
            self._wiring.append((tuple(i for i in operator.inputs if i not in constants), operator.output))
        self._input, self._outputs = graph.inputs[0], graph.outputs
        self._last_use = {i: n for n, (inputs, _) in enumerate(self._wiring) for i in inputs}

    def forward(self, images: Tensor) -> list[Tensor]:
        """images (B,C,H,W) -> the outputs in the file's order, (B,*shape of the file) each."""
        values = {self._input: images}
        for n, (layer, (inputs, output)) in enumerate(zip(self.layers, self._wiring, strict=True)):
            values[output] = layer(*(values[i] for i in inputs))
            for i in inputs:
                if self._last_use[i] == n and i not in self._outputs:
                    values.pop(i, None)
        return [_channels_last(values[i]) for i in self._outputs]


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _layer(graph: TfliteGraph, operator: TfliteOperator, constants: dict[int, TfliteTensor]) -> nn.Module:
    options, shape = operator.options, graph.tensors[operator.inputs[0]].shape
    fixed = [constants[i].values for i in operator.inputs if i in constants]

    def padding(window: tuple[int, int]) -> tuple[int, ...]:
        if not options.same_padding:
            return (0, 0, 0, 0)
        down, right = (same_padding(shape[1 + d], window[d], options.stride[d]) for d in (0, 1))
        return (*right, *down)

    match operator.kind:
        case "CONV_2D" | "DEPTHWISE_CONV_2D":
            weight, bias = (_float_tensor(one) for one in fixed)
            depthwise = operator.kind == "DEPTHWISE_CONV_2D"
            weight = weight.permute((3, 0, 1, 2) if depthwise else (0, 3, 1, 2)).contiguous()
            window, groups = (weight.shape[2], weight.shape[3]), len(weight) if depthwise else 1
            return PaddedConv2d(weight, bias, options.stride, padding(window), groups)
        case "MAX_POOL_2D":
            return PaddedMaxPool2d(options.window, options.stride, padding(options.window))
        case "PAD":
            (_, rows, columns, channels) = _integers(fixed)
            return ZeroPad((*columns, *rows, *channels))
        case "PRELU":
            layer = nn.PReLU(shape[-1])
            layer.weight = nn.Parameter(_float_tensor(fixed[0]).reshape(shape[-1]))
            return layer
        case "RELU":
            return nn.ReLU()
        case "ADD":
            return Add()
        case "RESIZE_BILINEAR":
            rows, columns = _integers(fixed)
            return ResizeBilinear((rows, columns))
        case "RESHAPE":
            return ReshapeChannelsLast(graph.tensors[operator.output].shape[1:])
        case "CONCATENATION":
            return Concatenate(options.axis)
    raise InvalidFile(f"operator {operator.kind} is not understood")


def _float_tensor(values: np.ndarray | None) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _integers(fixed: Sequence[np.ndarray | None]) -> list:
    values = fixed[0]
    return values.tolist() if values is not None else []


def build_module(path: Path, signature: TfliteSignature) -> TfliteModule:
    """The file's net. Raises InvalidFile for another file (read_tflite_graph), and for one whose operators do
    not fit together."""
    graph = read_tflite_graph(path, signature)
    try:
        module = TfliteModule(graph)
        shapes = {name: one.to("meta") for name, one in module.state_dict().items()}
        image = torch.empty((1, 3, signature.side, signature.side), device="meta")
        found = functional_call(module, shapes, image)  # shapes alone are computed
    except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise InvalidFile(
            f"{path.name}: its operators do not fit together: {str(error).splitlines()[0]}. Get it again"
        ) from error
    if (outputs := tuple(tuple(one.shape[1:]) for one in found)) != signature.outputs:
        raise InvalidFile(f"{path.name}: its operators give {outputs}, expected {signature.outputs}")
    return module


# --- to be used ---------------------------------------------------------------------------------------------
@contextmanager
def full_float32_convolutions() -> Iterator[None]:
    """On GPUs torch lets cuDNN round what it multiplies to 10 bits by default (TF32): that moves the points
    of a face of 100 px by up to 0.03 px. Gradients are left as they are."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class TorchTfliteNet:
    """models.perception.interfaces.FixedSizeNet: the net of a .tflite file in torch."""

    def __init__(self, path: Path, signature: TfliteSignature):
        self.input_side = signature.side
        self.module = build_module(path, signature)
        """(B,3,S,S) float32 -> outputs."""
        self._net = TorchNet(self.module.to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
        self.device = torch.device("cpu")

    def configure_inference(self, how: InferenceSettings) -> None:
        self._net.configure_inference(how)
        self.device = torch.device(how.device)

    def __call__(self, images: Tensor) -> list[Tensor]:
        if images.requires_grad and torch.is_grad_enabled():  # all are kept for the gradient anyway
            return self._rows(images, len(images))
        size = self._net.batch_size(self.input_side**2)
        parts = map_batches_with_oom_backoff(
            len(images), size, lambda rows, full: self._rows(images[rows], full)
        )
        return [torch.cat(one) for one in zip(*parts, strict=True)]

    def _rows(self, images: Tensor, full: int) -> list[Tensor]:
        # a core is up to 2.6 times as fast so
        images = images.contiguous(memory_format=torch.channels_last)
        with full_float32_convolutions():
            return [one[: len(images)].float() for one in self._net.run_net(images, full)]
