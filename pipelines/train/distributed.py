"""Where a training worker computes, and what it exchanges with the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.perception.interfaces import InferenceConfigurable, InferenceSettings
from models.task import Batch
from pipelines.dataset.sampler import SampleChunk

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """One of `world` processes that train together. Without a process group the only one."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @classmethod
    def from_ray(cls, device: torch.device) -> DistributedContext:
        return cls(device, dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls(device)

    def broadcast_value(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite them by those of rank 0."""
        if self.world > 1:
            for some in _by_dtype(tensors):
                flat = torch.cat([tensor.detach().reshape(-1) for tensor in some])
                dist.broadcast(flat, src=0)
                _scatter(flat, some)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Over all workers. A parameter without a gradient here counts as 0 where another worker has one;
        where none has, it stays without, so that its optimizer leaves it alone."""
        if self.world == 1:
            return
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=self.device)
        dist.all_reduce(has, dist.ReduceOp.MAX)
        moving = [p for p, one in zip(parameters, has.tolist(), strict=True) if one]
        for parameter in moving:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for some in _by_dtype(p.grad for p in moving if p.grad is not None):
            flat = torch.cat([gradient.reshape(-1) for gradient in some]).div_(self.world)
            dist.all_reduce(flat)
            _scatter(flat, some)

    def all_gather_chunks(self, mine: Sequence[Mapping[str, Tensor]]) -> list[Mapping[str, Tensor]]:
        """One value for each chunk of this worker -> those of all chunks of the batch, in order (chunk
        rank + i * world is a worker's i-th)."""
        if self.world == 1:
            return list(mine)
        boxes: list[Any] = [None] * self.world
        dist.all_gather_object(boxes, [{name: t.cpu() for name, t in one.items()} for one in mine])
        return [
            {name: tensor.to(self.device) for name, tensor in box[i].items()}
            for i in range(len(mine))
            for box in boxes
        ]


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    with torch.no_grad():
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def ray_device() -> torch.device:
    """The one Ray Train gave this worker."""
    from ray.train.torch import get_device

    return get_device()


def chunk_to_device(chunk: SampleChunk, device: torch.device) -> Batch:
    return {
        name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in chunk.arrays.items()
    }


def nets_to_device(nets: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Perception nets, moved to where the training runs."""
    for net in nets.values():
        if isinstance(net, InferenceConfigurable):
            net.configure_inference(InferenceSettings(device="cuda" if device.type == "cuda" else "cpu"))
    return nets
