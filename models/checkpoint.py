"""A trained checkpoint: its tensors, and the net that its metadata describes.

That the tensors are those of the net is checked before anything of the described size is allocated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from models.checkpoint_metadata import parse_provenance, printable_text
from models.errors import InvalidFile
from models.perception.torch_net import describe_tensor_mismatches, tensor_shapes
from models.task import inference_weights

Net = TypeVar("Net", bound=nn.Module)
Described = TypeVar("Described")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a training phase published."""

    tensors: Mapping[str, Tensor]
    """By their names in the net."""
    metadata: Mapping[str, object]
    """What it says of itself: `model`, `phase`, `architecture`, ..."""
    name: str = "the checkpoint"
    """For errors."""

    def parse_metadata(self, read: Callable[[Mapping[str, object]], Described]) -> Described:
        """read(metadata). InvalidFile where it describes no net that is known here."""
        try:
            return read(self.metadata)
        except (TypeError, KeyError, InvalidFile, RuntimeError, OverflowError) as error:
            message = printable_text(error)
            raise InvalidFile(
                f"{self.name}: its metadata describes no net that is known here ({message})"
            ) from None

    def load_net(self, make: Callable[[], Net], drop_prefixes: tuple[str, ...] = ()) -> Net:
        """The net that `make` builds, with copies of these tensors (float32) and no others; running means in
        place of the parts that have one. Those whose names
        begin with one of `drop_prefixes` may be there: parts that only training needs.

        InvalidFile names those that are missing, unknown or of another shape.
        """

        def on_meta(_: object) -> Net:  # of any size that metadata may claim: nothing is allocated
            with torch.device("meta"):
                return make()

        net = self.parse_metadata(on_meta)
        tensors = {
            name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
            for name, tensor in inference_weights(self.tensors).items()
            if not name.startswith(drop_prefixes)
        }
        if found := describe_tensor_mismatches(tensors, tensor_shapes(net)):
            raise InvalidFile(
                f"{self.name} does not fit {self.metadata.get('model')} as its metadata describes it: "
                f"tensors {printable_text(found)}"
            )
        net.load_state_dict(tensors, strict=True, assign=True)
        return net

    def load_net_and_metadata(
        self,
        read: Callable[[Mapping[str, object]], Described],
        build: Callable[[Described], Net],
        training_only: tuple[str, ...],
    ) -> tuple[Net, Described, dict[str, str]]:
        """-> the net that `build` makes of read(metadata), with this checkpoint's tensors but those whose
        names begin with one of `training_only`; read(metadata); and the provenance of the weights. Raises as
        `parse_metadata` and `load_net` do.
        """
        described, provenance = self.parse_metadata(
            lambda metadata: (read(metadata), parse_provenance(metadata))
        )
        return self.load_net(lambda: build(described), training_only), described, provenance


def read_checkpoint(path: Path) -> Checkpoint:
    """model.safetensors of a training phase. InvalidFile for another file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("reenact")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise InvalidFile(f"{path} is not a whole safetensors file: {error}") from error
    if metadata is None:
        raise InvalidFile(f"{path} is no checkpoint of a training phase: its metadata has no 'reenact'")
    return Checkpoint(tensors=tensors, metadata=json.loads(metadata), name=str(path))
