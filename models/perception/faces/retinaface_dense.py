"""HeadGAN's dense points: the regressor of 1,103 face points that the authors fit their 3DMM to (spec 1.2,
1.5 of our specification of the paper), from their MXNet files.

The first 1,035 points are tied to vertices of LSFM's mesh (`MorphableModel.dense_index`), the last 68 are
sparse landmarks, taken to be in iBUG's order. Crop: 192 px about the middle of the face's box, whose longer
side becomes 128 px, not turned, black outside; RGB from 0 to 255, which the net scales itself. Answers: x and
y in halves of the crop from its middle, z in halves of it, smaller nearer.

Written from that description and tested with small nets in the files' format; the authors' own files were not
at hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from models.errors import InvalidFile
from models.perception.interfaces import InferenceSettings, LandmarkPrediction
from models.perception.mxnet_symbol import SymbolNet
from models.perception.torch_net import TorchNet

WEIGHTS_ID, SYMBOL_FILE, OUTPUT_NODE = "retinaface_dense1103", "A3-symbol.json", "fc1"
POINT_COUNT, DENSE_COUNT = 1103, 1035
CROP_SIDE, BOX_SIDE, FACES_PER_BATCH = 192, 128.0, 32
"""Pixels of the crop, pixels of the box's longer side in it, and crops that go through the net at once."""


class DensePointRegressor:
    """models.perception.interfaces.Landmarker, InferenceConfigurable."""

    def __init__(self, net: nn.Module) -> None:
        self.name = WEIGHTS_ID
        self._net = TorchNet(net)

    def configure_inference(self, how: InferenceSettings) -> None:
        self._net.configure_inference(how)

    def landmarks(self, frames: np.ndarray, boxes: np.ndarray, rolls: np.ndarray | None = None) -> np.ndarray:
        """frames (T,H,W,3) uint8, boxes (T,4) -> (T,68,2) float32; NaN where the box is."""
        return self.predict(frames, boxes, rolls).landmarks

    @torch.inference_mode()
    def predict(
        self,
        frames: np.ndarray,
        boxes: np.ndarray,
        rolls: np.ndarray | None = None,
        detected: np.ndarray | None = None,
    ) -> LandmarkPrediction:
        """68 landmarks, the same with depth, and 1,035 dense points. rolls, detected: not used, since the
        crop is never turned and each frame stands for itself."""
        points = np.full((len(frames), POINT_COUNT, 3), np.nan, np.float32)
        size = (boxes[:, 2:] - boxes[:, :2]).max(1)
        rows = np.flatnonzero(np.isfinite(boxes).all(1) & (size >= 1))
        for some in np.array_split(rows, max(1, -(-len(rows) // FACES_PER_BATCH))):
            if len(some):
                crops = torch.from_numpy(np.stack([_crop(frames[t], boxes[t]) for t in some]))
                answers = self._net.run_net(self._net.images_to_device(crops), FACES_PER_BATCH)
                points[some] = to_image_points(answers[: len(some)].float().cpu().numpy(), boxes[some])
        sparse = points[:, DENSE_COUNT:]
        return LandmarkPrediction(
            landmarks=sparse[..., :2].copy(), landmarks3d=sparse.copy(), dense=points[:, :DENSE_COUNT].copy()
        )


def _crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """frame (H,W,3), box (4,) -> (192,192,3) uint8; black outside."""
    scale = BOX_SIDE / float((box[2:] - box[:2]).max())
    middle = (box[:2] + box[2:]) / 2 - 0.5  # OpenCV counts from the centre of the first pixel
    matrix = np.column_stack([np.eye(2) * scale, CROP_SIDE / 2 - scale * middle])
    return cv2.warpAffine(frame, matrix, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR, borderValue=0.0)


def to_image_points(answers: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """answers (n,3309) or (n,1103,3), boxes (n,4) -> points (n,1103,3) float32 in pixels of the image. The
    crop's middle is the box's, so x = 96 v / scale + middle, and z likewise without one."""
    scale = BOX_SIDE / (boxes[:, 2:] - boxes[:, :2]).max(1)
    points = answers.reshape(len(answers), POINT_COUNT, 3) * (CROP_SIDE / 2 / scale[:, None, None])
    points[..., :2] += ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
    return points.astype(np.float32)


def load_retinaface_dense(weights: Mapping[str, Path]) -> DensePointRegressor:
    """The imported A3-0070.params with A3-symbol.json. InvalidFile for files of another net."""
    return DensePointRegressor(read_regressor(weights[WEIGHTS_ID]))


def read_regressor(path: Path) -> SymbolNet:
    """safetensors with the symbol in its header -> the net, tried on one black crop. InvalidFile naming what
    is missing or not understood."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get("reenact", "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise InvalidFile(f"{path}: not a whole safetensors file: {error}") from error
    graph = json.loads(about).get("settings", {}).get(SYMBOL_FILE)
    if graph is None:
        raise InvalidFile(f"{path}: no {SYMBOL_FILE} in its header; import the .params file beside it")
    net = SymbolNet(graph, arrays, OUTPUT_NODE).eval()
    try:
        with torch.inference_mode():
            found = tuple(net(torch.zeros(1, 3, CROP_SIDE, CROP_SIDE)).shape)
    except RuntimeError as error:
        raise InvalidFile(
            f"{path}: its arrays do not fit its symbol: {str(error).splitlines()[0]}"
        ) from error
    if found != (1, 3 * POINT_COUNT):
        raise InvalidFile(f"{path}: {OUTPUT_NODE} gives {found}, expected {(1, 3 * POINT_COUNT)}")
    return net


def check_weights_match_id(weights_id: str, path: Path) -> None:
    """Whether an imported file is the regressor; raises InvalidFile."""
    read_regressor(path)
