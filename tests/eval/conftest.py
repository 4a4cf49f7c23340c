"""Stand-ins that an evaluation runs on: families in memory, models that blend, a context that keeps what it
gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import to_builtins

from models.errors import InvalidSettings
from models.reenactor import ClipFrames, MotionTransfer
from pipelines.eval import generate, landmark_baselines
from pipelines.eval.features import compute_dlib_landmarks
from pipelines.eval.methods import BASELINE_METHODS, METHOD_FUNCTIONS
from pipelines.eval.pairs import ClipPair, make_pairs, read_pairs
from pipelines.eval.protocols import EvaluationProtocol
from pipelines.eval.sample_frames import publish_sample_frames
from pipelines.eval.score import score_method
from pipelines.preprocess.clips_config import FrameCodecConfig
from storage import shards
from tests.eval.landmark_faces import make_face
from tests.eval.stand_in_features import ROAD_METRICS, BrightFaces, stand_in_features


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


SELF_BASELINES = ("copy_source", "warp", "codec")
"""Of self-reenactment."""


def landmarks_of(seed: int, count: int) -> np.ndarray:
    """(count,68,2): a face that walks over frames of 64 px."""
    return np.stack([make_face((30 + t / 2, 28 + seed + t / 4), 18) for t in range(count)])


class MemoryFamily:
    """The reading side of storage.families.Family over arrays."""

    def __init__(
        self, clips: dict[str, np.ndarray], store: Any = None, fields: dict[str, dict[str, Any]] | None = None
    ):
        self.clips, self.store = dict(sorted(clips.items())), store
        self.keys = list(self.clips)
        self.members = fields or {}

    def __contains__(self, key: str) -> bool:
        return key in self.clips

    def read(self, key: str, fields: list[str]) -> dict[str, Any]:
        return {name: self.members[key][name] for name in fields}

    def fields(self, key: str) -> list[str]:
        return list(self.members.get(key, ()))

    def __len__(self) -> int:
        return len(self.keys)

    def frame_count(self, key: str) -> int:
        return len(self.clips[key])

    def recording_of(self, key: str) -> str:
        return key.split("#")[1]

    def frames(self, key: str, indices: list[int]) -> np.ndarray:
        return self.clips[key][list(indices)]


class HalfWay:
    """A model that shows the mean of the first source and the driving frame: nearer to the truth than the
    source is."""

    def __init__(self) -> None:
        self.image_size = 32
        self.provenance = {"kp_detector": "distilled from dlib landmarks"}

    def load_reenactor(self, nets: Mapping[str, Any], device: str) -> HalfWay:
        """As pipelines.eval.evaluated_models.EvaluatedModel."""
        return self

    def check_transfer(self, transfer: MotionTransfer) -> None:
        """It knows absolute motion alone."""
        if transfer.motion != "absolute":
            raise InvalidSettings("toy knows absolute motion alone")

    def drive(self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer) -> np.ndarray:
        mean = (source[:1].images().astype(np.float64) + driving.images()) / 2 / 255
        return mean.reshape(len(driving), 32, 2, 32, 2, 3).mean(axis=(2, 4)).astype(np.float32)

    def visualize(
        self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer
    ) -> dict[str, np.ndarray]:
        return {"the frame itself": driving.images()[0, ::2, ::2]}


class UnitSamples(list):
    """A family's samples of a unit, as the engine hands them to a keyed stage."""

    @property
    def keys(self) -> list[str]:
        return [sample["__key__"] for sample in self]

    def fields(self, key: str) -> list[str]:
        return sorted(self._sample(key).keys() - {"__key__"})

    def frame_count(self, key: str) -> int:
        return len(self._sample(key)["frames"])

    def frames(self, key: str, indices: Sequence[int]) -> np.ndarray:
        return self._sample(key)["frames"][list(indices)]

    def read(self, key: str, fields: Sequence[str]) -> dict[str, Any]:
        return {"__key__": key} | {name: self._sample(key)[name] for name in fields}

    def _sample(self, key: str) -> dict[str, Any]:
        return next(sample for sample in self if sample["__key__"] == key)


class KeptFamily:
    """The reading side of a family of pairs: samples as a shard would give them back."""

    def __init__(self, samples: Iterable[dict[str, Any]] = ()) -> None:
        self.samples = {sample["__key__"]: as_stored(sample) for sample in samples}

    @property
    def keys(self) -> list[str]:
        return sorted(self.samples)

    def read(self, key: str, fields: Sequence[str] | None = None) -> dict[str, Any]:
        sample = self.samples[key]
        return dict(sample) if fields is None else {name: sample[name] for name in fields}

    def fields(self, key: str) -> list[str]:
        return sorted(self.samples[key].keys() - {"__key__"})

    def frame_count(self, key: str) -> int:
        return len(self.samples[key]["frames"])

    def frames(self, key: str, indices: Sequence[int]) -> np.ndarray:
        return self.samples[key]["frames"][list(indices)]


def as_stored(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample after its trip through the bytes of a shard."""
    found = {"__key__": sample["__key__"]}
    for name, value in sample.items():
        if name != "__key__":
            extension, data = shards.encode_field(name, value)
            found[name] = shards.decode_field(name, data, extension)
    return found


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
    resources: dict[str, float] = field(default_factory=lambda: {"cpu": 1})

    def report_progress(self, done: int, total: int, note: str = "") -> None:
        self.seen.append((done, total))

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        assert step is None
        self.figures |= values

    def log_params(self, values: dict[str, Any]) -> None:
        self.facts |= values


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


DLIB_SP68_SHA256 = "fbdc" * 16
"""Of the weights that the key of the node of dlib's landmarks holds."""


class Shards:
    """A keyed node's artifact that is a family in memory."""

    def __init__(self, family: Any, rows: list[Any] | None = None, key: str = "s" * 32):
        self._family, self._rows, self.key, self.digest, self.node = family, rows or [], key, "d" * 32, ""
        self.weights: dict[str, str] = {}

    def open_family(self, units: Any = None) -> Any:
        if units is None:
            return self._family
        some = {key: self._family.clips[key] for key in units}
        return MemoryFamily(some, self._family.store, self._family.members)

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
        slip = np.where(np.arange(count) == count - 1, np.nan, 0.01)
        if key == min(clips):
            landmarks[[1, 3]], slip[[1, 3]] = np.nan, [0.2, 0.3]
        fields["keypoints"][key] = {"landmarks": landmarks, "slip": slip}
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


# --- every stage of a comparison, one after the other -------------------------------------------------------
RUNTIME = SimpleNamespace(use_gpu=False)


@dataclass
class Road:
    """What the stages of one protocol published: models `toy`, which is half-way to the truth, and `dark`, of
    which a third of the frames shows no face."""

    protocol: EvaluationProtocol
    pairs: KeptContext
    generated: dict[str, KeptFamily]
    features: dict[str, dict[str, KeptFamily]]
    scores: dict[str, KeptContext]
    samples: dict[str, KeptContext]

    @property
    def inputs(self) -> dict[str, Any]:
        """Of the report."""
        found: dict[str, Any] = {"self/pairs": Folder(self.pairs.out)}
        found |= {f"self/{m}/samples": Folder(one.out) for m, one in self.samples.items()}
        return found | {f"self/{m}/score": Folder(one.out) for m, one in self.scores.items()}


class Darker(HalfWay):
    """Of each three frames one is black."""

    def drive(self, source: ClipFrames, driving: ClipFrames, transfer: MotionTransfer) -> np.ndarray:
        images = super().drive(source, driving, transfer)
        images[::3] = 0
        return images


def unit_inputs(pair: ClipPair, clips: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the engine hands a generating stage for one pair: its row, and the clips of its recordings."""
    samples = [
        {"__key__": key, "frames": frames}
        for key, frames in clips.items()
        if key.split("#")[1] in pair.recordings
    ]
    marks = [
        {"__key__": one["__key__"], "landmarks": landmarks_of(seed, len(one["frames"]))}
        for seed, one in enumerate(samples)
    ]
    return {
        "pairs": UnitSamples([to_builtins(pair)]),
        "clips": UnitSamples(samples),
        "keypoints": UnitSamples(marks),
    }


@pytest.fixture(scope="session")
def unit_of():
    return unit_inputs


@pytest.fixture(scope="session")
def kept_family():
    return KeptFamily


@pytest.fixture(scope="session")
def unit_samples():
    return UnitSamples


@pytest.fixture(scope="session")
def road(clips, recordings, tmp_path_factory) -> Road:
    protocol = EvaluationProtocol(size=32, max_frames=6)
    context = KeptContext(
        node="pairs.self",
        config=SimpleNamespace(protocol=protocol, frames=FrameCodecConfig()),
        inputs={"recordings": recordings, "clips": Shards(MemoryFamily(clips))},
        out=tmp_path_factory.mktemp("pairs"),
    )
    make_pairs(context)
    generated, features, scores = {}, {}, {}
    finder = BrightFaces()
    finder.darkest = 1.0
    functions = {
        name: getattr(generate, METHOD_FUNCTIONS[name]) for name in ("truth", "copy_source", "codec")
    }
    functions["warp"] = landmark_baselines.warp_source
    methods = {"toy": HalfWay(), "dark": Darker(), **functions}
    for method, how in methods.items():
        stage = functions.get(method, generate.generate_frames)
        rows = [unit_inputs(pair, clips) for pair in read_pairs(context.out / "pairs.parquet")]
        generated[method] = KeptFamily(
            s for row in rows for s in stage(row, protocol, {"model": how}, RUNTIME)
        )
        nets = {"dlib_hog": finder, "dlib68": finder}
        found = (generated[method].read(key) for key in generated[method].keys)
        points = (
            s for one in found for s in compute_dlib_landmarks({"generated": UnitSamples([one])}, None, nets)
        )
        features[method] = {"landmarks.dlib68": KeptFamily(points)}
    for method in methods:
        features[method] |= stand_in_families(generated[method], generated["truth"])
    for method in ("toy", "dark", *SELF_BASELINES):
        out = tmp_path_factory.mktemp(method)
        scores[method] = scored_by(method, generated, features, out, Folder(context.out))
    samples = {
        model: samples_of(model, generated, tmp_path_factory.mktemp(f"samples_{model}"))
        for model in ("toy", "dark")
    }
    return Road(protocol, context, generated, features, scores, samples)


def stand_in_families(generated: KeptFamily, truth: KeptFamily) -> dict[str, KeptFamily]:
    """Feature -> its family, of one method."""
    made = [
        stand_in_features(key, generated.read(key)["frames"], truth.read(key)["frames"])
        for key in generated.keys
    ]
    return {name: KeptFamily([one[name] for one in made]) for name in made[0]}


def samples_of(model: str, generated: dict[str, KeptFamily], out: Path) -> KeptContext:
    """The node `samples.<model>.self`: two pairs, one of them moving."""
    roles = {"generated": model, "source": "copy_source", "driving": "truth"}
    inputs = {role: Shards(generated[method]) for role, method in roles.items()}
    config = SimpleNamespace(grid_pairs=2, videos=1)
    context = KeptContext(node=f"samples.{model}.self", config=config, inputs=inputs, out=out)
    publish_sample_frames(context)
    return context


def scored_by(
    method: str, generated: dict[str, KeptFamily], features: dict[str, dict[str, KeptFamily]], out: Path,
    pairs: Folder,
) -> KeptContext:  # fmt: skip
    """The node `score.<method>.self`."""
    inputs: dict[str, Any] = {"pairs": pairs, "generated": Shards(generated[method])}
    inputs["truth"] = Shards(generated["truth"])
    inputs |= {name: Shards(family) for name, family in features[method].items()}
    inputs |= {f"truth.{name}": Shards(family) for name, family in features["truth"].items()}
    for role, artifact in inputs.items():
        artifact.node = f"node of {role}"
        if role.endswith("landmarks.dlib68"):
            artifact.weights = {"dlib_sp68": DLIB_SP68_SHA256}
    config = SimpleNamespace(metrics=ROAD_METRICS)
    context = KeptContext(node=f"score.{method}.self", config=config, inputs=inputs, out=out)
    score_method(context, method, "baseline" if method in BASELINE_METHODS else "trained")
    return context


@pytest.fixture
def bright_faces():
    return BrightFaces()
