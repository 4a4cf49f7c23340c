import json
from pathlib import Path

import pytest
import torch
from torch import nn

from models.api import Optim, Phase
from models.fsrt.phases import PHASES
from pipelines.train.optim import Ema, adam, learning_rate, moments, restore_moments


def test_learning_rate_of_the_published_schedule():
    golden = json.loads((Path(__file__).parents[1] / "golden" / "fsrt.json").read_text())
    for step, rate in golden["functions"]["lr_schedule"].items():
        assert learning_rate(PHASES["warmup"].optim, int(step)) == pytest.approx(float(rate), rel=1e-12)


def test_without_warmup_or_decay_the_rate_stays():
    assert {learning_rate(Optim(lr=0.5), step) for step in (1, 10, 10**6)} == {0.5}


def test_the_fall_begins_at_the_full_rate_and_ends_one_step_before_nothing():
    optim = Optim(lr=1.0, warmup=2, hold=3, fall=4)
    rates = [learning_rate(optim, step) for step in range(1, 11)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


def test_a_phase_in_the_middle_of_a_fall_goes_on_with_it():
    whole, later = Optim(hold=10, fall=10), Optim(hold=10, fall=10, start=14)
    assert [learning_rate(later, s) for s in range(1, 5)] == [learning_rate(whole, s) for s in range(15, 19)]


def test_a_clock_without_a_start_shows_what_was_done_before():
    whole, later = (
        Optim(warmup=10, decay=0.5, decay_steps=10),
        Optim(warmup=10, decay=0.5, decay_steps=10, start=None),
    )
    assert [learning_rate(later, s, 7) for s in range(1, 9)] == [
        learning_rate(whole, s) for s in range(8, 16)
    ]


def test_a_fall_needs_a_clock_that_says_where_it_ends():
    with pytest.raises(ValueError, match="start null with fall 5: expected the steps done before"):
        Optim(fall=5, start=None)


def test_a_phase_cannot_outlast_its_rate():
    known = {"name": "p", "batch": 1, "train": ("net",), "losses": {"l1": 1.0}}
    falling = Optim(hold=6, fall=4, start=5)
    assert Phase(**known, steps=5, optim=falling).steps == 5
    with pytest.raises(ValueError, match="fallen to 0 after step 5"):
        Phase(**known, steps=6, optim=falling)


def trained(steps: int, net: nn.Module, optimiser: torch.optim.Adam) -> None:
    for step in range(steps):
        optimiser.zero_grad()
        net(torch.full((2, 3), 0.1 * step + 0.1)).square().sum().backward()
        optimiser.step()


def test_restored_moments_give_the_same_next_step():
    torch.manual_seed(0)
    net, twin = nn.Linear(3, 2), nn.Linear(3, 2)
    first = adam(Optim(lr=0.1), net.parameters())
    trained(3, net, first)
    twin.load_state_dict(net.state_dict())
    second = adam(Optim(lr=0.1), twin.parameters())
    saved = {name: tensor.clone() for name, tensor in moments(first, dict(net.named_parameters())).items()}
    assert set(saved) == {
        f"{p}.{kind}" for p in ("weight", "bias") for kind in ("step", "exp_avg", "exp_avg_sq")
    }
    restore_moments(second, dict(twin.named_parameters()), saved)
    trained(2, net, first)
    trained(2, twin, second)
    assert torch.equal(net.weight, twin.weight)


def test_running_mean_follows_and_swaps():
    parameter = nn.Parameter(torch.zeros(2))
    ema = Ema({"p": parameter}, 0.75)
    with torch.no_grad():
        parameter.fill_(1.0)
    ema.update()
    assert ema.mean["p"].tolist() == [0.25, 0.25]
    ema.swap()
    assert parameter.tolist() == [0.25, 0.25]
    ema.swap()
    assert parameter.tolist() == [1.0, 1.0]
    assert ema.mean["p"].tolist() == [0.25, 0.25]
