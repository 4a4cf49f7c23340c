"""Stand-ins an evaluation runs on: a family in memory, a model that blends, a context that keeps what it is
told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.reenactor import ClipFrames
from pipelines.eval.clip_list import choose_clips
from pipelines.eval.evaluate import EvalConfig, evaluate
from storage.files import Store


def clip_frames(seed: int, count: int = 9, size: int = 64) -> np.ndarray:
    """(count,size,size,3) uint8: a soft blob on a tinted gradient, walking; no two clips alike."""
    rng = np.random.default_rng(seed)
    tint, start, speed = rng.uniform(60, 200, 3), rng.uniform(20, 40, 2), rng.uniform(-2, 2, 2)
    y, x = np.mgrid[:size, :size]
    frames = []
    for t in range(count):
        at = start + speed * t
        blob = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 120)
        frames.append(np.clip(tint * (0.4 + 0.4 * x[..., None] / size) + 120 * blob[..., None], 0, 255))
    return np.stack(frames).astype(np.uint8)


class MemoryFamily:
    """The reading side of storage.families.Family over arrays."""

    def __init__(
        self, clips: dict[str, np.ndarray], store: Any = None, fields: dict[str, dict[str, Any]] | None = None
    ):
        self.clips, self.store = dict(sorted(clips.items())), store
        self.keys = list(self.clips)
        self.fields = fields or {}

    def __contains__(self, key: str) -> bool:
        return key in self.clips

    def read(self, key: str, fields: list[str]) -> dict[str, Any]:
        return {name: self.fields[key][name] for name in fields}

    def __len__(self) -> int:
        return len(self.keys)

    def frames_of(self, key: str) -> int:
        return len(self.clips[key])

    def recording_of(self, key: str) -> str:
        return key.split("#")[1]

    def frames(self, key: str, indices: list[int]) -> np.ndarray:
        return self.clips[key][list(indices)]


@dataclass
class FramesOfAClip:
    """models.api.Clip over frames in memory."""

    images: np.ndarray
    key: str = "ann#rec0#000000#000009"

    @property
    def length(self) -> int:
        return len(self.images)

    def frames(self, indices: list[int]) -> np.ndarray:
        return self.images[list(indices)]

    def read(self, name: str) -> Any:
        raise KeyError(name)


class HalfWay:
    """A model that shows the mean of the first source and the driving frame: nearer to the truth than the
    source is."""

    def __init__(self) -> None:
        self.image_size = 32
        self.labels = {"kp_detector": "distilled from dlib landmarks"}

    def clip_of(self, frames: np.ndarray) -> FramesOfAClip:
        return FramesOfAClip(frames)

    def drive(self, source: ClipFrames, driving: ClipFrames) -> np.ndarray:
        mean = (source[:1].images().astype(np.float64) + driving.images()) / 2 / 255
        return mean.reshape(len(driving), 32, 2, 32, 2, 3).mean(axis=(2, 4)).astype(np.float32)

    def visualize(self, source: ClipFrames, driving: ClipFrames) -> dict[str, np.ndarray]:
        return {"the frame itself": driving.images()[0, ::2, ::2]}


@dataclass
class KeptContext:
    """A node's context that keeps figures, params and progress."""

    node: str
    config: Any
    inputs: dict[str, Any]
    out: Path
    key: str = "k" * 32
    figures: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[int, int]] = field(default_factory=list)

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.seen.append((done, total))

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        assert step is None
        self.figures |= values

    def params(self, values: dict[str, Any]) -> None:
        self.facts |= values

    @property
    def runtime(self) -> Any:
        return self.config.runtime


@dataclass
class Folder:
    """A whole node's artifact that is a folder."""

    root: Path
    key: str = "f" * 32
    digest: str = "d" * 32
    node: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted(p.name for p in self.root.iterdir()))

    def path(self, name: str) -> Path:
        return self.root / name


class Shards:
    """A keyed node's artifact that is a family in memory."""

    def __init__(self, family: MemoryFamily, rows: list[Any] | None = None, key: str = "s" * 32):
        self._family, self._rows, self.key, self.digest, self.node = family, rows or [], key, "d" * 32, ""

    def family(self, units: Any = None) -> MemoryFamily:
        if units is None:
            return self._family
        some = {key: self._family.clips[key] for key in units}
        return MemoryFamily(some, self._family.store, self._family.fields)

    def manifest(self) -> list[Any]:
        return self._rows


@pytest.fixture(scope="session")
def clips() -> dict[str, np.ndarray]:
    """Six clips of three identities."""
    return {f"id{i // 2}#rec{i}#000000#000009": clip_frames(i) for i in range(6)}


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Folder:
    """The table of the clips' recordings: identity id0 trains, id1 and id2 test."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = [
        {"id": f"rec{i}", "identity": f"id{i // 2}", "split": "train" if i < 2 else "test", "bucket": i % 2,
         "source": "synthetic", "uri": "", "sha256": "", "seed": i, "spec": "{}", "tracks": []}
        for i in range(6)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "recordings.parquet")
    refused = [
        {"id": "a/b", "file": "list.csv", "line": 7, "code": "bad_id", "sentence": "id 'a/b' has a '/'"}
    ]
    pq.write_table(pa.Table.from_pylist(refused), folder / "rejects.parquet")
    return Folder(folder)


def manifest_row(unit: str, status: str = "ok", code: str = "", reason: str = "", frames: int = 9) -> Any:
    row = {"unit": unit, "status": status, "code": code, "reason": reason}
    return SimpleNamespace(**row, clips=int(status == "ok"), frames=frames if status == "ok" else 0)


@pytest.fixture(scope="session")
def corpus_inputs(clips, recordings) -> dict[str, Any]:
    """What the corpus page reads: clips, landmarks and fits of six recordings; one has no face."""
    rng = np.random.default_rng(0)
    fields: dict[str, dict[str, dict[str, Any]]] = {"clips": {}, "keypoints": {}, "fit3dmm": {}}
    for key, frames in clips.items():
        count = len(frames)
        landmarks = 32 + 10 * rng.standard_normal((count, 68, 2)).clip(-2, 2)
        landmarks[-1] = np.nan
        fields["clips"][key] = {
            "crop": np.tile([10.0, 10.0, 110.0, 110.0], (count, 1)),
            "clip": {"sharpness": 30.0, "audible": 0.75, "dropped": {"too_short": 2}},
        }
        fields["keypoints"][key] = {"landmarks": landmarks}
        fields["fit3dmm"][key] = {
            "angles": rng.normal(0, 10, (count, 3)),
            "fit_error": rng.random(count),
            "exp_coeffs": rng.normal(0, [0.5, 1.0, 2.0], (count, 3)),
        }
    rows = [manifest_row(f"rec{i}") for i in range(6)]
    lost = manifest_row("rec9", "rejected", "no_face", "no face in any of 40 frames")
    inputs: dict[str, Any] = {"recordings": recordings}
    probe = {"width": 1280, "height": 720, "seconds": 4.0, "fps": 25.0, "transport": "local"}
    probe["audio_rate"] = 48_000
    raw = {
        f"rec{i}": {"probe": probe | {"sha256": "same" if i in (0, 4) else f"own{i}"}} for i in (*range(6), 9)
    }
    for name in ("rec5", "rec9"):
        raw[name]["probe"] |= {"width": 640, "height": 360, "transport": "mirror", "audio_rate": 0}
    raw["rec9"]["probe"]["interlaced"] = True
    inputs["download"] = Shards(
        MemoryFamily(dict.fromkeys(raw, np.empty(0)), fields=raw),
        [*rows, manifest_row("rec9")],
    )
    for name in ("clips", "keypoints", "fit3dmm", "speech"):
        family = MemoryFamily(clips, fields=fields.get(name))
        inputs[name] = Shards(family, [*rows, lost] if name == "clips" else rows)
    return inputs


@pytest.fixture(scope="session")
def runtime() -> SimpleNamespace:
    return SimpleNamespace(use_gpu=False, eval_cpus=1)


@pytest.fixture(scope="session")
def make_family():
    return MemoryFamily


@pytest.fixture(scope="session")
def make_shards():
    return Shards


@pytest.fixture(scope="session")
def make_folder():
    return Folder


@pytest.fixture
def half_way():
    return HalfWay()


@pytest.fixture(scope="session")
def make_context():
    return KeptContext


# --- an evaluation of a real, untrained net ---
@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    """A checkpoint of the tiny FSRT with initial weights."""
    import torch
    from safetensors.torch import save_file

    from models.fsrt.config import tiny
    from models.fsrt.network import Fsrt

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    architecture = tiny()
    about = {"model": "fsrt", "architecture": asdict(architecture), "labels": {"kp_detector": "random"}}
    state = {name: tensor.contiguous() for name, tensor in Fsrt(architecture).state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"reenact": json.dumps(about)})
    return folder


@pytest.fixture(scope="session")
def evaluated(
    untrained,
    make_context,
    make_family,
    make_shards,
    make_folder,
    clips,
    recordings,
    runtime,
    tmp_path_factory,
):
    out, listed = (tmp_path_factory.mktemp(name) for name in ("out", "test_clips"))
    family = Shards(MemoryFamily(clips, Store(str(tmp_path_factory.mktemp("store")))))
    config = SimpleNamespace(eval=EvalConfig(max_frames=3, resamples=50, videos=1), runtime=runtime)
    inputs = {"recordings": recordings, "clips": family}
    choose_clips(KeptContext(node="test_clips", config=config, inputs=inputs, out=listed))
    inputs = {"test_clips": Folder(listed), "clips": family, "train.fsrt.warmup": Folder(untrained)}
    context = KeptContext(node="eval.fsrt", config=config, inputs=inputs, out=out)
    evaluate(context, "fsrt")
    return context
