"""One loader of trained models for inference: evaluation and `reenact animate` use no other."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import torch

from models.checkpoint import Checkpoint
from models.checkpoint_metadata import printable_text
from models.errors import InvalidFile
from models.reenactor import Precision, Reenactor
from models.spec import ModelSpec


def load_reenactor(
    spec: ModelSpec,
    checkpoints: Mapping[str, Checkpoint],
    device: str | torch.device = "cpu",
    precision: Precision = "auto",
) -> Reenactor:
    """Checkpoints by their role (`ModelSpec.checkpoints`) -> the model, ready to be driven. InvalidFile where
    one is another model's, or its tensors are not those of the net that its metadata describes."""
    for checkpoint in checkpoints.values():
        model = printable_text(checkpoint.metadata.get("model"))
        if model != spec.name:
            raise InvalidFile(f"{checkpoint.name} holds {model}, not {spec.name}; give `--model {model}`")
    module, _, name = spec.inference.partition(":")
    return getattr(import_module(module), name).from_checkpoints(checkpoints, device, precision)
