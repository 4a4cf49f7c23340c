"""What workers exchange: gradients where parts are idle in some, and values of chunks in their order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pipelines.train.distributed import DistributedContext

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def test_a_worker_alone_keeps_what_it_has():
    worker, parameter = DistributedContext(CPU), nn.Parameter(torch.ones(2))
    worker.average_gradients([parameter])
    assert parameter.grad is None
    assert worker.broadcast_value("mine") == "mine"
    assert worker.all_gather_chunks([{"x": torch.ones(1)}]) == [{"x": torch.ones(1)}]


PROGRAM = """
import sys
import torch.distributed as dist
from tests.train.test_distributed import exchanged

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
print(exchanged())
"""


def exchanged() -> tuple[object, ...]:
    """One of two workers: gradients of three parameters (both, one, none), chunks, buffers."""
    worker = DistributedContext.from_ray(CPU)
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    parameters[0].grad = torch.tensor([2.0 + worker.rank])
    if worker.rank == 1:
        parameters[1].grad = torch.tensor([4.0])
    worker.average_gradients(parameters)
    gradients = [None if p.grad is None else p.grad.item() for p in parameters]
    chunks = worker.all_gather_chunks([{"x": torch.tensor(worker.rank + 2 * i)} for i in range(2)])
    buffer = torch.tensor([float(worker.rank)])
    worker.broadcast_tensors([buffer])
    return gradients, [int(one["x"]) for one in chunks], buffer.item(), worker.broadcast_value(worker.rank)


@pytest.mark.slow
def test_two_workers_agree(tmp_path):
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "meet")]
    both = [
        subprocess.Popen([*argv, str(rank)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    for one in both:
        text, _ = one.communicate(timeout=120)
        assert text.strip() == str(([2.5, 2.0, None], [0, 1, 2, 3], 0.0, 0))
