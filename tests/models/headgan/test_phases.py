"""HeadGAN's phases have the paper's weights and the authors' schedule."""

import pytest

from models.headgan.phases import PHASES
from pipelines.train.optim import learning_rate


def test_the_weights_of_the_terms_are_the_papers():
    """Supplement (6); in all 1 of each hinge, 50 of L1, 10 of the others."""
    for phase in PHASES.values():
        assert phase.loss_weights == {
            "l1": 50, "perceptual": 10, "l1_warped": 50, "perceptual_warped": 10,
            "gan": 1, "gan_mouth": 1, "feature_matching": 10, "feature_matching_mouth": 10,
            "discriminator": 1, "discriminator_mouth": 1,
        }  # fmt: skip


def test_the_rate_stays_and_then_falls_to_a_last_step_above_zero():
    """Spec 7; the fall is a quarter of the budget, and Adam goes on as it was."""
    first, last = PHASES["adversarial"], PHASES["decay"]
    for optim in first.optimizers.values():
        assert {learning_rate(optim, step) for step in (1, 1000, first.steps)} == {2e-4}
    for optim in last.optimizers.values():
        rates = [learning_rate(optim, step) for step in (1, last.steps // 2 + 1, last.steps)]
        assert rates == pytest.approx([2e-4, 1e-4, 2e-4 / last.steps])
    assert last.steps == (first.steps + last.steps) / 4
    assert last.resume_optimizers
    assert last.init == "adversarial"


def test_discriminators_move_at_every_fourth_step():
    assert {phase.active_updates["discriminator"].every for phase in PHASES.values()} == {4}
