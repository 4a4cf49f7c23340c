"""The configuration of a run: typed values beside their users, set by YAML and `--set`. Alone reads configs/.

A run file names fragments (`use: [data/synthetic, cluster/local]`, looked up in configs/), applied in order;
its own keys win over them, `--set a.b=c` over all. Mappings merge, lists are replaced; no interpolation.

The value of a `--set` is what was typed, made a number, true or false where its setting is one: no comments,
no octal numbers, no quotes. [a, b] and {a: 1} are YAML where the setting is a list or a mapping. null, or
nothing at all, is none where a setting may be none; ~ is the home folder, and only in a path.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

import yaml
from msgspec import Struct, defstruct, field
from msgspec.structs import replace

from models import MODELS
from models.spec import ModelSpec, load_model_spec
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.engine.keys import flatten_leaves, to_json_value
from pipelines.errors import UserError
from pipelines.eval.config import EvalConfig, ReportConfig
from pipelines.nets import DLIB_EYELID_WEIGHT, DLIB_REPLACEMENTS, PerceptionConfig
from pipelines.preprocess.clips_config import ClipsConfig, CropViewConfig, default_crop_views
from pipelines.preprocess.download import DownloadConfig
from pipelines.preprocess.fit3dmm import Fit3dmmConfig
from pipelines.preprocess.identity import IdentityConfig
from pipelines.preprocess.keypoints import KeypointsConfig
from pipelines.preprocess.recordings import DataConfig
from pipelines.preprocess.speech import SpeechFeaturesConfig
from pipelines.runs import snapshot
from pipelines.runs.old_settings import current_name_of, find_setting_replacement
from pipelines.runs.setting_values import (
    SettingError,
    UniqueKeyLoader,
    convert_settings,
    expand_home_paths,
    is_settings_class,
    parse_setting_value,
    setting_names,
    setting_type,
)
from storage.uris import absolute_uri

Settings = TypeVar("Settings", bound=Struct)
CONFIGS_FOLDER = snapshot.checkout_folder() / "configs"


class ConfigError(UserError):
    """A run file, fragment or --set that cannot be used; one line, for the user."""


DEFAULT_INSTANCE_NAME = "main"
"""The instance of a stage, and the corpus, that is there without being named."""


class RunConfig(Struct, frozen=True, kw_only=True):
    """A run. `load_config` adds a section for each model, and for each further instance of one.

    Corpora, keypoints, fits, speech and views are maps from an instance's name to its settings. A name is a
    label: the same settings under another name are computed once.
    """

    model_of: ClassVar[Mapping[str, str]] = {}
    """Section of a model -> the model's name in MODELS."""

    name: str = "run"
    """Shown in MLflow and in reports."""
    models: tuple[str, ...] = ("fsrt",)
    """The models to train and compare, by their sections. A section `fsrt_b: {model: fsrt, ...}` is another
    instance of fsrt: the settings of section fsrt, with those changes."""
    also: tuple[str, ...] = ()
    """Instances to compute besides those that the models read: fits.main, keypoints.fan, views.ffhq256."""
    data: dict[str, DataConfig] = field(default_factory=lambda: {DEFAULT_INSTANCE_NAME: DataConfig()})
    download: DownloadConfig = field(default_factory=DownloadConfig)
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    keypoints: dict[str, KeypointsConfig] = field(
        default_factory=lambda: {DEFAULT_INSTANCE_NAME: KeypointsConfig()}
    )
    fits: dict[str, Fit3dmmConfig] = field(default_factory=lambda: {DEFAULT_INSTANCE_NAME: Fit3dmmConfig()})
    speech: dict[str, SpeechFeaturesConfig] = field(
        default_factory=lambda: {DEFAULT_INSTANCE_NAME: SpeechFeaturesConfig()}
    )
    views: dict[str, CropViewConfig] = field(default_factory=default_crop_views)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        for kind in INSTANCE_SECTIONS:
            for name in getattr(self, kind):
                if not _INSTANCE.fullmatch(name):
                    raise ValueError(f"{kind}.{name}: expected letters, digits and _, a letter first")

    def model_spec(self, model: str) -> ModelSpec:
        """The spec of a model, by the name of its section."""
        return load_model_spec(self.model_of[model])


NET_SETTINGS = ("detector", "landmarker", "identity")
"""Settings of the clips and of keypoints that name a net."""
DLIB_ORIGIN = "perception.faces dlib"
"""Of a setting that stands for one of MediaPipe's."""
INSTANCE_SECTIONS = {
    "data": DataConfig, "keypoints": KeypointsConfig, "fits": Fit3dmmConfig, "speech": SpeechFeaturesConfig,
    "views": CropViewConfig,
}  # fmt: skip
"""Sections that are maps from an instance's name to settings of this class."""
_INSTANCE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def make_run_config_class(model_of: Mapping[str, str]) -> type[RunConfig]:
    """Config with a section for each of these models. model_of: section -> name in MODELS."""
    sections = [
        (name, kind := load_model_spec(model).config, field(default_factory=kind))
        for name, model in model_of.items()
    ]
    names = {"model_of": dict(model_of)}
    made = defstruct("RunConfig", sections, bases=(RunConfig,), frozen=True, kw_only=True, namespace=names)
    return cast("type[RunConfig]", made)


class LoadedConfig(Struct, frozen=True):
    """A resolved configuration and where each value that is not a default came from."""

    config: RunConfig
    origin: Mapping[str, str]
    path: Path


def load_config(path: Path, sets: Iterable[str] = ()) -> LoadedConfig:
    """Read a run file, its fragments and `--set`s. Raises ConfigError naming file, key, found, expected."""
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    run = _read(path)
    for name in _fragments(run, path):
        fragment = CONFIGS_FOLDER / f"{name}.yaml"
        _merge(tree, _read(fragment), str(_short_path(fragment)), origin)
    _merge(tree, run, str(_short_path(path)), origin)
    typed = [_set(text) for text in sets]
    kind = make_run_config_class(_model_sections(tree, typed, str(_short_path(path))))
    try:
        for pattern, text in typed:
            for dotted in _each_instance(pattern, tree):
                origin[dotted] = f"--set {pattern}"
                _merge(
                    tree, _nested(dotted, parse_setting_value(kind, dotted, text)), f"--set {pattern}", origin
                )
        _inherit(tree, kind.model_of)
        _unknown(kind, tree, "", origin, str(_short_path(path)))
        config = convert_settings(_over(to_json_value(kind()), expand_home_paths(tree, kind)), kind)
    except SettingError as error:
        raise ConfigError(f"{_from(error.path, origin, str(_short_path(path)))}: {error}") from None
    _check_models(config, origin, str(_short_path(path)))
    loaded = LoadedConfig(config, origin, path)
    return replace_nets_by_dlib(loaded) if config.perception.faces == "dlib" else loaded


def settle_face_nets(loaded: LoadedConfig, here: Literal["mediapipe", "dlib"]) -> LoadedConfig:
    """The run with `perception.faces: auto` settled. here: whose nets there are."""
    perception = replace(loaded.config.perception, faces=here)
    settled = replace(loaded, config=replace(loaded.config, perception=perception))
    return replace_nets_by_dlib(settled) if here == "dlib" else settled


def replace_nets_by_dlib(loaded: LoadedConfig) -> LoadedConfig:
    """The run with dlib's nets where it names MediaPipe's, and the weight of the eyelids that suits dlib's
    landmarks where it names none; `origin` says so of each."""
    config, origin = loaded.config, dict(loaded.origin)

    def by_dlib(settings: Settings, path: str) -> Settings:
        texts = {name: getattr(settings, name) for name in NET_SETTINGS if hasattr(settings, name)}
        changed = {name: DLIB_REPLACEMENTS[net] for name, net in texts.items() if net in DLIB_REPLACEMENTS}
        origin.update({f"{path}.{name}": DLIB_ORIGIN for name in changed})
        return replace(settings, **changed)

    keypoints = {name: by_dlib(one, f"keypoints.{name}") for name, one in config.keypoints.items()}
    fits = dict(config.fits)
    for name, fit in fits.items():
        path = f"fits.{name}.eyelid_weight"
        landmarker = origin.get(f"keypoints.{fit.keypoints}.landmarker")
        if landmarker == DLIB_ORIGIN and path not in origin:
            fits[name] = replace(fit, eyelid_weight=DLIB_EYELID_WEIGHT)
            origin[path] = DLIB_ORIGIN
    clips = by_dlib(config.clips, "clips")
    return LoadedConfig(replace(config, clips=clips, keypoints=keypoints, fits=fits), origin, loaded.path)


def _each_instance(pattern: str, tree: Mapping[str, Any]) -> list[str]:
    """data.*.limit -> that setting of every instance in the run."""
    section, star, rest = pattern.partition(".*.")
    if not star or section not in INSTANCE_SECTIONS:
        return [pattern]
    return [f"{section}.{name}.{rest}" for name in tree.get(section) or (DEFAULT_INSTANCE_NAME,)]


def _model_sections(tree: Mapping[str, Any], sets: Iterable[tuple[str, str]], file: str) -> dict[str, str]:
    """Section of a model -> its name in MODELS: of those that the run names, and further instances."""
    given = {path.split(".")[0] for path, _ in sets} | tree.keys()
    listed = [text for path, text in sets if path == "models"] or [str(tree.get("models", ("fsrt",)))]
    found = {name: name for name in MODELS if name in given or re.search(rf"\b{name}\b", listed[-1])}
    for name, section in tree.items():
        if isinstance(section, Mapping) and "model" in section:
            if section["model"] not in MODELS:
                known = ", ".join(MODELS)
                raise ConfigError(f"{file}: {name}.model {section['model']!r}: expected one of {known}")
            found[name] = section["model"]
    for name in found.values():
        found.setdefault(name, name)
    return found


def _inherit(tree: dict[str, Any], model_of: Mapping[str, str]) -> None:
    """Fill the sections of further instances from the section that they name."""
    for name, model in model_of.items():
        if name != model:
            own = {key: value for key, value in tree[name].items() if key != "model"}
            tree[name] = _over(tree.get(model, {}), own)


def _check_models(config: RunConfig, origin: Mapping[str, str], file: str) -> None:
    for name in config.models:
        if name not in config.model_of:
            raise ConfigError(
                f"{_from('models', origin, file)}: models names {name!r}; known: "
                f"{', '.join(config.model_of)}. Another instance of a model is a section, as in "
                f"{name}: {{model: fsrt, ...}}"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(), Loader=UniqueKeyLoader)
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}; {_near_files(path)}") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise ConfigError(f"{path}: not a YAML file") from None
    except (yaml.YAMLError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise ConfigError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: found a {type(tree).__name__}, expected a mapping of settings")
    return tree


def _fragments(run: dict[str, Any], path: Path) -> list[str]:
    uses = run.pop("use", [])
    if not isinstance(uses, list) or not all(isinstance(u, str) for u in uses):
        raise ConfigError(f"{path}: use: found {uses!r}, expected a list of fragments such as data/synthetic")
    for name in uses:
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ConfigError(f"{path}: use: {name!r} leaves configs/")
    return uses


def _merge(
    tree: dict[str, Any], over: Mapping[str, object], source: str, origin: dict[str, str], prefix: str = ""
) -> None:
    for key, value in over.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value, source, origin, f"{dotted}.")
        else:
            tree[key] = value
            origin |= (
                {path: source for path in flatten_leaves(value, dotted)}
                if _plain(value)
                else {dotted: source}
            )


def _plain(value: object) -> bool:
    try:
        to_json_value(value)
    except (TypeError, ValueError):
        return False
    return True


def _set(text: str) -> tuple[str, str]:
    """Path and value of a `--set`, as typed."""
    dotted, equals, value = text.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {text!r}: expected a.b=value")
    return dotted.strip(), value


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return value


def _over(defaults: Any, tree: Any) -> Any:
    """The defaults with the tree's values in place, so that one number of one phase can change."""
    if isinstance(defaults, dict) and isinstance(tree, Mapping):
        return defaults | {key: _over(defaults.get(key), value) for key, value in tree.items()}
    return tree


def _unknown(kind: Any, tree: Any, prefix: str, origin: Mapping[str, str], file: str) -> None:
    """Unknown keys, at any depth, with the nearest known one."""
    if not isinstance(tree, Mapping):
        return
    if not is_settings_class(kind):
        for one in typing.get_args(kind):  # of a union
            _unknown(one, tree, prefix, origin, file)
        return
    known = setting_names(kind)
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if now := find_setting_replacement(dotted):
            raise ConfigError(f"{_from(dotted, origin, file)}: {dotted} is gone; use {now}")
        if key not in known:
            if now := current_name_of(prefix, key):
                raise ConfigError(
                    f"{_from(dotted, origin, file)}: {dotted} is now called {now}; change the name"
                )
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{_from(dotted, origin, file)}: {dotted}: unknown key; {hint}")
        if not isinstance(value, Mapping):
            continue
        expected = setting_type(kind, key)
        for inner in (expected, *typing.get_args(expected)):
            if typing.get_origin(expected) is dict:
                for name, one in value.items():
                    if now := _instance_setting(f"{dotted}.", name, one):
                        where = _from(f"{dotted}.{name}", origin, file)
                        raise ConfigError(f"{where}: {dotted}.{name} is gone; use {now}")
                    _unknown(inner, one, f"{dotted}.{name}.", origin, file)
            else:
                _unknown(inner, value, f"{dotted}.", origin, file)


def _instance_setting(prefix: str, key: str, value: object) -> str | None:
    """What to write for a setting that stood right under a section which is a map of instances today."""
    section = prefix.rstrip(".")
    settings = INSTANCE_SECTIONS.get(section)
    if settings is None or key not in setting_names(settings):
        return None
    if isinstance(value, Mapping) and not is_settings_class(setting_type(settings, key)):
        return None  # an instance that happens to be called so
    return f"{section}.NAME.{key}, as in {section}.{DEFAULT_INSTANCE_NAME}.{key}"


def _from(dotted: str, origin: Mapping[str, str], file: str) -> str:
    """Which file or --set a value came from: the longest known prefix, or anything below it."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        for path, source in origin.items():
            if path == name or path.startswith(f"{name}."):
                return source
    return file


def _short_path(path: Path) -> Path:
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def _near_files(path: Path) -> str:
    known = sorted(str(_short_path(p)) for p in CONFIGS_FOLDER.rglob("*.yaml"))
    near = difflib.get_close_matches(str(path), known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def config_to_yaml(loaded: LoadedConfig) -> str:
    """The whole tree as YAML, each value that is not a default with where it came from."""
    lines: list[str] = []

    def show(value: Any, indent: int, prefix: str) -> None:
        for key, inner in value.items():
            dotted = f"{prefix}{key}"
            if isinstance(inner, dict) and inner:
                lines.append(f"{'  ' * indent}{key}:")
                show(inner, indent + 1, f"{dotted}.")
            else:
                text = yaml.safe_dump(inner, default_flow_style=True, width=1000)
                came = f"  # {loaded.origin[dotted]}" if dotted in loaded.origin else ""
                lines.append(f"{'  ' * indent}{key}: {text.strip().removesuffix('...').strip()}{came}")

    show(to_json_value(loaded.config), 0, "")
    return "\n".join(lines)


def settings_class_names(kind: type) -> set[str]:
    """ "module:class" of every class of settings. By the words of the annotations: to evaluate them would
    take a tenth of a plan's time."""
    found = {f"{kind.__module__}:{kind.__qualname__}"}
    for home in kind.__mro__:
        known = vars(sys.modules[home.__module__])
        for annotation in vars(home).get("__annotations__", {}).values():
            words = re.findall(r"\w+", annotation) if isinstance(annotation, str) else []
            parts = [known[word] for word in words if word in known] or [annotation]
            found |= set().union(*(settings_class_names(part) for part in parts if is_settings_class(part)))
    return found


def store_uri(config: RunConfig) -> str:
    """Absolute: workers run in other folders."""
    return absolute_uri(os.environ.get("REENACT_STORE") or config.runtime.store)
