"""Training's figures for the eye: means of the losses since the last line, throughput, waiting."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor


class LossMeters:
    """Losses summed on the device since they were last asked for. A term that sets in later, or is computed
    at some steps only, is averaged over the steps it was there."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.double() if name in self.sums else value.double()
            self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, world: int) -> dict[str, float]:
        names = list(self.sums)
        values = torch.stack([self.sums[name] / self.counts[name] for name in names])
        if world > 1:
            dist.all_reduce(values)
            values /= world
        self.sums, self.counts = {}, {}
        return dict(zip(names, values.tolist(), strict=True))


class StepTimer:
    """Time since it was last reset, and how much of it was spent waiting for data."""

    def __init__(self) -> None:
        self.began, self.waited, self.steps = time.perf_counter(), 0.0, 0

    def reset(self) -> tuple[float, float, int]:
        """-> seconds since the last reset, seconds waited, steps"""
        now = time.perf_counter()
        result = (max(now - self.began, 1e-9), self.waited, max(self.steps, 1))
        self.began, self.waited, self.steps = now, 0.0, 0
        return result


def measure_throughput(timer: StepTimer, batch: int, world: int) -> dict[str, float]:
    """Since the last call: throughput, and the share of time spent waiting for data."""
    seconds, waited, count = timer.reset()
    return {
        "samples_per_second": count * batch / seconds,
        "step_seconds": seconds / count,
        "data_wait": waited / seconds,
        "workers": float(world),
    }
