"""The trained model that `animate` uses: from a checkpoint file, a run file, or released weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models import MODELS
from models.spec import load_model_spec
from pipelines.cli.options import format_command
from pipelines.errors import UserError
from pipelines.nets import DLIB_REPLACEMENTS, face_nets_here
from pipelines.preprocess.clips_config import ClipsConfig
from storage import locations
from storage.checkpoints import CHECKPOINT_FILES
from storage.files import Store, sha256_file

if TYPE_CHECKING:
    from models.reenactor import Precision, Reenactor
    from pipelines.runs.session import RunSession

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelWeightsLocation:
    """Where a model's weights are, before anything heavy is loaded."""

    model: str
    name: str
    """Of the checkpoint, for people."""
    files: dict[str, Path]
    """{"": model.safetensors}, or imported released files by their ids."""
    clips: ClipsConfig
    """How its training clips were cut, as far as that is known."""
    landmarker: str = "mesh468_iris"
    """In models.perception.NETS: the landmarker of its training clips, as far as that is known."""
    fits: str = "landmarks"
    """Backend of fit3dmm, likewise."""
    store: Store
    """Where the weights of perception nets are."""

    @property
    def digest(self) -> str:
        """sha256 of the checkpoint; of several files, each by its id."""
        if set(self.files) == {""}:
            return sha256_file(self.files[""])
        return ", ".join(f"{name} {sha256_file(path)}" for name, path in sorted(self.files.items()))

    def load(self, device: str, precision: Precision) -> Reenactor:
        """InvalidFile, naming the tensors, where the file is another model's."""
        from models.checkpoint import read_checkpoint
        from models.loading import load_reenactor

        spec = load_model_spec(self.model)
        if set(self.files) == {""}:
            checkpoint = read_checkpoint(self.files[""])
        else:
            reader = spec.released[self.name].reader.partition(":")[0]
            checkpoint = importlib.import_module(reader).load_released(self.files)
        return load_reenactor(spec, {"renderer": checkpoint}, device, precision)


def apply_face_net_settings(
    location: ModelWeightsLocation, sets: Iterable[str], store: Store
) -> ModelWeightsLocation:
    """A model without a run file, with the nets of `perception.faces`: as `sets` has it, else auto. UserError
    for any other setting: there is no run that it could change."""
    faces = "auto"
    for text in sets:
        setting, _, faces = (part.strip() for part in text.partition("="))
        if setting != "perception.faces" or faces not in ("auto", "mediapipe", "dlib"):
            raise UserError(f"--set {text}: without --run there is only perception.faces=dlib (or mediapipe)")
    if (face_nets_here(store) if faces == "auto" else faces) == "mediapipe":
        return location
    clips = msgspec.structs.replace(location.clips, detector=DLIB_REPLACEMENTS["mp_face"])
    return replace(location, clips=clips, landmarker=DLIB_REPLACEMENTS["mesh468_iris"])


def model_source_from_checkpoint(
    path: Path, model: str | None, store: Store, log: Log
) -> ModelWeightsLocation:
    """A model.safetensors that a phase published; its metadata says which model it is."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    found = read_checkpoint_metadata(path).get("model")
    if not isinstance(found, str) or found not in MODELS:
        raise UserError(f"{path} names the model {found!r}; known: {', '.join(MODELS)}")
    if model is not None and model != found:
        raise UserError(f"{path} holds {found}, not {model}")
    log(f"{path.name} does not record how its clips were cut: the defaults, but for --size, --margin, --lift")
    return ModelWeightsLocation(
        model=found, name=path.name, files={"": path}, clips=ClipsConfig(), store=store
    )


def read_checkpoint_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a training phase's checkpoint. UserError for files of another kind, with what to do."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get("reenact")
    except SafetensorError as error:
        raise UserError(
            f"{path} is no safetensors file ({error}); published .pt: `reenact weights import ID FILE`, "
            "then `--weights ID`"
        ) from None
    if text is None:
        raise UserError(f"{path} is no checkpoint of a training phase: its metadata has no 'reenact'")
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: its metadata 'reenact' is no JSON ({error})") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path}: its metadata 'reenact' is a {type(metadata).__name__}, expected an object")
    return metadata


def model_source_from_released(weights_id: str, model: str | None, store: Store) -> ModelWeightsLocation:
    """Released weights that were imported; where they were not, the error says how to obtain them."""
    from models.weights import find_third_party_weights
    from storage.weight_files import weights_path

    if model is not None and model not in MODELS:
        raise UserError(f"no model {model!r}; known: {', '.join(MODELS)}")
    known: dict[str, str] = {}
    for name in MODELS if model is None else [model]:
        released = load_model_spec(name).released
        if weights_id in released:
            files = {
                one: weights_path(store, find_third_party_weights(one)) for one in released[weights_id].files
            }
            return ModelWeightsLocation(
                model=name, name=weights_id, files=files, clips=ClipsConfig(), store=store
            )
        known |= dict.fromkeys(released, name)
    raise UserError(f"no released weights {weights_id!r}; known: {', '.join(known) or 'none'}")


def model_source_from_run(
    run_file: Path, sets: Iterable[str], model: str | None, log: Log
) -> ModelWeightsLocation:
    """The last phase of a run's model that has been trained and renders images: with the run's present
    settings and code, else the newest in its store, which is logged.
    """
    from pipelines.runs.session import open_session

    session = open_session(run_file, sets)
    config = session.config
    if model is not None and model not in config.models:
        raise UserError(f"{run_file} trains {', '.join(config.models)}, not {model}")
    name = model or config.models[0]
    found = _current(session, name) or _newest(
        session, name, partial(format_command, "why", run_file, sets), log
    )
    if found is None:
        raise UserError(
            f"no phase of {name} that renders images has been trained in {session.store}; "
            f"`{format_command('run', run_file, sets)}` trains it"
        )
    node, path = found
    section = getattr(config, name)
    fits = config.fits[section.fits] if hasattr(section, "fits") else None
    keypoints = fits.keypoints if fits else section.keypoints
    name_of = f"{node} of {config.name}"
    return ModelWeightsLocation(
        model=config.model_of[name],
        name=name_of,
        files={"": path},
        clips=config.clips,
        landmarker=config.keypoints[keypoints].landmarker,
        fits=fits.backend if fits else "landmarks",
        store=session.store,
    )


def _current(session: RunSession, model: str) -> tuple[str, Path] | None:
    """The last phase whose node is cached."""
    plans = session.make_planner().plan()
    session.save_caches()
    for node in _phases(session, model):
        artifact = plans[node].artifact
        if artifact is not None:
            which = CHECKPOINT_FILES[session.config.eval.checkpoint]
            path = artifact.path(which if which in artifact.files else CHECKPOINT_FILES["last"])
            if "architecture" in read_checkpoint_metadata(path):
                return node, path
    return None


def _newest(session: RunSession, model: str, why: Callable[..., str], log: Log) -> tuple[str, Path] | None:
    """The newest checkpoint of the last phase that has one in the store. why: node -> the command that
    explains it."""
    store = session.store
    for node in _phases(session, model):
        stage = locations.artifacts_folder(session.graph[node].stage)
        folders = [f"{stage}/{key}" for key in store.list_folders(stage)]
        dated = sorted(
            (entry.mtime, folder)
            for folder in folders
            for entry in store.list(folder)
            if entry.name == "record.json"
        )
        for _, folder in reversed(dated):
            path = store.fetch(f"{folder}/{CHECKPOINT_FILES['last']}")
            if "architecture" in read_checkpoint_metadata(path):
                log(
                    f"{node} {folder.rsplit('/', 1)[1][:8]} is the newest in the store, trained with other "
                    f"settings, data or code than now: `{why(node)}`"
                )
                return node, path
    return None


def _phases(session: RunSession, model: str) -> list[str]:
    """Training nodes of a model, last phase first."""
    return [name for name in reversed(list(session.graph.nodes)) if name.startswith(f"train.{model}.")]
