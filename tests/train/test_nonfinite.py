"""A loss or gradient that is no number: every worker says the same, and names the clips that did it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.dataset.sampler import SampleChunk
from pipelines.train.losses import PassLosses
from pipelines.train.nonfinite import check_finite

ROOT = Path(__file__).resolve().parents[2]
FINE, LOST = 1.0, float("nan")


def losses(value: float) -> PassLosses:
    loss = torch.tensor(value)
    return PassLosses(loss, {"generator": loss}, {"pixel": loss})


def stop(norm: float, **of_clips: float) -> None:
    chunks = [SampleChunk((key,), {}) for key in of_clips]
    norms = {"generator": torch.tensor(norm)}
    check_finite(norms, 3, chunks, [losses(value) for value in of_clips.values()])


def test_a_step_of_numbers_goes_on():
    stop(2.0, a=FINE, b=FINE)


def test_a_lost_loss_names_its_own_clips_alone():
    with pytest.raises(FloatingPointError, match=r"step 3: the loss is nan \(pixel nan\); clips with it: b$"):
        stop(LOST, a=FINE, b=LOST)


def test_a_lost_gradient_names_the_whole_batch():
    told = r"the generator's gradient is inf \(pixel 1\); clips of the batch: a, b$"
    with pytest.raises(FloatingPointError, match=told):
        stop(float("inf"), a=FINE, b=FINE)


PROGRAM = """
import sys
import torch.distributed as dist
from tests.train.test_nonfinite import FINE, LOST, stop

rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
for norm, losses in ((2.0, (FINE, FINE)), (float(sys.argv[3]), (FINE, LOST))):
    try:
        stop(norm, **{"ab"[rank]: losses[rank]})
    except FloatingPointError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("norm", [LOST, 2.0])
def test_a_worker_names_the_clips_of_another(tmp_path, norm):
    """Also where the gradient stays a number, so that the other's own figures are all right."""
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "meet")]
    both = [
        subprocess.Popen([*argv, str(rank), str(norm)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for one in both:
        told, _ = one.communicate(timeout=120)
        assert told == "step 3: the loss is nan (pixel nan); clips with it: b\n"
