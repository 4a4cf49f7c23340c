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
from models.headgan.config import RGB, Architecture, DiscriminatorConfig, Hearing, official
from models.headgan.discriminator import image_discriminator, mouth_discriminator
from models.headgan.network import Generator
from models.perception.torch_net import differences, read_tensors, shapes

if TYPE_CHECKING:
    from models.api import Phase
    from models.headgan.config import HeadGanConfig

GENERATOR, IMAGES, MOUTHS = "headgan_vox", "headgan_vox_d", "headgan_vox_dm"
PREFIXES = {GENERATOR: "", IMAGES: "image_discriminator.", MOUTHS: "mouth_discriminator."}
"""Weights ids, and what our names have in front of theirs."""
FILES = {GENERATOR: "latest_net_G.pth", IMAGES: "latest_net_D.pth", MOUTHS: "latest_net_Dm.pth"}
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
    files: Mapping[str, Path], section: HeadGanConfig | None = None, phase: Phase | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Imported files by weights id -> tensors by our names (float32), and their provenance.

    With a run's settings the tensors must fit its net and discriminators; without, the published ones, but
    for the generator's settings that shapes show (`architecture_of`). With a phase, discriminators that it
    does not train are left out. Raises InvalidFile or InvalidSettings naming what is missing, unknown or of
    another shape, and for settings that shapes do not show and that are not the published ones: a net that is
    not residual, or is shown sketches.
    """
    if unknown := sorted(set(files) - set(PREFIXES)):
        raise InvalidSettings(f"no reader for weights {', '.join(unknown)}; known: {', '.join(PREFIXES)}")
    if GENERATOR not in files:
        raise InvalidSettings(f"weights {', '.join(files) or 'none'}: expected {GENERATOR} among them")
    if phase is not None:
        discriminators = phase.trainable
        files = {
            name: path
            for name, path in files.items()
            if name == GENERATOR or PREFIXES[name][:-1] in discriminators
        }
    found = {name: _opened(path, PREFIXES[name]) for name, path in files.items()}
    net = architecture_of(found[GENERATOR], official()) if section is None else section.net
    for name, tensors in found.items():
        if found_differences := differences(
            tensors, expected(name, net, DiscriminatorConfig() if section is None else section.discriminators)
        ):
            raise InvalidFile(
                f"weights {name} do not fit HeadGAN: tensors {found_differences}. Is it another model's file?"
            )
    _check_hidden(net)
    tensors = {name: tensor for one in found.values() for name, tensor in one.items()}
    provenance = {"generator" if name == GENERATOR else PREFIXES[name][:-1]: f"from {name}" for name in files}
    return tensors, provenance


def load(files: Mapping[str, Path], section: HeadGanConfig | None = None) -> Checkpoint:
    """A net to render with, as a checkpoint of our own holds it: the one of a run's settings, or, without
    them, the published one that the tensors' shapes show. The discriminators stay behind. Raises InvalidFile
    or InvalidSettings as `read` does.

    Without settings, head, identity and sound are what the authors trained with: LSFM, each frame's own fit,
    and features that reach ahead. They had characters from a speech recogniser, as the provenance `tokens` of
    a net that hears says.
    """
    tensors, provenance = read({name: path for name, path in files.items() if name == GENERATOR}, section)
    net = section.net if section else architecture_of(tensors, official())
    if net.audio:
        provenance["tokens"] = "transcripts"
    metadata = {
        "model": "headgan",
        "phase": "released",
        "architecture": to_builtins(net),
        "head": section.head if section else "lsfm",
        "identity": section.identity if section else "frame",
        "shading": section.shading if section else "smooth",
        "hearing": to_builtins(section.hearing if section else Hearing()),
        "speech": {"encoder": "headgan", "audio_align": "official"} if net.audio else None,
        "provenance": provenance,
    }
    return Checkpoint(tensors=tensors, metadata=metadata, name=" and ".join(files))


def check(weights_id: str, path: Path) -> None:
    """Whether an imported file is what its id says; raises InvalidFile or InvalidSettings as `read` does."""
    tensors = _opened(path, PREFIXES[weights_id])
    net = official()
    if weights_id == GENERATOR:
        net = architecture_of(tensors, net)
    elif weights_id == MOUTHS:
        first = tensors.get(f"{PREFIXES[MOUTHS]}discriminator_0.model0.0.weight")
        if first is not None and first.dim() == 4 and first.shape[1] >= RGB:
            net = replace(net, audio=first.shape[1] - RGB)
    if found_differences := differences(tensors, expected(weights_id, net, DiscriminatorConfig())):
        raise InvalidFile(
            f"this is not {weights_id}: tensors {found_differences}. Is it the file of another model?"
        )


def _check_hidden(net: Architecture) -> None:
    if not net.residual:  # C's blocks always are, and shapes do not show it
        raise InvalidSettings(
            f"weights {GENERATOR} were trained with SPADE blocks that add their input: expected net.residual "
            "true (preset official), found false"
        )
    if net.condition != "nmfc":
        raise InvalidSettings(f"weights {GENERATOR} were shown NMFC, found net.condition {net.condition}")


def _opened(path: Path, prefix: str) -> dict[str, Tensor]:
    tensors = read_tensors(path)
    if all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}
    return {prefix + our_name(name): tensor.float() for name, tensor in tensors.items()}


@lru_cache(maxsize=8)  # a second, for spectral norms
def expected(
    weights_id: str, net: Architecture, discriminators: DiscriminatorConfig
) -> Mapping[str, tuple[int, ...]]:
    """Shapes of all tensors of a file, by our names."""
    with torch.device("meta"):  # shapes only
        part: nn.Module = {
            GENERATOR: lambda: Generator(net),
            IMAGES: lambda: image_discriminator(discriminators),
            MOUTHS: lambda: mouth_discriminator(discriminators, net.audio),
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
        part = next((i for i, prefix in PREFIXES.items() if prefix and name.startswith(prefix)), GENERATOR)
        inner = their_name(name.removeprefix(PREFIXES[part]))
        files.setdefault(part, {})[inner] = tensor.detach().clone().contiguous()
    return files


def write(tensors: Mapping[str, Tensor], about: Mapping[str, Any], folder: Path) -> list[Path]:
    """A checkpoint of ours -> the authors' files in `folder`: latest_net_G.pth, and those of the
    discriminators that it holds.

    tensors and about: as storage.checkpoints.load_checkpoint gives them for a model.safetensors. Variants
    that only our code can build come out in the same layout. Raises InvalidFile where the checkpoint does not
    hold exactly its generator, or a file is there already: nothing is overwritten.
    """
    if "architecture" not in about:
        raise InvalidFile("the checkpoint's metadata names no architecture")
    discriminators = tuple(prefix for prefix in PREFIXES.values() if prefix)
    # the discriminators' sizes are no part of the metadata: their tensors go through as they are
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(discriminators)}
    if found_differences := differences(
        own, expected(GENERATOR, Architecture(**about["architecture"]), DiscriminatorConfig())
    ):
        raise InvalidFile(
            f"the checkpoint of phase {about.get('phase')} is not whole: tensors {found_differences}"
        )
    contents = {FILES[name]: content for name, content in published(tensors).items()}
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
