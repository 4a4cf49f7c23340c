"""The authors' released checkpoints, and FOMM's: read strictly into our names, and written back in their
layout, which tests/golden/fsrt.json lists tensor by tensor.

Our names are theirs behind the part's: `encoder.`, `decoder.`, `expression_encoder.`, `kp_detector.`,
`discriminator.`. Files come in as storage/weight_files.py imported them: one safetensors file each, nested
dicts flattened to dotted names, optimisers left behind.

| weights id | publisher's file | tensors |
|---|---|---|
| fsrt_vox, fsrt_vox_2src | vox256.pt, vox256_2Source.pt | the renderer's three parts, perhaps discriminator |
| fsrt_kp | kp_detector.pt | the detector's, without a name in front |
| fomm_vox | vox-cpk.pth.tar | kp_detector, with the head for FOMM's jacobians, which FSRT has no use for |

The authors' loader warns of a part that a file lacks and goes on with random weights. Here every tensor must
be there, none may be unknown, all must have the net's shapes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from msgspec import to_builtins
from msgspec.structs import replace
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.checkpoint_metadata import parse_checkpoint_settings
from models.errors import InvalidFile, InvalidSettings
from models.fsrt.config import Architecture, DiscriminatorConfig, KeypointDetectorConfig, full_architecture
from models.fsrt.discriminator import Discriminator
from models.fsrt.keypoints import KeypointDetector
from models.fsrt.network import Fsrt
from models.perception.torch_net import describe_tensor_mismatches, read_tensors, tensor_shapes

if TYPE_CHECKING:
    from models.api import Phase
    from models.fsrt.config import FsrtConfig

RENDERER_WEIGHTS_IDS = ("fsrt_vox", "fsrt_vox_2src")
DETECTOR_WEIGHTS_IDS = ("fsrt_kp", "fomm_vox")
DETECTOR_PART, DISCRIMINATOR_PART = "kp_detector", "discriminator"
RENDERER_PARTS = ("expression_encoder", "encoder", "decoder")
RELEASED_OPTIMIZER_KEYS = ("optimizer", "optimizer_disc")
JACOBIAN_KEYS = ("jacobian.weight", "jacobian.bias")
FIELDS_ALLOWED_TO_DIFFER = ("image_size", "encoder_attention", "initial")
"""Settings of the net that may differ from the published ones without making its weights meaningless."""
NET_FILE, DETECTOR_FILE = "vox256.pt", "kp_detector.pt"


# --- reading ------------------------------------------------------------------------------------------------
def read_released_weights(
    files: Mapping[str, Path], section: FsrtConfig | None = None, phase: Phase | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Imported files by weights id -> tensors by our names (float32; counters int64), and their provenance.

    `files` holds a detector's file, alone or with a net's. With a phase, parts that its net has not are left
    out. With a run's settings the tensors must fit its net; of the settings only those of the parts are read.
    Without, the architecture is inferred. Raises InvalidFile or InvalidSettings naming what is missing,
    unknown or of another shape.
    """
    tensors = _gathered(files)
    what, parts = f"weights {' and '.join(files)}", _parts(tensors, files)
    if phase is not None:
        idle = set(parts) - set(phase_net_parts(phase))
        tensors = {name: tensor for name, tensor in tensors.items() if _part(name) not in idle}
        parts = tuple(part for part in parts if part not in idle)
    if section is None:
        net = infer_architecture(tensors, full_architecture())
        _fit(
            tensors,
            expected_shapes(net, DiscriminatorConfig(), parts),
            f"{what} are of no FSRT that is known",
            "",
        )
    else:
        net = (
            section.net
            if RENDERER_PARTS[0] in parts
            else replace(full_architecture(), detector=section.net.detector)
        )
        discriminator = section.discriminator if DISCRIMINATOR_PART in parts else DiscriminatorConfig()
        _fit(
            tensors,
            expected_shapes(net, discriminator, parts),
            f"{what} do not fit fsrt.net",
            _settings(tensors, net),
        )
        _check_hidden(what, tensors, net, parts)
    return tensors, _provenance(files)


def load_released(files: Mapping[str, Path], section: FsrtConfig | None = None) -> Checkpoint:
    """A net to render with, as a checkpoint of our own holds it: the one of a run's settings, or, without
    them, the published one that the tensors' shapes show. The discriminator stays behind. Raises InvalidFile
    or InvalidSettings as `read_released_weights` does."""
    tensors, provenance = read_released_weights(files, section)
    if not any(name in files for name in RENDERER_WEIGHTS_IDS):
        raise InvalidSettings(
            f"weights {' and '.join(files)} hold a detector alone, which cannot render images"
        )
    metadata = {
        "model": "fsrt",
        "phase": "released",
        "architecture": to_builtins(
            section.net if section else infer_architecture(tensors, full_architecture())
        ),
        "provenance": provenance,
    }
    own = {name: tensor for name, tensor in tensors.items() if _part(name) != DISCRIMINATOR_PART}
    return Checkpoint(tensors=own, metadata=metadata, name=" and ".join(files))


def check_weights_match_id(weights_id: str, path: Path) -> None:
    """Whether an imported file is what its id says; raises InvalidFile or InvalidSettings as
    `read_released_weights` does."""
    tensors = _opened(weights_id, path)
    wanted = expected_shapes(
        infer_architecture(tensors, full_architecture()), DiscriminatorConfig(), _parts(tensors, [weights_id])
    )
    _fit(tensors, wanted, f"this is not {weights_id}", "")


def _gathered(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """The tensors of all files, by our names."""
    nets, detectors = (
        [name for name in kind if name in files] for kind in (RENDERER_WEIGHTS_IDS, DETECTOR_WEIGHTS_IDS)
    )
    if unknown := sorted(set(files) - {*RENDERER_WEIGHTS_IDS, *DETECTOR_WEIGHTS_IDS}):
        raise InvalidSettings(
            f"no reader for weights {', '.join(unknown)}; known: "
            f"{', '.join(RENDERER_WEIGHTS_IDS + DETECTOR_WEIGHTS_IDS)}"
        )
    if len(detectors) != 1 or len(nets) > 1:
        raise InvalidSettings(
            f"weights {', '.join(files) or 'none'}: expected one detector "
            f"({' or '.join(DETECTOR_WEIGHTS_IDS)}) "
            "and at "
            f"most one net ({' or '.join(RENDERER_WEIGHTS_IDS)}); a net's file holds no detector"
        )
    tensors = _opened(detectors[0], files[detectors[0]])
    for name in nets:
        more = _opened(name, files[name])
        if both := sorted(tensors.keys() & more.keys()):
            raise InvalidFile(f"{both[0]} and {len(both) - 1} more are in {detectors[0]} and in {name}")
        tensors |= more
    return tensors


def _opened(weights_id: str, path: Path) -> dict[str, Tensor]:
    """One imported file -> its tensors under our names; those of no part keep theirs."""
    found = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in read_tensors(path).items()
        if _part(name) not in RELEASED_OPTIMIZER_KEYS
    }
    if weights_id == "fsrt_kp":
        return _unwrapped({f"{DETECTOR_PART}.{name}": tensor for name, tensor in found.items()})
    found = _unwrapped(found)
    if weights_id == "fomm_vox":
        return {
            name: t
            for name, t in found.items()
            if name not in [f"{DETECTOR_PART}.{j}" for j in JACOBIAN_KEYS]
        }
    return found


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the `module.` that data parallelism puts before the names of a whole part."""
    wrapped = {
        part
        for part in {_part(name) for name in tensors}
        if all(name.startswith(f"{part}.module.") for name in tensors if _part(name) == part)
    }
    return {
        name.replace(".module.", ".", 1) if _part(name) in wrapped else name: tensor
        for name, tensor in tensors.items()
    }


def _part(name: str) -> str:
    return name.partition(".")[0]


def _parts(tensors: Mapping[str, Tensor], files: Iterable[str]) -> tuple[str, ...]:
    """The parts that these files must hold; the discriminator may be there or not."""
    parts = (DETECTOR_PART,) if any(name in DETECTOR_WEIGHTS_IDS for name in files) else ()
    if any(name in RENDERER_WEIGHTS_IDS for name in files):
        parts += RENDERER_PARTS
        if any(_part(name) == DISCRIMINATOR_PART for name in tensors):
            parts += (DISCRIMINATOR_PART,)
    return parts


def phase_net_parts(phase: Phase) -> tuple[str, ...]:
    """The parts of the net of a phase."""
    if set(phase.trainable_parts) <= {DETECTOR_PART}:
        return (DETECTOR_PART,)
    return (
        (DETECTOR_PART, *RENDERER_PARTS, DISCRIMINATOR_PART)
        if DISCRIMINATOR_PART in phase.trainable_parts
        else (DETECTOR_PART, *RENDERER_PARTS)
    )


def _provenance(files: Mapping[str, Path]) -> dict[str, str]:
    return {"net" if name in RENDERER_WEIGHTS_IDS else DETECTOR_PART: f"from {name}" for name in files}


# --- what is expected ---------------------------------------------------------------------------------------
def expected_shapes(
    net: Architecture, discriminator: DiscriminatorConfig, parts: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of these parts, by name."""
    with torch.device("meta"):  # shapes only
        net_parts = nn.ModuleDict(dict(Fsrt(net).named_children()))
        net_parts[DISCRIMINATOR_PART] = Discriminator(
            discriminator, net.detector.keypoints if net.uses_keypoints else 0
        )
    wanted = set(parts)
    return {name: shape for name, shape in tensor_shapes(net_parts).items() if _part(name) in wanted}


def _fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], what: str, why: str) -> None:
    if found := describe_tensor_mismatches(tensors, wanted):
        raise InvalidFile(f"{what}: tensors {found}. {why or 'Is it the file of another model?'}")


def infer_architecture(tensors: Mapping[str, Tensor], like: Architecture) -> Architecture:
    """`like`, with those settings changed in which the published variants differ and which shapes show: the
    expression's size, whether keypoints are told, the decoder's heads, MLP and renderer.

    What the tensors do not show clearly stays; comparing shapes afterwards shows it.
    """

    def size(name: str, axis: int) -> int:
        tensor = tensors.get(name)
        return tensor.shape[axis] if tensor is not None and tensor.dim() > axis else 0

    seen: dict[str, Any] = {}
    block = "decoder.allocation_transformer.transformer.layers.0"
    if expression := size("expression_encoder.expression_mlp.6.weight", 0):
        seen["expression_size"] = expression
    code = size("encoder.conv_blocks.0.layers.0.weight", 1) - 3 - expression - like.pixel_code_size
    octave = 4 * like.detector.keypoints
    if expression and code >= 0 and code % octave == 0:
        seen["keypoint_octaves"] = code // octave
    heads, rest = divmod(size(f"{block}.0.fn.to_q.weight", 0), like.head_size)
    if heads and not rest:
        seen["decoder_heads"] = heads
    if hidden := size(f"{block}.1.fn.net.0.weight", 0):
        seen["decoder_mlp"] = hidden
    layers = sorted(int(n.split(".")[2]) for n in tensors if _is_layer(n))
    widths = tuple(size(f"decoder.render_mlp.{layer}.weight", 0) for layer in layers[:-1])
    if widths and all(widths):
        seen["render"] = widths
    return replace(like, **seen)


def _is_layer(name: str) -> bool:
    """Whether it is the weight of a layer of the renderer."""
    parts = name.split(".")
    return parts[:2] == ["decoder", "render_mlp"] and parts[2].isdecimal() and parts[3:] == ["weight"]


def _settings(tensors: Mapping[str, Tensor], net: Architecture) -> str:
    """In which settings the files' net is another than the run's, as far as shapes show it."""
    theirs, ours = to_builtins(infer_architecture(tensors, net)), to_builtins(net)
    changes = [
        f"{name} {theirs[name]} (fsrt.net: {ours[name]})" for name in ours if theirs[name] != ours[name]
    ]
    return f"The files' net has {', '.join(changes)}" if changes else ""


def _check_hidden(what: str, tensors: Mapping[str, Tensor], net: Architecture, parts: Sequence[str]) -> None:
    """Settings that shapes do not show and that change what the weights mean must be the published ones,
    where the tensors are those of a published net.
    """
    published = infer_architecture(tensors, full_architecture())
    if describe_tensor_mismatches(tensors, expected_shapes(published, DiscriminatorConfig(), parts)):
        return  # of sizes of our own: nothing is published about them
    pairs = [("detector.temperature", net.detector.temperature, published.detector.temperature)]
    if RENDERER_PARTS[0] in parts:
        names = [name for name in to_builtins(net) if name not in (*FIELDS_ALLOWED_TO_DIFFER, "detector")]
        pairs += [(name, getattr(net, name), getattr(published, name)) for name in names]
    if changes := [
        f"fsrt.net.{name} {ours} (theirs: {theirs})" for name, ours, theirs in pairs if ours != theirs
    ]:
        raise InvalidSettings(f"{what} were trained with other settings: {', '.join(changes)}")


# --- writing ------------------------------------------------------------------------------------------------
def export_released_format(
    tensors: Mapping[str, Tensor], about: Mapping[str, Any], folder: Path
) -> list[Path]:
    """A checkpoint of ours -> the authors' files in `folder`, which their loader takes: vox256.pt (parts of
    the net) and kp_detector.pt; the latter alone from phase `keypoints`.

    tensors and about: as storage.checkpoints.load_checkpoint gives them for a model.safetensors. Variants
    that only our code can build (no keypoints) come out in the same layout. Raises InvalidFile where the
    checkpoint does not hold exactly its net, or a file is there already: nothing is overwritten.
    """
    if "architecture" in about:
        net = parse_checkpoint_settings(Architecture, about["architecture"], "architecture")
        wanted = expected_shapes(net, DiscriminatorConfig(), (DETECTOR_PART, *RENDERER_PARTS))
    elif "detector" in about:
        with torch.device("meta"):
            found = tensor_shapes(
                KeypointDetector(
                    parse_checkpoint_settings(KeypointDetectorConfig, about["detector"], "detector")
                )
            )
        wanted = {f"{DETECTOR_PART}.{name}": shape for name, shape in found.items()}
    else:
        raise InvalidFile("the checkpoint's metadata names neither an architecture nor a detector")
    # the discriminator's sizes are no part of the metadata: its tensors go through as they are
    own = {name: tensor for name, tensor in tensors.items() if _part(name) != DISCRIMINATOR_PART}
    _fit(own, wanted, f"the checkpoint of phase {about.get('phase')} is not whole", "")
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, inner = name.partition(".")
        groups.setdefault(part, {})[inner] = tensor.detach().clone().contiguous()
    contents: dict[str, dict[str, Any]] = {DETECTOR_FILE: groups.pop(DETECTOR_PART)}
    if groups:
        contents[NET_FILE] = groups
    if there := [str(folder / name) for name in contents if (folder / name).exists()]:
        raise InvalidSettings(f"{' and '.join(there)} would be overwritten; choose another folder")
    return [_saved(content, folder / name) for name, content in contents.items()]


def _saved(content: dict[str, Any], path: Path) -> Path:
    """Appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    torch.save(content, aside)
    os.replace(aside, path)
    return path
