"""The trained model that `animate` uses: from a checkpoint file, a run file, or released weights."""

from __future__ import annotations

import importlib
import json
import reprlib
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from models import MODELS
from models.perception import NETS
from models.spec import load_model_spec
from models.weights import find_third_party_weights
from pipelines.cli.options import format_command
from pipelines.errors import UserError
from pipelines.nets import DLIB_REPLACEMENTS, face_nets_here
from pipelines.preprocess.clips_config import ClipsConfig
from pipelines.preprocess.keypoints import KeypointsConfig
from pipelines.runs.graph_builder import STAGE_INSTANCE_SECTIONS, instance_read_by
from storage import locations, weight_files
from storage.checkpoints import CHECKPOINT_FILES
from storage.files import Store, sha256_file

if TYPE_CHECKING:
    from models.reenactor import Precision, Reenactor
    from pipelines.config import RunConfig
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
    max_slip: float | None = None
    """Of stage keypoints for its training clips, as far as that is known (`KeypointsConfig.max_slip`)."""
    recorded: Mapping[str, Any] = field(default_factory=dict)
    """What the checkpoint's metadata say of `ModelSpec.recorded_stages`; none of released weights."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Entries that replace those of the checkpoint's metadata, or stand for those that it lacks."""
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
        checkpoint = replace(checkpoint, metadata={**checkpoint.metadata, **self.metadata})
        return load_reenactor(spec, {"renderer": checkpoint}, device, precision)


def apply_settings_without_run(
    location: ModelWeightsLocation, sets: Iterable[str], store: Store
) -> ModelWeightsLocation:
    """A model without a run file, with what `sets` say of it: `<model>.<setting>` of
    `ModelSpec.checkpoint_choices`, and the nets of `perception.faces`, else auto. UserError for any other
    setting: there is no run that it could change."""
    spec, faces, chosen = load_model_spec(location.model), "auto", dict(location.metadata)
    choices = {f"{spec.name}.{name}": (name, known) for name, known in spec.checkpoint_choices.items()}
    for text in sets:
        setting, _, value = (part.strip() for part in text.partition("="))
        if setting == "perception.faces" and value in ("auto", "mediapipe", "dlib"):
            faces = value
        elif setting in choices and value in choices[setting][1]:
            chosen[choices[setting][0]] = value
        else:
            others = [f" and {name}={' or '.join(known)}" for name, (_, known) in choices.items()]
            raise UserError(
                f"--set {text}: without --run there is only perception.faces=dlib (or mediapipe)"
                f"{''.join(others)}"
            )
    location = replace(location, metadata=chosen)
    if (face_nets_here(store) if faces == "auto" else faces) == "mediapipe":
        return location
    clips = msgspec.structs.replace(location.clips, detector=DLIB_REPLACEMENTS["mp_face"])
    landmarker = DLIB_REPLACEMENTS.get(location.landmarker, location.landmarker)
    if not location.recorded and "keypoints" in spec.recorded_stages:
        location = replace(location, metadata=chosen | {"keypoints": {"landmarker": landmarker}})
    limited = landmarker != location.landmarker and location.max_slip  # by what is another landmarker's
    max_slip = None if limited else location.max_slip
    return replace(location, clips=clips, landmarker=landmarker, max_slip=max_slip)


def check_chosen_nets(location: ModelWeightsLocation, reenactor: Reenactor) -> None:
    """UserError, which names the setting that does without, where the weights of a net are not here that
    `ModelSpec.checkpoint_choices` lets a user change."""
    spec = load_model_spec(location.model)
    for name, known in spec.checkpoint_choices.items():
        for net in set(reenactor.nets) & set(known):
            wanted = map(find_third_party_weights, NETS[net].weights)
            if missing := weight_files.describe_missing_weights(location.store, wanted):
                here = [one for one in known if all(_is_here(location.store, w) for w in NETS[one].weights)]
                options = " or ".join(f"--set {spec.name}.{name}={one}" for one in here)
                raise UserError(
                    f"{location.name} draws {name} {net}: {'; '.join(missing)}; or {options} draws another, "
                    "and what it makes says so"
                )


def _is_here(store: Store, weights: str) -> bool:
    return weight_files.are_weights_here(store, find_third_party_weights(weights))


def use_record(
    location: ModelWeightsLocation, recorded: Mapping[str, Any], path: Path
) -> ModelWeightsLocation:
    """With the landmarker and the slip limit of a checkpoint's record, which may be older than the limit.
    UserError, which names the file, for what is not known."""
    settings = recorded["keypoints"] if isinstance(recorded["keypoints"], Mapping) else {}
    landmarker, max_slip = settings.get("landmarker"), settings.get("max_slip")
    known = get_args(typing.get_type_hints(KeypointsConfig)["landmarker"])
    if landmarker not in known:
        raise UserError(
            f"{path}: keypoints.landmarker {reprlib.repr(landmarker)}: expected one of {', '.join(known)}"
        )
    try:
        limit = msgspec.convert({"max_slip": max_slip}, KeypointsConfig).max_slip
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: keypoints: {error}") from None
    return replace(location, recorded=recorded, landmarker=landmarker, max_slip=limit)


def read_record(path: Path, model: str) -> dict[str, Any]:
    """What a checkpoint's metadata say of the model's `recorded_stages`; empty of one that keeps no record of
    them."""
    metadata, stages = read_checkpoint_metadata(path), load_model_spec(model).recorded_stages
    return {stage: metadata[stage] for stage in stages} if set(stages) <= set(metadata) else {}


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
    location = ModelWeightsLocation(
        model=found, name=path.name, files={"": path}, clips=ClipsConfig(), store=store
    )
    if recorded := read_record(path, found):
        return use_record(location, recorded, path)
    return location


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
    if model is not None and model not in MODELS:
        raise UserError(f"no model {model!r}; known: {', '.join(MODELS)}")
    known: dict[str, str] = {}
    for name in MODELS if model is None else [model]:
        released = load_model_spec(name).released
        if weights_id in released:
            files = {
                one: weight_files.weights_path(store, find_third_party_weights(one))
                for one in released[weights_id].files
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
    if getattr(config, name).weights:
        return _released_of_run(session, name)
    found = _current(session, name, log) or _newest(
        session, name, partial(format_command, "why", run_file, sets), log
    )
    if found is None:
        raise UserError(
            f"no phase of {name} that renders images has been trained in {session.store}; "
            f"`{format_command('run', run_file, sets)}` trains it"
        )
    node, path = found
    keypoints = config.keypoints[instance_read_by(config, name, "keypoints")]
    location = ModelWeightsLocation(
        model=config.model_of[name],
        name=f"{node} of {config.name}",
        files={"": path},
        clips=config.clips,
        landmarker=keypoints.landmarker,
        max_slip=keypoints.max_slip,
        store=session.store,
    )
    of_run, recorded = _record_of_run(config, name), read_record(path, location.model)
    if not of_run:
        return location
    if not recorded:
        log(f"{location.name} does not record how faces were fitted: as the run says")
        return replace(location, metadata=of_run)
    if changed := _differences(of_run, recorded):
        log(f"{location.name} was trained with {changed}: so are faces fitted here")
    return use_record(location, recorded, path)


def _record_of_run(config: RunConfig, model: str) -> dict[str, Any]:
    """What a phase of the run would record of the model's `recorded_stages`."""
    spec = config.model_spec(model)
    return spec.checkpoint_record({
        stage: getattr(config, STAGE_INSTANCE_SECTIONS[stage])[instance_read_by(config, model, stage)]
        for stage in spec.recorded_stages
    })  # fmt: skip


def _released_of_run(session: RunSession, model: str) -> ModelWeightsLocation:
    """The released weights that a run evaluates, with its settings."""
    config, section = session.config, getattr(session.config, model)
    location = model_source_from_released(section.weights, config.model_of[model], session.store)
    chosen = {name: getattr(section, name) for name in config.model_spec(model).checkpoint_choices}
    keypoints = config.keypoints[instance_read_by(config, model, "keypoints")]
    return replace(
        location,
        clips=config.clips,
        landmarker=keypoints.landmarker,
        max_slip=keypoints.max_slip,
        metadata=chosen | _record_of_run(config, model),
    )


def _differences(of_run: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """ "fit3dmm.alignments 5 (1 in the run), ..."; empty where both say the same."""
    found = []
    for stage, settings in of_run.items():
        settings_on_record = recorded[stage] if isinstance(recorded[stage], Mapping) else {}
        found += [
            f"{stage}.{name} {reprlib.repr(settings_on_record[name])} ({value} in the run)"
            for name, value in settings.items()
            if name in settings_on_record and settings_on_record[name] != value
        ]
    return ", ".join(found)


def _current(session: RunSession, model: str, log: Log) -> tuple[str, Path] | None:
    """The last phase whose node is cached."""
    plans = session.make_planner().plan()
    session.save_caches()
    for node in _phases(session, model):
        artifact = plans[node].artifact
        if artifact is not None:
            path = artifact.path(_checkpoint_file(session, artifact.files))
            if "architecture" in read_checkpoint_metadata(path):
                _tell_if_no_best(session, node, path, log)
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
            files = {entry.name for entry in store.list(folder)}
            path = store.fetch(f"{folder}/{_checkpoint_file(session, files)}")
            if "architecture" in read_checkpoint_metadata(path):
                _tell_if_no_best(session, node, path, log)
                log(
                    f"{node} {folder.rsplit('/', 1)[1][:8]} is the newest in the store, trained with other "
                    f"settings, data or code than now: `{why(node)}`"
                )
                return node, path
    return None


def _checkpoint_file(session: RunSession, files: Collection[str]) -> str:
    """Of what a phase published, what `eval.checkpoint` asks for, else the last weights."""
    wanted = CHECKPOINT_FILES[session.config.eval.checkpoint]
    return wanted if wanted in files else CHECKPOINT_FILES["last"]


def _tell_if_no_best(session: RunSession, node: str, path: Path, log: Log) -> None:
    if path.name != CHECKPOINT_FILES[session.config.eval.checkpoint]:
        log(f"{node} kept no best weights, for which eval.checkpoint asks: its last ones are used")


def _phases(session: RunSession, model: str) -> list[str]:
    """Training nodes of a model, last phase first."""
    return [name for name in reversed(list(session.graph.nodes)) if name.startswith(f"train.{model}.")]
