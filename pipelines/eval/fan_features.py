"""What metrics compare by the Face Alignment Network, as the field does: 68 landmarks of the visible outline,
in boxes of S3FD, without its mirrored second look.

Points are found in each frame by itself, at 256 px.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from pipelines.eval.features import find_landmarks
from pipelines.eval.mesh_features import configure_nets, missing_weights

if TYPE_CHECKING:
    from models.perception.interfaces import FaceDetector, Landmarker
    from pipelines.cluster.runtime import RuntimeConfig
    from pipelines.eval.pair_clips import FamilySamples, Sample

FAN_NET_WEIGHTS = {"s3fd": "s3fd", "fan2d": "fan2d"}
"""Net -> the weights that are named where it is missing."""


def compute_fan_landmarks(
    inputs: Mapping[str, FamilySamples],
    config: object,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """68 points in each generated frame: (T,68,2) float32, NaN where no face is found. Without one of the
    nets, its weights."""
    sample = inputs["generated"][0]
    if needs := missing_weights(nets, FAN_NET_WEIGHTS):
        yield {"__key__": sample["__key__"], "needs": {"weights": needs}}
        return
    detector, landmarker = cast("FaceDetector", nets["s3fd"]), cast("Landmarker", nets["fan2d"])
    configure_nets((detector, landmarker), runtime)
    points = find_landmarks(sample["frames"], detector, landmarker)
    yield {"__key__": sample["__key__"], "landmarks": points}
