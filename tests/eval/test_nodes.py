"""The nodes of evaluation: which there are, and which a change reaches."""

import pytest
from msgspec.structs import replace

from models.errors import InvalidSettings
from pipelines.config import load_config
from pipelines.engine.fingerprint import (
    KeyEnvironment,
    compute_fingerprint_components,
    list_code_entry_points,
)
from pipelines.errors import UserError
from pipelines.eval import features, metrics
from pipelines.graph import build_graph
from pipelines.runs.session import CODE_ROOT

DEMO = CODE_ROOT / "configs/run/demo.yaml"
CROSS = (
    "eval.protocols.cross.kind=cross_reenactment",
    "eval.protocols.cross.motion=relative",
    "eval.protocols.cross.max_pairs=5",
)


def graph_of(*sets):
    return build_graph(load_config(DEMO, list(sets)).config)


@pytest.fixture(scope="module")
def graph():
    return graph_of()


def test_the_features_of_the_truth_are_computed_once_for_all_methods(graph):
    readers = [n.name for n in graph if any(r.node.startswith("features.truth.") for r in n.reads.values())]
    assert readers == [
        f"score.{method}.self" for method in ("fsrt", "headgan", "copy_source", "warp", "codec")
    ]


def test_only_features_that_a_metric_reads_are_computed():
    names = list(graph_of("eval.metrics=[l1, ssim]").nodes)
    assert not [name for name in names if name.startswith("features.")]
    assert "score.fsrt.self" in names


def test_metrics_on_request_are_computed_where_the_run_names_them():
    assert "features.fsrt.self.landmarks.fan2d" not in graph_of().nodes
    assert "features.fsrt.self.landmarks.fan2d" in graph_of("eval.metrics=[l1, akd_l1_fan2d]").nodes


def test_of_a_distance_from_the_truths_frames_the_truth_has_no_feature():
    graph = graph_of("eval.metrics=[lpips_alex, fid_pt]")
    methods = {
        feature: {name.split(".")[1] for name in graph.nodes if name.endswith(f".self.{feature}")}
        for feature in ("lpips.alex", "inception_fid.pt")
    }
    scored = {"fsrt", "headgan", "copy_source", "warp", "codec"}
    assert methods == {"lpips.alex": scored, "inception_fid.pt": {*scored, "truth"}}
    assert set(graph["features.fsrt.self.lpips.alex"].reads) == {"generated", "truth"}
    assert "truth.lpips.alex" not in graph["score.fsrt.self"].reads


def test_a_metric_that_is_new_changes_features_score_and_report_alone(graph, monkeypatch):
    """Nodes that are there before and after are the same, but for those that score and report."""
    new = replace(metrics.METRICS["akd_l1_dlib"], name="new", feature="landmarks.new")
    monkeypatch.setitem(metrics.METRICS, "new", new)
    for table in (features.METRIC_FEATURES, features.FEATURE_STAGES):
        monkeypatch.setitem(table, "landmarks.new", table["landmarks.dlib68"])
    after = graph_of(f"eval.metrics=[{', '.join((*metrics.DEFAULT_METRICS, 'new'))}]")
    added = set(after.nodes) - set(graph.nodes)
    assert added == {
        f"features.{method}.self.landmarks.new"
        for method in ("truth", "copy_source", "warp", "codec", "fsrt", "headgan")
    }
    changed = {node.name for node in graph if after[node.name] != node}
    assert changed == {
        f"score.{method}.self" for method in ("fsrt", "headgan", "copy_source", "warp", "codec")
    }


def test_what_a_reference_is_compared_by_is_computed_of_it_alone(monkeypatch):
    """As the driving sound beside a mouth."""
    sound = replace(features.METRIC_FEATURES["landmarks.dlib68"], nets=(), driving_fields=("sound", "clip"))
    monkeypatch.setitem(features.METRIC_FEATURES, "sound.new", sound)
    monkeypatch.setitem(features.FEATURE_STAGES, "sound.new", features.FEATURE_STAGES["landmarks.dlib68"])
    new = replace(
        metrics.METRICS["pose_mesh"], name="new", reference_feature="sound.new", reference_field="landmarks"
    )
    monkeypatch.setitem(metrics.METRICS, "new", new)
    graph = graph_of("eval.metrics=[new]", *CROSS)
    for protocol, other in (("self", "truth"), ("cross", "driving")):
        of_sound = [name for name in graph.nodes if name.endswith(f".{protocol}.sound.new")]
        assert of_sound == [f"features.{other}.{protocol}.sound.new"]
        assert graph[of_sound[0]].reads["clips"].fields == ("sound", "clip")
        reads = graph[f"score.fsrt.{protocol}"].reads
        assert reads[f"{other}.sound.new"].node == of_sound[0]
        assert f"{other}.landmarks.mesh468_iris" not in reads


def test_a_feature_that_another_is_computed_from_is_computed_of_the_same_frames(monkeypatch):
    lips = replace(features.METRIC_FEATURES["landmarks.dlib68"], input_features=("landmarks.mesh468_iris",))
    monkeypatch.setitem(features.METRIC_FEATURES, "lips.new", lips)
    monkeypatch.setitem(features.FEATURE_STAGES, "lips.new", features.FEATURE_STAGES["landmarks.dlib68"])
    monkeypatch.setitem(
        metrics.METRICS, "new", replace(metrics.METRICS["akd_l1_dlib"], name="new", feature="lips.new")
    )
    graph = graph_of("eval.metrics=[new]")
    read = graph["features.fsrt.self.lips.new"].reads["landmarks.mesh468_iris"]
    assert read.node == "features.fsrt.self.landmarks.mesh468_iris"
    assert read.fields[-1] == "needs"
    assert "landmarks.mesh468_iris" not in graph["score.fsrt.self"].reads
    assert features.with_input_features(["lips.new"]) == ["landmarks.mesh468_iris", "lips.new"]


def test_no_metric_is_code_of_generation_or_of_features(graph, project_code):
    config = load_config(DEMO).config
    for node in graph:
        if node.name.split(".")[0] in ("pairs", "generate", "features"):
            closure = project_code.reachable_symbols(list_code_entry_points(node, config, project_code))
            assert not [s for s in closure if s.startswith(("pipelines.eval.metrics", "pipelines.eval.rec"))]


def test_a_caption_is_code_of_the_report_alone(graph, project_code):
    config = load_config(DEMO).config
    words = "pipelines.eval.captions.sample_grid_column_titles"
    readers = [
        n.name
        for n in graph
        if words in project_code.reachable_symbols(list_code_entry_points(n, config, project_code))
    ]
    assert readers == ["report"]


def test_a_protocol_without_a_truth_is_scored_against_source_driving_frames_and_the_sources_clip():
    names = [node.name for node in graph_of(*CROSS) if ".cross" in node.name]
    scored = ("fsrt", "headgan", "copy_source", "warp")
    assert [name for name in names if name.startswith(("pairs", "generate", "score", "samples"))] == [
        "pairs.cross",
        *(
            f"generate.{one}.cross"
            for one in ("driving", "copy_source", "warp", "source_clip", "fsrt", "headgan")
        ),
        *(f"samples.{model}.cross" for model in ("fsrt", "headgan")),
        *(f"score.{method}.cross" for method in scored),
    ]
    of_mesh, of_identity, of_sets = (
        {name.split(".")[1] for name in names if name.startswith("features.") and name.endswith(feature)}
        for feature in ("mesh468_iris", "dlib_resnet", "efficientnet_lite0")
    )
    assert of_mesh == {*scored, "driving"}
    assert of_identity == {*scored, "driving"}  # whose mean is taken from both sides
    assert of_sets == {*scored, "source_clip"}
    assert not [name for name in names if "dlib68" in name]  # compared with a truth alone


def test_without_a_metric_that_applies_a_protocol_is_generated_and_shown_alone():
    names = [node.name for node in graph_of(*CROSS, "eval.metrics=[l1]") if ".cross" in node.name]
    assert names == [
        "pairs.cross",
        *(f"generate.{method}.cross" for method in ("driving", "copy_source", "warp", "fsrt", "headgan")),
        *(f"samples.{model}.cross" for model in ("fsrt", "headgan")),
    ]


# --- by sound ---
TALK = ("eval.protocols.talk.kind=audio_driven", "eval.protocols.talk.sound=other")


def test_a_model_that_hears_nothing_is_named_where_sound_drives():
    with pytest.raises(
        UserError, match=r"talk is audio_driven, and fsrt hears nothing; --set .*models=\[headgan\]"
    ):
        graph_of(*TALK)


def test_a_protocol_may_be_of_some_models_alone():
    names = list(graph_of(*TALK, "eval.protocols.talk.models=[headgan]").nodes)
    assert "generate.headgan.talk" in names
    assert "generate.fsrt.talk" not in names
    assert "generate.fsrt.self" in names
    with pytest.raises(UserError, match="a protocol's models name nobody, and the run has fsrt, headgan"):
        graph_of("eval.protocols.self.models=[nobody]")


def test_what_is_heard_is_read_of_the_other_clip_alone():
    graph = graph_of(*TALK, "eval.protocols.talk.models=[headgan]")
    reads = graph["generate.headgan.talk"].reads
    assert {role: (read.by, read.fields) for role, read in reads.items() if role.startswith("sound.")} == {
        "sound.speech": ("sound_recording", ("speech",)), "sound.clips": ("sound_recording", ("clip",)),
    }  # fmt: skip
    assert "speech" not in reads
    assert reads["fit3dmm"].by == "recordings"


def test_the_frames_that_are_seen_are_what_generated_heads_are_compared_with():
    graph = graph_of(*TALK, "eval.protocols.talk.models=[headgan]")
    reads = graph["score.headgan.talk"].reads
    assert reads["driving"].node == "generate.driving.talk"
    assert "truth" not in reads


def test_expressions_are_not_compared_with_frames_that_speak_other_words():
    talk = graph_of(*TALK, "eval.protocols.talk.models=[headgan]", "eval.metrics=[exp_mesh]")
    assert "score.headgan.talk" not in talk.nodes
    both = graph_of(*TALK, "eval.protocols.talk.models=[headgan]")["score.headgan.talk"]
    assert both.arguments["other_sound"] == "yes"
    cross = graph_of(*CROSS, "eval.metrics=[exp_mesh]")
    assert "score.headgan.cross" in cross.nodes


def test_edited_heads_are_not_compared_with_what_drives():
    sets = "eval.protocols.front.kind=frontalisation", "eval.protocols.front.models=[headgan]"
    node = graph_of(*sets)["score.headgan.front"]
    assert node.arguments["edited"] == "yes"
    assert "generate.warp.front" not in graph_of(*sets).nodes
    assert "driving.landmarks.mesh468_iris" not in node.reads
    assert "copy_source.identity.dlib_resnet" in node.reads


# --- baselines of landmarks ---
def test_the_warp_reads_frames_of_the_source_and_landmarks_of_both(graph):
    node = graph["generate.warp.self"]
    assert set(node.reads) == {"pairs", "scored_frames", "keypoints"}
    assert set(node.config) == {"size", "motion"}


def test_the_warp_of_two_corpora_reads_no_frames_of_the_driving_one():
    sets = ("data.faces={source: synthetic}", "eval.protocols.cross.source_data=faces")
    reads = graph_of(*CROSS, *sets)["generate.warp.cross"].reads
    assert {role: read.by for role, read in reads.items() if role != "pairs"} == {
        "source.scored_frames": "source_recording",
        "source.keypoints": "source_recording", "driving.keypoints": "driving_recording",
    }  # fmt: skip


def test_a_run_that_finds_no_landmarks_has_no_warp():
    released = ("models=[fsrt]", "fsrt.weights=fsrt_vox", "identity.net=off")
    graph = graph_of(*released)
    assert not [name for name in graph.nodes if "keypoints" in name or "warp" in name]
    assert "generate.warp.self" in graph_of(*released, "also=[keypoints.main]").nodes


def test_mouths_are_replaced_where_sound_drives():
    graph = graph_of(*TALK, "eval.protocols.talk.models=[headgan]")
    made = [
        node.name.split(".")[1]
        for node in graph
        if node.stage.startswith("generate.") and node.name.endswith("talk")
    ]
    assert made == ["driving", "copy_source", "mean_mouth", "random_mouth", "source_clip", "headgan"]
    assert set(graph["generate.random_mouth.talk"].reads) == {"pairs", "scored_frames", "keypoints"}
    assert set(graph["generate.random_mouth.talk"].config) == {"size", "seed"}


def test_clips_of_a_pair_are_read_by_its_recordings(graph):
    reads = graph["generate.headgan.self"].reads
    assert {role: read.by for role, read in reads.items()} == {
        "pairs": "", "clips": "recordings", "fit3dmm": "recordings", "speech": "recordings",
        "scored_frames": "recordings",
    }  # fmt: skip


# --- whose frames are scored ---
def frame_readers(graph, family):
    """Nodes of evaluation that read frames of a family."""
    nodes = (n for n in graph if n.name.endswith(".self"))
    return [n.name for n in nodes if any(r.node == family and "frames" in r.fields for r in n.reads.values())]


TAKE_FRAMES = [f"generate.{one}.self" for one in ("truth", "copy_source", "warp", "codec", "fsrt", "headgan")]


def test_sources_driving_frames_and_truth_are_those_of_the_lossless_view(graph):
    assert frame_readers(graph, "views.truth") == ["pairs.self", *TAKE_FRAMES]
    assert frame_readers(graph, "clips") == ["pairs.self"]  # which of them there are
    assert graph["generate.headgan.self"].reads["clips"].fields == ("clip",)
    assert graph["views.truth"].rows == {"split": ("test",)}


def test_no_training_reads_the_frames_that_are_scored(graph):
    for node in graph:
        if node.name.startswith(("train.", "keypoints.", "fit3dmm.", "speech.", "corpus")):
            assert "views.truth" not in graph.upstream(node.name)


def test_who_reads_the_view_has_its_decoder_in_its_key(graph):
    of_clips = graph_of("eval.frames_from=clips")
    for name in TAKE_FRAMES:
        assert "simplejpeg" not in graph[name].packages
        assert "simplejpeg" in of_clips[name].packages


def test_a_run_that_does_not_ask_reads_the_clips_as_before():
    plain = graph_of("eval.frames_from=clips")
    assert not [name for name in plain.nodes if name.startswith("views.")]
    assert frame_readers(plain, "clips") == ["pairs.self", *TAKE_FRAMES]
    assert set(plain["pairs.self"].reads) == {"recordings", "clips", "fit3dmm", "speech"}
    assert plain["pairs.self"].config["frames"] == "clips.frames"


def test_the_name_of_the_family_is_in_no_key(graph, project_code):
    """What it is counts: the view's own settings, and its content."""
    sets = "eval.frames_from=views.mine", "views.mine={recipe: clip_square, frames: {codec: png}}"
    keys = []
    for more in ((), sets):
        config = load_config(DEMO, more).config
        made = build_graph(config)
        keys.append([
            compute_fingerprint_components(made[name], config, KeyEnvironment(project_code)).key
            for name in ("pairs.self", *TAKE_FRAMES)
        ])  # fmt: skip
    assert keys[0] == keys[1]


def test_two_protocols_may_take_frames_of_two_families():
    both = graph_of("eval.protocols.jpeg.size=64", "eval.protocols.jpeg.frames_from=clips")
    assert "clips" in both["generate.truth.jpeg"].reads
    assert "scored_frames" in both["generate.truth.self"].reads


def test_each_side_of_two_corpora_has_frames_of_its_own_view():
    graph = graph_of(*CROSS, "data.faces.source=synthetic", "eval.protocols.cross.source_data=faces")
    assert {"views.truth@faces", "views.truth@main"} <= set(graph.nodes)
    reads = graph["generate.headgan.cross"].reads
    assert reads["source.scored_frames"].node == "views.truth@faces"
    assert reads["driving.scored_frames"].node == "views.truth@main"
    assert reads["source.clips"].fields == ("clip",)
    copied = {role: read.node for role, read in graph["generate.copy_source.cross"].reads.items()}
    assert copied == {"pairs": "pairs.cross", "source.scored_frames": "views.truth@faces"}


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["eval.frames_from=views.vox512"], r"eval\.frames_from is views\.vox512, of recipe vox512"),
        (["eval.protocols.self.frames_from=views.ffhq256"], r"eval\.protocols\.self\.frames_from is views"),
        (["eval.frames_from=views.none"], r"eval\.frames_from names 'none', but views has vox_max, .*truth"),
        (["views.truth.splits=[train]"], r"views\.truth\.splits is \[train\] and pairs are made of test"),
    ],
)
def test_frames_that_cannot_stand_for_the_test_clips_are_refused(sets, told):
    with pytest.raises(UserError, match=told):
        graph_of(*sets)


def test_the_report_reads_no_generated_frames_but_samples_of_them(graph):
    read = {one.node for one in graph["report"].reads.values()}
    assert not [name for name in read if name.startswith("generate.")]
    assert {"samples.fsrt.self", "samples.headgan.self"} <= read
    assert {role: one.node for role, one in graph["samples.fsrt.self"].reads.items()} == {
        "generated": "generate.fsrt.self", "source": "generate.copy_source.self",
        "driving": "generate.truth.self",
    }  # fmt: skip


def test_frames_are_dropped_by_a_setting_that_is_in_no_key(graph):
    lean = graph_of("runtime.keep_frames=false")
    dropping = {node.name for node in lean if node.drops}
    assert dropping == {name for name in lean.nodes if name.startswith("generate.")}
    assert not [node.name for node in graph if node.drops]
    assert {name: replace(lean[name], drops=False) for name in lean.nodes} == graph.nodes


def test_the_checkpoint_asked_for_is_used():
    use = graph_of("eval.checkpoint=best")["generate.fsrt.self"].uses["model"]
    assert use.files == {"renderer": ("train.fsrt.adversarial", "best.safetensors")}


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("fsrt.phases.adversarial.best=null", r"fsrt\.phases\.adversarial\.best is null"),
        (
            "fsrt.phases.adversarial.validate_every=17",
            r"fsrt\.phases\.adversarial validates every 17 of its 16 steps",
        ),
    ],
)
def test_the_best_weights_of_a_phase_that_keeps_none_are_refused_before_it_trains(setting, problem):
    with pytest.raises(InvalidSettings, match=f"eval.checkpoint best: {problem}, .*checkpoint to last"):
        graph_of("eval.checkpoint=best", setting)
    assert graph_of(setting)


def test_released_weights_are_the_best_and_the_last_of_theirs():
    graph = graph_of("models=[fsrt]", "fsrt.weights=fsrt_vox", "eval.checkpoint=best")
    use = graph["generate.fsrt.self"].uses["model"]
    assert use.files == {"renderer": ("release.fsrt", "model.safetensors")}


def test_what_takes_less_time_than_a_worker_needs_to_start_gets_few_workers(graph):
    light = {name for name in graph.nodes if graph[name].light}
    assert light == {
        *(f"generate.{method}.self" for method in ("truth", "copy_source", "warp", "codec")),
        *(name for name in graph.nodes if name.endswith((".landmarks.dlib68", ".sound.loudness"))),
    }


def test_keys_name_what_a_method_is_and_not_the_protocols_name(graph):
    stages = {node.stage for node in graph if node.name.endswith(".self")}
    assert {"pairs", "generate.fsrt", "generate.driving_frames", "score.codec"} <= stages
    assert not [stage for stage in stages if "self" in stage]


def test_frames_of_other_code_are_a_method_beside_the_models():
    graph = graph_of("eval.methods.theirs.folder=/frames", *CROSS, "eval.methods.theirs.protocols=[self]")
    node = graph["generate.theirs.self"]
    assert (node.stage, set(node.reads)) == ("generate.external", {"pairs"})
    assert graph["score.theirs.self"].arguments == {
        "method": "external", "kind": "external", "driven_by": "frames"
    }  # fmt: skip
    assert "features.theirs.self.landmarks.dlib68" in graph.nodes
    assert "generate.theirs.cross" not in graph.nodes
    assert {"self/theirs/score", "self/theirs/samples"} <= set(graph["report"].reads)


def test_the_folder_of_other_frames_is_in_no_key(project_code):
    keys = []
    for path in ("/frames", "/elsewhere"):
        config = load_config(DEMO, [f"eval.methods.theirs.folder={path}"]).config
        node = replace(build_graph(config)["generate.theirs.self"], inputs=None)  # the files' content
        keys.append(compute_fingerprint_components(node, config, KeyEnvironment(project_code)))
    assert keys[0] == keys[1]


def test_a_method_of_the_name_of_a_model_is_refused():
    with pytest.raises(UserError, match=r"eval\.methods\.fsrt has the name of a model of the run"):
        graph_of("eval.methods.fsrt.folder=/frames")


@pytest.mark.parametrize(
    ("sets", "kind"), [((), "trained"), (("models=[fsrt]", "fsrt.weights=fsrt_vox"), "released")]
)
def test_a_score_is_told_what_kind_of_method_it_is_of(sets, kind):
    graph = graph_of(*sets)
    arguments = graph["score.fsrt.self"].arguments
    assert (arguments["method"], arguments["kind"]) == ("fsrt", kind)
    assert graph["score.codec.self"].arguments["kind"] == "baseline"


def test_a_score_is_told_what_nets_the_losses_of_its_model_use(graph):
    def loss_nets(graph, method="fsrt"):
        return graph[f"score.{method}.self"].arguments.get("loss_nets", "")

    teacher = "mesh468_iris.litert"  # FSRT's detector takes its points for the truth
    assert loss_nets(graph).split() == ["efficientnet_lite0", teacher]
    assert loss_nets(graph, "codec") == ""
    assert loss_nets(graph_of("fsrt.perceptual_net=vgg19")).split() == ["vgg19", teacher]
    assert loss_nets(graph_of("fsrt.perceptual_net=vgg19_random")) == teacher  # vgg19 learnt from nothing
    on_dlib = graph_of("keypoints.main.landmarker=dlib68", "fsrt.perceptual_net=vgg19")
    assert loss_nets(on_dlib).split() == ["vgg19", "dlib68"]
    assert (
        loss_nets(graph_of("models=[headgan]", "fits.main.backend=landmarks"), "headgan")
        == "efficientnet_lite0"
    )
    assert loss_nets(graph_of("models=[fsrt]", "fsrt.weights=fsrt_vox")) == ""


def test_frames_are_compared_with_the_truths_where_maps_are_too_large_to_keep(graph):
    name = "imagenet.efficientnet_lite0"
    ours, truth = graph[f"features.fsrt.self.{name}"], graph[f"features.truth.self.{name}"]
    assert (set(ours.reads), set(truth.reads)) == ({"generated", "truth"}, {"generated"})
    assert set(ours.writes) - set(truth.writes) == {"map_distance"}
    score = graph["score.fsrt.self"].reads
    assert "map_distance" in score[name].fields
    assert "map_distance" not in score[f"truth.{name}"].fields


def test_nets_of_features_run_on_the_backend_of_the_run(graph):
    name = "features.fsrt.self.landmarks.mesh468_iris"
    assert graph[name].nets == ["mp_face.litert", "mesh468_iris.litert", "analytic_head"]
    other = graph_of("perception.backend=torch")[name]
    assert "mesh468_iris.torch" in other.nets
    assert {one.missing_weights for one in (graph[name], other)} == {"skip"}


def test_a_model_of_released_weights_is_generated_and_scored_without_training():
    graph = graph_of("models=[fsrt]", "fsrt.weights=fsrt_vox")
    assert not [name for name in graph.nodes if name.startswith("train.")]
    assert graph["generate.fsrt.self"].uses["model"].files["renderer"][0] == "release.fsrt"
    assert set(graph["release.fsrt"].weights) == {"fsrt_vox", "fsrt_kp"}
    assert "score.fsrt.self" in graph.nodes


def test_unknown_released_weights_are_an_error_that_lists_the_known():
    with pytest.raises(InvalidSettings, match=r"fsrt\.weights 'vox': .*; known: .*fsrt_vox"):
        graph_of("fsrt.weights=vox")
