"""Stage `identity`: face embeddings of some frames of each clip, for the node `identity_check`.

Legend: T frames of a clip, K of them embedded, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, cast

import numpy as np
from msgspec import Struct

from models.perception.interfaces import InferenceSettings
from pipelines.errors import Rejected
from pipelines.preprocess.keypoints import perception_inference_settings
from storage.shards import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.cluster.runtime import RuntimeConfig

NO_IDENTITY_NET = "off"


class IdentityConfig(Struct, frozen=True, kw_only=True):
    not_in_key: ClassVar[tuple[str, ...]] = ("keypoints",)

    net: Literal["dlib_resnet", "off"] = "dlib_resnet"
    """Net whose embeddings tell people apart. off: nobody is compared, and the corpus page says so."""
    frames: int = 8
    """Frames of a clip that are embedded, evenly spread over those with landmarks; 8 ms each on a core."""
    keypoints: str = ""
    """The instance of keypoints whose landmarks place the faces; empty = the first one that the corpus has,
    and nobody is compared where it has none."""
    threshold: float = -3.3
    """Distance (corpus/identity_distance.py) up to which two names are one person, in standard deviations of
    the corpus' pairs of two people from their mean. Of 150 rendered people, in corpora of 80 and 70, 0.8 in
    1,000 pairs lie below it, of one person under two names with a single clip of 1.6 s each 93 %, with two
    clips each 99 %; of real people no pair, and all. Lower it for thousands of people, who make millions of
    pairs."""
    unlike: float = -2.0
    """Distance of a clip from its person's other clips from which it is named as unlike them. Among 8 to 120
    rendered people no clip under its own name is farther than -2.7, and most of a stranger's are than -2."""

    def __post_init__(self) -> None:
        if not 2 <= self.frames <= 256:
            raise ValueError(f"frames {self.frames}: expected 2 to 256")
        if not -20 <= self.threshold <= self.unlike <= 10 or self.threshold > 0:
            raise ValueError(
                f"threshold {self.threshold}, unlike {self.unlike}: expected a threshold from -20 to 0 and "
                "unlike from there to 10, in standard deviations from the usual pair of two people"
            )

    @property
    def nets(self) -> tuple[str, ...]:
        """Those of models.perception.NETS."""
        return () if self.net == NO_IDENTITY_NET else (self.net,)


class LandmarkFaceEmbedder(Protocol):
    """A net in torch that embeds faces where landmarks say they are."""

    def configure_inference(self, how: InferenceSettings) -> None: ...

    def embed_landmarks(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """images (B,3,H,W) float in [0,1], landmarks (B,68,2) pixels -> (B,D) float32, NaN where a face has
        no place."""
        ...


class FamilySamples(Protocol):
    """A recording's samples of one family: only what is asked for is read and decoded."""

    @property
    def keys(self) -> Sequence[str]: ...
    def frames(self, key: str, indices: Sequence[int], /) -> np.ndarray: ...
    def read(self, key: str, fields: Sequence[str], /) -> Sample: ...


def embed_identity(
    inputs: Mapping[str, FamilySamples],
    config: IdentityConfig,
    nets: Mapping[str, object],
    runtime: RuntimeConfig,
) -> Iterator[Sample]:
    """Clips and their landmarks -> `embeddings` (K,D) float32; (0,0) of a clip without a face, or that
    keypoints left out. Rejected where no clip of the recording has landmarks."""
    net = cast("LandmarkFaceEmbedder", nets[config.net])
    how = perception_inference_settings(runtime, "float32")
    net.configure_inference(how)
    clips, keypoints = inputs["clips"], inputs["keypoints"]
    placed, seen = set(keypoints.keys), 0
    for key in clips.keys:
        landmarks = np.empty((0, 68, 2), np.float32)
        if key in placed:
            landmarks = keypoints.read(key, ["landmarks"])["landmarks"]
        at = spread_over_frames_with_landmarks(landmarks, config.frames)
        embeddings = np.empty((0, 0), np.float32)
        if len(at):
            embeddings = embed_frames(net, clips.frames(key, at.tolist()), landmarks[at], how.device)
        seen += bool(len(embeddings))
        yield {"__key__": key, "embeddings": embeddings}
    if not seen:
        raise Rejected("no_face", f"none of the {len(clips.keys)} clips has landmarks in any frame")


def spread_over_frames_with_landmarks(landmarks: np.ndarray, most: int) -> np.ndarray:
    """landmarks (T,68,2), NaN where there is no face -> at most so many frame numbers, ascending."""
    seen = np.flatnonzero(np.isfinite(landmarks).all((1, 2)))
    if len(seen) <= most:
        return seen
    return seen[np.linspace(0, len(seen) - 1, most).round().astype(int)]


def embed_frames(
    net: LandmarkFaceEmbedder, frames: np.ndarray, landmarks: np.ndarray, device: str
) -> np.ndarray:
    """frames (K,H,W,3) uint8, landmarks (K,68,2), K at least 1 -> (K,D) float32, without faces that the net
    cannot place."""
    import torch

    from models.perception.faces.face_mesh import frames_to_images

    with torch.inference_mode():
        images = frames_to_images(frames, torch.device(device))
        points = torch.from_numpy(np.asarray(landmarks, np.float32)).to(device)
        found = net.embed_landmarks(images, points).cpu().numpy()
    return np.ascontiguousarray(found[np.isfinite(found).all(1)], np.float32)
