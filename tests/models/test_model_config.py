"""Phases that a run file may name are those that the model has."""

import pytest
from msgspec import field

from models.api import Loss, Phase
from models.model_config import PERCEPTUAL_NET_MIN_SIDES, ModelConfig
from models.perception import NETS, efficientnet_lite0, vgg19
from tests.models.one_pass import one_update, with_losses

AUDIO, IMAGE = one_update("audio"), one_update("image")


class ToyConfig(ModelConfig, frozen=True, kw_only=True):
    phases: dict[str, Phase | None] = field(default_factory=lambda: {"audio": AUDIO, "image": IMAGE})


def test_a_phase_may_be_dropped():
    assert ToyConfig(phases={"audio": None, "image": IMAGE}).phases["audio"] is None


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({"sound": AUDIO}, "phases.sound: expected one of audio, image"),
        ({"audio": IMAGE}, "phases.audio.name 'image': expected 'audio'"),
    ],
)
def test_a_phase_that_the_model_lacks_is_refused(phases, message):
    with pytest.raises(ValueError, match=message):
        ToyConfig(phases=phases)


def test_least_sides_are_those_of_the_nets():
    assert PERCEPTUAL_NET_MIN_SIDES == {
        "vgg19": vgg19.MIN_IMAGE_SIDE,
        "vgg19_random": vgg19.MIN_IMAGE_SIDE,
        "efficientnet_lite0": efficientnet_lite0.MIN_IMAGE_SIDE,
    }
    assert set(PERCEPTUAL_NET_MIN_SIDES) <= set(NETS)


def test_images_that_a_perceptual_net_cannot_take_are_refused_where_a_phase_weighs_its_loss():
    config = ToyConfig(phases={"audio": with_losses(AUDIO, {"perceptual": Loss(0.1)}), "image": IMAGE})
    config.check_perceptual_images("efficientnet_lite0", 32, ("perceptual",))
    with pytest.raises(ValueError, match="efficientnet_lite0: its images have 31 pixels a side, it needs 32"):
        config.check_perceptual_images("efficientnet_lite0", 31, ("perceptual",))
    config.check_perceptual_images("vgg19", 31, ("perceptual",))
    config.check_perceptual_images("efficientnet_lite0", 31, ("other",))
    ToyConfig().check_perceptual_images("efficientnet_lite0", 31, ("perceptual",))
