"""Every run file of HeadGAN: planned, its parameter counts, and what makes it differ from the base."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from msgspec.structs import replace

from models.headgan.config import (
    AudioFeatureConfig,
    ReconstructionLossConfig,
    official_architecture,
    paper_supplement_architecture,
)
from models.headgan.discriminator import image_discriminator, mouth_discriminator
from models.headgan.network import Generator
from pipelines.cli.main import main
from pipelines.config import load_config
from pipelines.graph import build_graph
from pipelines.runs.session import CODE_ROOT
from pipelines.train.checks import check_phase_runtime

OFFICIAL_TERMS = ReconstructionLossConfig(
    masked=True, perceptual_layers=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
)  # the authors' code's
FILES = {path.stem: path for path in sorted((CODE_ROOT / "configs/run").glob("headgan_*.yaml"))}
BASE, D_M = 51_748_933, 6_145_666
COUNTS = {  # G, D_m: supplement 3, and the specification's of the authors' code
    "headgan_vox256": (BASE, D_M),
    "headgan_official": (51_750_502, D_M),
    "headgan_finetune": (51_750_502, D_M),
    "headgan_noaudio": (45_906_565, 5_531_266),
    "headgan_nomouth": (BASE, None),
    "headgan_noflow": (21_781_763, D_M),
    "headgan_sketch": (BASE, D_M),
    "headgan_wav2vec": (53_006_917, 7_104_130),
}


def config(name):
    return load_config(FILES[name]).config


def size_of(part) -> int:
    return sum(p.numel() for p in part.parameters())


def test_every_run_file_has_its_row():
    assert set(FILES) == set(COUNTS)


@pytest.mark.parametrize("name", FILES)
def test_plan_accepts_the_run_file(name, tmp_path):
    """With rendered videos in place of the data that a user brings; every node has the code that it names."""
    sets = ("--set", "data.main.source=synthetic", "--set", f"runtime.store={tmp_path}")
    planned = CliRunner().invoke(main, ["plan", str(FILES[name]), *sets])
    assert planned.exit_code == 0, planned.output
    for node in build_graph(config(name)).nodes:
        assert node in planned.output


@pytest.mark.parametrize("name", FILES)
def test_parameter_counts(name):
    section = config(name).headgan
    plain = replace(section.net, spectral=False)  # adds buffers alone, and building it takes a second
    discriminators = replace(section.discriminators, spectral=False)
    with torch.device("meta"):
        counts = [size_of(Generator(plain)), size_of(mouth_discriminator(discriminators, plain.audio))]
        assert size_of(image_discriminator(discriminators)) == 5_537_410
    assert (counts[0], counts[1] if section.discriminators.mouth else None) == COUNTS[name]


@pytest.mark.parametrize("name", FILES)
def test_a_phase_trains_every_part_of_its_net(name):
    """What nothing trains would stay as it began."""
    section = config(name).headgan
    with torch.device("meta"):
        parts = {part for part, _ in Generator(replace(section.net, spectral=False)).named_children()}
    discriminators = {"image_discriminator"} | (
        {"mouth_discriminator"} if section.discriminators.mouth else set()
    )
    for phase in section.phases.values():
        if phase is not None:
            assert set(phase.active_updates["generator"].learning_rate_scales) == parts
            assert set(phase.active_updates["discriminator"].learning_rate_scales) == discriminators


@pytest.mark.parametrize("name", FILES)
def test_the_workers_of_its_cluster_can_share_every_phase(name):
    loaded = config(name)
    for phase, settings in loaded.headgan.phases.items():
        if settings is not None:
            check_phase_runtime(
                loaded, replace(loaded.runtime, use_gpu=True), "train.headgan", "headgan", phase
            )


def test_the_base_is_the_supplement():
    section = config("headgan_vox256").headgan
    assert section.net == paper_supplement_architecture()
    assert section.terms == ReconstructionLossConfig()
    assert section.identity == "clip_mean"


def test_official_is_the_authors_code():
    whole = config("headgan_official")
    section = whole.headgan
    assert section.net == official_architecture()
    assert section.terms == OFFICIAL_TERMS
    assert (section.identity, whole.fits["main"].identity) == ("frame", "frame")
    assert (whole.fits["main"].alignments, whole.fits["main"].camera_target) == (5, "fitted")
    assert whole.speech["main"].audio_align == "official"
    for phase in section.phases.values():
        assert phase.loss_weights["mask"] == 10
        assert phase.loss_weights["discriminator_mouth"] == 0.5


def test_fine_tuning_runs_one_phase_from_the_released_generator():
    whole = config("headgan_finetune")
    trained = [node for node in build_graph(whole).nodes if node.startswith("train.")]
    assert trained == ["train.headgan.adversarial"]
    phase = whole.headgan.phases["adversarial"]
    assert phase.required_weights == ("headgan_vox",)
    assert "mask" not in phase.loss_weights
    assert phase.active_updates["generator"].computed_losses["gan"].start > 0  # its discriminators begin anew
    assert (whole.headgan.net, whole.headgan.terms) == (official_architecture(), OFFICIAL_TERMS)


def test_ablations_leave_out_what_they_are_named_for():
    assert config("headgan_noaudio").headgan.net.audio == 0
    assert not config("headgan_noflow").headgan.net.flow
    assert config("headgan_sketch").headgan.net.condition == "sketch"
    for phase in config("headgan_nomouth").headgan.phases.values():
        assert {"discriminator", "gan", "feature_matching"} <= set(phase.loss_weights)
        assert not any("mouth" in name for name in (*phase.loss_weights, *phase.trainable_parts))


def test_a_net_that_hears_nothing_depends_on_no_speech():
    graph = build_graph(config("headgan_noaudio"))
    assert "speech" not in graph.nodes["train.headgan.adversarial"].reads
    assert "speech" in build_graph(config("headgan_vox256")).nodes["train.headgan.adversarial"].reads


def test_wav2vec_is_heard_over_eight_frames_and_normalised():
    whole = config("headgan_wav2vec")
    assert whole.headgan.net.audio == whole.speech["main"].size == 768
    assert whole.headgan.hearing == AudioFeatureConfig(window=8, normalise=True)


@pytest.mark.parametrize("name", FILES)
def test_every_row_fits_algorithm_1_to_dense_points(name):
    whole = config(name)
    fit, keypoints = whole.fits[whole.headgan.fits], whole.keypoints
    assert (fit.backend, fit.points) == ("algorithm1", "dense")
    assert "dense" in keypoints[fit.keypoints].writes
    train = build_graph(whole).nodes["train.headgan.adversarial"]
    assert {"fit3dmm", "keypoints"} <= set(train.config), "a checkpoint records both"
    assert train.config["keypoints"] == f"keypoints.{fit.keypoints}"
