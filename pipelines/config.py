"""The configuration of a run: typed values beside their users, set by YAML and `--set`. Alone reads configs/.

A run file names fragments (`use: [data/synthetic, cluster/local]`, looked up in configs/), applied in order;
its own keys win over them, `--set a.b=c` over all. Mappings merge, lists are replaced; no interpolation.

The value of a `--set` is what was typed, made a number, true or false where its setting is one: no comments,
no octal numbers, no quotes. [a, b] and {a: 1} are YAML where the setting is a list or a mapping. null, or
nothing at all, is none where a setting may be none; ~ is the home folder, and only in a path.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import sys
import types
import typing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from models.fsrt.config import FsrtConfig
from models.headgan.config import HeadGanConfig
from pipelines.cluster.runtime import RuntimeConfig
from pipelines.engine.keys import canonical, leaves
from pipelines.errors import UserError
from pipelines.eval.evaluate import EvalConfig
from pipelines.eval.report import ReportConfig
from pipelines.preprocess.clips import ClipsConfig
from pipelines.preprocess.download import DownloadConfig
from pipelines.preprocess.fit3dmm import Fit3dmmConfig
from pipelines.preprocess.keypoints import KeypointsConfig
from pipelines.preprocess.recordings import DataConfig
from pipelines.preprocess.speech import SpeechConfig
from pipelines.preprocess.views import ViewsConfig
from pipelines.runs import snapshot
from storage.uris import absolute

CONFIGS = snapshot.checkout() / "configs"
RENAMED: dict[str, str] = {}
"""Settings that got another name: today's path, in which `*` stands for any one part -> the last part of the
old one, which keys go on to hold, so that renaming a setting makes nothing stale."""
RETIRED = {
    "runtime.preview_every": "MODEL.phases.NAME.validate_every, as in fsrt.phases.warmup.validate_every=500",
}
"""Settings that were replaced by others of another meaning -> those."""


class ConfigError(UserError):
    """A run file, fragment or --set that cannot be used; one line, for the user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    name: str = "run"
    """Shown in MLflow and in reports."""
    models: tuple[Literal["fsrt", "headgan"], ...] = ("fsrt",)
    """The models to train and compare."""
    data: DataConfig = field(default_factory=DataConfig)
    download: DownloadConfig = field(default_factory=DownloadConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    keypoints: KeypointsConfig = field(default_factory=KeypointsConfig)
    fit3dmm: Fit3dmmConfig = field(default_factory=Fit3dmmConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    fsrt: FsrtConfig = field(default_factory=FsrtConfig)
    headgan: HeadGanConfig = field(default_factory=HeadGanConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass(frozen=True)
class Loaded:
    """A resolved configuration and where each value that is not a default came from."""

    config: Config
    origin: Mapping[str, str]
    path: Path


def load(path: Path, sets: Iterable[str] = ()) -> Loaded:
    """Read a run file, its fragments and `--set`s. Raises ConfigError naming file, key, found, expected."""
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    run = _read(path)
    for name in _uses(run, path):
        fragment = CONFIGS / f"{name}.yaml"
        _merge(tree, _read(fragment), str(_shown(fragment)), origin)
    _merge(tree, run, str(_shown(path)), origin)
    for text in sets:
        dotted, value = _set(text)
        _merge(tree, _nested(dotted, value), f"--set {dotted}", origin)
    _unknown(Config, tree, "", origin, str(_shown(path)))
    defaults = canonical(Config())
    try:
        config = TypeAdapter(Config).validate_python(_over(defaults, tree), strict=False)
    except ValidationError as error:
        raise ConfigError(_told(error, origin, str(_shown(path)))) from None
    return Loaded(config, origin, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(), Loader=_Loader)
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


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # pyright: ignore
    """Refuses a key given twice, which plain YAML lets the last one win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable) or name in seen:
                problem = "is given twice" if isinstance(name, Hashable) else "is no text"
                told = f"key {name!r} {problem}"
                raise yaml.constructor.ConstructorError(None, None, told, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _uses(run: dict[str, Any], path: Path) -> list[str]:
    uses = run.pop("use", [])
    if not isinstance(uses, list) or not all(isinstance(u, str) for u in uses):
        raise ConfigError(f"{path}: use: found {uses!r}, expected a list of fragments such as data/synthetic")
    for name in uses:
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ConfigError(f"{path}: use: {name!r} leaves configs/")
    return uses


def _merge(
    tree: dict[str, Any], over: Mapping[str, Any], source: str, origin: dict[str, str], prefix: str = ""
) -> None:
    for key, value in over.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value, source, origin, f"{dotted}.")
        else:
            tree[key] = value
            origin |= {path: source for path in leaves(value, dotted)} if _plain(value) else {dotted: source}


def _plain(value: Any) -> bool:
    try:
        canonical(value)
    except (TypeError, ValueError):
        return False
    return True


def _set(text: str) -> tuple[str, Any]:
    dotted, equals, value = text.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {text!r}: expected a.b=value")
    dotted = dotted.strip()
    return dotted, _typed(dotted, value)


def _typed(dotted: str, text: str) -> Any:
    """What was typed as a value of its setting's type, as far as pydantic does not see to that."""
    kinds = _kinds(Config, dotted.split("."))
    if text in ("", "null") and type(None) in kinds:
        return None
    if text.lstrip().startswith(("[", "{")) and str not in kinds:
        try:
            return yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError):  # ValueError: of a date that no calendar has
            raise ConfigError(f"--set {dotted}: {text!r} is not a YAML list or mapping") from None
    if int in kinds and re.fullmatch(r"[-+]?[0-9.]+e[-+]?[0-9]+", text.strip(), re.IGNORECASE):
        with suppress(ValueError):
            return float(text)  # 2e5 steps
    return text


def _kinds(kind: Any, path: Sequence[str]) -> set[Any]:
    """The types that the setting at this path may have, str and int and so on; of an unknown one none."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return set().union(*(_kinds(one, path) for one in typing.get_args(kind)))
    if not path:
        return {kind}
    if dataclasses.is_dataclass(kind):
        return _kinds(typing.get_type_hints(kind).get(path[0]), path[1:])
    if typing.get_origin(kind) is dict:
        return _kinds(typing.get_args(kind)[1], path[1:])
    return set()


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
    if not dataclasses.is_dataclass(kind):
        for one in typing.get_args(kind):  # of a union
            _unknown(one, tree, prefix, origin, file)
        return
    hints = typing.get_type_hints(kind)
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if dotted in RETIRED:
            raise ConfigError(f"{_from(dotted, origin, file)}: {dotted} is gone; use {RETIRED[dotted]}")
        if key not in hints:
            if now := _renamed(prefix, key):
                raise ConfigError(
                    f"{_from(dotted, origin, file)}: {dotted} is now called {now}; change the name"
                )
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints)}"
            raise ConfigError(f"{_from(dotted, origin, file)}: {dotted}: unknown key; {hint}")
        for inner in (hints[key], *typing.get_args(hints[key])):
            if typing.get_origin(hints[key]) is dict and isinstance(value, Mapping):
                for name, one in value.items():
                    _unknown(inner, one, f"{dotted}.{name}.", origin, file)
            else:
                _unknown(inner, value, f"{dotted}.", origin, file)


def _renamed(prefix: str, key: str) -> str | None:
    """The name that a setting has today, or None."""
    parts = [*prefix.split(".")[:-1], key]
    for now, before in RENAMED.items():
        pattern = [*now.split(".")[:-1], before]
        if len(pattern) == len(parts) and all(
            p in ("*", part) for p, part in zip(pattern, parts, strict=True)
        ):
            return ".".join([*parts[:-1], now.rpartition(".")[2]])
    return None


def _from(dotted: str, origin: Mapping[str, str], file: str) -> str:
    """Which file or --set a value came from: the longest known prefix, or anything below it."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        for path, source in origin.items():
            if path == name or path.startswith(f"{name}."):
                return source
    return file


def _told(error: ValidationError, origin: Mapping[str, str], file: str) -> str:
    first = error.errors()[0]
    dotted = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    found = first.get("input")
    told = isinstance(found, (Mapping, list)) or first["type"] == "value_error"
    shown = "" if told else f" (found {found!r})"
    return f"{_from(dotted, origin, file)}: {dotted}: {message}{shown}"


def _shown(path: Path) -> Path:
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def _near_files(path: Path) -> str:
    known = sorted(str(_shown(p)) for p in CONFIGS.rglob("*.yaml"))
    near = difflib.get_close_matches(str(path), known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def resolved(loaded: Loaded) -> str:
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

    show(canonical(loaded.config), 0, "")
    return "\n".join(lines)


def classes(kind: type = Config) -> set[str]:
    """ "module:class" of every class of settings. By the words of the annotations: to evaluate them would
    take a tenth of a plan's time."""
    found = {f"{kind.__module__}:{kind.__qualname__}"}
    for field_ in dataclasses.fields(kind):
        if isinstance(field_.type, str):
            names = vars(sys.modules[kind.__module__])
            parts = [names.get(word) for word in re.findall(r"\w+", field_.type)]
        else:
            parts = [field_.type]
        found |= set().union(
            *(classes(p) for p in parts if isinstance(p, type) and dataclasses.is_dataclass(p))
        )
    return found


def store_uri(config: Config) -> str:
    """Absolute: workers run in other folders."""
    return absolute(os.environ.get("REENACT_STORE") or config.runtime.store)
