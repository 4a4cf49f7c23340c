"""Which corpora and instances a run needs."""

import pytest

from pipelines.config import load_config
from pipelines.errors import UserError
from pipelines.graph import build_graph
from pipelines.runs.graph_builder import (
    find_needed_instances,
    map_paths_to_themselves,
    protocol_corpora,
    recordings_nodes_by_corpus,
)

TEXT = """
use: [run/tiny, data/synthetic]
models: [fsrt, headgan]
data: {faces: {source: pictures}, talks: {source: folder}}
keypoints: {main: {}, fan: {landmarker: fan2d}}
eval: {protocols: {self: {}, portraits: {kind: cross_reenactment, source_data: faces, driving_data: talks}}}
"""


@pytest.fixture
def config(tmp_path):
    def of(*sets: str):
        (tmp_path / "run.yaml").write_text(TEXT)
        return load_config(tmp_path / "run.yaml", sets).config

    return of


def test_a_protocol_takes_the_corpus_of_the_evaluation_unless_it_names_its_own(config):
    usual = config("eval.data=talks")
    assert protocol_corpora(usual, usual.eval.active_protocols["self"]) == ("talks", "talks")
    assert protocol_corpora(usual, usual.eval.active_protocols["portraits"]) == ("faces", "talks")
    first = config("fsrt.data=faces")
    assert protocol_corpora(first, first.eval.active_protocols["self"]) == ("faces", "faces")


def test_of_a_corpus_that_is_only_evaluated_what_models_are_driven_with_is_needed(config):
    found = find_needed_instances(config())
    read = {"keypoints": ("main",), "fit3dmm": ("main",), "speech": ("main",), "views": ("truth",)}
    assert found["main"] == read
    assert found["faces"] == found["talks"] == found["main"]  # keypoints: those of the fit
    assert find_needed_instances(config("models=[fsrt]"))["faces"] == {"views": ("truth",)}


def test_the_view_that_is_scored_is_needed_of_the_corpora_that_are_evaluated_alone(config):
    def viewed(*sets):
        needed = find_needed_instances(config(*sets))
        return {corpus: stages.get("views", ()) for corpus, stages in needed.items()}

    none = "eval.protocols.self=null"
    assert viewed(none) == {"main": (), "faces": ("truth",), "talks": ("truth",)}
    assert viewed(none, "eval.frames_from=clips") == {"main": (), "faces": (), "talks": ()}
    only = "eval.protocols.self.frames_from=views.truth", "eval.frames_from=clips"
    assert viewed(*only) == {"main": ("truth",), "faces": (), "talks": ()}


def test_an_instance_that_nobody_reads_is_needed_where_it_is_asked_for(config):
    assert find_needed_instances(config())["talks"]["keypoints"] == ("main",)
    assert find_needed_instances(config("also=[keypoints.fan]"))["talks"]["keypoints"] == ("main", "fan")


@pytest.mark.parametrize(
    ("also", "message"),
    [("keypoints.none", "also names 'none', but keypoints has main, fan"),
     ("points.fan", "also: 'points.fan': expected one of keypoints, fits, speech, views, a dot")],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused_by_name(config, also, message):
    with pytest.raises(UserError, match=message):
        find_needed_instances(config(f"also=[{also}]"))


def test_each_corpus_is_listed_by_a_node_of_its_own(config):
    assert recordings_nodes_by_corpus(build_graph(config("models=[fsrt]"))) == {
        "main": "recordings@main", "faces": "recordings@faces", "talks": "recordings@talks"
    }  # fmt: skip


def test_settings_under_their_own_path():
    assert map_paths_to_themselves("clips", "download.codec") == {
        "clips": "clips",
        "download.codec": "download.codec",
    }


def test_nets_in_litert_are_refused_beside_nets_on_a_gpu_before_anything_runs(config):
    """The detector in LiteRT, the landmarker in torch."""
    sets = ["keypoints.main.landmarker=fan2d", "runtime.gpu_share=0.25"]
    told = (
        r"keypoints.main@\w+: mp_face.litert cannot run beside nets on a GPU.*--set perception.backend=torch"
    )
    with pytest.raises(UserError, match=told):
        build_graph(config(*sets))
    node = build_graph(config(*sets, "perception.backend=torch"))["keypoints.main@faces"]
    assert node.resources["gpu"] == 0.25
