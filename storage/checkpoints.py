"""Checkpoints: tensors and one JSON text in a safetensors file, so that loading one can never run code.

Files are byte-deterministic: tensors in safetensors' own order, the JSON canonical and under one metadata key
(several would be written in the order of a hash table).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import DamagedFile, InvalidInput
from storage.files import Store

if TYPE_CHECKING:
    from torch import Tensor

METADATA_KEY = "reenact"
"""Metadata key of a checkpoint's JSON text."""
MODEL_FILE, BEST_FILE = "model.safetensors", "best.safetensors"
"""What a training phase publishes: the weights of its last step, and of the step with the best figure."""
STATE_FILE, START_FILE = "state.safetensors", "start.safetensors"
"""Beside them: all that training resumes from, and the weights it started from."""
CHECKPOINT_FILES = {"last": MODEL_FILE, "best": BEST_FILE}
"""By what `eval.checkpoint` calls them."""
_STEP = re.compile(r"step-(\d{9})\.safetensors")


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write one file; not atomic, so write aside and publish through a store."""
    from safetensors.torch import save_file

    text = json.dumps(about, sort_keys=True, ensure_ascii=False, allow_nan=False)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    save_file(plain, path, metadata={METADATA_KEY: text})


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """-> tensors by name on the CPU, and the metadata saved with them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise DamagedFile(f"{path} is not a whole safetensors file: {error}") from error
    if about is None:
        raise InvalidInput(f"{path} was not written here: its metadata has no {METADATA_KEY!r}")
    return tensors, json.loads(about)


def read_safetensors_metadata(path: Path) -> dict[str, Any]:
    """The metadata saved with a file's tensors, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(METADATA_KEY, "{}")
        return dict(json.loads(text))
    except (SafetensorError, ValueError, TypeError) as error:
        raise DamagedFile(f"{path} is no whole checkpoint: {error}") from error


class StepCheckpoints:
    """The states a training run can fall back to: one file per step in a work folder, the last few kept."""

    def __init__(self, folder: str, keep: int = 2):
        self.store, self.keep = Store(folder), keep

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending: files appear whole (storage.files)."""
        matches = (_STEP.fullmatch(entry.name) for entry in self.store.list(""))
        return sorted(int(match[1]) for match in matches if match)

    def latest_step_up_to(self, at_most: int) -> int | None:
        """The last step no later than `at_most`."""
        return max((step for step in self.steps() if step <= at_most), default=None)

    def save(self, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
        with self.store.scratch_folder() as folder:
            save_checkpoint(folder / "checkpoint", tensors, about)
            self.store.put(folder / "checkpoint", self.file_name(step))
        for old in [s for s in self.steps() if s < step][: -(self.keep - 1) or None]:
            self.store.delete(self.file_name(old))

    def load(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return load_checkpoint(self.store.fetch(self.file_name(step)))

    @staticmethod
    def file_name(step: int) -> str:
        return f"step-{step:09d}.safetensors"
