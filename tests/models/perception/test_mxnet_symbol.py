"""MXNet symbols run in torch: each operator against torch.nn or the definition, and refusals by name."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from models.errors import InvalidFile
from models.perception.mxnet_symbol import OPERATORS, SymbolNet
from tests.mxnet_files import SymbolWriter

IMAGES = torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(0))


def run(writer, output, images=IMAGES):
    arrays = {name: torch.from_numpy(array) for name, array in writer.arrays.items()}
    return SymbolNet(writer.graph(), arrays, output)(images)


def test_a_convolution_with_stride_padding_dilation_and_groups():
    judge, writer = nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 2), (2, 1), groups=2), SymbolWriter()
    weight, bias = (writer.array(f"c_{n}", getattr(judge, n).detach()) for n in ("weight", "bias"))
    writer.add("Convolution", "c", (0, weight, bias), kernel=(3, 5), stride=(2, 1), pad=(1, 2), dilate=(2, 1),
               num_group=2, num_filter=6, no_bias=False, workspace=1024)  # fmt: skip
    torch.testing.assert_close(run(writer, "c"), judge(IMAGES))


@pytest.mark.parametrize("fixed", [True, False])
def test_batch_norm_with_running_statistics(fixed):
    judge = nn.BatchNorm2d(4, eps=2e-5).eval()
    nn.init.normal_(judge.weight), nn.init.normal_(judge.bias)
    judge.running_mean.normal_(), judge.running_var.uniform_(0.5, 2)
    writer = SymbolWriter()
    inputs = (
        writer.array("g", judge.weight.detach()), writer.array("b", judge.bias.detach()),
        writer.array("m", judge.running_mean, "aux"), writer.array("v", judge.running_var, "aux"),
    )  # fmt: skip
    writer.add("BatchNorm", "n", (0, *inputs), eps=2e-5, fix_gamma=fixed, momentum=0.9, use_global_stats=True)
    if fixed:
        nn.init.ones_(judge.weight)
    torch.testing.assert_close(run(writer, "n"), judge(IMAGES))


def test_the_defaults_of_batch_norm_are_mxnets():
    writer = SymbolWriter()
    inputs = [writer.array(n, np.full(4, 4.0)) for n in ("g", "b")] + [
        writer.array(n, np.full(4, value), "aux") for n, value in (("m", 1.0), ("v", 0.0))
    ]
    writer.add("BatchNorm", "n", (0, *inputs))
    torch.testing.assert_close(run(writer, "n"), (IMAGES - 1) / math.sqrt(1e-3) + 4)


@pytest.mark.parametrize(
    ("op", "chosen", "judge"),
    [
        ("Activation", {"act_type": "relu"}, torch.relu),
        ("Activation", {"act_type": "sigmoid"}, torch.sigmoid),
        ("Activation", {"act_type": "tanh"}, torch.tanh),
        ("Activation", {"act_type": "softrelu"}, lambda x: torch.log1p(x.exp())),
        ("LeakyReLU", {"act_type": "leaky", "slope": 0.1}, lambda x: torch.where(x > 0, x, 0.1 * x)),
        (
            "LeakyReLU",
            {"act_type": "elu", "slope": 0.5},
            lambda x: torch.where(x > 0, x, 0.5 * (x.exp() - 1)),
        ),
        ("_mul_scalar", {"scalar": 0.0078125}, lambda x: x / 128),
        ("_minus_scalar", {"scalar": "127.5"}, lambda x: x - 127.5),
        ("_plus_scalar", {"scalar": 2, "is_int": "True"}, lambda x: x + 2),
        ("_div_scalar", {"scalar": 4}, lambda x: x / 4),
        ("Flatten", {}, lambda x: x.reshape(2, -1)),
        ("Reshape", {"shape": "(0, 2, -1)"}, lambda x: x.reshape(2, 2, -1)),
        ("Dropout", {"p": 0.4}, lambda x: x),
        ("identity", {}, lambda x: x),
    ],
)
def test_operators_of_one_input(op, chosen, judge):
    writer = SymbolWriter()
    writer.add(op, "it", (0,), **chosen)
    torch.testing.assert_close(run(writer, "it"), judge(IMAGES))


def test_prelu_concat_and_sums():
    writer, slope = SymbolWriter(), torch.rand(4)
    curved = writer.add("LeakyReLU", "p", (0, writer.array("gamma", slope)), act_type="prelu")
    writer.add("Concat", "both", (0, curved), dim=1, num_args=2)
    writer.add("elemwise_add", "sum", (0, curved))
    judge = torch.where(IMAGES > 0, IMAGES, IMAGES * slope[:, None, None])
    torch.testing.assert_close(run(writer, "both"), torch.cat([IMAGES, judge], 1))
    torch.testing.assert_close(run(writer, "sum"), IMAGES + judge)


@pytest.mark.parametrize("flat", [True, False])
def test_a_fully_connected_layer(flat):
    judge, writer = nn.Linear(4 * 9 * 11 if flat else 11, 5), SymbolWriter()
    weight, bias = (writer.array(f"fc1_{n}", getattr(judge, n).detach()) for n in ("weight", "bias"))
    writer.add("FullyConnected", "fc1", (0, weight, bias), num_hidden=5, no_bias=False, flatten=flat)
    torch.testing.assert_close(
        run(writer, "fc1"), judge(IMAGES.flatten(1) if flat else IMAGES), atol=1e-5, rtol=1e-5
    )


def pooled(x, kind, kernel, stride, pad, full, counted):
    """By MXNet's definition, window by window: in a mean that counts padding it ends with that."""
    rows = []
    for side in (0, 1):
        steps = (x.shape[2 + side] + 2 * pad[side] - kernel[side]) / stride[side]
        rows.append(1 + (math.ceil(steps) if full else math.floor(steps)))
    out = torch.empty(*x.shape[:2], *rows)
    for i in range(rows[0]):
        for j in range(rows[1]):
            edges = []
            for at, side in ((i, 0), (j, 1)):
                begin = at * stride[side] - pad[side]
                end = min(begin + kernel[side], x.shape[2 + side] + pad[side])
                edges.append((begin, end, max(begin, 0), min(end, x.shape[2 + side])))
            assume(all(first < last for _, _, first, last in edges))  # no window of padding alone
            inner = x[:, :, edges[0][2] : edges[0][3], edges[1][2] : edges[1][3]]
            area = math.prod(
                (end - begin) if counted else (last - first) for begin, end, first, last in edges
            )
            out[:, :, i, j] = {"max": inner.amax, "sum": inner.sum, "avg": inner.sum}[kind]((2, 3))
            if kind == "avg":
                out[:, :, i, j] /= area
    return out


PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(
    kind=st.sampled_from(["max", "avg", "sum"]), full=st.booleans(), counted=st.booleans(), kernel=PAIRS,
    stride=PAIRS, pads=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_pooling_is_the_definition(kind, full, counted, kernel, stride, pads):
    pad = tuple(k // 2 if pads and k // 2 < k else 0 for k in kernel)
    steps = [max(1, min(s, k)) for s, k in zip(stride, kernel, strict=True)]  # no window beyond the image
    writer = SymbolWriter()
    writer.add("Pooling", "pool", (0,), kernel=kernel, stride=tuple(steps), pad=pad, pool_type=kind,
               pooling_convention="full" if full else "valid", count_include_pad=counted)  # fmt: skip
    judge = pooled(IMAGES, kind, kernel, steps, pad, full, counted)
    torch.testing.assert_close(run(writer, "pool"), judge)


@pytest.mark.parametrize(("kind", "judge"), [("avg", torch.mean), ("max", torch.amax)])
def test_global_pooling_ignores_the_kernel(kind, judge):
    writer = SymbolWriter()
    writer.add("Pooling", "pool", (0,), kernel=(7, 7), global_pool=True, pool_type=kind)
    torch.testing.assert_close(run(writer, "pool"), judge(IMAGES, (2, 3), keepdim=True))


@pytest.mark.parametrize(
    ("op", "chosen", "told"),
    [
        ("Custom", {}, "operator Custom of node it is not among Convolution"),
        ("Activation", {"act_type": "mish"}, "Activation it: act_type 'mish': expected relu or sigmoid"),
        ("Pooling", {"kernel": "(2, 2, 2)"}, "Pooling it: kernel .*: expected 2 whole numbers"),
        ("Convolution", {"kernel": "(3,)"}, "expected two whole numbers"),
        ("_mul_scalar", {"scalar": "nan"}, "scalar 'nan': expected a finite number"),
        ("Flatten", {"twist": 1}, "Flatten it: setting 'twist' is not understood"),
        ("BatchNorm", {"axis": 3}, "axis '3': expected 1"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(op, chosen, told):
    writer = SymbolWriter()
    writer.add(op, "it", (0,), **chosen)
    with pytest.raises(InvalidFile, match=told):
        run(writer, "it")


def test_a_graph_of_another_kind_is_refused():
    for graph in (
        None,
        {},
        {"nodes": []},
        {"nodes": [3]},
        {"nodes": [{"op": "null", "name": "data", "inputs": [[5, 0]]}]},
    ):
        with pytest.raises(InvalidFile):
            SymbolNet(graph, {}, "fc1")
    writer = SymbolWriter()
    writer.add("Flatten", "flat", (0,))
    with pytest.raises(InvalidFile, match="0 nodes of the symbol are called 'fc1'"):
        SymbolNet(writer.graph(), {}, "fc1")
    weight = SymbolWriter()
    weight.nodes.append({"op": "null", "name": "w", "inputs": []})
    weight.add("FullyConnected", "fc1", (0, 1), no_bias=True)
    with pytest.raises(InvalidFile, match="the symbol's w is not among the 0 arrays"):
        SymbolNet(weight.graph(), {}, "fc1")


def test_every_operator_is_looked_at_here():
    text = Path(__file__).read_text()
    aliases = {
        "_plus",
        "_Plus",
        "broadcast_add",
        "elemwise_mul",
        "_mul",
        "broadcast_mul",
        "_copy",
        "BlockGrad",
    }
    assert {op for op in OPERATORS if f'"{op}"' not in text} <= aliases
