"""The frozen nets that `reenact animate` sees and hears with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.perception import net_on_backend
from models.perception.interfaces import FaceDetector, InferenceConfigurable, InferenceSettings, Landmarker
from pipelines.errors import UserError
from storage.files import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptionNets:
    """Nets, loaded once."""

    detector: FaceDetector
    landmarker: Landmarker | None = None
    """For models that read landmarks, and for best_frame."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """By name in models.perception.NETS: what the model itself needs, and its speech encoder."""
    max_slip: float | None = None
    """Of stage keypoints, as the model's training frames had it: beyond it a frame's landmarks are not
    used."""
    device: str = "cpu"
    """Where they run."""


def load_perception_nets(
    names: Mapping[str, str], store: Store, device: str, max_slip: float | None = None
) -> PerceptionNets:
    """names: use ("detector", "landmarker", or any other) -> name in models.perception.NETS."""
    from pipelines.nets import load_nets

    backend = "torch" if device == "cuda" else "litert"
    loaded = load_nets([net_on_backend(name, backend) for name in names.values()], store)
    for net in loaded.values():
        if isinstance(net, InferenceConfigurable):
            net.configure_inference(InferenceSettings(device="cuda" if device == "cuda" else "cpu"))
    nets = {use: loaded[name] for use, name in names.items()}
    detector, landmarker = nets.pop("detector"), nets.pop("landmarker", None)
    return PerceptionNets(
        detector=detector, landmarker=landmarker, others=nets, max_slip=max_slip, device=device
    )


def resolve_device(wanted: str) -> str:
    """auto -> cuda where there is one. UserError where cuda is asked for and there is none."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; --device cpu is slower but works")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
