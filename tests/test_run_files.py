"""Every run file of FSRT: planned, the paper's parameter counts, and what makes it differ from the base."""

import pytest
import torch
from click.testing import CliRunner
from msgspec.structs import replace

from models.fsrt.image_task import AdversarialTask
from models.fsrt.network import Fsrt
from pipelines.cli.main import main
from pipelines.config import load_config
from pipelines.graph import build_graph
from pipelines.runs.session import CODE_ROOT
from pipelines.train.checks import check_phase_runtime

FILES = {path.stem: path for path in sorted((CODE_ROOT / "configs/run").glob("fsrt_*.yaml"))}
BASE = (29_774_112, 15_310_131)
COUNTS = {  # encoder, decoder: supplement 8, as the authors' classes count them
    "fsrt_vox256": BASE,
    "fsrt_eval2": BASE,
    "fsrt_2src": BASE,
    "fsrt_2src_eval1": BASE,
    "fsrt_2src_eval3": BASE,
    "fsrt_masked": BASE,
    "fsrt_e128": (29_663_520, 13_747_891),
    "fsrt_e64": (29_608_224, 12_966_771),
    "fsrt_small_decoder": (29_774_112, 6_012_723),
    "fsrt_nok": (29_635_872, 13_357_331),
    "fsrt_nok_crop": (29_635_872, 13_357_331),
    "fsrt_noreg": BASE,
    "fsrt_noreg_official": BASE,
    "fsrt_noneg": BASE,
    "fsrt_finetune": BASE,
}
EXTRACTORS = {256: 2_558_976, 128: 2_476_928, 64: 2_435_904}
REGULARISERS = {"invariance", "variance", "covariance"}


def fsrt(name):
    return load_config(FILES[name]).config.fsrt


def size_of(part) -> int:
    return sum(p.numel() for p in part.parameters())


def test_every_run_file_has_its_row():
    assert set(FILES) == set(COUNTS)


def test_the_readme_lists_every_row_with_its_counts():
    lines = (CODE_ROOT / "models/fsrt/README.md").read_text().splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| fsrt_")}
    assert set(rows) == set(COUNTS)
    for name, (encoder, decoder) in COUNTS.items():
        if (encoder, decoder) != BASE:
            assert f"{encoder:,} + {decoder:,}" in rows[name] or "| same |" in rows[name]


@pytest.mark.parametrize("name", FILES)
def test_plan_accepts_the_run_file(name, tmp_path):
    """With rendered videos in place of the data that a user brings."""
    sets = ("--set", "data.main.source=synthetic", "--set", f"runtime.store={tmp_path}")
    planned = CliRunner().invoke(main, ["plan", str(FILES[name]), *sets])
    assert planned.exit_code == 0, planned.output
    for node in build_graph(load_config(FILES[name]).config).nodes:
        assert node in planned.output


def test_without_the_weights_of_face_alignment_the_settings_of_the_embedded_nets_are_named(tmp_path):
    sets = ("--set", "data.main.source=synthetic", "--set", f"runtime.store={tmp_path}")
    told = CliRunner().invoke(main, ["plan", str(FILES["fsrt_2src"]), *sets]).output.splitlines()
    (refusal,) = [line for line in told if line.startswith("a run will not start: weights fan2d")]
    named = ("keypoints.main.landmarker=mesh468_iris", "keypoints.main.detector=mp_face")
    for setting in named:
        assert f"; to do without: --set {setting}" in refusal
    sets += tuple(word for setting in named for word in ("--set", setting))
    told = CliRunner().invoke(main, ["plan", str(FILES["fsrt_2src"]), *sets]).output
    assert "a run will not start: weights fan2d" not in told  # metrics by it are told as not computed


@pytest.mark.parametrize("name", FILES)
def test_all_but_the_detector_learns_from_frames_as_large_as_the_recordings(name):
    graph = build_graph(load_config(FILES[name]).config)
    assert graph["views.vox_max"].config == {"views": "views.vox_max"}
    for node in graph:
        if node.name.startswith("train.fsrt."):
            shown = {family for family, read in node.reads.items() if "frames" in read.fields}
            assert shown == {"clips" if node.name == "train.fsrt.keypoints" else "views.vox_max"}


@pytest.mark.parametrize("name", FILES)
def test_item_1_parameter_counts_are_the_papers(name):
    net = fsrt(name).net
    with torch.device("meta"):
        parts = Fsrt(net)
    assert (size_of(parts.encoder), size_of(parts.decoder)) == COUNTS[name]
    assert size_of(parts.expression_encoder) == EXTRACTORS[net.expression_size]
    assert size_of(parts.kp_detector) == 14_146_728


@pytest.mark.parametrize(("name", "count"), [("fsrt_vox256", 6_846_849), ("fsrt_nok", 6_826_369)])
def test_without_keypoints_the_discriminator_sees_the_picture_alone(name, count):
    config = fsrt(name)
    with torch.device("meta"):
        task = AdversarialTask(
            config.net, config.sampling, config.augment, config.images, config.discriminator
        )
    assert size_of(task.discriminator) == count  # ten maps fewer: 10 * 128 * 4 * 4


@pytest.mark.parametrize(
    ("name", "trained"),
    [("fsrt_eval2", "fsrt_vox256"), ("fsrt_2src_eval1", "fsrt_2src"), ("fsrt_2src_eval3", "fsrt_2src")],
)
def test_rows_that_differ_at_test_time_train_nothing_of_their_own(name, trained):
    mine, theirs = (load_config(FILES[file]).config for file in (name, trained))
    assert mine.fsrt == theirs.fsrt
    assert mine.clips == theirs.clips
    assert mine.eval != theirs.eval


@pytest.mark.parametrize(
    ("name", "left"),
    [("fsrt_noreg", {"invariance"}), ("fsrt_noreg_official", set()), ("fsrt_2src", REGULARISERS)],
)
def test_the_regularisers_left_are_those_of_the_row_in_every_phase(name, left):
    phases = {key: phase for key, phase in fsrt(name).phases.items() if key != "keypoints"}
    assert list(phases) == ["warmup", "perceptual", "adversarial"]
    for phase in phases.values():
        assert REGULARISERS & set(phase.loss_weights) == left
        assert phase.loss_weights["pixel"] == 1


def test_fine_tuning_runs_one_phase_from_the_released_files():
    config = load_config(FILES["fsrt_finetune"]).config
    assert [node for node in build_graph(config).nodes if node.startswith("train.")] == [
        "train.fsrt.adversarial"
    ]
    assert config.fsrt.phases["adversarial"].required_weights == ("fsrt_vox",)


@pytest.mark.parametrize("name", FILES)
def test_the_workers_of_its_cluster_can_share_every_phase(name):
    config = load_config(FILES[name]).config
    for phase, settings in config.fsrt.phases.items():
        if settings is not None:
            check_phase_runtime(config, replace(config.runtime, use_gpu=True), "train.fsrt", "fsrt", phase)
