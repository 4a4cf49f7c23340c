"""What FSRT's phases are computed by, read and depend on."""

import pytest
import torch
from msgspec.structs import replace

from models.api import Loss
from models.fsrt.config import AugmentConfig, FsrtConfig
from models.fsrt.phases import PHASES
from models.fsrt.spec import SPEC
from pipelines.engine.fingerprint import resolve_entry_point
from pipelines.engine.keys import lookup_setting
from tests.models.one_pass import with_losses


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_every_phase_reads_frames_landmarks_and_how_large_the_recordings_are(phase):
    points, record = {"keypoints": ("landmarks",)}, () if phase.name == "keypoints" else ("clip",)
    of_clips = {"clips": ("frames", *record)} | points
    of_view = {"clips": ("clip",), "views.vox_max": ("frames", "affine", "frame_at")} | points
    assert SPEC.reads(FsrtConfig(), phase) == (of_view if record else of_clips)
    assert SPEC.reads(FsrtConfig(), replace(phase, frames_from="clips")) == of_clips


def test_crops_need_frames_of_twice_the_pictures_side():
    config, warmup = FsrtConfig(), PHASES["warmup"]
    assert set(SPEC.frame_sides(config, warmup)) == {256, 512}
    uncropped = replace(config, augment=AugmentConfig(out_of_frame=0.0, expression_view="whole"))
    assert set(SPEC.frame_sides(uncropped, warmup)) == {256}
    assert SPEC.frame_sides(config, PHASES["keypoints"]) == {}


def test_frames_alone_drive_it():
    assert SPEC.driving_reads(FsrtConfig()) == {"clips": ("frames",)}


@pytest.mark.parametrize("name", ["perceptual", "adversarial"])
def test_the_perceptual_loss_needs_the_net_that_the_run_file_names(name):
    phase, config = PHASES[name], FsrtConfig()
    assert SPEC.nets(config, phase) == ("vgg19",)
    for net in ("vgg19_random", "efficientnet_lite0"):
        assert SPEC.nets(replace(config, perceptual_net=net), phase) == (net,)
    for off in (Loss(0.0), None):
        assert SPEC.nets(config, with_losses(phase, {"perceptual": off})) == ()
    assert SPEC.nets(config, PHASES["warmup"]) == ()


def test_settings_of_whole_images_and_of_the_discriminator_leave_earlier_phases_alone():
    """Their keys do not hold them: a change reruns what uses it."""
    assert "images" not in SPEC.tasks["warmup"].settings
    assert "discriminator" not in {*SPEC.tasks["warmup"].settings, *SPEC.tasks["perceptual"].settings}


@pytest.mark.parametrize("name", PHASES)
def test_the_parts_are_those_of_the_net(name):
    config = FsrtConfig()
    settings = {path.rsplit(".", 1)[-1]: lookup_setting(config, path) for path in SPEC.tasks[name].settings}
    del settings["seed"], settings["precision"]
    with torch.device("meta"):
        task = resolve_entry_point(SPEC.tasks[name].task)(**settings)
    assert set(SPEC.parts(config, PHASES[name])) == {part for part, _ in task.net.named_children()}
