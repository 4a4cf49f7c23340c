"""What every command starts from: the run file, its graph, its store and what the planner looks at."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from models import MODELS
from models.perception import NETS
from models.weights import WeightsFile, find_third_party_weights
from pipelines import config as configuration
from pipelines.engine import messages, symbols
from pipelines.engine.file_cache import FileFactCache, folders_stamp
from pipelines.engine.fingerprint import (
    PACKAGE_NOT_INSTALLED,
    KeyEnvironment,
    package_version,
    resolve_entry_point,
)
from pipelines.engine.keys import hash_json, lookup_setting
from pipelines.engine.node import Graph
from pipelines.engine.node_plan import NodePlan
from pipelines.engine.plan import Planner, PlanOptions
from pipelines.engine.setting_renames import SettingRenames
from pipelines.engine.source_code import SourceSymbolIndex
from pipelines.errors import UserError
from pipelines.graph import build_graph
from pipelines.nets import DLIB_LIMITS, EMBEDDED_REPLACEMENTS, MEDIAPIPE_INSTALL_COMMAND, face_nets_here
from pipelines.runs import old_settings
from pipelines.runs.graph_builder import recordings_nodes_by_corpus
from pipelines.runs.method_notes import describe_left_out_baselines
from pipelines.runs.snapshot import CODE_ROOT, PROJECT_PACKAGES
from storage import format_version, locations, weight_files
from storage.content_cache import cache_folder
from storage.files import Store, sha256_file
from storage.weight_licences import describe_licence, needs_acceptance

NON_NUMERIC_MODULES = (
    "pipelines.cli", "pipelines.cluster", "pipelines.config", "pipelines.engine", "pipelines.errors",
    "pipelines.media.ffmpeg_tool", "pipelines.preprocess.fetch", "pipelines.runs",
    "pipelines.tracking", "pipelines.train.checks", "pipelines.train.process_group", "pipelines.train.launch",
    "pipelines.train.meters", "pipelines.train.metric_log", "pipelines.train.monitor",
    "pipelines.train.nonfinite", "pipelines.train.stop_file", "pipelines.train.validation_grid",
    "pipelines.train.validation_metrics", "pipelines.train.validation_nets", "pipelines.train.worker",
    "models.errors", "models.phase_checks", "models.provenance", "models.spec", "models.weights", "storage",
)  # fmt: skip
"""What moves bytes, messages and processes, and what is only shown: an edit there changes no number, so these
files and folders are in no key. All else is, where a node reaches it."""
NUMERIC_STORAGE_MODULES = ("storage.codecs", "storage.frame_codec")
"""Files of theirs that do compute numbers."""
TOOL_VERSION_FUNCTIONS = {"ffmpeg": "pipelines.media:ffmpeg_version"}
TOOL_FALLBACK_REASON_FUNCTIONS = {"ffmpeg": "pipelines.media:packaged_ffmpeg_reason"}
"""Tool -> the function that says why it is not the one on PATH, "" if it is."""


@dataclass
class RunSession:
    loaded: configuration.LoadedConfig
    store: Store
    graph: Graph

    @property
    def config(self) -> configuration.RunConfig:
        return self.loaded.config

    @cached_property
    def symbol_cache(self) -> FileFactCache:
        """Source files as symbols; read only when a source file has changed."""
        return FileFactCache(cache_folder() / "files.json", _parser())

    def parse_source_file(self, path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A source file as symbols, found by its place in the project and its content: those of the checkout
        serve the snapshot of it that a run executes."""
        place = path.relative_to(CODE_ROOT).as_posix()
        return self.symbol_cache.get(self.symbol_cache.path.parent, make, place, hash_json(path.read_text()))

    @cached_property
    def code_cache(self) -> FileFactCache:
        """What code each node runs, as long as no source file changes."""
        return FileFactCache(cache_folder() / "code.json", _parser())

    @cached_property
    def code_query_memoizer(self) -> Callable[[str, Callable[[], Any]], Any]:
        stamp = folders_stamp([CODE_ROOT / package for package in PROJECT_PACKAGES], ".py")
        return lambda question, make: self.code_cache.get(CODE_ROOT, make, question, stamp)

    def save_caches(self) -> None:
        self.symbol_cache.save()
        self.code_cache.save()

    @cached_property
    def key_environment(self) -> KeyEnvironment:
        return KeyEnvironment(
            code=open_project_source_code(
                type(self.config), self.parse_source_file, self.code_query_memoizer
            ),
            weights=lambda name: self.current_sha256(find_third_party_weights(name)),
            has_weights=lambda name: weight_files.are_weights_here(
                self.store, find_third_party_weights(name)
            ),
            tool=lambda name: resolve_entry_point(TOOL_VERSION_FUNCTIONS[name])(),
            package=self.package_version,
            renamed=SettingRenames(old_settings.FORMER_SETTING_NAMES, old_settings.FORMER_SETTING_VALUES),
        )

    def current_sha256(self, weights: WeightsFile) -> str:
        """Of the file that lies there, read again only when it changed: a key never names other bytes than
        those that a net would be loaded from."""

        def digest(path: Path) -> str:
            return self.code_cache.get(path, partial(sha256_file, path), "sha256")

        return weight_files.current_sha256(self.store, weights, digest)

    def package_version(self, name: str) -> str:
        """Kept until something is installed or removed, which changes the time of a folder on the path."""
        return self.code_cache.get(
            CODE_ROOT, partial(package_version, name), f"package {name}", self.installed_stamp
        )

    @cached_property
    def installed_stamp(self) -> str:
        folders = [Path(folder) for folder in sys.path if os.path.isdir(folder)]
        return hash_json([(str(folder), folder.stat().st_mtime_ns) for folder in folders])

    def make_planner(self, force: Iterable[str] = (), retry_rejected: bool = False) -> Planner:
        for name in force:
            _ = self.graph[name]  # raises for an unknown node
        options = PlanOptions(frozenset(force), retry_rejected, self.pinned_corpus_artifact_keys())
        return Planner(self.graph, self.config, self.store, self.key_environment, options)

    def notes(self) -> list[str]:
        """What to know of tools, nets and baselines before a run."""
        return [*self.tool_notes(), *self.net_notes(), *describe_left_out_baselines(self.graph, self.config)]

    def tool_notes(self) -> list[str]:
        """What to know of the tools that the nodes use."""
        used = sorted({name for node in self.graph.nodes.values() for name in node.tools})
        return [
            f"note: {why}"
            for name in used
            if (why := resolve_entry_point(TOOL_FALLBACK_REASON_FUNCTIONS[name])())
        ]

    def used_weights(self) -> list[WeightsFile]:
        """Those that the nodes use and that are here, by id."""
        used = sorted({weights for node in self.graph.nodes.values() for weights in node.weights})
        files = map(find_third_party_weights, used)
        return [one for one in files if weight_files.are_weights_here(self.store, one)]

    def licences(self) -> dict[str, str]:
        """Of `used_weights`: id -> the licence, and of those that are not for any use their class and
        whether it was accepted."""
        found: dict[str, str] = {}
        for one in self.used_weights():
            imported = weight_files.find_packaged_file(one) is None
            record = weight_files.read_import_record(self.store, one) if imported else {}
            about = f" ({describe_licence(one, record, imported)})" if needs_acceptance(one) else ""
            found[one.id] = one.licence + about
        return found

    def net_notes(self) -> list[str]:
        """What to know of the nets that the nodes use: licences of their weights that are here, and what
        dlib's miss."""
        by_licence: dict[str, list[str]] = {}
        for one, licence in self.licences().items():
            by_licence.setdefault(licence, []).append(one)
        notes = [f"licence of {', '.join(ids)}: {licence}" for licence, ids in by_licence.items()]
        if configuration.DLIB_ORIGIN in self.loaded.origin.values():
            notes.append(
                f"perception.faces dlib: {DLIB_LIMITS}; MediaPipe's nets: {MEDIAPIPE_INSTALL_COMMAND}"
            )
        return notes

    def required_weights(self, plans: Mapping[str, NodePlan]) -> list[WeightsFile]:
        """Without which a run of these nodes is refused, and those at hand that it would load: of a wheel of
        another version it is refused too."""
        at_work = [plan.node for plan in plans.values() if plan.has_work]
        ids = sorted(
            {
                one
                for node in at_work
                for one in node.weights
                if node.missing_weights == "error"
                or weight_files.are_weights_here(self.store, find_third_party_weights(one))
            }
        )
        return [find_third_party_weights(one) for one in ids]

    def missing_weights(self, plans: Mapping[str, NodePlan]) -> str:
        """One line: which of those that a run of these nodes must have are not here, and how to get them."""
        instead = self.embedded_nets_instead(plans)
        wanted = [
            replace(one, instead=" ".join(instead[one.id])) if one.id in instead else one
            for one in self.required_weights(plans)
        ]
        return "; ".join(weight_files.describe_missing_weights(self.store, wanted))

    def changed_weights(self, plans: Mapping[str, NodePlan]) -> str:
        """One line: which of those that a run of these nodes would load are no longer the pinned ones."""
        found = []
        for one in self.required_weights(plans):
            if not weight_files.are_weights_here(self.store, one):
                continue
            current, pinned = self.current_sha256(one), weight_files.pinned_sha256(self.store, one)
            if current != pinned:
                found.append(weight_files.describe_changed_weights(self.store, one, current, pinned))
        return "; ".join(found)

    def embedded_nets_instead(self, plans: Mapping[str, NodePlan]) -> dict[str, list[str]]:
        """Weights of detectors and landmarkers that nodes at work ask for -> the settings by which an
        embedded net takes their place."""
        found: dict[str, list[str]] = {}
        at_work = [plan.node for plan in plans.values() if plan.has_work]
        for path in dict.fromkeys(path for node in at_work for path in node.config.values()):
            settings = lookup_setting(self.config, path)
            for name in configuration.NET_SETTINGS:
                net = getattr(settings, name, None)
                if isinstance(net, str) and net in EMBEDDED_REPLACEMENTS:
                    for one in NETS[net].weights:
                        found.setdefault(one, []).append(f"--set {path}.{name}={EMBEDDED_REPLACEMENTS[net]}")
        return found

    def missing_packages(self, plans: Mapping[str, NodePlan]) -> str:
        """One line: which packages of the nets and files of these nodes are not installed."""
        used_by: dict[str, list[str]] = {}
        for plan in plans.values():
            node = plan.node
            weights = map(find_third_party_weights, node.weights)
            skipped = node.missing_weights == "skip" and not all(
                weight_files.are_weights_here(self.store, one) for one in weights
            )
            for package in () if skipped or not plan.has_work else node.packages:
                if self.package_version(package) == PACKAGE_NOT_INSTALLED:
                    used_by.setdefault(package, []).append(node.name)
        sentences = []
        for name, nodes in sorted(used_by.items()):
            more = [f"{len(nodes) - 3} more"] if nodes[3:] else []
            users = f"{', '.join([*nodes[:3], *more])} need{'s' * (len(nodes) == 1)}"
            sentences.append(f"package {name} is not installed, which {users}: `pip install {name}`")
        return "; ".join(sentences)

    def pinned_corpus_artifact_keys(self) -> dict[str, str]:
        """Node that lists a corpus -> the artifact key that it is pinned at."""
        found: dict[str, str] = {}
        for corpus, node in recordings_nodes_by_corpus(self.graph).items():
            name = self.config.data[corpus].pin
            if name is None:
                continue
            setting = f"data.{corpus}.pin"
            if not self.store.exists(locations.pin_path(name)):
                raise UserError(f"{setting}: no pin {name!r} in this store; see `reenact pin --help`")
            pinned = self.store.read_json(locations.pin_path(name), "artifacts")["artifacts"]
            if corpus not in pinned:
                raise UserError(f"{setting}: {name!r} pins {', '.join(pinned)}, not {corpus}; pin again")
            found[node] = pinned[corpus]
        return found

    def selected_nodes(self, only: Iterable[str]) -> set[str] | None:
        """The nodes named with all they need; None = all."""
        named = {self.graph[name].name for name in only}
        return named.union(*(self.graph.upstream(name) for name in named)) if named else None


def open_project_source_code(
    settings: type | None = None, load: Any = None, recall: Any = None, root: Path = CODE_ROOT
) -> SourceSymbolIndex:
    """The project's source, as keys see it. settings: the class of the run's config; None = of a run of every
    model. load, recall: see `SourceSymbolIndex`."""
    settings = settings or configuration.make_run_config_class({name: name for name in MODELS})
    renamed = {now.rpartition(".")[2]: before for now, before in old_settings.FORMER_SETTING_NAMES.items()}
    return SourceSymbolIndex(
        root,
        PROJECT_PACKAGES,
        NON_NUMERIC_MODULES,
        NUMERIC_STORAGE_MODULES,
        configuration.settings_class_names(settings),
        renamed,
        load,
        recall,
    )


def open_session(run_file: Path, sets: Iterable[str] = ()) -> RunSession:
    loaded = configuration.load_config(run_file, sets)
    store = Store(configuration.store_uri(loaded.config))
    format_version.check_store_format_version(store)
    if loaded.config.perception.faces == "auto":
        loaded = configuration.settle_face_nets(loaded, face_nets_here(store))
    return RunSession(loaded, store, build_graph(loaded.config))


@cache
def _parser() -> str:
    """Names what turns a source file into symbols: an edit of it, another Python or another old name of a
    setting gives other texts."""
    texts = [Path(module.__file__ or "").read_text() for module in (messages, symbols)]
    return hash_json(*texts, old_settings.FORMER_SETTING_NAMES, sys.version_info[:2])
