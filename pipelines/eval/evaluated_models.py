"""Models that pairs are generated with: loaded from the checkpoint of a phase."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from models.spec import load_spec

if TYPE_CHECKING:
    from models.reenactor import Reenactor


class EvaluatedModel:
    """A model's checkpoints, by role, in a worker: loaded for a device, and handed its perception nets, when
    the first pair needs it."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self._ready: Reenactor | None = None

    def ready(self, nets: Mapping[str, object], device: str) -> Reenactor:
        """In float32: scores must not depend on a device."""
        from models.checkpoint import read_checkpoint
        from models.loading import load_reenactor

        if self._ready is None:
            checkpoints = {role: read_checkpoint(path) for role, path in self.files.items()}
            model = next(iter(checkpoints.values())).metadata.get("model")
            reenactor = load_reenactor(load_spec(str(model)), checkpoints, device, "fp32")
            reenactor.set_nets({name: nets[name] for name in reenactor.nets})
            self._ready = reenactor
        return self._ready


def load(files: Mapping[str, Path]) -> EvaluatedModel:
    """What a generating node uses, from {role of ModelSpec.checkpoints: model.safetensors}."""
    return EvaluatedModel(files)
