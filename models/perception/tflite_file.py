"""A .tflite file as a graph of operators and constant tensors: the part of the format that MediaPipe's face
nets use, and nothing else.

The file is a FlatBuffer (schema: tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3). Shapes are
those of the file: images (1,H,W,C), weights of a convolution (out,kh,kw,in), of a depthwise one (1,kh,kw,C).
Whatever would change the numbers and is not understood here is an error that names it.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from models.errors import InvalidFile, InvalidSettings

FILE_IDENTIFIER, SCHEMA_VERSION = b"TFL3", 3
TENSOR_DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32}
OPTION_CLASSES = {
    "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "MAX_POOL_2D": "Pool2DOptions",
    "ADD": "AddOptions", "CONCATENATION": "ConcatenationOptions", "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESHAPE": "", "PAD": "", "PRELU": "", "RELU": "", "DEQUANTIZE": "",
}  # fmt: skip
"""Operators that are understood -> the schema's class of their options, "" where none counts."""
READ_ERRORS = (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError, OverflowError)
"""What FlatBuffers and numpy raise on bytes that are cut or changed."""


class TfliteTensor(Struct, frozen=True):
    name: str
    shape: tuple[int, ...]
    values: np.ndarray | None
    """Of a constant; None where an operator computes it, or the caller gives it."""


class TfliteOptions(Struct, frozen=True, kw_only=True):
    """Settings of an operator; those of other kinds of operators keep their defaults."""

    same_padding: bool = False
    """SAME: as many zeros as make the output ceil(side / stride) long; else VALID, none."""
    stride: tuple[int, int] = (1, 1)
    """Down and right."""
    window: tuple[int, int] = (1, 1)
    """Height and width of a pooling window."""
    axis: int = 0
    """Of a concatenation."""


class TfliteOperator(Struct, frozen=True):
    kind: str
    """The schema's name, as CONV_2D."""
    inputs: tuple[int, ...]
    """Indices of tensors."""
    output: int
    options: TfliteOptions


class TfliteGraph(Struct, frozen=True):
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    """In the order of execution."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class TfliteSignature(Struct, frozen=True):
    """What tells one net from another."""

    side: int
    """Pixels of the square RGB images that it takes."""
    outputs: tuple[tuple[int, ...], ...]
    """Their shapes for one image, channels last."""


def read_tflite_graph(path: Path, expected: TfliteSignature) -> TfliteGraph:
    """Raises InvalidFile for a file that is no whole .tflite file, holds what is not understood here, or
    another net than expected; InvalidSettings where the package is missing that knows the format."""
    data = path.read_bytes()
    if data[4:8] != FILE_IDENTIFIER:
        raise InvalidFile(
            f"{path.name}: not a .tflite file: bytes 4 to 8 are {data[4:8]!r}, expected b'TFL3'"
        )
    try:
        graph = _read_graph(path.name, data)
        image = graph.tensors[graph.inputs[0]].shape
        found = TfliteSignature(image[1], tuple(graph.tensors[i].shape[1:] for i in graph.outputs))
    except READ_ERRORS as error:
        raise InvalidFile(
            f"{path.name}: a .tflite file cut short or damaged ({len(data)} bytes): {error}. Get it again"
        ) from error
    if found != expected or image != (1, expected.side, expected.side, 3):
        raise InvalidFile(
            f"{path.name}: a net from images {image} to {found.outputs}, expected "
            f"{(1, expected.side, expected.side, 3)} to {expected.outputs}. Is it another net's file?"
        )
    return graph


def _read_graph(file: str, data: bytes) -> TfliteGraph:
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ModuleNotFoundError:
        raise InvalidSettings(
            f"{file}: ai-edge-litert, which reads such files, is not installed: `pip install "
            "ai-edge-litert`; to do without MediaPipe's nets: --set perception.faces=dlib"
        ) from None

    model: Any = schema.Model.GetRootAs(data, 0)  # the schema's generated classes are not typed
    if (model.Version(), model.SubgraphsLength()) != (SCHEMA_VERSION, 1):
        raise InvalidFile(
            f"{file}: version {model.Version()} with {model.SubgraphsLength()} graphs, expected version "
            f"{SCHEMA_VERSION} with one"
        )
    graph = model.Subgraphs(0)
    tensors = tuple(_tensor(file, model, graph.Tensors(i)) for i in range(graph.TensorsLength()))
    operators = tuple(_operator(file, model, graph.Operators(i)) for i in range(graph.OperatorsLength()))
    ends = (tuple(graph.InputsAsNumpy().tolist()), tuple(graph.OutputsAsNumpy().tolist()))
    used = {i for one in operators for i in (*one.inputs, one.output)} | {*ends[0], *ends[1]}
    if max(used) >= len(tensors) or min(used) < 0:
        raise IndexError(f"tensor {max(used)} of {len(tensors)}")
    return TfliteGraph(tensors, operators, *ends)


def _tensor(file: str, model: Any, tensor: Any) -> TfliteTensor:
    name, shape = tensor.Name().decode(), tuple(tensor.ShapeAsNumpy().tolist())
    buffer = model.Buffers(tensor.Buffer())
    if not buffer.DataLength():
        return TfliteTensor(name, shape, None)
    if tensor.Sparsity() is not None:
        raise InvalidFile(f"{file}: tensor {name} is stored sparse, which is not understood")
    kind = _enum_names("TensorType")[tensor.Type()]
    if kind not in TENSOR_DTYPES:
        raise InvalidFile(f"{file}: tensor {name} is of type {kind}, expected {', '.join(TENSOR_DTYPES)}")
    values = buffer.DataAsNumpy().view(TENSOR_DTYPES[kind]).reshape(shape)
    return TfliteTensor(name, shape, values)


def _operator(file: str, model: Any, operator: Any) -> TfliteOperator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Files written before version 3a keep the operator in the older of the two fields.
    kind = _enum_names("BuiltinOperator")[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    if kind not in OPTION_CLASSES:
        known = ", ".join(OPTION_CLASSES)
        raise InvalidFile(f"{file}: operator {kind} is not understood; expected {known}")
    if operator.OutputsLength() != 1:
        raise InvalidFile(f"{file}: operator {kind} with {operator.OutputsLength()} outputs, expected one")
    inputs = tuple(operator.InputsAsNumpy().tolist())
    return TfliteOperator(kind, inputs, operator.Outputs(0), _options(file, kind, operator))


def _options(file: str, kind: str, operator: Any) -> TfliteOptions:
    from ai_edge_litert import schema_py_generated as schema

    if not OPTION_CLASSES[kind]:
        return TfliteOptions()
    found = getattr(schema, OPTION_CLASSES[kind])()
    table = operator.BuiltinOptions()
    found.Init(table.Bytes, table.Pos)
    _check_options(file, kind, found)
    if kind in ("ADD", "RESIZE_BILINEAR"):
        return TfliteOptions()
    if kind == "CONCATENATION":
        return TfliteOptions(axis=found.Axis())
    return TfliteOptions(
        same_padding=found.Padding() == schema.Padding.SAME,
        stride=(found.StrideH(), found.StrideW()),
        window=(found.FilterHeight(), found.FilterWidth()) if kind == "MAX_POOL_2D" else (1, 1),
    )


def _check_options(file: str, kind: str, found: object) -> None:
    """Options that are allowed one value only, for all files that are read here have it."""
    expected = {
        "FusedActivationFunction": 0, "DilationHFactor": 1, "DilationWFactor": 1, "DepthMultiplier": 1,
        "AlignCorners": False, "HalfPixelCenters": True,
    }  # fmt: skip
    for name, value in expected.items():
        if (option := getattr(found, name, None)) is not None and (have := option()) != value:
            raise InvalidFile(f"{file}: operator {kind} with {name} {have}, expected {value}")


@cache
def _enum_names(enum: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(getattr(schema, enum)).items() if isinstance(value, int)}
