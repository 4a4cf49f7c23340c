"""Named instances: several of a stage, of a model and of corpora in one run."""

from pathlib import Path

import pytest

from models.errors import InvalidSettings
from pipelines.config import ConfigError, load_config
from pipelines.engine.fingerprint import KeyEnvironment, compute_fingerprint_components
from pipelines.engine.keys import hash_json
from pipelines.errors import UserError
from pipelines.graph import build_graph

RUN = Path(__file__).with_name("e2e") / "instances.yaml"
PHASES = ("keypoints", "warmup", "perceptual", "adversarial")


@pytest.fixture(scope="module")
def environment(project_code):
    return KeyEnvironment(project_code, weights=lambda name: name, tool=lambda name: name)


@pytest.fixture(scope="module")
def keys(environment):
    """Settings -> node -> a digest of its stage, its own key and those of all that it is made from."""

    def of(*sets: str) -> dict[str, str]:
        config = load_config(RUN, sets).config
        found: dict[str, str] = {}
        for node in build_graph(config):
            made_from = {role: found[read.node] for role, read in node.reads.items()}
            made_from |= {f"{name}.{role}": found[node_] for name, use in node.uses.items()
                          for role, (node_, _) in use.files.items()}  # fmt: skip
            found[node.name] = hash_json(
                node.stage, compute_fingerprint_components(node, config, environment).key, made_from
            )
        return found

    return of


def test_one_run_holds_several_instances_and_each_model_reads_its_own():
    graph = build_graph(load_config(RUN).config)
    stages = [node for node in graph.nodes if node.split(".")[0] in ("keypoints", "fit3dmm", "speech")]
    assert stages == ["keypoints.main", "keypoints.smooth", "fit3dmm.main", "fit3dmm.algorithm1",
                      "speech.main", "speech.mel"]  # fmt: skip
    read = {name: set(graph[f"train.{name}.adversarial"].upstream) for name in ("headgan", "headgan_b")}
    assert {"fit3dmm.main", "speech.main"} <= read["headgan"]
    assert {"fit3dmm.algorithm1", "speech.mel"} <= read["headgan_b"]


def test_a_phase_is_told_by_which_nets_its_data_were_prepared():
    config = load_config(RUN, ["fsrt_b.keypoints=smooth"]).config
    graph = build_graph(config)
    told = {name: graph[f"train.{name}.adversarial"].config for name in ("fsrt", "fsrt_b", "headgan")}
    assert told["fsrt"]["keypoints.landmarker"] == "keypoints.main.landmarker"
    assert told["fsrt_b"]["keypoints.landmarker"] == "keypoints.smooth.landmarker"
    assert told["headgan"]["clips.detector"] == "clips.detector"
    assert told["headgan"]["clips.rules"] == "clips.rules"


def test_phases_before_the_one_that_differs_are_shared(keys):
    found = keys()
    shared = [phase for phase in PHASES if found[f"train.fsrt.{phase}"] == found[f"train.fsrt_b.{phase}"]]
    assert shared == ["keypoints", "warmup", "perceptual"]


def test_a_changed_instance_concerns_its_readers_alone(keys):
    before, after = keys(), keys("fits.algorithm1.alignments=3")
    changed = {name for name in before if before[name] != after[name]}
    assert "fit3dmm.algorithm1" in changed
    evaluation = ("pairs", "generate", "samples", "features", "score", "report")
    others = {name for name in changed if not name.startswith(evaluation)}
    trained = {"train.headgan_b.adversarial", "train.headgan_b.decay"}
    assert others == {"fit3dmm.algorithm1", *trained}


def test_the_same_settings_under_another_name_are_the_same_node(tmp_path, environment):
    text = RUN.read_text().replace("algorithm1:", "other:").replace("fits: algorithm1", "fits: other")
    (tmp_path / "run.yaml").write_text(text)
    theirs, ours = load_config(tmp_path / "run.yaml").config, load_config(RUN).config
    one = compute_fingerprint_components(build_graph(ours)["fit3dmm.algorithm1"], ours, environment)
    other = compute_fingerprint_components(build_graph(theirs)["fit3dmm.other"], theirs, environment)
    assert one == other


def test_a_name_that_the_run_lacks_is_one_line_with_the_known_ones():
    with pytest.raises(
        UserError, match=r"headgan\.fits names 'deca', but fits has main, algorithm1; add fits\.deca"
    ):
        build_graph(load_config(RUN, ["headgan.fits=deca"]).config)


def test_two_corpora_have_nodes_of_their_own(tmp_path):
    text = "data: {talks: {source: folder, folder: {path: /videos}}}\nfsrt: {data: talks}\n"
    (tmp_path / "run.yaml").write_text(f"use: [run/tiny, data/synthetic]\nmodels: [fsrt, headgan]\n{text}")
    graph = build_graph(load_config(tmp_path / "run.yaml").config)
    assert {"clips@main", "clips@talks"} <= set(graph.nodes)
    assert "clips@talks" in graph["train.fsrt.warmup"].upstream
    assert "clips@main" in graph["train.headgan.adversarial"].upstream
    assert "fit3dmm.main@talks" in graph["generate.headgan.self"].upstream  # driven with what is evaluated


PORTRAITS = """
use: [run/tiny, data/synthetic]
models: [headgan]
data:
  faces: {source: pictures, pictures: {path: /faces}}
  talks: {source: folder, folder: {path: /videos}, test_fraction: 1}
eval:
  protocols:
    self: null
    portraits: {kind: cross_reenactment, source_data: faces, driving_data: talks}
"""


@pytest.fixture
def portraits(tmp_path):
    def of(*sets: str, text: str = PORTRAITS):
        (tmp_path / "run.yaml").write_text(text)
        config = load_config(tmp_path / "run.yaml", sets).config
        return build_graph(config), config

    return of


def test_one_corpus_trains_another_holds_sources_and_a_third_drives(portraits):
    graph, _ = portraits()
    assert {n for n in graph.upstream("train.headgan.adversarial") if "@" in n} == {
        f"{node}@main"
        for node in ("recordings", "download", "clips", "keypoints.main", "fit3dmm.main", "speech.main")
    }
    model = graph["generate.headgan.portraits"].reads
    assert {role: (read.node, read.by) for role, read in model.items() if role != "pairs"} == {
        f"{side}.{role}": (f"{node}@{corpus}", f"{side}_recording")
        for side, corpus in (("source", "faces"), ("driving", "talks"))
        for role, node in (
            ("clips", "clips"),
            ("scored_frames", "views.truth"),
            ("fit3dmm", "fit3dmm.main"),
            ("speech", "speech.main"),
        )
    }
    assert {"source.recordings", "driving.recordings", "driving.fit3dmm"} < set(
        graph["pairs.portraits"].reads
    )
    assert set(graph["generate.driving.portraits"].reads) == {"pairs", "driving.scored_frames"}
    assert set(graph["generate.copy_source.portraits"].reads) == {"pairs", "source.scored_frames"}


def test_the_corpora_of_a_protocol_are_labels(portraits, environment):
    renamed = PORTRAITS.replace("faces", "stills").replace("/stills", "/faces")
    keys = []
    for graph, config in (portraits(), portraits(text=renamed)):
        keys.append([compute_fingerprint_components(graph[f"{name}.portraits"], config, environment)
                     for name in ("pairs", "generate.headgan")])  # fmt: skip
    assert keys[0] == keys[1]


def test_corpora_without_training_are_not_listed_for_a_released_model(portraits):
    graph, _ = portraits("models=[fsrt]", "fsrt.weights=fsrt_vox")
    assert not [name for name in graph.nodes if name.endswith("@main")]
    assert not [name for name in graph.nodes if name.startswith(("keypoints", "train"))]


def test_self_reenactment_over_two_corpora_is_refused(portraits):
    with pytest.raises(ConfigError, match=r"source_data 'faces' and driving_data 'talks': self_reenactment"):
        portraits("eval.protocols.portraits.kind=self_reenactment")


def test_a_corpus_that_a_protocol_names_and_the_run_lacks_is_named_by_its_setting(portraits):
    with pytest.raises(
        UserError, match=r"eval\.protocols\.portraits\.driving_data names 'speakers', but data"
    ):
        portraits("eval.protocols.portraits.driving_data=speakers")


def test_a_model_is_trained_once_for_run_files_with_other_corpora_beside_it(environment):
    keys = []
    for name in ("micro.yaml", "portraits.yaml"):
        config = load_config(RUN.with_name(name)).config
        graph = build_graph(config)
        keys.append([compute_fingerprint_components(graph[node], config, environment)
                     for node in ("train.headgan.adversarial", "train.headgan.decay")])  # fmt: skip
    assert keys[0] == keys[1]


# --- a checkpoint of another model --------------------------------------------------------------------------
USES = "fsrt_b.phases.warmup.uses={{teacher: {}}}".format


def test_a_phase_uses_the_checkpoint_of_another_model_of_the_run():
    graph = build_graph(load_config(RUN, ["models=[fsrt_b,headgan]", USES("headgan.decay")]).config)
    assert graph["train.fsrt_b.warmup"].reads["uses.teacher"].node == "train.headgan.decay"
    assert "fit3dmm.main" in graph.upstream("train.fsrt_b.warmup")


def test_a_phase_uses_a_model_that_enters_by_released_weights():
    sets = ("headgan.weights=headgan_vox", USES("headgan.decay"))
    graph = build_graph(load_config(RUN, ["models=[fsrt_b,headgan]", *sets]).config)
    assert graph["train.fsrt_b.warmup"].reads["uses.teacher"].node == "release.headgan"


def test_the_name_of_the_other_model_is_in_no_key(environment):
    found = []
    for name in ("headgan", "headgan_b"):
        config = load_config(RUN, [f"models=[fsrt_b,{name}]", USES(f"{name}.decay")]).config
        node = build_graph(config)["train.fsrt_b.warmup"]
        found.append((list(node.reads), compute_fingerprint_components(node, config, environment)))
    assert found[0] == found[1]
    assert found[0][1].config["fsrt.phases.warmup.uses.teacher"] == "headgan.decay"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([USES("headgan.decay")], r"train.fsrt_b.warmup uses 'headgan.decay', but the models of this run"),
        (
            [USES("headgan.decay"), "models=[fsrt_b,headgan]", "headgan.phases.decay=null"],
            "uses 'headgan.decay', but headgan trains no phase decay; its phases are adversarial",
        ),
        (
            [USES("headgan.decay"), "models=[fsrt_b,headgan]",
             "headgan.phases.adversarial.uses={teacher: fsrt_b.warmup}"],
            "cannot be trained one after the other: fsrt_b reads headgan reads fsrt_b, by init or us",
        ),
    ],
)  # fmt: skip
def test_a_checkpoint_that_no_model_can_give_first_is_refused(sets, message):
    with pytest.raises(InvalidSettings, match=message):
        build_graph(load_config(RUN, ["models=[fsrt_b]", *sets]).config)
