"""What is recorded of a clip beside its frames, and what its gates go by: sharpness, visibility, sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from models.perception.interfaces import FaceDetector
from pipelines.media import SAMPLES_PER_FRAME

SHARPNESS_FRAME_STEP = 5
"""Frames between those whose sharpness is measured."""
DETECTOR_BATCH = 32
"""Frames held until the detector is shown them together."""


class ClipQualityMeter:
    """Sharpness of a clip's frames, and visibility of its face, measured as the frames pass by.

    boxes: of the face, (T,4) in their pixels. detector: is run on each `every`th frame; None = on none.
    """

    def __init__(self, boxes: np.ndarray, detector: FaceDetector | None = None, every: int = 1):
        self._boxes, self._detector, self._every = boxes, detector, every
        self._blurs: list[float] = []
        self._buffer: list[np.ndarray] = []
        self._seen: list[bool] = []

    def observe(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Passes the T frames (H,W,3) uint8 on, in their order."""
        for index, (image, box) in enumerate(zip(images, self._boxes, strict=True)):
            if index % SHARPNESS_FRAME_STEP == 0 and (blur := laplacian_variance(image, box)) is not None:
                self._blurs.append(blur)
            if self._detector is not None and index % self._every == 0:
                self._buffer.append(image.copy())
                if len(self._buffer) == DETECTOR_BATCH:
                    self._detect(self._detector)
            yield image
        if self._detector is not None and self._buffer:
            self._detect(self._detector)

    def _detect(self, detector: FaceDetector) -> None:
        self._seen += [len(boxes) > 0 for boxes in detector.detect(np.stack(self._buffer))]
        self._buffer.clear()

    def sharpness(self) -> float:
        """Median over each fifth frame of the face's `laplacian_variance`; 0 where none has a face to speak
        of."""
        return float(np.median(self._blurs)) if self._blurs else 0.0

    def face_visible_share(self) -> float | None:
        """Share of the frames shown to the detector in which it sees a face; None without a detector."""
        return sum(self._seen) / len(self._seen) if self._seen else None


def laplacian_variance(image: np.ndarray, box: np.ndarray) -> float | None:
    """image (H,W,3) uint8, a face's box (4,) in its pixels -> variance of the Laplacian (4 neighbours) of the
    face's grey levels 0 to 255; None if less than 3 pixels of it lie inside."""
    low = np.clip(np.floor(box[:2]), 0, None).astype(int)
    high = np.clip(np.ceil(box[2:]), 0, image.shape[1::-1]).astype(int)
    if (high - low < 3).any():
        return None
    face = image[low[1] : high[1], low[0] : high[0]].astype(np.int32)
    grey = (77 * face[..., 0] + 150 * face[..., 1] + 29 * face[..., 2] + 128) >> 8
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.var(around - 4 * grey[1:-1, 1:-1]))


def audible_share(sound: np.ndarray, floor: float) -> float:
    """Share of the frames of a sound (640 T,) whose RMS is above `floor`."""
    pieces = sound.reshape(-1, SAMPLES_PER_FRAME).astype(np.float64)
    return float((np.sqrt((pieces**2).mean(1)) > floor).mean())
