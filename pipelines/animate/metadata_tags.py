"""Metadata that marks an animated file as synthetic and names the checkpoint that made it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.reenactor import Reenactor
    from pipelines.animate.checkpoint import ModelWeightsLocation
    from pipelines.animate.render import AnimateOptions

DIGITAL_SOURCE_TYPE_URL = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""IPTC's vocabulary of how a picture came to be, which C2PA uses too."""


def synthetic_media_tags(
    model: ModelWeightsLocation, reenactor: Reenactor, options: AnimateOptions
) -> dict[str, str]:
    """Metadata of the output by name: that it is synthetic, and what made it."""
    text = ", ".join(f"{part}: {what}" for part, what in sorted(reenactor.provenance.items()))
    kind = "compositeWithTrainedAlgorithmicMedia" if options.paste_back else "trainedAlgorithmicMedia"
    summary = f"Synthetic media: a portrait animated by reenact {version('reenact')} with {model.model}"
    motion = [
        options.transfer.motion,
        *["adapt-scale"] * options.transfer.adapt_scale,
        *["best-frame"] * options.best_frame,
    ]
    return {
        "comment": f"{summary}. The person shown did not make these movements.",
        "description": f"{summary}, checkpoint {model.name}, sha256 {model.digest}; "
        f"provenance of its weights: {text or 'none'}",
        "digitalSourceType": f"{DIGITAL_SOURCE_TYPE_URL}{kind}",
        "reenact.model": model.model,
        "reenact.checkpoint": model.name,
        "reenact.checkpoint_sha256": model.digest,
        "reenact.provenance": text or "none",
        "reenact.motion": ", ".join(motion),
        "reenact.edits": ", ".join(options.edit_descriptions) or "none",
    }
