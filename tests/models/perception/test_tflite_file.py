import sys

import pytest

from models.errors import InvalidFile, InvalidSettings
from models.perception.faces.blazeface import SHORT_RANGE_NET
from models.perception.faces.face_mesh import IRIS_NET, MESH_NET
from models.perception.litert_net import LiteRtNet
from models.perception.tflite_file import read_tflite_graph
from models.perception.tflite_net import TorchTfliteNet


def test_the_operators_of_the_mesh_are_read_in_their_order(mesh_file):
    graph = read_tflite_graph(mesh_file, MESH_NET)
    kinds = [one.kind for one in graph.operators]
    counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    assert counts == {
        "ADD": 20, "CONV_2D": 25, "DEPTHWISE_CONV_2D": 20, "MAX_POOL_2D": 6, "PAD": 3, "PRELU": 23,
    }  # fmt: skip
    assert sum(t.values.size for t in graph.tensors if t.values is not None and t.values.ndim) > 600_000


def test_an_edited_file_is_read_as_the_library_wrote_it(mesh_file, edited_file):
    graph = read_tflite_graph(edited_file(lambda model: None), MESH_NET)
    assert [one.kind for one in graph.operators] == [
        one.kind for one in read_tflite_graph(mesh_file, MESH_NET).operators
    ]


def test_an_operator_that_is_not_understood_is_named(edited_file):
    def edit(model):
        relu = next(c for c in model.operatorCodes if c.deprecatedBuiltinCode == 54)  # PRELU
        relu.builtinCode = relu.deprecatedBuiltinCode = 14

    with pytest.raises(InvalidFile, match="operator LOGISTIC is not understood"):
        read_tflite_graph(edited_file(edit), MESH_NET)


def test_a_fused_activation_is_refused(edited_file):
    def edit(model):
        model.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = 1

    with pytest.raises(InvalidFile, match="CONV_2D with FusedActivationFunction 1, expected 0"):
        read_tflite_graph(edited_file(edit), MESH_NET)


def test_a_tensor_of_another_type_is_refused(edited_file):
    def edit(model):
        constant = next(t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None)
        constant.type = 9

    with pytest.raises(InvalidFile, match="is of type INT8, expected FLOAT32"):
        read_tflite_graph(edited_file(edit), MESH_NET)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(mesh_file, tmp_path, share):
    data = mesh_file.read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InvalidFile, match=r"cut\.tflite: a \.tflite file cut short or damaged"):
        read_tflite_graph(path, MESH_NET)


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", bytes(64)])
def test_a_file_of_another_kind_is_refused(tmp_path, data):
    path = tmp_path / "other.tflite"
    path.write_bytes(data)
    with pytest.raises(InvalidFile, match=r"other\.tflite: not a \.tflite file"):
        read_tflite_graph(path, MESH_NET)


@pytest.mark.parametrize("expected", [SHORT_RANGE_NET, IRIS_NET])
def test_the_file_of_another_net_is_refused(mesh_file, expected):
    with pytest.raises(InvalidFile, match=r"a net from images \(1, 192, 192, 3\) .* another net's file"):
        read_tflite_graph(mesh_file, expected)


def test_that_the_package_is_missing_is_said_with_how_to_get_it(mesh_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)  # as Python marks what cannot be imported
    for net in (LiteRtNet, TorchTfliteNet):
        with pytest.raises(InvalidSettings, match=r"`pip install ai-edge-litert`; .*perception\.faces=dlib"):
            net(mesh_file, MESH_NET)
