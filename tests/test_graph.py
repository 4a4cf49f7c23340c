"""The DAG: wired as designed, nothing undeclared, and an edit reaches exactly who it should."""

import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from msgspec.structs import replace

from models import MODELS
from models.api import BestCriterion
from models.errors import InvalidSettings
from models.headgan.phases import PHASES
from models.spec import CheckpointUse, ModelNodeSpec, TaskSpec, load_model_spec
from pipelines.config import load_config
from pipelines.engine.fingerprint import flatten_settings, list_code_entry_points
from pipelines.engine.keys import lookup_setting
from pipelines.errors import UserError
from pipelines.graph import build_graph, check_frame_family
from pipelines.runs.session import CODE_ROOT
from pipelines.train.best_figure import best_figure_needs

DEMO = CODE_ROOT / "configs/run/demo.yaml"
CONFIG = load_config(DEMO).config


@pytest.fixture(scope="module")
def graph():
    return build_graph(CONFIG)


@pytest.fixture(scope="module")
def reached(graph, project_code):
    """Node -> every symbol that its code reaches."""

    @cache
    def of(node: str) -> set[str]:
        return set(project_code.reachable_symbols(list_code_entry_points(graph[node], CONFIG, project_code)))

    return of


def test_the_nodes_are_those_of_the_design(graph):
    assert list(graph.nodes) == [
        "recordings", "download", "clips", "keypoints.main", "fit3dmm.main", "identity", "speech.main",
        "views.truth", "identity_check", "corpus",
        "train.fsrt.keypoints", "train.fsrt.warmup", "train.fsrt.perceptual", "train.fsrt.adversarial",
        "train.headgan.adversarial", "train.headgan.decay", "pairs.self",
        *(f"generate.{method}.self"
          for method in ("truth", "copy_source", "warp", "codec", "fsrt", "headgan")),
        *(f"samples.{model}.self" for model in ("fsrt", "headgan")),
        *(f"features.{method}.self.{feature}"
          for feature in ("landmarks.dlib68", "landmarks.mesh468_iris", "identity.dlib_resnet",
                          "imagenet.efficientnet_lite0")
          for method in ("fsrt", "headgan", "copy_source", "warp", "codec", "truth")),
        "features.truth.self.sound.loudness",
        *(f"score.{method}.self" for method in ("fsrt", "headgan", "copy_source", "warp", "codec")), "report",
    ]  # fmt: skip


def test_fsrt_reads_neither_speech_nor_3dmm(graph):
    assert not {"speech.main", "fit3dmm.main"} & graph.upstream("train.fsrt.adversarial")
    assert not {"speech", "fit3dmm"} & set(graph["generate.fsrt.self"].reads)


def test_one_table_of_pairs_serves_both_models_and_asks_for_what_each_is_driven_with(graph):
    assert set(graph["pairs.self"].reads) == {"recordings", "clips", "fit3dmm", "speech", "scored_frames"}
    assert {graph[f"generate.{model}.self"].units for model in ("fsrt", "headgan")} == {"pairs.self"}
    alone = build_graph(load_config(DEMO, ["models=[fsrt]"]).config)
    assert set(alone["pairs.self"].reads) == {"recordings", "clips", "scored_frames"}


def test_a_run_that_scores_several_sources_is_refused_before_headgan_trains():
    with pytest.raises(InvalidSettings, match=r"protocols\.self\.sources 2: headgan is driven from one so"):
        build_graph(load_config(DEMO, ["eval.protocols.self.sources=2"]).config)


def test_no_model_is_code_of_the_other(graph, reached):
    for mine, other in (("fsrt", "headgan"), ("headgan", "fsrt")):
        for node in graph.nodes:
            if node.split(".")[0] in ("train", "generate") and f".{mine}" in node:
                assert not [s for s in reached(node) if s.startswith(f"models.{other}")], node


def test_the_head_that_is_drawn_is_code_of_headgans_generation_alone(reached):
    head = "models.perception.head.default_head.load_analytic_head"
    assert head in reached("generate.headgan.self")
    assert head not in reached("generate.fsrt.self")


def test_every_entry_is_found(graph, reached):
    for node in graph:
        assert reached(node.name)


def test_the_decoder_is_code_of_warmup_and_generation_but_not_of_the_detector(reached):
    decoder = "models.fsrt.network.Decoder"
    assert decoder in reached("train.fsrt.warmup")
    assert decoder in reached("generate.fsrt.self")
    assert decoder not in reached("train.fsrt.keypoints")


def test_preprocessing_reaches_no_model_and_training_no_stage(reached):
    for node in ("clips", "keypoints.main", "fit3dmm.main", "speech.main"):
        assert not [s for s in reached(node) if s.startswith(("models.fsrt", "pipelines.train"))]
    assert not [s for s in reached("train.fsrt.warmup") if s.startswith("pipelines.preprocess")]


def test_a_new_line_in_a_lookup_table_is_nobodys_code(graph, reached):
    for node in graph:
        assert not {
            "models.MODELS",
            "models.perception.NETS",
            "storage.codecs.FIELD_CODECS_BY_EXTENSION",
        } & reached(node.name)


@pytest.mark.parametrize("name", sorted(p.stem for p in (CODE_ROOT / "configs/run").glob("*.yaml")))
def test_every_run_file_builds(name):
    config = load_config(Path(CODE_ROOT / f"configs/run/{name}.yaml")).config
    assert "report" in build_graph(config).nodes


def test_views_are_cut_for_who_asks(graph):
    assert [node for node in graph.nodes if node.startswith("views.")] == ["views.truth"]  # by evaluation
    asked = build_graph(load_config(DEMO, ["also=[views.ffhq256,views.vox512]"]).config)
    assert {"clips", "keypoints.main"} <= asked.upstream("views.ffhq256")
    assert "keypoints.main" not in asked.upstream("views.vox512")
    assert asked["clips"] == graph["clips"]


def test_frames_of_a_view_are_refused_and_not_replaced_by_those_of_the_clips():
    view = "views.ffhq256"
    check_frame_family("fsrt", "warmup", {"clips": ("frames", "clip"), view: ("affine",)}, "clips")
    check_frame_family("fsrt", "warmup", {"clips": ("clip",), view: ("frames",)}, view)
    check_frame_family("fsrt", "warmup", {}, "clips")
    with pytest.raises(UserError, match=r"warmup.frames_from is clips, but .* reads frames of views.ffhq256"):
        check_frame_family("fsrt", "warmup", {"clips": ("clip",), view: ("frames",)}, "clips")


def test_frames_from_a_view_that_the_spec_does_not_read_are_refused():
    with pytest.raises(
        UserError,
        match=r"headgan.phases.decay.frames_from is views.vox512, but the phase reads frames of clips;",
    ):
        build_graph(load_config(DEMO, ["headgan.phases.decay.frames_from=views.vox512"]).config)


def test_fsrt_reads_the_frames_of_the_view_that_a_phase_names():
    sets = ["models=[fsrt]", "fsrt.phases.perceptual.frames_from=views.vox_max"]
    graph = build_graph(load_config(DEMO, sets).config)
    found = {name: node.reads for name, node in graph.nodes.items() if name.startswith("train.")}
    assert found["train.fsrt.perceptual"]["views.vox_max"].fields == ("frames", "affine", "frame_at")
    assert found["train.fsrt.perceptual"]["clips"].fields == ("clip",)
    assert found["train.fsrt.warmup"]["clips"].fields == ("frames", "clip")
    assert {"opencv-python", "torch"} <= set(graph["train.fsrt.perceptual"].packages)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("views.vox9", r"fsrt.phases.\*.frames_from names 'vox9', but views has vox_max, vox512, ffhq256"),
        ("views", "frames_from 'views': expected clips, or views. and a view's name"),
        ("keypoints.main", "frames_from 'keypoints.main': expected clips, or views. and a view's name"),
    ],
)
def test_frames_of_what_is_no_view_of_the_run_are_refused(named, message):
    with pytest.raises(UserError, match=message):
        build_graph(load_config(DEMO, [f"fsrt.phases.warmup.frames_from={named}"]).config)


# --- nodes of a model's own ---
INVERT = ModelNodeSpec(
    run="models.fsrt.inference:FsrtReenactor", reads={"keypoints": ("landmarks",)}, writes=("codes",),
    uses={"net": CheckpointUse("models.fsrt.inference:FsrtReenactor", {"renderer": "warmup"})},
)  # fmt: skip
DRIVEN = {"clips": ("frames",), "invert": ("codes",)}


def of_changed_fsrt(monkeypatch, *sets: str, **changes):
    """The graph of a run of fsrt alone, with these values of its spec changed."""
    made = ModuleType("changed_fsrt")
    made.SPEC = replace(load_model_spec("fsrt"), **changes)
    monkeypatch.setitem(sys.modules, "changed_fsrt", made)
    monkeypatch.setitem(MODELS, "fsrt", "changed_fsrt:SPEC")
    return build_graph(load_config(DEMO, ["models=[fsrt]", *sets]).config)


def test_a_node_of_the_models_own_uses_a_checkpoint_and_is_read_by_its_name(monkeypatch):
    graph = of_changed_fsrt(monkeypatch, nodes=lambda _: {"invert": INVERT}, driving_reads=lambda _: DRIVEN)
    node = graph["invert.fsrt"]
    assert (node.kind, node.units, node.reads["keypoints"].node) == ("keyed", "recordings", "keypoints.main")
    assert node.uses["net"].files == {"renderer": ("train.fsrt.warmup", "model.safetensors")}
    assert graph["pairs.self"].reads["invert"].node == "invert.fsrt"
    assert graph["generate.fsrt.self"].reads["invert"].by == "recordings"


def test_a_node_that_takes_minutes_a_unit_publishes_each_and_of_its_splits_alone(monkeypatch):
    tune = replace(INVERT, splits=("test",), pack="unit")
    graph = of_changed_fsrt(monkeypatch, nodes=lambda _: {"invert": tune}, driving_reads=lambda _: DRIVEN)
    assert (graph["invert.fsrt"].rows, graph["invert.fsrt"].pack) == ({"split": ("test",)}, "unit")


def test_a_node_of_a_split_that_there_is_not_is_refused(monkeypatch):
    wrong = replace(INVERT, splits=("validation",))
    with pytest.raises(
        InvalidSettings, match="'invert' is of the splits validation; expected train, test or"
    ):
        of_changed_fsrt(monkeypatch, nodes=lambda _: {"invert": wrong})


def test_a_node_of_the_models_own_is_there_for_who_reads_it(monkeypatch):
    graph = of_changed_fsrt(monkeypatch, nodes=lambda _: {"invert": INVERT})
    assert "invert.fsrt" not in graph.nodes


def test_a_node_of_the_models_own_is_computed_for_each_corpus_that_it_is_read_of(monkeypatch):
    graph = of_changed_fsrt(
        monkeypatch, "data.test.source=synthetic", "eval.data=test", nodes=lambda _: {"invert": INVERT},
        driving_reads=lambda _: DRIVEN,
    )  # fmt: skip
    assert [node for node in graph.nodes if node.startswith("invert")] == ["invert.fsrt@test"]
    assert "keypoints.main@test" in graph.upstream("invert.fsrt@test")


def test_a_node_that_uses_a_phase_which_comes_later_is_refused(monkeypatch):
    early = {"clips": ("frames",), "keypoints": ("landmarks",), "invert": ("codes",)}
    with pytest.raises(
        InvalidSettings, match=r"invert.fsrt uses the checkpoint of fsrt.phases.warmup, which is not trai"
    ):
        of_changed_fsrt(monkeypatch, nodes=lambda _: {"invert": INVERT}, reads=lambda *_: early)


def test_a_node_named_as_a_stage_is_refused(monkeypatch):
    with pytest.raises(InvalidSettings, match="spec of fsrt names a node speech, as a stage is; rename it"):
        of_changed_fsrt(monkeypatch, nodes=lambda _: {"speech": INVERT})


def test_a_phase_that_reads_nothing_depends_on_no_recording(monkeypatch):
    graph = of_changed_fsrt(monkeypatch, reads=lambda *_: {})
    assert graph["train.fsrt.keypoints"].reads == {}
    assert list(graph["train.fsrt.warmup"].reads) == ["train.fsrt.keypoints"]


def test_runtime_settings_are_in_no_key(graph):
    assert not [c for node in graph for c in node.config if c.startswith("runtime")]


def test_no_version_of_a_tool_brings_a_corpus_again():
    brought = build_graph(
        load_config(DEMO, ["data.main.source=folder", "data.main.folder.path=/videos"]).config
    )["download"]
    assert (brought.tools, brought.packages) == ((), ())
    assert "download.section_margin" not in brought.config
    cut = build_graph(
        load_config(CODE_ROOT / "configs/run/fsrt_vox256.yaml", ["download.sections=exact"]).config
    )["download"]
    assert cut.tools == ("ffmpeg",)  # which encodes them
    assert "download.section_margin" in cut.config


def test_a_metric_is_no_code_of_training(reached):
    """Validation's figures are to look at: a change of them must not retrain."""
    assert not [name for name in reached("train.fsrt.warmup") if name.startswith("pipelines.eval")]


def phase_by(figure: str, highest: bool, *more: str):
    """Node `train.headgan.adversarial` whose best weights this figure chooses."""
    path = "headgan.phases.adversarial"
    sets = [f"{path}.best.figure={figure}", f"{path}.best.highest={str(highest).lower()}", *more]
    return build_graph(load_config(DEMO, sets).config)["train.headgan.adversarial"]


@pytest.mark.parametrize(
    ("figure", "highest", "weights", "reach"),
    [("l1", False, (), "metrics.l1"), ("akd_l2_dlib", False, ("dlib_sp68",), "metrics.akd"),
     ("cross/pose_mesh", False, ("mp_face_short", "mp_face_full", "mp_mesh468", "mp_iris"), "metrics.pose"),
     ("cross/csim_dlib_centred", True, ("mp_face_short", "mp_face_full", "mp_mesh468", "dlib_resnet"),
      "metrics.identity")],
)  # fmt: skip
def test_a_figure_that_chooses_the_best_weights_is_in_the_key_with_its_nets(
    graph, project_code, figure, highest, weights, reach
):
    node, plain = phase_by(figure, highest), graph["train.headgan.adversarial"]
    assert {*node.weights} - {*plain.weights} == {*weights}
    entries = list_code_entry_points(node, CONFIG, project_code)
    assert any(f"pipelines.eval.{reach}." in name for name in project_code.reachable_symbols(entries))
    sampled = "pipelines.dataset.sampler.make_cross_sample" in project_code.reachable_symbols(entries)
    assert sampled == figure.startswith("cross/")


def test_a_figure_that_the_task_alone_knows_needs_nothing_more(graph):
    node, plain = phase_by("flow", False), graph["train.headgan.adversarial"]
    assert (node.code, node.weights) == (plain.code, plain.weights)


@pytest.mark.parametrize(
    ("figure", "highest", "more", "told"),
    [("psnrr", True, (), "validation of this phase has l1_warped, flow, psnr, l1, ssim, akd_l2_dlib"),
     ("cross/pose_mesh", True, (), "the lowest is the best; set .*best.highest to false"),
     ("psnr", False, (), "the highest is the best; set .*best.highest to true"),
     ("cross/l1", False, (), "pairs have cross/csim_dlib_centred, .*cross/expression_mesh"),
     ("cross/pose_mesh", False, ("headgan.phases.adversarial.validation_cross_samples=0",),
      "validation_cross_samples is 0; expected 1 or more")],
)  # fmt: skip
def test_a_figure_that_cannot_choose_is_refused_before_anything_runs(figure, highest, more, told):
    with pytest.raises(InvalidSettings, match=f"headgan.phases.adversarial.best.*{told}"):
        phase_by(figure, highest, *more)


def test_a_phase_that_renders_no_pictures_has_none_of_their_figures():
    sets = ["fsrt.phases.keypoints.best.figure=psnr", "fsrt.phases.keypoints.best.highest=true"]
    told = r"fsrt.phases.keypoints.best.figure 'psnr': validation of this phase has keypoint_error_percent$"
    with pytest.raises(InvalidSettings, match=told):
        build_graph(load_config(DEMO, sets).config)


def test_a_task_that_does_not_tell_its_figures_may_have_any():
    phase = replace(PHASES["adversarial"], best=BestCriterion(figure="own", highest=False))
    untold = TaskSpec(task="a:b", settings=())
    assert best_figure_needs("toy.phases.images", phase, untold) == ((), ())
    with pytest.raises(InvalidSettings, match=r"toy.phases.images.best.figure 'own'"):
        best_figure_needs("toy.phases.images", phase, replace(untold, figures=("other",)))


def test_the_number_of_pairs_is_in_no_key_as_it_was():
    """What validation only shows leaves a phase valid that was trained before."""
    path = "headgan.phases.adversarial"
    leaves = [flatten_settings(lookup_setting(load_config(DEMO, sets).config, path), path)
              for sets in ([], [f"{path}.validation_cross_samples=4"])]  # fmt: skip
    assert f"{path}.validation_cross_samples" not in leaves[0]
    assert leaves[1][f"{path}.validation_cross_samples"] == 4


def test_a_phase_that_the_run_drops_is_no_node():
    sets = ["fsrt.phases.adversarial=null"]
    nodes = build_graph(load_config(DEMO, sets).config).nodes
    assert "train.fsrt.adversarial" not in nodes
    assert "train.fsrt.perceptual" in nodes["generate.fsrt.self"].upstream


def test_a_phase_whose_start_is_dropped_says_what_would_train_it_and_what_there_is():
    told = (
        r"train.fsrt.warmup starts from 'keypoints', which this run does not have while fsrt.phases.keypoints"
        r" is null \(else `reenact run RUN.yaml --only train.fsrt.keypoints` trains it\); it has weights.fsrt"
    )
    with pytest.raises(InvalidSettings, match=told):
        build_graph(load_config(DEMO, ["fsrt.phases.keypoints=null"]).config)


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (
            ["fsrt.phases.warmup.init=null"],
            r"train.fsrt.warmup does not train kp_detector and starts from nothing; set "
            r"fsrt.phases.warmup.init to one of keypoints \(`reenact run RUN.yaml --only "
            r"train.fsrt.keypoints` trains it\), weights.fsrt_vox, .*weights.fomm_vox$",
        ),
        (
            ["fsrt.phases.perceptual.init=keypoints"],
            r"train.fsrt.perceptual resumes the optimizers of train.fsrt.keypoints, which does not train "
            r"decoder, encoder, expression_encoder; set fsrt.phases.perceptual.resume_optimizers to false, "
            r"or "
            r".*init to one of warmup \(`reenact run RUN.yaml --only train.fsrt.warmup` trains it\)$",
        ),
        (
            [*(f"fsrt.phases.warmup.updates.generator.parts.{p}=null"
               for p in ("encoder", "expression_encoder")), "fsrt.phases.warmup.init=weights.fsrt_kp"],
            r"warmup does not train encoder, expression_encoder and starts from weights.fsrt_kp, which does "
            r"not bring it; set .* to one of weights.fsrt_vox, weights.fsrt_vox_2src, .*_2src_fomm$",
        ),
        (
            ["fsrt.phases.adversarial.updates.discriminator=null"],
            r"does not train discriminator and starts from perceptual, .*; "
            r"name it in .*updates.generator.parts$",
        ),
        (["fsrt.phases.warmup.init=perceptual"],
         r"train.fsrt.warmup starts from 'perceptual', which is not trained before it; before it there is "),
        (["fsrt.phases.warmup.init={kp_detector: keypoints, encoder: keypoints}"],
         r"fsrt.phases.warmup.init takes encoder from keypoints, which has no part encoder; it has \['kp_de"),
        (
            ["headgan.net.flow=false",
             *(f"headgan.phases.{p}.updates.generator.losses.{term}=null" for p in PHASES
               for term in ("l1_warped", "perceptual_warped"))],
            r"train.headgan.adversarial trains \['flow_network'\], but the parts of its net are \['frames_",
        ),
    ],
)  # fmt: skip
def test_a_phase_that_cannot_start_is_refused_before_anything_runs(sets, told):
    with pytest.raises(InvalidSettings, match=told):
        build_graph(load_config(DEMO, sets).config)


def test_a_detector_alone_is_enough_for_a_phase_that_trains_all_else_anew():
    sets = ["fsrt.phases.perceptual.init=keypoints", "fsrt.phases.perceptual.resume_optimizers=false"]
    assert (
        "train.fsrt.keypoints" in build_graph(load_config(DEMO, sets).config)["train.fsrt.perceptual"].reads
    )


def test_released_weights_and_their_reader_are_in_the_key():
    sets = ["fsrt.phases.keypoints=null", "fsrt.phases.warmup.init=weights.fsrt_kp"]
    node = build_graph(load_config(DEMO, sets).config)["train.fsrt.warmup"]
    assert "fsrt_kp" in node.weights
    assert any(entry.startswith("models.fsrt.released:") for entry in node.code)


def test_released_weights_that_a_phase_uses_are_in_its_key():
    node = build_graph(load_config(DEMO, ["fsrt.phases.warmup.uses={teacher: weights.fomm_vox}"]).config)[
        "train.fsrt.warmup"
    ]
    assert "fomm_vox" in node.weights
    assert "train.fsrt.keypoints" in node.reads


def test_unknown_released_weights_are_an_error_listing_the_known():
    with pytest.raises(
        InvalidSettings, match=r"'weights.fsrt', which this run does not have; it has .*weights.fsrt_kp"
    ):
        build_graph(load_config(DEMO, ["fsrt.phases.warmup.init=weights.fsrt"]).config)


@pytest.mark.parametrize(
    ("weight", "needed"), [(".weight=0.01", True), (".weight=0", False), ("=null", False)]
)
def test_only_a_phase_that_weighs_the_perceptual_loss_needs_vgg19(weight, needed):
    sets = [
        "fsrt.perceptual_net=vgg19",
        f"fsrt.phases.perceptual.updates.generator.losses.perceptual{weight}",
    ]
    assert ("vgg19" in build_graph(load_config(DEMO, sets).config)["train.fsrt.perceptual"].weights) == needed


@pytest.mark.parametrize("path", sorted(DEMO.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_run_file_trains_against_a_random_net(path):
    assert "_random" not in path.read_text()


MACHINERY = {"numpy", "pyarrow", "click", "msgspec", "yaml", "ray", "mlflow", "safetensors"}
"""And numpy, whose functions keep their results from version to version."""
DISTRIBUTIONS = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "dlib": "dlib-bin",
    "cv2": "opencv-python",
    "face_alignment": "face-alignment",
}
NO_MATTER = {
    "clips": {"ffmpeg", "imageio_ffmpeg"},  # they find and call the tool, whose version is in the key
    "views": {"ffmpeg", "imageio_ffmpeg", "simplejpeg"},  # as of clips; and the codec of other views
    "keypoints": {"av", "pillow"},  # they decode frames that are stored in another way than this run's
    "identity": {"av", "pillow"},
    "corpus": {"av", "pillow"},
    "pairs": {"av", "pillow"},
    "train": {"av", "pillow"},  # and pillow writes the sample grid, which is only looked at
    "generate": {"av", "simplejpeg"},  # they decode frames that are stored in another way than this run's
    "features": {"simplejpeg", "av"},
    "score": {"simplejpeg", "av"},
    "samples": {"simplejpeg", "av"},
    "report": {"opencv-python", "simplejpeg"},  # it reads what the metrics gave
}


def libraries(node, reached, project_code) -> set[str]:
    """Distributions that a node's code calls."""
    found = set()
    for place in reached(node.name):
        module, _, name = place.rpartition(".")
        refs = project_code.load_module(module).symbols[name].text.refs
        found |= {ref.target[1:].split(".")[0] for ref in refs if ref.target[0] == "="}
    ours = {"pipelines", "models", "storage", *sys.stdlib_module_names, *MACHINERY}
    return {DISTRIBUTIONS.get(top, top) for top in found - ours}


def test_every_library_that_computes_for_a_node_is_in_its_key(graph, reached, project_code):
    for node in graph:
        no_matter = NO_MATTER.get(node.name.split(".")[0], set())
        assert libraries(node, reached, project_code) - no_matter <= set(node.packages), node.name


def test_who_reads_frames_has_their_decoder_in_its_key(graph, reached):
    for node in graph:
        if any("frames" in read.fields for read in node.reads.values()):
            lossless = all(
                r.node.startswith(("generate.", "views.truth"))
                for r in node.reads.values()
                if "frames" in r.fields
            )
            assert ("pillow" if lossless else "simplejpeg") in node.packages, node.name
            assert "storage.frame_codec.decode_image" in reached(node.name), node.name
    stored = build_graph(load_config(DEMO, ["clips.frames.codec=h264"]).config)
    assert "av" in stored["train.fsrt.warmup"].packages
    assert "simplejpeg" not in stored["train.fsrt.warmup"].packages


def test_the_loop_is_code_of_training_and_what_starts_and_watches_it_is_not(reached):
    code = reached("train.fsrt.warmup")
    assert {"pipelines.train.updates.train_step", "pipelines.train.optim.learning_rate"} <= code
    assert not [
        s
        for s in code
        if s.startswith(("pipelines.train.launch", "pipelines.train.monitor", "models.provenance"))
    ]


@pytest.mark.parametrize(
    ("node", "module"),
    [("clips", "pipelines.media.decoding"), ("download", "pipelines.media.container"),
     ("generate.codec.self", "pipelines.media.mp4_bytes")],
)  # fmt: skip
def test_what_media_imports_only_when_it_is_used_is_in_the_key_all_the_same(reached, node, module):
    assert module in {name.rpartition(".")[0] for name in reached(node)}


def test_the_backend_of_mediapipes_nets_is_in_the_key_of_those_who_use_them():
    sets = ["clips.detector=mp_face", "keypoints.main.landmarker=mesh468_iris"]
    on = {
        backend: build_graph(load_config(DEMO, [*sets, f"perception.backend={backend}"]).config)
        for backend in ("litert", "torch")
    }
    for backend, graph in on.items():
        assert graph["clips"].nets == [f"mp_face.{backend}"]
        assert graph["keypoints.main"].nets == [f"mp_face.{backend}", f"mesh468_iris.{backend}"]
        assert "perception.backend" in graph["clips"].config
    assert on["litert"]["fit3dmm.main"] == on["torch"]["fit3dmm.main"]
    assert on["litert"]["speech.main"] == on["torch"]["speech.main"]


def test_a_gpu_is_asked_for_by_nets_in_torch_alone():
    sets = ["clips.detector=mp_face", "runtime.gpu_share=0.25"]
    for backend, share in (("litert", 0), ("torch", 0.25)):
        graph = build_graph(load_config(DEMO, [*sets, f"perception.backend={backend}"]).config)
        assert graph["clips"].resources["gpu"] == share
