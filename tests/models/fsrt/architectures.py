"""Sizes of FSRT that several tests share, and the metadata of a checkpoint of one."""

from __future__ import annotations

from msgspec import to_builtins
from msgspec.structs import replace

from models.fsrt.config import Architecture, KeypointDetectorConfig, full_architecture

NANO = Architecture(
    detector=KeypointDetectorConfig(size=64, width=4, max_width=8, blocks=4),
    image_size=16,
    expression_size=8,
    expression_per_keypoint=2,
    pixel_octaves=4,
    keypoint_octaves=2,
    patch_width=4,
    patch_blocks=2,
    head_size=4,
    encoder_depth=1,
    encoder_heads=2,
    encoder_mlp=16,
    query_mlp=16,
    decoder_depth=1,
    decoder_heads=2,
    decoder_mlp=16,
    render=(16,),
)
"""16 px, thousands of parameters."""
SMALL_DECODER = replace(full_architecture(), decoder_heads=6, decoder_mlp=768, render=(1536, 768))
"""The published fast variant: a decoder of 6,012,723 parameters."""


def metadata(net: Architecture, phase: str = "adversarial") -> dict[str, object]:
    return {
        "model": "fsrt", "phase": phase, "step": 3, "architecture": to_builtins(net), "provenance": {},
    }  # fmt: skip
