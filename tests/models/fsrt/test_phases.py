import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.fsrt.config import FsrtConfig
from models.fsrt.phases import PHASES, RELEASED, SETTINGS, TASKS, nets, parts
from pipelines.engine.fingerprint import resolve
from pipelines.engine.keys import lookup
from pipelines.train.optim import learning_rate

BEGIN = {"warmup": 0, "perceptual": 200_000, "adversarial": 500_000}


def test_one_learning_rate_clock_runs_through_all_phases():
    golden = json.loads((Path(__file__).parents[2] / "golden" / "fsrt.json").read_text())
    for step, rate in golden["functions"]["lr_schedule"].items():
        for name, begin in BEGIN.items():
            if int(step) > begin:
                found = learning_rate(PHASES[name].optim, int(step) - begin, begin)
                assert found == pytest.approx(float(rate), rel=1e-12), (name, step)


def test_each_phase_begins_where_the_one_before_ends():
    steps = 0
    for name, begin in BEGIN.items():
        assert steps == begin
        assert PHASES[name].optim.start is None
        steps += PHASES[name].steps


def test_the_discriminator_has_no_warmup_of_its_own():
    phase = PHASES["adversarial"]
    assert phase.adversary.optim == phase.optim
    assert learning_rate(phase.adversary.optim, 1, BEGIN["adversarial"]) == pytest.approx(7.96e-5, rel=1e-3)


def test_phases_two_and_three_go_on_with_adams_moments():
    assert [PHASES[name].carry for name in BEGIN] == [False, True, True]


@pytest.mark.parametrize("name", ["perceptual", "adversarial"])
def test_the_perceptual_loss_needs_vgg19_as_the_run_file_says(name):
    phase, config = PHASES[name], FsrtConfig()
    assert nets(config, phase) == ("vgg19",)
    assert nets(replace(config, vgg19="random"), phase) == ("vgg19_random",)
    for off in (0.0, None):
        assert nets(config, replace(phase, losses=phase.losses | {"perceptual": off})) == ()
    assert nets(config, PHASES["warmup"]) == ()


def test_settings_of_whole_images_and_of_the_judge_leave_earlier_phases_alone():
    """Their keys do not hold them: a change reruns what uses it."""
    assert "images" not in SETTINGS["warmup"]
    assert "discriminator" not in {*SETTINGS["warmup"], *SETTINGS["perceptual"]}


@pytest.mark.parametrize("name", PHASES)
def test_the_parts_are_those_of_the_net(name):
    config = FsrtConfig()
    settings = {path.rsplit(".", 1)[-1]: lookup(config, path) for path in SETTINGS[name]}
    del settings["seed"], settings["precision"]
    with torch.device("meta"):
        task = resolve(TASKS[name])(**settings)
    assert set(parts(config)[name]) == {part for part, _ in task.net.named_children()}


def test_released_weights_bring_parts_that_there_are():
    assert {part for file in RELEASED.values() for part in file.parts} <= set(
        parts(FsrtConfig())["adversarial"]
    )
