"""What the face nets in torch share: weights from a file of tensors, a device, batches that fit into it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from models.errors import InvalidFile
from models.perception.interfaces import InferenceSettings

INFERENCE_BATCH_SIZE_BY_DEVICE = {"cpu": 1, "cuda": 64}
"""Images of 256 px at once. A core gains nothing from more than one; and one by one, the last bits of what
is found in a frame do not depend on how many others come with it."""
STATE_DICT_WRAPPER_KEYS = ("state_dict", "module")
"""What training scripts wrap a net's tensors in."""

Out = TypeVar("Out")


class TorchNet:
    """A frozen net that can be told how to run: models.perception.interfaces.InferenceConfigurable."""

    def __init__(self, net: nn.Module):
        self._published = net.eval().requires_grad_(False)
        self._how = InferenceSettings()
        self._net: Any = self._published

    def configure_inference(self, how: InferenceSettings) -> None:
        """Move and convert the net; nothing happens when it already runs so."""
        if how == self._how:
            return
        dtype = inference_dtype(how)
        # A copy, for float32 weights do not come back out of bfloat16 ones.
        net = copy.deepcopy(self._published).to(how.device, dtype)
        if how.device == "cuda":  # there convolutions in half precision want the channels last
            net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        # One shape only: every new batch size would compile for a minute again.
        self._net = torch.compile(net, dynamic=False) if how.compile else net
        self._how = how

    def batch_size(self, pixels: int) -> int:
        """How many images of so many pixels go through at once."""
        at_256 = self._how.batch or INFERENCE_BATCH_SIZE_BY_DEVICE[self._how.device]
        return max(1, at_256 * 256 * 256 // pixels)

    def images_to_device(self, images: Tensor) -> Tensor:
        """(B,H,W,3) uint8 -> (B,3,H,W) float32 where the net is, without waiting for what runs there."""
        if self._how.device == "cuda":
            images = images.pin_memory().to("cuda", non_blocking=True)
            return images.permute(0, 3, 1, 2).float()
        return images.permute(0, 3, 1, 2).float().contiguous()

    def run_net(self, images: Tensor, full: int) -> Any:
        """(B,3,H,W) float32 -> what the net makes of it, in its own dtype; of `full` rows if compiled."""
        short = full - len(images) if self._how.compile else 0
        if short > 0:
            images = torch.cat([images, images.new_zeros((short, *images.shape[1:]))])
        return self._net(images.to(inference_dtype(self._how)))


def inference_dtype(how: InferenceSettings) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[how.dtype]


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side by TensorFlow's SAME, so that the output is ceil(side / stride) long. The
    odd one comes after, which nn.Conv2d cannot say."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def map_batches_with_oom_backoff(count: int, size: int, work: Callable[[slice, int], Out]) -> Iterator[Out]:
    """work(rows, size) over all rows, `size` at a time; half as many from where the device's memory ends."""
    at = 0
    while at < count:
        try:
            done = work(slice(at, min(at + size, count)), size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = (size + 1) // 2
            torch.cuda.empty_cache()
            continue
        at += size
        yield done


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file or a torch file of tensors alone -> the net's tensors, by its own names.

    They may lie under `state_dict`, beside an optimizer's, and carry the `module.` of data parallelism.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found: dict[str, Tensor] = load_file(path)
        except SafetensorError as error:
            raise InvalidFile(f"{path}: not a whole safetensors file: {error}") from error
    else:
        try:
            found = _flat(torch.load(path, map_location="cpu", weights_only=True))
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).partition("\n")[0] or "it ends too early"  # EOFError says nothing
            raise InvalidFile(f"{path}: not a file of tensors alone: {reason}") from error
    for nest in STATE_DICT_WRAPPER_KEYS:
        inner = {name.removeprefix(f"{nest}."): t for name, t in found.items() if name.startswith(f"{nest}.")}
        found = inner or found
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {prefix: value}
    if not isinstance(value, Mapping):
        return {}
    every = [_flat(inner, f"{prefix}.{name}" if prefix else str(name)) for name, inner in value.items()]
    return {name: tensor for one in every for name, tensor in one.items()}


def load_pretrained_net(
    make: Callable[[], nn.Module], path: Path, weights_id: str, unused: Collection[str] = ()
) -> nn.Module:
    """The net that `make` builds, with the tensors of the file and no others; `unused` may be in the file.

    Raises InvalidFile naming those that are missing, unknown or of another shape.
    """
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if name not in unused}
    with torch.device("meta"):  # no time and no random numbers for weights that are replaced at once
        net = make()
    if problems := describe_tensor_mismatches(tensors, tensor_shapes(net)):
        raise InvalidFile(
            f"weights {weights_id} do not fit {type(net).__name__}: tensors {problems}. "
            f"Is {path.name} another model's file?"
        )
    floats = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    net.load_state_dict(floats, assign=True)
    return net


def tensor_shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of every tensor in a net's state, by name."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def describe_tensor_mismatches(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """How the tensors of a file differ from those of a net: how many, and the first three names of each kind.
    Empty where they fit.
    """
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    shaped = [
        f"{name} {tuple(tensors[name].shape)} (expected {shape})"
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", shaped))
        if names
    ]
    return "; ".join(problems)
