"""What the frozen nets promise. Stages take these as arguments and never name an implementation.

Images are uint8 RGB where nothing else is said; coordinates are pixels, x right, y down, pixel centres at
+0.5 (a box from 0 to 256 covers a 256 px image). A missing face is a row of NaN. Every implementation is
deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class FaceDetector(Protocol):
    name: str
    """Goes into every sample that its boxes shaped."""

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """frames (T,H,W,3) -> for each frame (n,5) float32: x0, y0, x1, y1, score; the surest first. A sixth
        column, where a detector sees it, is the roll: radians from the x axis to the line of the eyes."""
        ...


class FaceEmbedder(Protocol):
    name: str

    def embed(self, frames: np.ndarray, boxes: np.ndarray, max_yaw: float = 90.0) -> np.ndarray:
        """frames (n,H,W,3), boxes (n,4) float32 -> (n,D) float32: close together for one person.

        max_yaw: degrees; a face that is turned further to either side, by a net that can tell, is NaN.
        """
        ...


class Landmarker(Protocol):
    name: str

    def landmarks(self, frames: np.ndarray, boxes: np.ndarray, rolls: np.ndarray | None = None) -> np.ndarray:
        """frames (T,H,W,3), boxes (T,4) float32, NaN rows skipped -> (T,68,2) float32, iBUG order.

        rolls: (T,) radians, the angle of the line of the eyes, for nets that look at a turned crop; None =
        faces stand upright.
        """
        ...

    def predict(
        self,
        frames: np.ndarray,
        boxes: np.ndarray,
        rolls: np.ndarray | None = None,
        detected: np.ndarray | None = None,
    ) -> LandmarkPrediction:
        """The same landmarks with what else the net knows of them.

        detected: (T,) bool, of frames in a row, those whose boxes the others were interpolated from: a net
        that looks at a face twice may look first at these alone. None = every box is of its own frame.
        """
        ...


class LandmarkPrediction(Struct, frozen=True, kw_only=True):
    landmarks: np.ndarray
    """(T,68,2) float32, NaN where there is no face."""
    confidence: np.ndarray | None = None
    """(T,68) float32: 1 = sure, 0 where there is no face; None from nets that do not say."""
    landmarks3d: np.ndarray | None = None
    """(T,68,3) float32: x, y of `landmarks` and a depth in pixels; None from flat nets."""
    dense: np.ndarray | None = None
    """(T,m,3) float32: the dense points of a face, 468 of MediaPipe's mesh or 1,035 of HeadGAN's regressor,
    with a depth in pixels, smaller nearer; None from others."""
    iris: np.ndarray | None = None
    """(T,2,5,2) float32, NaN where there is no face; the left of the image first: centre, toward the nose,
    top, toward the ear, bottom. None from others."""
    score: np.ndarray | None = None
    """(T,) float32 from 0, no face, to 1: how surely there is one; None from nets that cannot tell."""
    previous_pass: np.ndarray | None = None
    """(T,68,2) float32: `landmarks` as nets that look at a face more than once had them one pass before, in
    another box; NaN in frames that they looked at once. None from nets that look once."""


class InferenceSettings(Struct, frozen=True, kw_only=True):
    """Where and how a net in torch runs."""

    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The only one that changes results by more than rounding, which on GPUs is to TF32 in convolutions of
    nets other than MediaPipe's, as is PyTorch's default."""
    batch: int = 0
    """Images of 256 px at once, fewer of larger ones; 0 = as suits the device."""
    compile: bool = False
    """torch.compile: every worker spends a minute or more on it first."""


@runtime_checkable
class InferenceConfigurable(Protocol):
    def configure_inference(self, how: InferenceSettings) -> None: ...


class SpeechEncoderOptions(Struct, frozen=True, kw_only=True):
    layer: int = -1
    """0: what goes into the first block of the transformer; k: the output of block k; -1: of the last."""
    align: str = "centres"
    """centres | inside: see models/perception/speech/wav2vec.py."""
    window: int = 600
    """Frames of a window; sound up to this long is read at once."""
    context: int = 50
    """Frames of a window beside those that are kept from it, on either side."""


class SpeechEncoder(Protocol):
    name: str

    def configure_inference(self, how: InferenceSettings) -> None:
        """Only the device counts: features are computed in float32."""
        ...

    def encode(self, sounds: Sequence[np.ndarray], options: SpeechEncoderOptions) -> list[np.ndarray]:
        """Sounds (640 T,) float32 in [-1,1], 16 kHz -> features (T,D) float32 each, a row a frame at 25 fps.
        A sound's features do not depend on the others."""
        ...


class FixedSizeNet(Protocol):
    """A net that takes images of one size."""

    input_side: int
    device: torch.device
    """Where it takes images, and leaves what it makes of them."""

    def configure_inference(self, how: InferenceSettings) -> None: ...

    def __call__(self, images: Tensor) -> list[Tensor]:
        """(B,3,S,S) float32 -> its outputs, (B,...) float32 each, channels last. Of nets in torch gradient
        reaches the images, never a weight."""
        ...


class PerceptualLossNet(Protocol):
    """A net whose maps are compared in a loss: gradient reaches the images, never its weights."""

    name: str
    """Says so when the weights are not the published ones; goes into the labels of what it trained."""

    def features(self, images: Tensor) -> list[Tensor]:
        """images (B,3,H,W) float, RGB in [0,1] -> maps (B,C,h,w), fine to coarse, in float32, or in the dtype
        of the images or of the autocast around the call.
        """
        ...
