from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.engine.fingerprint import KeyEnvironment, compute_fingerprint_components
from pipelines.errors import UserError
from pipelines.graph import build_graph
from pipelines.runs.session import CODE_ROOT

DEMO = CODE_ROOT / "configs/run/demo.yaml"


def graph_of(*sets):
    return build_graph(load_config(DEMO, sets).config)


def test_leaks_that_are_only_reported_change_what_nobody_else_reads():
    graph = graph_of()
    assert "splits" not in graph.nodes
    assert "identity_check" in graph["corpus"].upstream
    assert [node.name for node in graph if "identity_check" in node.upstream] == ["corpus"]
    assert graph["train.fsrt.warmup"].reads["recordings"].node == "recordings"


@pytest.mark.parametrize("policy", ["refuse", "move"])
def test_training_and_pairs_read_the_split_behind_the_check(policy):
    graph = graph_of(f"data.main.leaks={policy}")
    trained = [node.name for node in graph if node.name.startswith(("train.", "pairs."))]
    assert all("splits" in graph.upstream(name) for name in trained)
    assert {graph[name].reads["recordings"].node for name in trained} == {"splits"}
    assert "splits" in graph["corpus"].upstream


def test_the_setting_is_in_the_key_of_the_splits_alone(project_code):
    environment = KeyEnvironment(project_code, weights=lambda name: name, tool=lambda name: name)

    def keys(*sets):
        config = load_config(DEMO, sets).config
        return {node.name: compute_fingerprint_components(node, config, environment).key
                for node in build_graph(config)}  # fmt: skip

    report, refuse, move = keys(), keys("data.main.leaks=refuse"), keys("data.main.leaks=move")
    assert {name for name in refuse if refuse[name] != move[name]} == {"splits"}
    assert {name for name in report if report[name] != move[name]} == set()


def test_faces_are_not_compared_where_that_is_off():
    graph = graph_of("identity.net=off")
    assert not {"identity", "identity_check"} & set(graph.nodes)
    with pytest.raises(
        UserError, match=r"data\.main\.leaks is move, but no faces are compared; set identity\.net"
    ):
        graph_of("identity.net=off", "data.main.leaks=move")


def test_landmarks_that_are_asked_for_are_computed():
    graph = graph_of("identity.keypoints=other", "keypoints.other.landmarker=dlib68_precise")
    assert graph["identity"].reads["keypoints"].node == "keypoints.other"
    with pytest.raises(UserError, match=r"identity\.keypoints names 'absent'"):
        graph_of("identity.keypoints=absent")


def test_an_evaluated_corpus_is_compared_with_the_one_that_is_trained_on(tmp_path):
    run = tmp_path / "run.yaml"
    run.write_text(DEMO.read_text() + "data: {unseen: {source: synthetic}}\neval: {data: unseen}\n")
    graph = build_graph(load_config(Path(run)).config)
    reads = graph["identity_check@unseen"].reads
    assert reads["trained_0.identity"].node == "identity@main"
    assert set(graph["identity_check@main"].reads) == {"recordings", "identity", "keypoints"}
