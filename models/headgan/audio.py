"""What the net hears at a frame, from the speech features stored with the clip.

Encoder `headgan` stores vectors of 8 frames' sound, which are taken as they are. Rows of the other encoders
(wav2vec, log-mel) belong to one frame each; here 8 frames of them are averaged, at reading, so that one set
of stored features serves every model. Legend: T frames of a clip, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.errors import InvalidFile
from models.headgan.config import AudioFeatureConfig

AUDIO_VARIANCE_EPSILON = 1e-5


def select_audio_vectors(
    speech: np.ndarray,
    frames: Sequence[int],
    how: AudioFeatureConfig,
    has_sound: bool = True,
    whose: str = "what drives",
) -> np.ndarray:
    """speech (T,D) -> (n,D) float32 for frames (n,). A clip without sound: zeros. whose: for errors.

    Centred, the rows at both ends of a window's 9 count half: rows lie on the middles of frames, and a window
    of 8 frames about such a middle ends on two others. Rows beyond the clip do not count. A row not finite
    is an InvalidFile.
    """
    if not has_sound:
        return np.zeros((len(frames), speech.shape[1]), np.float32)
    if not how.window:
        found = speech[list(frames)].astype(np.float32)
    else:
        offsets, weights = _window(how)
        near = np.asarray(frames)[:, None] + offsets  # (n,w)
        weight = weights * ((near >= 0) & (near < len(speech)))
        rows = speech[np.clip(near, 0, len(speech) - 1)].astype(np.float32)  # (n,w,D)
        found = np.einsum("nw,nwd->nd", weight, rows) / weight.sum(1, keepdims=True)
    if not np.isfinite(found).all():
        raise InvalidFile(
            f"{whose}: speech features hold a NaN or an infinity near frames {frames[0]} to {frames[-1]}; "
            "have them made anew (`reenact run RUN.yaml --force speech`)"
        )
    if how.normalise:
        spread = np.sqrt(found.var(1, keepdims=True) + AUDIO_VARIANCE_EPSILON)
        found = (found - found.mean(1, keepdims=True)) / spread
    return found.astype(np.float32)


def _window(how: AudioFeatureConfig) -> tuple[np.ndarray, np.ndarray]:
    """Rows from the frame's own, and their weights."""
    if how.align == "official":
        return np.arange(how.window), np.ones(how.window)
    weights = np.ones(how.window + 1)
    weights[[0, -1]] = 0.5
    return np.arange(-(how.window // 2), how.window // 2 + 1), weights
