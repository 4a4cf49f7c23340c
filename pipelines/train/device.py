"""Where a training worker computes, and among how many."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from models.api import Batch
from models.perception.interfaces import Configurable, Inference
from pipelines.dataset.sampler import Chunk


def this_device() -> torch.device:
    """The one Ray Train gave this worker."""
    from ray.train.torch import get_device

    return get_device()


def to_device(chunk: Chunk, device: torch.device) -> Batch:
    return {
        name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in chunk.arrays.items()
    }


def on_device(nets: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Perception nets, moved to where the training runs."""
    for net in nets.values():
        if isinstance(net, Configurable):
            net.configure(Inference(device="cuda" if device.type == "cuda" else "cpu"))
    return nets


def place() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def agreed(value: Any, world: int) -> Any:
    """Rank 0's value, on every rank."""
    if world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
