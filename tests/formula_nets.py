"""Weights and nets made by formula, in place of those that have to be downloaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.perception.head.default_head import get_analytic_head
from models.perception.torch_net import read_tensors

CELLS = 64


def noise_state(make, seed=0):
    """The state of a freshly made net: the same numbers at every call."""
    torch.manual_seed(seed)
    return make().state_dict()


def red_square_state(width, height, shift=-12.0):
    """S3FD weights that see a box of width x height round every pure red square of 24 px, and nothing else.

    One channel says how red a pixel is, up to the fourth block; its head turns that into a face, and all the
    other heads are sure of the background. The square's last cell lies about 12 px right of and below
    its middle.
    """
    from face_alignment.detection.sfd.net_s3fd import s3fd

    state = {name: torch.zeros_like(tensor) for name, tensor in s3fd().state_dict().items()}
    for name, scale in (("conv3_3_norm", 10.0), ("conv4_3_norm", 8.0), ("conv5_3_norm", 5.0)):
        state[f"{name}.weight"].fill_(scale)
    state["conv1_1.weight"][0, :, 1, 1] = torch.tensor([-1.0, -1.0, 1.0])  # blue, green, red
    state["conv1_1.bias"][0] = -200
    for name in ("1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3"):
        state[f"conv{name}.weight"][0, 0, 1, 1] = 1
    for name in state:
        if name.endswith("conf.bias"):
            state[name][:] = 8
            state[name][-1] = -8
    state["conv4_3_norm_mbox_conf.weight"][:, 0, 1, 1] = torch.tensor([-2.0, 2.0])
    sides = [np.log(side / 32) / 0.2 for side in (width, height)]
    state["conv4_3_norm_mbox_loc.bias"][:] = torch.tensor([shift / 3.2, shift / 3.2, *sides])
    return state


def with_squares(centres, height=256, width=256):
    """A grey picture (H,W,3) uint8 with red squares of 24 px."""
    picture = np.random.default_rng(0).integers(90, 140, (height, width, 1), np.uint8).repeat(3, axis=2)
    for x, y in centres:
        picture[y - 12 : y + 12, x - 12 : x + 12] = (255, 0, 0)
    return picture


def mean_face():
    """(68,2) in [0,1]: the embedded head's landmarks, seen from the front, in a crop of a face."""
    points = get_analytic_head().landmarks(get_analytic_head().mean)[:, :2] * [1, -1]
    low, high = points.min(0), points.max(0)
    return 0.2 + 0.6 * (points - low) / (high - low)


class Blobs(nn.Module):
    """Heatmaps of a face that fills any crop alike, moved by `shift` cells; a list of one, as FAN returns."""

    def __init__(self, shift=0.0, height=0.9):
        super().__init__()
        at = torch.from_numpy(mean_face() * CELLS).float() - 0.5 + torch.tensor([shift, 0.0])
        grid = torch.arange(CELLS)
        x = torch.exp(-((grid - at[:, :1]) ** 2) / 2)  # (68,64)
        y = torch.exp(-((grid - at[:, 1:]) ** 2) / 2)
        self.heat = nn.Buffer(height * y[:, :, None] * x[:, None, :])

    def forward(self, images):
        return [self.heat.expand(len(images), -1, -1, -1)]


CACHED = {
    "s3fd": "s3fd-619a316812.pth",
    "fan2d": "2DFAN4-11f355bf06.pth.tar",
    "fan3d": "3DFAN4-7835d9f11d.pth.tar",
    "fan_depth": "depth-2a464da4ea.pth.tar",
}
"""Weights id -> the file that face_alignment 1.5 looks for under $TORCH_HOME/hub/checkpoints."""


def write_package_cache(weights: Mapping[str, Path], torch_home: Path) -> None:
    """The files that `face_alignment` would otherwise download, in its own format, of the weights given.
    TORCH_HOME must name the folder before one of its nets is made."""
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for weights_id, path in weights.items():
        tensors: dict[str, Any] = read_tensors(path)
        if weights_id == "fan_depth":
            tensors = {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}
        aside = folder / f"{CACHED[weights_id]}.part"
        torch.save(tensors, aside)
        aside.replace(folder / CACHED[weights_id])


MTCNN_BIASES = {"pnet.conv4_1": 0.75, "rnet.dense5_1": 0.5, "onet.dense6_1": 0.5}
"""Of a face's logit alone: so many candidates pass that every rule of the cascade counts."""


def mtcnn_states():
    """Weights id -> a state dict in the layout of facenet-pytorch's files, the same numbers at every call."""
    from models.perception.faces import mtcnn

    kinds = {"pnet": mtcnn.ProposalNet, "rnet": mtcnn.RefineNet, "onet": mtcnn.OutputNet}
    states = {}
    for seed, (name, kind) in enumerate(kinds.items()):
        random = np.random.default_rng(seed)
        shapes = {key: tuple(tensor.shape) for key, tensor in kind().state_dict().items()}
        if name == "onet":
            shapes |= {"dense6_3.weight": (10, 256), "dense6_3.bias": (10,)}
        state = {}
        for key, shape in sorted(shapes.items()):
            layer, _, what = key.rpartition(".")
            values = random.normal(size=shape) * (1.4 / np.sqrt(max(1, np.prod(shape[1:]))))
            if what == "bias":
                values *= 0
            elif len(shape) == 1:  # of a PReLU
                values = np.full(shape, 0.25)
            if f"{name}.{layer}" in MTCNN_BIASES and what == "bias":
                values[1] = MTCNN_BIASES[f"{name}.{layer}"]
            if shape[0] == 4:  # corrections of a tenth of a side
                values *= 0.2
            state[key] = torch.from_numpy(values.astype(np.float32))
        states[f"mtcnn_{name}"] = state
    return states


def mtcnn_frames():
    """(2,96,140,3) uint8: waves in three colours, for the figures of tests/golden/mtcnn.json."""
    t, y, x, c = np.meshgrid(np.arange(2), np.arange(96), np.arange(140), np.arange(3), indexing="ij")
    waves = np.sin((x + 2 * y + 31 * t) / 7 + c) + np.cos((3 * x - y) / 11 - 2 * c * t) + np.sin(x * y / 300)
    return (127.5 + 42 * waves).clip(0, 255).astype(np.uint8)


def hash_noise(shape, place):
    """Between -1 and 1: u of tests/golden/image_nets.json, of the entry at this place."""
    wave = np.sin((np.arange(np.prod(shape)) + 1) * 12.9898 + (place + 1) * 78.233) * 43758.5453
    return (2 * (wave - np.floor(wave)) - 1).reshape(shape)


def lpips_alex_states():
    """(AlexNet's in torchvision's layout, the heads' in the authors'), by the scheme of the golden entry
    lpips_alex_official: heads are its first five entries."""
    from models.perception.alexnet import TAP_CHANNELS, AlexNetLayers

    heads = {
        f"lin{i}.model.1.weight": torch.from_numpy(np.abs(hash_noise((1, width, 1, 1), i))).float()
        for i, width in enumerate(TAP_CHANNELS)
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in AlexNetLayers().state_dict().items()}
    trunk = {}
    for place, name in enumerate(sorted(shapes), start=len(heads)):
        noise = hash_noise(shapes[name], place)
        scale = 0.1 if noise.ndim == 1 else np.sqrt(3) * np.sqrt(1.6 / np.prod(noise.shape[1:]))
        trunk[name] = torch.from_numpy(scale * noise).float()
    return trunk, heads
