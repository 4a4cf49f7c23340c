"""The authors' released checkpoints: read strictly into our names, and written back in their layout, which
tests/golden/headgan.json lists tensor by tensor.

Our names are theirs, but for spectral norm, which they write in PyTorch's older way:

| theirs | ours |
|---|---|
| <conv>.weight_orig | <conv>.parametrizations.weight.original |
| <conv>.weight_u, <conv>.weight_v | <conv>.parametrizations.weight.0._u, ._v |

The generator's stand as they are; those of the discriminators have `image_discriminator.` and
`mouth_discriminator.` in front.

| weights id | publisher's file |
|---|---|
| headgan_vox | latest_net_G.pth |
| headgan_vox_d | latest_net_D.pth |
| headgan_vox_dm | latest_net_Dm.pth |

Every tensor must be there, none may be unknown, all must have the net's shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from models.headgan.config import Architecture, Judges, official
from models.headgan.discriminator import image_discriminator, mouth_discriminator
from models.headgan.network import Generator
from models.perception.torch_net import differences, read_tensors, shapes

PREFIXES = {
    "headgan_vox": "",
    "headgan_vox_d": "image_discriminator.",
    "headgan_vox_dm": "mouth_discriminator.",
}
"""Weights ids, and what our names have in front of theirs."""
OURS, THEIRS = (
    (".parametrizations.weight.original", ".parametrizations.weight.0._u", ".parametrizations.weight.0._v"),
    (".weight_orig", ".weight_u", ".weight_v"),
)
WRAPPER = "module."  # that data parallelism puts before every name


# --- names --------------------------------------------------------------------------------------------------
def our_name(name: str) -> str:
    """Of a tensor in a released file, without the part's prefix."""
    return _renamed(name, THEIRS, OURS)


def their_name(name: str) -> str:
    """The reverse of `our_name`."""
    return _renamed(name, OURS, THEIRS)


def _renamed(name: str, old: Iterable[str], new: Iterable[str]) -> str:
    for before, after in zip(old, new, strict=True):
        if name.endswith(before):
            return name.removesuffix(before) + after
    return name


# --- reading ------------------------------------------------------------------------------------------------
def read(
    files: Mapping[str, Path], net: Architecture | None = None, judges: Judges | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Imported files by weights id -> tensors by our names (float32), and labels.

    net, judges: sizes that the tensors must fit; without, the published ones, but for the generator's
    settings that shapes show (`architecture_of`). Raises ValueError naming what is missing, unknown or of
    another shape, and for a net that is not residual.
    """
    if unknown := sorted(set(files) - set(PREFIXES)):
        raise ValueError(f"no reader for weights {', '.join(unknown)}; known: {', '.join(PREFIXES)}")
    if "headgan_vox" not in files:
        raise ValueError(f"weights {', '.join(files) or 'none'}: expected headgan_vox among them")
    found = {name: _opened(path, PREFIXES[name]) for name, path in files.items()}
    net = net or architecture_of(found["headgan_vox"], official())
    for name, tensors in found.items():
        if told := differences(tensors, expected(name, net, judges or Judges())):
            raise ValueError(
                f"weights {name} do not fit HeadGAN: tensors {told}. Is it another model's file?"
            )
    if not net.residual:  # C's blocks always are, and shapes do not show it
        raise ValueError(
            "weights headgan_vox were trained with SPADE blocks that add their input: expected net.residual "
            "true (preset official), found false"
        )
    tensors = {name: tensor for one in found.values() for name, tensor in one.items()}
    labels = {"generator" if name == "headgan_vox" else PREFIXES[name][:-1]: f"from {name}" for name in files}
    return tensors, labels


def _opened(path: Path, prefix: str) -> dict[str, Tensor]:
    tensors = read_tensors(path)
    if all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}
    return {prefix + our_name(name): tensor.float() for name, tensor in tensors.items()}


def expected(weights_id: str, net: Architecture, judges: Judges) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a file, by our names."""
    with torch.device("meta"):  # shapes only
        part: nn.Module = {
            "headgan_vox": lambda: Generator(net),
            "headgan_vox_d": lambda: image_discriminator(judges),
            "headgan_vox_dm": lambda: mouth_discriminator(judges, net.audio),
        }[weights_id]()
    return {PREFIXES[weights_id] + name: shape for name, shape in shapes(part).items()}


def architecture_of(tensors: Mapping[str, Tensor], like: Architecture) -> Architecture:
    """`like`, with those settings changed in which released variants may differ and which the generator's
    tensors show: audio, mask head, spectral norm, flow network. Whether SPADE blocks are residual they do not
    show.
    """
    fc = tensors.get("rendering_network.cond_dec_audio.0.norm1.fc.weight")
    return replace(
        like,
        audio=fc.shape[1] if fc is not None and fc.dim() == 2 else 0,
        mask=any(".dec_mask." in name for name in tensors),
        flow=any(name.startswith("flow_network.") for name in tensors),
        spectral=any(name.endswith(OURS[0]) for name in tensors),
    )


# --- writing ------------------------------------------------------------------------------------------------
def published(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A net of ours by our names -> by weights id, what the publisher's file of each part holds."""
    files: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part = next(
            (i for i, prefix in PREFIXES.items() if prefix and name.startswith(prefix)), "headgan_vox"
        )
        inner = their_name(name.removeprefix(PREFIXES[part]))
        files.setdefault(part, {})[inner] = tensor.detach().clone().contiguous()
    return files
