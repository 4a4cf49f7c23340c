"""A corpus, a tiny net and a context that training phases can run on without the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from models.api import Optimizer, Schedule
from models.fsrt.config import (
    Architecture,
    AugmentConfig,
    FsrtConfig,
    KeypointDetectorConfig,
    TrainingSampleConfig,
)
from models.fsrt.phases import PHASES
from tests.models.one_pass import with_update

SIDE, LENGTH = 64, 6
NANO = Architecture(
    detector=KeypointDetectorConfig(size=64, width=4, max_width=8, blocks=4), image_size=16,
    expression_size=8,
    expression_per_keypoint=2, pixel_octaves=4, keypoint_octaves=2, patch_width=4, patch_blocks=2,
    head_size=4, encoder_depth=1, encoder_heads=2, encoder_mlp=16, query_mlp=16, decoder_depth=1,
    decoder_heads=2, decoder_mlp=16, render=(16,),
)  # fmt: skip


def make_clip(seed: int) -> dict[str, np.ndarray]:
    """frames (T,S,S,3) uint8, landmarks (T,68,2): a square of one colour that moves over a ground of
    another.
    """
    rng = np.random.default_rng(seed)
    ground, colour = rng.integers(0, 100, 3), rng.integers(120, 255, 3)
    frames = np.tile(ground.astype(np.uint8), (LENGTH, SIDE, SIDE, 1))
    landmarks = np.empty((LENGTH, 68, 2), np.float32)
    size = SIDE // 2
    for t in range(LENGTH):
        x, y = rng.integers(SIDE // 8, SIDE - size - SIDE // 8, 2)
        frames[t, y : y + size, x : x + size] = colour
        landmarks[t] = np.array([x, y]) + np.random.default_rng(7).random((68, 2)) * size
    return {"frames": frames, "landmarks": landmarks, "clip": {"side": 40 + 40 * seed, "size": SIDE}}


@dataclass
class FakeFamily:
    """What training uses of storage.families.Family, in memory."""

    samples: dict[str, dict[str, Any]]
    reads: int = 0

    @property
    def keys(self) -> list[str]:
        return sorted(self.samples)

    def __contains__(self, key: str) -> bool:
        return key in self.samples

    def recording_of(self, key: str) -> str:
        return key.split("#")[1]

    def frame_count(self, key: str) -> int:
        return len(self.samples[key]["frames"])

    def read(self, key: str, fields: Sequence[str] | None = None) -> dict[str, Any]:
        self.reads += 1
        return {name: self.samples[key][name] for name in fields or self.samples[key]}

    def frames(self, key: str, indices: Sequence[int]) -> np.ndarray:
        return self.samples[key]["frames"][list(indices)]


def make_family() -> FakeFamily:
    """Three identities, the last with one clip, the others with two."""
    names = [f"id{i}#rec{i}-{c}#000000#{LENGTH:06d}" for i in range(3) for c in range(1 + (i < 2))]
    return FakeFamily({name: make_clip(n) for n, name in enumerate(names)})


@pytest.fixture
def family() -> FakeFamily:
    return make_family()


@dataclass
class FakeArtifact:
    folder: Path
    opened: Any = None
    steps: int | None = None
    node: str = ""
    """Its stage."""

    def path(self, name: str) -> Path:
        assert (self.folder / name).exists()
        return self.folder / name

    def open_family(self) -> Any:
        return self.opened


@dataclass
class FakeContext:
    node: str
    config: Any
    inputs: dict[str, FakeArtifact]
    out: Path
    scratch: str
    store: Any = None
    """Where third-party weights would lie."""
    key: str = "0123456789abcdef0123456789abcdef"
    previous: FakeArtifact | None = None
    seen: dict[str, list[Any]] = field(
        default_factory=lambda: {"progress": [], "metrics": [], "params": [], "warnings": []}
    )
    stop_at: int | None = None

    def report_progress(self, done: int, total: int, note: str = "") -> None:
        self.seen["progress"].append((done, total, note))

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.seen["metrics"].append((step, values))

    def warn(self, text: str) -> None:
        self.seen["warnings"].append(text)

    def log_params(self, values: dict[str, Any]) -> None:
        self.seen["params"].append(values)

    def set_scratch_subfolder(self, name: str) -> None:
        self.scratch = f"{self.scratch}/{name}"

    @property
    def runtime(self) -> Any:
        return self.config.runtime

    def cancelled(self) -> bool:
        return self.stop_at is not None and any(done >= self.stop_at for done, _, _ in self.seen["progress"])


def no_nets(_store: Any) -> None:
    return None


class Lab:
    """Runs phases in this process and keeps their artifacts."""

    def __init__(self, folder: Path, family: FakeFamily) -> None:
        self.folder, self.family, self.count = folder, family, 0
        self.store: Any = None
        (folder / "recordings").mkdir()
        rows = [
            {"id": family.recording_of(key), "identity": key.split("#")[0],
             "split": "test" if key.startswith("id2") else "train"}
            for key in family.keys
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / "recordings" / "recordings.parquet")
        self.inputs = {
            "recordings": FakeArtifact(folder / "recordings"),
            "clips": FakeArtifact(folder, family),
            "keypoints": FakeArtifact(folder, family),
        }

    def context(self, phase: str, scratch: str = "", every: int = 3, **changes: Any) -> FakeContext:
        """A context for a phase with some of its values changed; the same scratch name is the same work
        folder.
        """
        self.count += 1
        optimizer = Optimizer(lr=1e-3, schedule=Schedule(warmup=2))
        quick = {
            "steps": 6, "batch": 4, "chunk": 2, "optimizers": {"g": optimizer, "d": optimizer},
            "validate_every": 4, "frames_from": "clips",
        }  # fmt: skip
        if (losses := changes.pop("losses", None)) is not None:
            changes["updates"] = with_update(PHASES[phase], losses=losses).updates
        phases = {**PHASES, phase: replace(PHASES[phase], **(quick | changes))}
        config = SimpleNamespace(
            fsrt=FsrtConfig(
                precision="fp32",
                net=NANO,
                phases=phases,
                sampling=TrainingSampleConfig(queries=32),
                augment=AugmentConfig(),
            ),
            keypoints=SimpleNamespace(landmarker="fan2d"),
            runtime=SimpleNamespace(
                train_workers=0,
                train_cpus=1,
                train_compile=False,
                train_readers=2,
                train_prefetch=4,
                use_gpu=False,
                log_every=2,
                checkpoint_every=every,
            ),
        )
        out = self.folder / f"out{self.count}"
        out.mkdir()
        work = str(self.folder / (scratch or f"work{self.count}"))
        return FakeContext(f"train.fsrt.{phase}", config, dict(self.inputs), out, work, self.store)

    def run(self, context: FakeContext) -> FakeContext:
        from pipelines.train.launch import train_phase

        _, model, phase = context.node.split(".")
        train_phase(context, model, phase)  # pyright: ignore[reportArgumentType]
        return context

    def keypoints(self) -> FakeArtifact:
        """A trained detector, for phases that start from one."""
        artifact = FakeArtifact(self.run(self.context("keypoints", steps=2)).out)
        self.inputs["train.fsrt.keypoints"] = artifact
        return artifact


@pytest.fixture(scope="module")
def make_lab(tmp_path_factory) -> Iterator[Callable[[], Lab]]:
    """Labs for fixtures of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.train.job.ValidationNets", no_nets)  # seconds a validation
        yield lambda: Lab(tmp_path_factory.mktemp("lab"), make_family())


@pytest.fixture
def lab(tmp_path, family, make_lab) -> Lab:
    return Lab(tmp_path, family)
