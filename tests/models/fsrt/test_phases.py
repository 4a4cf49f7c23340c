import json
from pathlib import Path

import pytest

from models.fsrt.phases import PHASES
from pipelines.train.optim import learning_rate

BEGIN = {"warmup": 0, "perceptual": 200_000, "adversarial": 500_000}


def test_one_learning_rate_clock_runs_through_all_phases():
    golden = json.loads((Path(__file__).parents[2] / "golden" / "fsrt.json").read_text())
    for step, rate in golden["functions"]["lr_schedule"].items():
        for name, begin in BEGIN.items():
            if int(step) > begin:
                found = learning_rate(PHASES[name].optimizers["g"], int(step) - begin, begin)
                assert found == pytest.approx(float(rate), rel=1e-12), (name, step)


def test_each_phase_begins_where_the_one_before_ends():
    steps = 0
    for name, begin in BEGIN.items():
        assert steps == begin
        assert PHASES[name].optimizers["g"].schedule.step_offset is None
        steps += PHASES[name].steps


def test_the_discriminator_has_no_warmup_of_its_own():
    phase = PHASES["adversarial"]
    assert phase.optimizers["d"] == phase.optimizers["g"]
    assert learning_rate(phase.optimizers["d"], 1, BEGIN["adversarial"]) == pytest.approx(7.96e-5, rel=1e-3)


def test_phases_two_and_three_go_on_with_adams_moments():
    assert [PHASES[name].resume_optimizers for name in BEGIN] == [False, True, True]
