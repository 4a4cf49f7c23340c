"""Models that pairs are generated with: loaded from the checkpoint of a phase, or of released weights alone.

`release.<model>` publishes released weights as a phase publishes a checkpoint, so that a model that was never
trained here is generated and scored as the others are.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from models.spec import load_model_spec
from models.weights import find_third_party_weights
from storage.checkpoints import CHECKPOINT_FILES, save_checkpoint
from storage.weight_files import weights_path

if TYPE_CHECKING:
    from models.checkpoint import Checkpoint
    from models.reenactor import Reenactor
    from pipelines.engine.node import NodeContext


class EvaluatedModel:
    """A model's checkpoints, by role, in a worker: loaded for a device, and handed its perception nets, when
    the first pair needs it."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self._ready: Reenactor | None = None

    def load_reenactor(self, nets: Mapping[str, object], device: str) -> Reenactor:
        """In float32: scores must not depend on a device."""
        from models.checkpoint import read_checkpoint
        from models.loading import load_reenactor

        if self._ready is None:
            checkpoints = {role: read_checkpoint(path) for role, path in self.files.items()}
            model = next(iter(checkpoints.values())).metadata.get("model")
            reenactor = load_reenactor(load_model_spec(str(model)), checkpoints, device, "fp32")
            reenactor.set_frozen_nets({name: nets[name] for name in reenactor.nets})
            self._ready = reenactor
        return self._ready


def load_evaluated_model(files: Mapping[str, Path]) -> EvaluatedModel:
    """What a generating node uses, from {role of ModelSpec.checkpoints: model.safetensors}."""
    return EvaluatedModel(files)


def publish_released_weights(ctx: NodeContext, model: str, weights: str) -> None:
    """The whole node `release.<model>`: model.safetensors, from imported weights that fit the run's settings
    of the model, `ctx.config.section`. InvalidInput where they are not there; InvalidFile or InvalidSettings
    where they do not fit."""
    released = load_model_spec(model).released[weights]
    store = ctx.inputs["recordings"].store  # where weights lie too
    files = {name: weights_path(store, find_third_party_weights(name)) for name in released.files}
    reader = importlib.import_module(released.reader.partition(":")[0])
    checkpoint: Checkpoint = reader.load_released(files, ctx.config.section)
    spec = load_model_spec(model)
    record = spec.checkpoint_record({stage: getattr(ctx.config, stage) for stage in spec.recorded_stages})
    save_checkpoint(ctx.out / CHECKPOINT_FILES["last"], checkpoint.tensors, {**checkpoint.metadata, **record})
    ctx.log_params({"weights": weights})
