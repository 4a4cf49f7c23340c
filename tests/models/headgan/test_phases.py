from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from models import MODELS
from models.errors import InvalidSettings
from models.headgan import phases
from models.headgan.config import Architecture, HeadGanConfig, Judges
from models.headgan.phases import PHASES, RELEASED, SETTINGS, TASKS
from models.headgan.task import HeadGanTask
from pipelines.preprocess.fit3dmm import Fit3dmmConfig
from pipelines.preprocess.speech import SpeechConfig
from pipelines.train.optim import learning_rate
from storage.weight_files import known

CONFIG = HeadGanConfig()


def run(section: HeadGanConfig = CONFIG, **changes) -> SimpleNamespace:
    parts = {"headgan": section, "fit3dmm": Fit3dmmConfig(), "speech": SpeechConfig(encoder="headgan")}
    return SimpleNamespace(**({"eval": SimpleNamespace(sources=1)} | parts | changes))


def test_every_phase_has_a_task_and_settings_that_exist():
    assert set(PHASES) == set(TASKS) == set(SETTINGS) == {"adversarial", "decay"}
    for names in SETTINGS.values():
        assert all(hasattr(CONFIG, name) for name in names)


def test_the_weights_of_the_terms_are_the_papers():
    """Supplement (6); in all 1 of each hinge, 50 of L1, 10 of the others."""
    for phase in PHASES.values():
        assert phase.weights == {"l1": 50, "perceptual": 10, "l1_warped": 50, "perceptual_warped": 10}
        assert phase.adversary.losses == {"discriminator": 1, "discriminator_mouth": 1}
        assert phase.adversary.fools == {
            "gan": 1, "gan_mouth": 1, "feature_matching": 10, "feature_matching_mouth": 10,
        }  # fmt: skip


def test_the_rate_stays_and_then_falls_to_a_last_step_above_zero():
    """Spec 7; the fall is a quarter of the budget, and Adam goes on as it was."""
    first, last = PHASES["adversarial"], PHASES["decay"]
    for optim in (first.optim, first.adversary.optim):
        assert {learning_rate(optim, step) for step in (1, 1000, first.steps)} == {2e-4}
    for optim in (last.optim, last.adversary.optim):
        rates = [learning_rate(optim, step) for step in (1, last.steps // 2 + 1, last.steps)]
        assert rates == pytest.approx([2e-4, 1e-4, 2e-4 / last.steps])
    assert last.steps == (first.steps + last.steps) / 4
    assert last.carry
    assert last.start_from == "adversarial"


def test_judges_move_at_every_fourth_step():
    assert {phase.adversary.every for phase in PHASES.values()} == {4}


# --- what else a phase needs --------------------------------------------------------------------------------
def test_a_phase_draws_its_head_and_looks_through_vgg19_as_the_run_says():
    phase = PHASES["adversarial"]
    assert phases.nets(CONFIG, phase) == ("analytic_head", "vgg19")
    other = replace(CONFIG, head="lsfm", vgg19="random")
    assert phases.nets(other, phase) == ("lsfm", "vgg19_random")
    one = replace(phase, losses=phase.losses | {"perceptual": 0.0})
    assert phases.nets(CONFIG, one) == ("analytic_head", "vgg19")
    none = replace(one, losses=one.losses | {"perceptual_warped": None})
    assert phases.nets(CONFIG, none) == ("analytic_head",)
    assert phases.reenacting(other) == ("lsfm",)


def test_a_phase_reads_what_its_settings_use():
    assert phases.reads(CONFIG) == phases.READS
    assert "id_frames" in phases.reads(replace(CONFIG, identity="frame"))["fit3dmm"]
    deaf = replace(CONFIG, net=Architecture(audio=0))
    assert set(phases.reads(deaf)) == {"clips", "fit3dmm"}
    assert phases.told(CONFIG) == ("speech",)
    assert phases.told(deaf) == ()


def test_data_that_fit_pass():
    phases.check(run())
    phases.check(run(replace(CONFIG, net=Architecture(audio=0)), speech=SpeechConfig()))
    wide = replace(CONFIG, net=Architecture(audio=768), identity="frame", head="lsfm")
    fitted = Fit3dmmConfig(model="lsfm", identity="frame")
    phases.check(run(wide, speech=SpeechConfig(encoder="wav2vec2_base"), fit3dmm=fitted))


@pytest.mark.parametrize(
    ("section", "changes", "told"),
    [
        (CONFIG, {"speech": SpeechConfig()}, r"audio 300: speech.encoder log_mel gives vectors of 320"),
        (CONFIG, {"fit3dmm": Fit3dmmConfig(model="flame")}, "head analytic_head with fit3dmm.model flame"),
        (replace(CONFIG, identity="frame"), {}, "identity frame with fit3dmm.identity clip: expected"),
    ],
)
def test_data_that_do_not_fit_are_refused(section, changes, told):
    with pytest.raises(InvalidSettings, match=told):
        phases.check(run(section, **changes))


@pytest.mark.parametrize("net", [Architecture(), Architecture(flow=False)])
@pytest.mark.parametrize("judges", [Judges(), Judges(mouth=False)])
def test_the_parts_are_those_of_the_net(net, judges):
    net = replace(net, spectral=False)  # adds buffers alone, and building it takes a second
    with torch.device("meta"):
        task = HeadGanTask(
            net, replace(judges, spectral=False), CONFIG.terms, CONFIG.head, CONFIG.hearing, CONFIG.identity,
            CONFIG.shading, False,
        )  # fmt: skip
    weighed = {
        name: replace(phase, losses={"l1": 1.0}, adversary=None) for name, phase in PHASES.items()
    }  # what is weighed has no say
    found = phases.parts(HeadGanConfig(net=net, judges=judges, phases=weighed))
    assert set(found) == set(PHASES)
    for parts in found.values():
        assert set(parts) == {part for part, _ in task.net.named_children()}


# --- settings -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"judges": Judges(mouth=False)},
            r"weighs discriminator_mouth, feature_matching_mouth, gan_mouth, wh",
        ),
        ({"net": Architecture(flow=False)}, r"weighs l1_warped, perceptual_warped, which net\.flow false"),
        (
            {"phases": {"decay": replace(PHASES["decay"], losses={"l1": 50.0, "mask": 10.0})}},
            r"phases\.decay weighs mask, which net\.mask false leaves out; set it to null",
        ),
        ({"phases": {"warmup": PHASES["decay"]}}, r"phases\.warmup: expected one of adversarial, decay"),
        ({"phases": {"adversarial": PHASES["decay"]}}, r"name 'decay': expected 'adversarial'"),
        ({"net": Architecture(image_size=32)}, r"judges\.mouth_size 64: images have 32 pixels"),
    ],
)
def test_settings_that_cannot_work_say_what_to_change(change, told):
    with pytest.raises(ValueError, match=told):
        HeadGanConfig(**change)


def test_watched_terms_need_nothing():
    """Weight 0 asks for no term that is not there."""
    phase = replace(PHASES["decay"], losses={"l1": 50.0, "mask": 0.0})
    assert HeadGanConfig(phases={"decay": phase}).phases["decay"] is phase


# --- released weights ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", RELEASED)
def test_released_weights_are_in_the_registry(name):
    assert [known(weights).publisher for weights in RELEASED[name].files] == ["michaildoukas/headGAN"] * len(
        RELEASED[name].files
    )


@pytest.mark.parametrize("model", MODELS)
def test_settings_and_phases_import_neither_torch_nor_numpy(model):
    program = (
        f"import sys, {MODELS[model]}.config, {MODELS[model]}.phases\n"
        "print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
