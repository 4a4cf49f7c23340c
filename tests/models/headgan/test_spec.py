"""What HeadGAN's phases are computed by, read and depend on, and which fits and speech they refuse."""

from typing import Any

import pytest
import torch
from msgspec.structs import replace

from models.api import Loss
from models.errors import InvalidSettings
from models.headgan.config import Architecture, DiscriminatorConfig, HeadGanConfig
from models.headgan.phases import PHASES
from models.headgan.spec import SPEC
from models.headgan.task import HeadGanTask
from models.weights import find_third_party_weights
from pipelines.preprocess.fit3dmm import Fit3dmmConfig
from pipelines.preprocess.speech import SpeechFeaturesConfig
from tests.models.one_pass import with_losses, with_update

CONFIG = HeadGanConfig()


def stages(**changes: Any) -> dict[str, Any]:
    return {"fit3dmm": Fit3dmmConfig(), "speech": SpeechFeaturesConfig(encoder="headgan")} | changes


def test_a_phase_draws_its_head_and_looks_through_the_net_that_the_run_names():
    phase = PHASES["adversarial"]
    assert SPEC.nets(CONFIG, phase) == ("analytic_head", "vgg19")
    other = replace(CONFIG, head="lsfm", perceptual_net="efficientnet_lite0")
    assert SPEC.nets(other, phase) == ("lsfm", "efficientnet_lite0")
    one = with_losses(phase, {"perceptual": Loss(0.0)})
    assert SPEC.nets(CONFIG, one) == ("analytic_head", "vgg19")
    none = with_losses(one, {"perceptual_warped": None})
    assert SPEC.nets(CONFIG, none) == ("analytic_head",)
    assert SPEC.inference_nets(other) == ("lsfm",)


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_a_phase_reads_what_its_settings_use(phase):
    assert set(SPEC.reads(CONFIG, phase)) == {"clips", "fit3dmm", "speech"}
    assert "id_frames" not in SPEC.reads(CONFIG, phase)["fit3dmm"]
    assert "id_frames" in SPEC.reads(replace(CONFIG, identity="frame"), phase)["fit3dmm"]
    deaf = replace(CONFIG, net=Architecture(audio=0))
    assert set(SPEC.reads(deaf, phase)) == {"clips", "fit3dmm"}
    assert SPEC.extra_sections(CONFIG) == ("fit3dmm", "keypoints", "speech")
    assert SPEC.extra_sections(deaf) == ("fit3dmm", "keypoints")


def test_data_that_fit_pass():
    SPEC.check(CONFIG, stages())
    SPEC.check(replace(CONFIG, net=Architecture(audio=0)), stages(speech=SpeechFeaturesConfig()))
    wide = replace(CONFIG, net=Architecture(audio=768), identity="frame", head="lsfm")
    fitted = Fit3dmmConfig(model="lsfm", identity="frame")
    SPEC.check(wide, stages(speech=SpeechFeaturesConfig(encoder="wav2vec2_base"), fit3dmm=fitted))


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            CONFIG,
            {"speech": SpeechFeaturesConfig()},
            r"audio 300: speech.NAME.encoder log_mel gives vectors of 320",
        ),
        (CONFIG, {"fit3dmm": Fit3dmmConfig(model="flame")}, "head analytic_head with fits.NAME.model flame"),
        (replace(CONFIG, identity="frame"), {}, "identity frame with fits.NAME.identity clip: expected"),
    ],
)
def test_data_that_do_not_fit_are_refused(section, changes, message):
    with pytest.raises(InvalidSettings, match=message):
        SPEC.check(section, stages(**changes))


@pytest.mark.parametrize("net", [Architecture(), Architecture(flow=False)])
@pytest.mark.parametrize("discriminators", [DiscriminatorConfig(), DiscriminatorConfig(mouth=False)])
def test_the_parts_are_those_of_the_net(net, discriminators):
    net = replace(net, spectral=False)  # adds buffers alone, and building it takes a second
    with torch.device("meta"):
        task = HeadGanTask(
            net, replace(discriminators, spectral=False), CONFIG.terms, CONFIG.head, CONFIG.hearing,
            CONFIG.identity, CONFIG.shading, False,
        )  # fmt: skip
    weighed = {
        name: with_update(
            replace(phase, updates=phase.updates | {"discriminator": None}),
            losses={"l1": Loss(1.0)},
        )
        for name, phase in PHASES.items()
    }  # what is weighed has no say
    config = HeadGanConfig(net=net, discriminators=discriminators, phases={**weighed})
    for phase in PHASES.values():
        assert set(SPEC.parts(config, phase)) == {part for part, _ in task.net.named_children()}


@pytest.mark.parametrize("name", SPEC.released)
def test_released_weights_are_in_the_registry(name):
    assert [find_third_party_weights(weights).publisher for weights in SPEC.released[name].files] == [
        "michaildoukas/headGAN"
    ] * len(SPEC.released[name].files)
