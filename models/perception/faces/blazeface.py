"""MediaPipe's face detectors (BlazeFace, Bazarevsky et al. 2019): boxes, and the line of the eyes.

`short` (128 px) sees faces of a seventh of the square it is shown and more, `full` (192 px) of a fifteenth.
A frame is shown to `short`; where that finds nothing, or is not sure, to `full`; where that is not sure
either, and the frame is long or large, its overlapping squares are. What they are not sure of counts as a
face where the face mesh says so. The surest answer counts alone: beside a sure face a small one, which only
the next step would see, is not looked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.perception.faces.face_mesh import FaceMesh, frames_to_images, load_face_mesh
from models.perception.interfaces import FixedSizeNet, InferenceSettings
from models.perception.litert_net import LiteRtNet
from models.perception.tflite_file import TfliteSignature
from models.perception.tflite_net import TorchTfliteNet

SHORT_RANGE_NET = TfliteSignature(128, ((896, 16), (896, 1)))
FULL_RANGE_NET = TfliteSignature(192, ((2304, 16), (2304, 1)))
SCORE_THRESHOLD = 0.5
SURE_SCORE = 0.75
"""Close faces score 0.87 and more. Less is also what `short` gives a small portrait, head and shoulders taken
for one face: then the mesh is asked, and the next detector too, and the surer answer counts."""
LOGIT_LIMIT = 80.0
NMS_OVERLAP = 0.3
"""Boxes whose intersection is a larger part of their union are one face."""
TILE_ASPECT, TILE_LONGEST_SIDE = 1.2, 512
"""A frame of a longer side over the shorter, or of a longer side in pixels, is looked at in squares too."""
TILE_OVERLAP = 1 / 3
"""Of neighbouring squares, at least, in sides."""
DETECTION_BATCH_PIXELS = 2**25
"""Of frames that are resized at once."""


# --- anchors ------------------------------------------------------------------------------------------------
ANCHOR_LAYERS = {128: ((16, 2), (8, 6)), 192: ((48, 1),)}
"""Side of the net's input -> its maps: cells a side, and anchors a cell."""


def anchor_centres(side: int) -> np.ndarray:
    """(n,2) float32: x, y in shares of the input's side, row by row, the anchors of a cell in succession."""
    layers = []
    for cells, each in ANCHOR_LAYERS[side]:
        axis = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(axis, axis)
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), each, axis=0))
    return np.concatenate(layers).astype(np.float32)


def decode_detections(
    regressors: np.ndarray, logits: np.ndarray, anchors: np.ndarray, side: int
) -> np.ndarray:
    """One image's outputs (n,16) and (n,1) -> those above the threshold, (m,17) float64, the surest first:
    x0, y0, x1, y1, six key points x, y, score; in shares of the input's side."""
    logits = np.clip(logits[:, 0].astype(np.float64), -LOGIT_LIMIT, LOGIT_LIMIT)
    score = 1 / (1 + np.exp(-logits))
    rows = np.flatnonzero(score > SCORE_THRESHOLD)
    rows = rows[np.argsort(-score[rows], kind="stable")]
    numbers = regressors[rows].astype(np.float64) / side
    centre, size = numbers[:, :2] + anchors[rows], numbers[:, 2:4]
    points = numbers[:, 4:].reshape(-1, 6, 2) + anchors[rows, None]
    corners = [centre - size / 2, centre + size / 2]
    return np.concatenate([*corners, points.reshape(-1, 12), score[rows, None]], axis=1)


def weighted_non_maximum_suppression(found: np.ndarray) -> np.ndarray:
    """found (n,17), the surest first -> (m,17): all that overlap the surest are averaged by their scores, box
    and key points; its score stays."""
    kept = []
    while len(found):
        near = box_overlaps(found[0], found) > NMS_OVERLAP
        near[0] = True  # a box without area overlaps nothing
        weight = found[near, -1:]
        merged = (found[near, :-1] * weight).sum(0) / weight.sum()
        kept.append(np.append(merged, found[0, -1]))
        found = found[~near]
    return np.array(kept).reshape(-1, 17)


def box_overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with boxes (n,4 or more) -> (n,)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    shared = np.maximum(high - low, 0).prod(1)
    area = np.maximum(boxes[:, 2:4] - boxes[:, :2], 0).prod(1)
    union = max(box[2] - box[0], 0) * max(box[3] - box[1], 0) + area - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


# --- squares of a frame -------------------------------------------------------------------------------------
def letterbox(images: Tensor, side: int) -> Tensor:
    """images (B,3,H,W) uint8 -> (B,3,side,side) float32 in [-1,1]: in the middle of a square of the longer
    side, black outside, made smaller with antialiasing."""
    height, width = images.shape[2:]
    longer = max(height, width)
    left, top = (longer - width) // 2, (longer - height) // 2
    squares = F.pad(images, (left, longer - width - left, top, longer - height - top))
    if squares.is_cuda:  # which resizes no whole numbers; on a core they take a tenth of the time
        squares = squares.float()
    small = F.interpolate(squares, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return small.float() / 127.5 - 1


def letterbox_to_pixels(found: np.ndarray, height: int, width: int) -> np.ndarray:
    """found (n,17) in shares of the letterbox's side -> in pixels of the frame, the score as it is."""
    longer = max(height, width)
    shift = np.array([(longer - width) // 2, (longer - height) // 2] * 8 + [0])
    return found * np.array([longer] * 16 + [1]) - shift


def tile_corners(height: int, width: int) -> list[tuple[int, int]]:
    """Left and top of the overlapping squares of the shorter side that cover a frame."""
    short, long = min(height, width), max(height, width)
    count = 1 + math.ceil((long - short) / ((1 - TILE_OVERLAP) * short))
    steps = np.round(np.linspace(0, long - short, count)).astype(int).tolist()
    return [(at, 0) if width >= height else (0, at) for at in steps]


# --- the detector -------------------------------------------------------------------------------------------
class BlazeFaceDetector:
    """models.perception.interfaces.FaceDetector, InferenceConfigurable."""

    name = "mp_face"

    def __init__(self, short: FixedSizeNet, full: FixedSizeNet, mesh: FaceMesh):
        self._short, self._full, self._mesh = short, full, mesh
        self._anchors = {side: anchor_centres(side) for side in ANCHOR_LAYERS}

    def configure_inference(self, how: InferenceSettings) -> None:
        for net in (self._short, self._full, self._mesh):
            net.configure_inference(how)

    @torch.inference_mode()
    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """frames (T,H,W,3) uint8 -> for each (n,6) float32: x0, y0, x1, y1, score, and the roll in radians;
        the surest first. Boxes reach from the brows to the chin, and may leave the frame. The roll of a face
        that lies or stands on its head may be wrong where the score is high: MeshLandmarker sees to it."""
        found: list[np.ndarray] = []
        size = max(1, DETECTION_BATCH_PIXELS // math.prod(frames.shape[1:3]))
        for start in range(0, len(frames), size):
            images = frames_to_images(frames[start : start + size], self._short.device)
            found += self._detect_batch(images)
        return found

    def _detect_batch(self, images: Tensor) -> list[np.ndarray]:
        """images (B,3,H,W) uint8 -> (n,6) of each."""
        shorter, longer = sorted(images.shape[2:])
        tiled = longer > shorter and (longer > TILE_ASPECT * shorter or longer > TILE_LONGEST_SIDE)
        found = [np.zeros((0, 6), np.float32)] * len(images)
        for step in (self._short_range, self._full_range, *[self._full_range_tiles] * tiled):
            rest = [n for n, rows in enumerate(found) if _best_score(rows) < SURE_SCORE]
            if not rest:
                break
            chosen = images if len(rest) == len(images) else images[rest]
            of_step = [_detection_rows(rows) for rows in step(chosen)]
            for n, rows in zip(rest, self._drop_without_face(chosen, of_step), strict=True):
                if _best_score(rows) > _best_score(found[n]):
                    found[n] = rows
        return found

    def _short_range(self, images: Tensor) -> list[np.ndarray]:
        return self._detect_squares(self._short, images)

    def _full_range(self, images: Tensor) -> list[np.ndarray]:
        return self._detect_squares(self._full, images)

    def _full_range_tiles(self, images: Tensor) -> list[np.ndarray]:
        height, width = images.shape[2:]
        side = min(height, width)
        of_tiles = []
        for left, top in tile_corners(height, width):
            shift = np.array([left, top] * 8 + [0])
            found = self._full_range(images[:, :, top : top + side, left : left + side])
            of_tiles.append([rows + shift for rows in found])
        of_images = [np.concatenate(rows) for rows in zip(*of_tiles, strict=True)]
        ordered = [rows[np.argsort(-rows[:, -1], kind="stable")] for rows in of_images]
        return [weighted_non_maximum_suppression(rows) for rows in ordered]

    def _detect_squares(self, net: FixedSizeNet, images: Tensor) -> list[np.ndarray]:
        side = net.input_side
        regressors, logits = (one.cpu().numpy() for one in net(letterbox(images, side)))
        return [
            letterbox_to_pixels(
                weighted_non_maximum_suppression(
                    decode_detections(regressors[n], logits[n], self._anchors[side], side)
                ),
                *images.shape[2:],
            )
            for n in range(len(images))
        ]

    def _drop_without_face(self, images: Tensor, found: list[np.ndarray]) -> list[np.ndarray]:
        """Detections (n,6) of each image -> those that are sure, and those on which the face mesh sees a
        face, with the roll at which it is surest of it."""
        rows = np.concatenate(found)
        unsure = np.flatnonzero(rows[:, 4] < SURE_SCORE)
        kept = np.ones(len(rows), bool)
        if len(unsure):
            image_of = np.repeat(np.arange(len(found)), [len(one) for one in found])[unsure]
            asked = torch.from_numpy(rows[unsure]).to(images.device)
            faces = self._mesh.find_faces(images[image_of], asked[:, :4], asked[:, 5])
            kept[unsure] = (faces.presence > 0).cpu().numpy()
            rows[unsure, 5] = faces.rolls.cpu().numpy()
        ends = np.cumsum([len(one) for one in found])[:-1]
        return [one[good] for one, good in zip(np.split(rows, ends), np.split(kept, ends), strict=True)]


def _best_score(found: np.ndarray) -> float:
    """Of detections (n,6), the surest first; 0 where there is none."""
    return float(found[0, 4]) if len(found) else 0.0


def _detection_rows(found: np.ndarray) -> np.ndarray:
    """(n,17) -> (n,6) float32: box, score, roll."""
    left, right = found[:, 4:6], found[:, 6:8]
    roll = np.arctan2(right[:, 1] - left[:, 1], right[:, 0] - left[:, 0])
    return np.column_stack([found[:, :4], found[:, -1], roll]).astype(np.float32)


# --- loaders ------------------------------------------------------------------------------------------------
def load_mp_face_litert(weights: Mapping[str, Path]) -> BlazeFaceDetector:
    return _load(weights, LiteRtNet)


def load_mp_face_torch(weights: Mapping[str, Path]) -> BlazeFaceDetector:
    return _load(weights, TorchTfliteNet)


def _load(weights: Mapping[str, Path], runtime: type[LiteRtNet] | type[TorchTfliteNet]) -> BlazeFaceDetector:
    short = runtime(weights["mp_face_short"], SHORT_RANGE_NET)
    full = runtime(weights["mp_face_full"], FULL_RANGE_NET)
    return BlazeFaceDetector(short, full, load_face_mesh(weights, runtime, iris=False))
