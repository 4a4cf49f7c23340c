import subprocess
import sys

import pytest
from msgspec.structs import replace

from models.api import Loss, Optimizer
from models.fsrt.config import (
    Architecture,
    AugmentConfig,
    FsrtConfig,
    ImageLossRenderingConfig,
    KeypointDetectorConfig,
    TrainingSampleConfig,
    tiny_architecture,
)
from models.fsrt.phases import PHASES
from tests.models.one_pass import with_update


def test_importing_settings_loads_no_torch():
    code = "import sys, models.fsrt.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_phase_starts_from_one_that_there_is():
    assert all(phase.init in (None, *PHASES) for phase in PHASES.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KeypointDetectorConfig(size=100), "size 100: expected a multiple of 128"),
        (lambda: KeypointDetectorConfig(size=2**12), "size 4096: expected 2048 or less"),
        (lambda: KeypointDetectorConfig(blocks=10**9), "blocks 1000000000: expected 64 or less"),
        (lambda: KeypointDetectorConfig(temperature=0), "temperature 0"),
        (lambda: KeypointDetectorConfig(temperature=float("nan")), "temperature nan"),
        (lambda: KeypointDetectorConfig(max_width=16), "max_width 16: expected width 32 or more"),
        (lambda: Architecture(image_size=100), "image_size 100: expected a multiple of 8"),
        (lambda: Architecture(render=(64, 0)), r"render \(64, 0\): expected 1 or more"),
        (lambda: Architecture(render=(64,) * 65), "render of 65 layers: expected 64 or fewer"),
        (lambda: Architecture(image_size=2**20), "image_size 1048576: expected 2048 or less"),
        (lambda: Architecture(patch_blocks=10**9), "patch_blocks 1000000000: expected 64 or less"),
        (lambda: Architecture(encoder_depth=30_000), "encoder_depth 30000: expected 64 or less"),
        (lambda: Architecture(query_mlp=20_000), "query_mlp 20000: expected 16384 or less"),
        (lambda: Architecture(start_octave=-65), "start_octave -65: expected -64 or more"),
        (lambda: TrainingSampleConfig(queries=0), "0 queries"),
        (lambda: AugmentConfig(flip=1.5), "flip 1.5: expected a probability"),
        (
            lambda: FsrtConfig(net=tiny_architecture(), sampling=TrainingSampleConfig(queries=5000)),
            "queries 5000: .* only 4096 pixels",
        ),
        (
            lambda: FsrtConfig(
                net=replace(tiny_architecture(), image_size=32),
                sampling=TrainingSampleConfig(queries=64),
                images=ImageLossRenderingConfig(loss_input="lattice"),
                perceptual_net="efficientnet_lite0",
            ),
            "efficientnet_lite0: its images have 16 pixels a side, it needs 32",
        ),
        (lambda: FsrtConfig(phases={"warmup": PHASES["keypoints"]}), "phases.warmup.name 'keypoints'"),
        (lambda: Optimizer(lr=0), "lr 0"),
        (lambda: replace(PHASES["warmup"], chunk=7), "chunk 7 does not divide batch 24"),
    ],
)
def test_impossible_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_loss_set_to_null_is_left_out():
    losses = {"pixel": Loss(1.0), "variance": Loss(0.0), "covariance": None}
    phase = with_update(PHASES["warmup"], losses=losses)
    assert phase.loss_weights == {"pixel": 1.0, "variance": 0.0}


def test_the_tiny_run_file_says_what_tiny_means(tmp_path):
    from pipelines import config

    run = tmp_path / "run.yaml"
    run.write_text("use: [run/tiny]\n")
    assert config.load_config(run).config.fsrt.net == tiny_architecture()
