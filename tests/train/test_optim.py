import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.api import EmaSettings, Optimizer, Schedule
from models.fsrt.phases import PHASES
from pipelines.train.optim import NamedOptimizer, ParameterEma, learning_rate


def test_learning_rate_of_the_published_schedule():
    golden = json.loads((Path(__file__).parents[1] / "golden" / "fsrt.json").read_text())
    for step, rate in golden["functions"]["lr_schedule"].items():
        assert learning_rate(PHASES["warmup"].optimizers["g"], int(step)) == pytest.approx(
            float(rate), rel=1e-12
        )


def test_without_warmup_or_decay_the_rate_stays():
    assert {learning_rate(Optimizer(lr=0.5), step) for step in (1, 10, 10**6)} == {0.5}


def scheduled(lr: float = 1e-4, **schedule: int | float | None) -> Optimizer:
    return Optimizer(lr=lr, schedule=Schedule(**schedule))  # pyright: ignore[reportArgumentType]


def test_the_linear_decay_begins_at_the_full_rate_and_ends_one_step_before_nothing():
    optimizer = scheduled(1.0, warmup=2, constant_steps=3, linear_decay_steps=4)
    rates = [learning_rate(optimizer, step) for step in range(1, 11)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


def test_a_phase_in_the_middle_of_a_decay_goes_on_with_it():
    known = {"constant_steps": 10, "linear_decay_steps": 10}
    first, later = scheduled(**known), scheduled(**known, step_offset=14)
    assert [learning_rate(later, s) for s in range(1, 5)] == [learning_rate(first, s) for s in range(15, 19)]


def test_a_schedule_without_an_offset_goes_on_from_what_was_done_before():
    known = {"warmup": 10, "decay": 0.5, "decay_steps": 10}
    first, later = scheduled(**known), scheduled(**known, step_offset=None)
    rates = [learning_rate(later, step, 7) for step in range(1, 9)]
    assert rates == [learning_rate(first, step) for step in range(8, 16)]


def test_a_lazy_regulariser_lowers_rate_and_betas():
    """StyleGAN2, appendix B: c = k / (k + 1)."""
    lazy = Optimizer(lr=0.002, betas=(0.5, 0.99), lazy=16)
    assert learning_rate(lazy, 1) == pytest.approx(0.002 * 16 / 17)
    parameter = nn.Parameter(torch.zeros(1))
    made = NamedOptimizer(lazy, {"d.x": parameter}, {"d": 1.0}).torch
    assert made.defaults["betas"] == pytest.approx((0.5 ** (16 / 17), 0.99 ** (16 / 17)))


def trained(steps: int, net: nn.Module, optimizer: NamedOptimizer) -> None:
    for step in range(steps):
        optimizer.torch.zero_grad()
        net(torch.full((2, 3), 0.1 * step + 0.1)).square().sum().backward()
        optimizer.torch.step()


def over(net: nn.Module, **settings: Any) -> NamedOptimizer:
    named = {f"net.{name}": parameter for name, parameter in net.named_parameters()}
    return NamedOptimizer(Optimizer(lr=0.1, **settings), named, {"net": 1.0})


@pytest.mark.parametrize("kind", ["adam", "adamw", "ranger"])
def test_a_restored_optimizer_makes_the_same_next_steps(kind):
    torch.manual_seed(0)
    net, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    first = over(net, kind=kind)
    trained(8, net, first)
    twin.load_state_dict(net.state_dict())
    second = over(twin, kind=kind)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    trained(5, net, first)
    trained(5, twin, second)
    assert torch.equal(net.weight, twin.weight)


def test_adams_state_has_the_names_of_earlier_checkpoints():
    net = nn.Linear(3, 2)
    optimizer = over(net)
    trained(1, net, optimizer)
    kinds = ("step", "exp_avg", "exp_avg_sq")
    assert set(optimizer.state()) == {f"net.{p}.{kind}" for p in ("weight", "bias") for kind in kinds}


def test_a_part_learns_at_its_factor_of_the_rate():
    fast, slow = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = NamedOptimizer(Optimizer(lr=0.1), {"a.x": fast, "b.x": slow}, {"a": 1.0, "b": 0.25})
    optimizer.set_rate(1, 0)
    (fast + slow).backward()
    optimizer.torch.step()
    assert (fast.item(), slow.item()) == pytest.approx((-0.1, -0.025), rel=1e-5)  # Adam's first step


# --- against other implementations --------------------------------------------------------------------------
def gradients(steps: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) * 10.0 ** rng.integers(-3, 2) for _ in range(steps)]


def followed(settings: Optimizer, start: np.ndarray, steps: list[np.ndarray]) -> np.ndarray:
    """Where an optimizer takes a weight in float64."""
    weight = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = NamedOptimizer(settings, {"net.w": weight}, {"net": 1.0})
    for number, gradient in enumerate(steps, 1):
        optimizer.set_rate(number, 0)
        weight.grad = torch.from_numpy(gradient.copy())
        optimizer.torch.step()
    return weight.detach().numpy()


def adam_by_hand(settings: Optimizer, weight: np.ndarray, steps: list[np.ndarray]) -> np.ndarray:
    """Kingma and Ba's algorithm 1, with L2 in the gradient, or decoupled (Loshchilov and Hutter)."""
    first, second, (b1, b2) = np.zeros_like(weight), np.zeros_like(weight), settings.betas
    for t, gradient in enumerate(steps, 1):
        rate = learning_rate(settings, t)
        if settings.kind == "adamw":
            weight = weight * (1 - rate * settings.weight_decay)
        else:
            gradient = gradient + settings.weight_decay * weight
        first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
        unbiased, scale = first / (1 - b1**t), np.sqrt(second / (1 - b2**t))
        weight = weight - rate * unbiased / (scale + settings.eps)
    return weight


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_and_adamw_are_the_papers(kind):
    settings = Optimizer(
        kind=kind, lr=0.01, betas=(0.5, 0.99), eps=1e-3, weight_decay=0.1, schedule=Schedule(warmup=5)
    )
    start, steps = np.ones((3, 2)), gradients(20, (3, 2))
    np.testing.assert_allclose(
        followed(settings, start, steps), adam_by_hand(settings, start, steps), rtol=1e-9
    )


def test_ranger_of_a_bias_is_torchs_radam_until_the_slow_weights_come():
    settings = Optimizer(kind="ranger", lr=0.01, betas=(0.9, 0.7), eps=1e-5)  # rectified from step 2 on
    start, steps = np.ones(4), gradients(5, (4,))
    weight = nn.Parameter(torch.from_numpy(start.copy()))
    radam = torch.optim.RAdam([weight], lr=0.01, betas=(0.9, 0.7), eps=1e-5)
    for gradient in steps:
        weight.grad = torch.from_numpy(gradient.copy())
        radam.step()
    np.testing.assert_allclose(followed(settings, start, steps), weight.detach().numpy(), rtol=1e-9)


def test_ranger_centres_gradients_and_looks_ahead_every_sixth_step():
    """RAdam on centred gradients; after steps 6 and 12 the weight goes half way back to 6 steps before."""
    settings = Optimizer(kind="ranger", lr=0.01, betas=(0.95, 0.999), eps=1e-5, weight_decay=0.05)
    start, steps = np.ones((3, 4)), gradients(13, (3, 4))
    fast, slow = torch.from_numpy(start.copy()), torch.from_numpy(start.copy())
    weight = nn.Parameter(fast)
    radam = torch.optim.RAdam(
        [weight], lr=0.01, betas=(0.95, 0.999), eps=1e-5, weight_decay=0.05, decoupled_weight_decay=True
    )
    for number, gradient in enumerate(steps, 1):
        weight.grad = torch.from_numpy(gradient - gradient.mean(axis=1, keepdims=True))
        radam.step()
        if number % 6 == 0:
            with torch.no_grad():
                slow = slow + 0.5 * (weight - slow)
                weight.copy_(slow)
    np.testing.assert_allclose(followed(settings, start, steps), weight.detach().numpy(), rtol=1e-9)


# --- running means ------------------------------------------------------------------------------------------
def test_running_mean_follows_and_swaps():
    parameter = nn.Parameter(torch.zeros(2))
    means = ParameterEma({"net.p": parameter, "other.p": parameter}, {"net": EmaSettings(decay=0.75)})
    with torch.no_grad():
        parameter.fill_(1.0)
    means.update(1, 8)
    assert {name: mean.tolist() for name, mean in means.mean.items()} == {"net.p": [0.25, 0.25]}
    means.swap_with_weights()
    assert parameter.tolist() == [0.25, 0.25]
    means.swap_with_weights()
    assert parameter.tolist() == [1.0, 1.0]
    assert means.mean["net.p"].tolist() == [0.25, 0.25]


def test_a_half_life_in_images_does_not_depend_on_the_batch():
    assert EmaSettings(half_life_images=100).decay_at(1, 10) ** 10 == pytest.approx(0.5)
    assert EmaSettings(half_life_images=100).decay_at(1, 50) ** 2 == pytest.approx(0.5)
    assert EmaSettings(half_life_steps=4).decay_at(9, 50) ** 4 == pytest.approx(0.5)


def test_a_ramp_shortens_the_half_life_at_first():
    """StyleGAN2-ADA: at most ema_rampup of the images seen."""
    ema = EmaSettings(half_life_images=1000, ramp=0.05)
    assert ema.decay_at(1, 10) == pytest.approx(0.5 ** (10 / 0.5))
    assert ema.decay_at(10_000, 10) == pytest.approx(0.5 ** (10 / 1000))
