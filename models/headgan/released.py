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

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from msgspec import to_builtins
from msgspec.structs import replace
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.errors import InvalidFile, InvalidSettings
from models.headgan.config import (
    RGB_CHANNELS,
    Architecture,
    AudioFeatureConfig,
    DiscriminatorConfig,
    official_architecture,
)
from models.headgan.discriminator import image_discriminator, mouth_discriminator
from models.headgan.network import Generator
from models.perception.torch_net import describe_tensor_mismatches, read_tensors, tensor_shapes

if TYPE_CHECKING:
    from models.api import Phase
    from models.headgan.config import HeadGanConfig

GENERATOR_WEIGHTS, IMAGE_DISCRIMINATOR_WEIGHTS, MOUTH_DISCRIMINATOR_WEIGHTS = (
    "headgan_vox",
    "headgan_vox_d",
    "headgan_vox_dm",
)
PART_PREFIXES = {
    GENERATOR_WEIGHTS: "",
    IMAGE_DISCRIMINATOR_WEIGHTS: "image_discriminator.",
    MOUTH_DISCRIMINATOR_WEIGHTS: "mouth_discriminator.",
}
"""Weights ids, and what our names have in front of theirs."""
RELEASED_FILES = {
    GENERATOR_WEIGHTS: "latest_net_G.pth",
    IMAGE_DISCRIMINATOR_WEIGHTS: "latest_net_D.pth",
    MOUTH_DISCRIMINATOR_WEIGHTS: "latest_net_Dm.pth",
}
OUR_SUFFIXES, PUBLISHED_SUFFIXES = (
    (".parametrizations.weight.original", ".parametrizations.weight.0._u", ".parametrizations.weight.0._v"),
    (".weight_orig", ".weight_u", ".weight_v"),
)
DATA_PARALLEL_PREFIX = "module."  # that data parallelism puts before every name


# --- names --------------------------------------------------------------------------------------------------
def to_our_name(name: str) -> str:
    """Of a tensor in a released file, without the part's prefix."""
    return _renamed(name, PUBLISHED_SUFFIXES, OUR_SUFFIXES)


def to_published_name(name: str) -> str:
    """The reverse of `to_our_name`."""
    return _renamed(name, OUR_SUFFIXES, PUBLISHED_SUFFIXES)


def _renamed(name: str, old: Iterable[str], new: Iterable[str]) -> str:
    for before, after in zip(old, new, strict=True):
        if name.endswith(before):
            return name.removesuffix(before) + after
    return name


# --- reading ------------------------------------------------------------------------------------------------
def read_released_weights(
    files: Mapping[str, Path], section: HeadGanConfig | None = None, phase: Phase | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Imported files by weights id -> tensors by our names (float32), and their provenance.

    With a run's settings the tensors must fit its net and discriminators; without, the published ones, but
    for the generator's settings that shapes show (`infer_architecture`). With a phase, discriminators that it
    does not train are left out. Raises InvalidFile or InvalidSettings naming what is missing, unknown or of
    another shape, and for settings that shapes do not show and that are not the published ones: a net that is
    not residual, or is shown sketches.
    """
    if unknown := sorted(set(files) - set(PART_PREFIXES)):
        raise InvalidSettings(
            f"no reader for weights {', '.join(unknown)}; known: {', '.join(PART_PREFIXES)}"
        )
    if GENERATOR_WEIGHTS not in files:
        raise InvalidSettings(
            f"weights {', '.join(files) or 'none'}: expected {GENERATOR_WEIGHTS} among them"
        )
    if phase is not None:
        discriminators = phase.trainable_parts
        files = {
            name: path
            for name, path in files.items()
            if name == GENERATOR_WEIGHTS or PART_PREFIXES[name][:-1] in discriminators
        }
    found = {name: _opened(path, PART_PREFIXES[name]) for name, path in files.items()}
    net = (
        infer_architecture(found[GENERATOR_WEIGHTS], official_architecture())
        if section is None
        else section.net
    )
    for name, tensors in found.items():
        if found_differences := describe_tensor_mismatches(
            tensors,
            expected_shapes(name, net, DiscriminatorConfig() if section is None else section.discriminators),
        ):
            raise InvalidFile(
                f"weights {name} do not fit HeadGAN: tensors {found_differences}. Is it another model's file?"
            )
    _check_hidden(net)
    tensors = {name: tensor for one in found.values() for name, tensor in one.items()}
    provenance = {
        "generator" if name == GENERATOR_WEIGHTS else PART_PREFIXES[name][:-1]: f"from {name}"
        for name in files
    }
    return tensors, provenance


def load_released(files: Mapping[str, Path], section: HeadGanConfig | None = None) -> Checkpoint:
    """A net to render with, as a checkpoint of our own holds it: the one of a run's settings, or, without
    them, the published one that the tensors' shapes show. The discriminators stay behind. Raises InvalidFile
    or InvalidSettings as `read_released_weights` does.

    Without settings, head, identity and sound are what the authors trained with: LSFM, each frame's own fit,
    and features that reach ahead. They had characters from a speech recogniser, as the provenance `tokens` of
    a net that hears says.
    """
    tensors, provenance = read_released_weights(
        {name: path for name, path in files.items() if name == GENERATOR_WEIGHTS}, section
    )
    net = section.net if section else infer_architecture(tensors, official_architecture())
    if net.audio:
        provenance["tokens"] = "transcripts"
    metadata = {
        "model": "headgan",
        "phase": "released",
        "architecture": to_builtins(net),
        "head": section.head if section else "lsfm",
        "identity": section.identity if section else "frame",
        "shading": section.shading if section else "smooth",
        "hearing": to_builtins(section.hearing if section else AudioFeatureConfig()),
        "speech": {"encoder": "headgan", "audio_align": "official"} if net.audio else None,
        "provenance": provenance,
    }
    return Checkpoint(tensors=tensors, metadata=metadata, name=" and ".join(files))


def check_weights_match_id(weights_id: str, path: Path) -> None:
    """Whether an imported file is what its id says; raises InvalidFile or InvalidSettings as
    `read_released_weights` does."""
    tensors = _opened(path, PART_PREFIXES[weights_id])
    net = official_architecture()
    if weights_id == GENERATOR_WEIGHTS:
        net = infer_architecture(tensors, net)
    elif weights_id == MOUTH_DISCRIMINATOR_WEIGHTS:
        first = tensors.get(f"{PART_PREFIXES[MOUTH_DISCRIMINATOR_WEIGHTS]}discriminator_0.model0.0.weight")
        if first is not None and first.dim() == 4 and first.shape[1] >= RGB_CHANNELS:
            net = replace(net, audio=first.shape[1] - RGB_CHANNELS)
    if found_differences := describe_tensor_mismatches(
        tensors, expected_shapes(weights_id, net, DiscriminatorConfig())
    ):
        raise InvalidFile(
            f"this is not {weights_id}: tensors {found_differences}. Is it the file of another model?"
        )


def _check_hidden(net: Architecture) -> None:
    if not net.residual:  # C's blocks always are, and shapes do not show it
        raise InvalidSettings(
            f"weights {GENERATOR_WEIGHTS} were trained with SPADE blocks that add their input: expected "
            "net.residual "
            "true (preset official), found false"
        )
    if net.condition != "nmfc":
        raise InvalidSettings(
            f"weights {GENERATOR_WEIGHTS} were shown NMFC, found net.condition {net.condition}"
        )


def _opened(path: Path, prefix: str) -> dict[str, Tensor]:
    tensors = read_tensors(path)
    if all(name.startswith(DATA_PARALLEL_PREFIX) for name in tensors):
        tensors = {name.removeprefix(DATA_PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}
    return {prefix + to_our_name(name): tensor.float() for name, tensor in tensors.items()}


@lru_cache(maxsize=8)  # a second, for spectral norms
def expected_shapes(
    weights_id: str, net: Architecture, discriminators: DiscriminatorConfig
) -> Mapping[str, tuple[int, ...]]:
    """Shapes of all tensors of a file, by our names."""
    with torch.device("meta"):  # shapes only
        part: nn.Module = {
            GENERATOR_WEIGHTS: lambda: Generator(net),
            IMAGE_DISCRIMINATOR_WEIGHTS: lambda: image_discriminator(discriminators),
            MOUTH_DISCRIMINATOR_WEIGHTS: lambda: mouth_discriminator(discriminators, net.audio),
        }[weights_id]()
    return {PART_PREFIXES[weights_id] + name: shape for name, shape in tensor_shapes(part).items()}


def infer_architecture(tensors: Mapping[str, Tensor], like: Architecture) -> Architecture:
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
        spectral=any(name.endswith(OUR_SUFFIXES[0]) for name in tensors),
    )


# --- writing ------------------------------------------------------------------------------------------------
def to_published_tensors(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A net of ours by our names -> by weights id, what the publisher's file of each part holds."""
    files: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part = next(
            (i for i, prefix in PART_PREFIXES.items() if prefix and name.startswith(prefix)),
            GENERATOR_WEIGHTS,
        )
        inner = to_published_name(name.removeprefix(PART_PREFIXES[part]))
        files.setdefault(part, {})[inner] = tensor.detach().clone().contiguous()
    return files


def export_released_format(
    tensors: Mapping[str, Tensor], about: Mapping[str, Any], folder: Path
) -> list[Path]:
    """A checkpoint of ours -> the authors' files in `folder`: latest_net_G.pth, and those of the
    discriminators that it holds.

    tensors and about: as storage.checkpoints.load_checkpoint gives them for a model.safetensors. Variants
    that only our code can build come out in the same layout. Raises InvalidFile where the checkpoint does not
    hold exactly its generator, or a file is there already: nothing is overwritten.
    """
    if "architecture" not in about:
        raise InvalidFile("the checkpoint's metadata names no architecture")
    discriminators = tuple(prefix for prefix in PART_PREFIXES.values() if prefix)
    # the discriminators' sizes are no part of the metadata: their tensors go through as they are
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(discriminators)}
    if found_differences := describe_tensor_mismatches(
        own, expected_shapes(GENERATOR_WEIGHTS, Architecture(**about["architecture"]), DiscriminatorConfig())
    ):
        raise InvalidFile(
            f"the checkpoint of phase {about.get('phase')} is not whole: tensors {found_differences}"
        )
    contents = {RELEASED_FILES[name]: content for name, content in to_published_tensors(tensors).items()}
    if there := [str(folder / name) for name in contents if (folder / name).exists()]:
        raise InvalidSettings(f"{' and '.join(there)} would be overwritten; choose another folder")
    return [_saved(content, folder / name) for name, content in contents.items()]


def _saved(content: dict[str, Tensor], path: Path) -> Path:
    """Appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    torch.save(content, aside)
    os.replace(aside, path)
    return path
