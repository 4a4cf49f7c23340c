"""What is compared: models, and beside them the real frames and the baselines, by the names that their
records bear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

MethodKind = Literal["trained", "released", "external", "baseline"]
"""trained: a model of this run; released: one of its authors' weights alone; external: frames that other code
made."""


class Method(Struct, frozen=True, kw_only=True):
    """What a value is of."""

    name: str
    kind: MethodKind
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Parts of a model whose weights are not the published ones, and what they are instead."""
    loss_nets: tuple[str, ...] = ()
    """Names in models.perception.NETS of the nets that the losses of its training used."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Of those that its features were computed with: id -> sha256."""


Reference = Literal["truth", "driving", "source", "source_clip", "none"]
"""What generated frames are compared with. truth: the driving frames, where they show what is to be
generated. driving: the same where they do not. source: the source picture. source_clip: all frames of the
clip that the source is from. none: with nothing, the frames speak for themselves."""
TRUTH_METHOD, DRIVING_METHOD = "truth", "driving"
"""The driving frames: what is to be reached where a clip is paired with itself, else what drives."""
SOURCE_CLIP_METHOD = "source_clip"
"""All frames of the clip that the source is from: how that person really looks."""
COPY_METHOD, CODEC_METHOD = "copy_source", "codec"
WARP_METHOD, MEAN_MOUTH_METHOD, RANDOM_MOUTH_METHOD = "warp", "mean_mouth", "random_mouth"
BASELINE_METHODS = (COPY_METHOD, WARP_METHOD, MEAN_MOUTH_METHOD, RANDOM_MOUTH_METHOD, CODEC_METHOD)
"""In the order of tables; which of them a protocol has is said in nodes.py."""
METHOD_FUNCTIONS = {
    TRUTH_METHOD: "driving_frames",
    DRIVING_METHOD: "driving_frames",
    SOURCE_CLIP_METHOD: "source_clip_frames",
    COPY_METHOD: "copy_source",
    CODEC_METHOD: "codec",
}
"""Method that is no model -> its function in pipelines/eval/generate.py."""
LANDMARK_METHOD_FUNCTIONS = {
    WARP_METHOD: "warp_source",
    MEAN_MOUTH_METHOD: "mean_mouth",
    RANDOM_MOUTH_METHOD: "random_mouth",
}
"""Method that needs landmarks -> its function in pipelines/eval/landmark_baselines.py."""


def reference_method(reference: Reference, has_truth: bool) -> str:
    """The method whose frames a metric's reference is; "" of none. Where there is a truth, it is the driving
    frames and the source's clip as well."""
    if reference == "none":
        return ""
    if reference == "source":
        return COPY_METHOD
    if has_truth:
        return TRUTH_METHOD
    return SOURCE_CLIP_METHOD if reference == "source_clip" else DRIVING_METHOD
