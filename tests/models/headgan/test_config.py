from __future__ import annotations

import subprocess
import sys

import pytest

from models.api import Loss
from models.headgan.config import (
    Architecture,
    DiscriminatorConfig,
    HeadGanConfig,
    ReconstructionLossConfig,
    official_architecture,
    paper_supplement_architecture,
    tiny_architecture,
)
from models.headgan.phases import PHASES
from tests.models.one_pass import with_update


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"width": 0}, "width 0: expected 1 or more"),
        ({"audio": -1}, "audio -1: expected 0 or more"),
        ({"base": 2}, "base 2 with upsampling shuffle"),
        ({"image_size": 250}, "image_size 250: expected a multiple of 4"),
        ({"image_size": 8}, "leaves 4 or more pixels"),
        ({"mask": True, "flow": False}, "there is no flow to mask"),
    ],
)
def test_a_net_that_cannot_be_built_says_which_setting(change, told):
    with pytest.raises(ValueError, match=told):
        Architecture(**change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layers": 1}, "2 or more layers"),
        ({"max_width": 8}, "width 64 to 8"),
        ({"mouth_size": 33}, "mouth_size 33: expected an even number"),
        ({"mouth_size": 2}, "mouth_size 2: expected"),
    ],
)
def test_discriminators_that_cannot_be_built_say_which_setting(change, told):
    with pytest.raises(ValueError, match=told):
        DiscriminatorConfig(**change)


@pytest.mark.parametrize("weights", [(1.0,) * 4, (0.0,) * 5, (1.0, 1.0, 1.0, 1.0, -1.0)])
def test_a_perceptual_net_has_five_weights(weights):
    with pytest.raises(ValueError, match="expected 5 weights"):
        ReconstructionLossConfig(perceptual_layers=weights)


def test_published_sizes():
    assert paper_supplement_architecture().encoder_channels == [32, 128, 512]
    assert DiscriminatorConfig().channels == [64, 128, 256, 512]
    assert paper_supplement_architecture().window_channels == 9
    assert paper_supplement_architecture() == Architecture()
    assert official_architecture().residual
    assert official_architecture().mask
    assert tiny_architecture().image_size == 64


def test_settings_load_no_torch():
    code = "import models.headgan.config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"discriminators": DiscriminatorConfig(mouth=False)},
            r"weighs discriminator_mouth, feature_matching_mouth, gan_mouth, wh",
        ),
        ({"net": Architecture(flow=False)}, r"weighs l1_warped, perceptual_warped, which net\.flow false"),
        (
            {
                "phases": {
                    "decay": with_update(
                        PHASES["decay"],
                        losses={"l1": Loss(50.0), "mask": Loss(10.0)},
                    )
                }
            },
            r"phases\.decay weighs mask, which net\.mask false leaves out; set it to null",
        ),
        ({"phases": {"warmup": PHASES["decay"]}}, r"phases\.warmup: expected one of adversarial, decay"),
        ({"phases": {"adversarial": PHASES["decay"]}}, r"name 'decay': expected 'adversarial'"),
        ({"net": Architecture(image_size=32)}, r"discriminators\.mouth_size 64: images have 32 pixels"),
    ],
)
def test_settings_that_cannot_work_say_what_to_change(change, message):
    with pytest.raises(ValueError, match=message):
        HeadGanConfig(**change)


def test_watched_terms_need_nothing():
    """Weight 0 asks for no term that is not there."""
    phase = with_update(PHASES["decay"], losses={"l1": Loss(50.0), "mask": Loss(0.0)})
    assert HeadGanConfig(phases={"decay": phase}).phases["decay"] is phase
