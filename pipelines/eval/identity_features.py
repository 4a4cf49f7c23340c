"""Who the face is by ArcFace's nets: of the largest face, brought to their template by five landmarks, or of
the frame's fixed square, as the ID loss of e4e and Directions cuts it.

The landmarks are the face mesh's, of the same frame, whatever found them in the papers (HyperReenact: FAN).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import torch

from models.perception.faces.arcface import five_points_from_68
from pipelines.eval.features import MESH_LANDMARKS_FEATURE, read_input_feature, resize_for_nets
from pipelines.eval.mesh_features import configure_nets

if TYPE_CHECKING:
    from models.perception.faces.arcface import ArcFaceNet
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample


def compute_irse50_embeddings(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Of each generated frame (T,512) float32 of length 1, NaN where no face is found. Without the net, or
    those of the landmarks, its weights."""
    yield _five_point_sample("irse50", inputs, nets, runtime)


def compute_arcface_r50_embeddings(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """As compute_irse50_embeddings."""
    yield _five_point_sample("arcface_r50", inputs, nets, runtime)


def compute_arcface_r100_embeddings(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """As compute_irse50_embeddings."""
    yield _five_point_sample("arcface_r100", inputs, nets, runtime)


def compute_irse50_fixedcrop_embeddings(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Of each generated frame (T,512) float32 of length 1, whatever it shows. Without the net, its
    weights."""
    key = inputs["generated"].keys[0]
    if "irse50" not in nets:
        yield {"__key__": key, "needs": {"weights": "irse50"}}
        return
    net = cast("ArcFaceNet", nets["irse50"])
    configure_nets((net,), runtime)
    frames = resize_for_nets(inputs["generated"][0]["frames"])
    yield {"__key__": key, "embedding": net.embed_aligned_frames(frames)}


def _five_point_sample(
    name: str, inputs: Mapping[str, FamilySamples], nets: Mapping[str, object], runtime: RuntimeConfig
) -> Sample:
    key, mesh = inputs["generated"].keys[0], read_input_feature(inputs, MESH_LANDMARKS_FEATURE)
    if name not in nets:
        return {"__key__": key, "needs": {"weights": name}}
    if "needs" in mesh:
        return {"__key__": key, "needs": mesh["needs"]}
    net = cast("ArcFaceNet", nets[name])
    configure_nets((net,), runtime)
    frames = resize_for_nets(inputs["generated"][0]["frames"])
    points = five_points_from_68(torch.from_numpy(mesh["landmarks"])).numpy()
    return {"__key__": key, "embedding": net.embed_five_points(frames, points)}
