"""What every command starts from: the run file, its graph, its store and what the planner looks at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipelines import config as configuration
from pipelines.engine.code import Code
from pipelines.engine.file_cache import FileCache
from pipelines.engine.fingerprint import Environment, resolve
from pipelines.engine.node import Graph
from pipelines.engine.plan import Options, Planner
from pipelines.graph import build
from storage import locations, weights
from storage.fetched import cache_folder
from storage.files import Store

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipelines", "models", "storage")
OUTSIDE = (  # what only moves bytes and messages: content digests guard it, so an edit there retrains nothing
    "pipelines.engine", "pipelines.executor", "pipelines.tracking", "pipelines.progress",
    "pipelines.config", "pipelines.preprocess.fetch", "pipelines.train.follow", "storage",
)  # fmt: skip
TOOLS = {"ffmpeg": "pipelines.preprocess.media:ffmpeg_version"}


@dataclass
class Session:
    loaded: configuration.Loaded
    store: Store
    graph: Graph
    cache: FileCache

    @property
    def config(self) -> configuration.Config:
        return self.loaded.config

    @cached_property
    def environment(self) -> Environment:
        return Environment(
            code=Code(ROOT, PACKAGES, OUTSIDE, load=self.cache.get),
            weights=lambda name: weights.pinned(self.store, name),
            tool=lambda name: resolve(TOOLS[name])(),
        )

    def planner(self, force: Iterable[str] = (), retry_rejected: bool = False) -> Planner:
        for name in force:
            _ = self.graph[name]  # an unknown node is the user's mistake, said at once
        options = Options(frozenset(force), retry_rejected, self.pins())
        return Planner(self.graph, self.config, self.store, self.environment, options)

    def pins(self) -> dict[str, str]:
        if (name := self.config.data.pin) is None:
            return {}
        if not self.store.exists(locations.ref(name)):
            raise ValueError(f"data.pin: no pin {name!r} in this store; see `reenact pin --help`")
        return dict(self.store.read_json(locations.ref(name))["artifacts"])

    def targets(self, only: Iterable[str]) -> set[str] | None:
        """The nodes named with all they need; None = all."""
        named = {self.graph[name].name for name in only}
        return named.union(*(self.graph.upstream(name) for name in named)) if named else None


def open_session(run_file: Path, sets: Iterable[str] = ()) -> Session:
    loaded = configuration.load(run_file, sets)
    store = Store(configuration.store_uri(loaded.config))
    return Session(loaded, store, build(loaded.config), FileCache(cache_folder() / "files.json"))
