"""What nodes have published, as far as it stands whole in the store: a plan's view of packs and files.

A record that cannot be read counts as not there, and so does what it lists. `DamageTolerantReader` keeps the
messages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from storage import locations
from storage.errors import DamagedFile
from storage.families import Artifact, ManifestRow, read_node_manifest, read_pack_manifest
from storage.files import FileEntry, Store

MAX_OLD_MANIFESTS = 3  # manifests looked through for units to copy
T = TypeVar("T")


class DamageTolerantReader:
    """Reads records, and remembers which ones could not be."""

    def __init__(self) -> None:
        self.damaged: dict[str, None] = {}
        """Messages in order, each once; each names its file."""

    def __call__(self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except FileNotFoundError:
            return otherwise
        except DamagedFile as error:
            self.damaged[str(error)] = None
            return otherwise


def read_whole_node_artifact(store: Store, node: str, key: str, steps: int | None = None) -> Artifact | None:
    """A whole node's published artifact, or None. A record whose files are gone or cut short counts as none;
    one that cannot be read is DamagedFile."""
    folder = locations.artifact_path(node, key, steps)
    path = f"{folder}/record.json"
    if not store.exists(path):
        return None
    record = store.read_json(path, "digest", "sizes", "sha256")
    sizes, sums = record["sizes"], record["sha256"]
    if not isinstance(sizes, dict) or not isinstance(sums, dict):
        raise DamagedFile(f"{path}: its sizes and sha256 are no lists by file name")
    present = {e.name: e.size for e in store.list(folder)}
    if any(present.get(name) != size for name, size in sizes.items()):
        return None
    return Artifact(store, node, key, record["digest"], folder, tuple(sorted(sizes)), steps, sums)


class PublishedPacks:
    """The packs of a keyed stage and the manifests that list them."""

    def __init__(self, store: Store, stage: str, readable: DamageTolerantReader):
        self.store, self.stage, self.readable = store, stage, readable
        self.has_manifest = False
        """Whether `rows` found the manifest of the artifact asked for."""

    @cached_property
    def _files(self) -> list[FileEntry]:
        return self.store.list(locations.packs_folder(self.stage))

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {entry.name: entry.size for entry in self._files}

    def is_recorded(self, pack: str) -> bool:
        return f"{pack}.parquet" in self._sizes

    def is_pack_complete(self, pack: str, row: ManifestRow | None = None) -> bool:
        """Whether shard and record are there, and as long as a row of the pack says."""
        shard, record = self._sizes.get(f"{pack}.tar"), self._sizes.get(f"{pack}.parquet")
        if shard is None or record is None:
            return False
        return row is None or (row.shard_bytes in (None, shard) and row.record_bytes in (None, record))

    def is_dropped(self, pack: str, row: ManifestRow | None = None) -> bool:
        """Whether its shard was dropped on purpose: the record alone is there, and as long as a row says."""
        record = self._sizes.get(f"{pack}.parquet")
        if record is None or f"{pack}.tar" in self._sizes or f"{pack}.dropped" not in self._sizes:
            return False
        return row is None or row.record_bytes in (None, record)

    def known(self, pack: str, row: ManifestRow | None = None) -> bool:
        """Whether its content is on record: it stands, or only its shard was dropped."""
        return self.is_pack_complete(pack, row) or self.is_dropped(pack, row)

    def known_rows(self, key: str, packs: list[str], partial: bool) -> dict[str, ManifestRow]:
        """Unit key -> record, from this artifact's manifest if all packs are known, else from older
        ones too."""
        if not partial and all(self.known(pack) for pack in packs):
            rows = self.readable(lambda: read_node_manifest(self.store, self.stage, key), None)
            self.has_manifest = rows is not None
            if rows is None:
                rows = [row for pack in packs for row in self._pack_rows(pack)]
            return self._as_recorded(rows)
        manifests = self.list_manifests()
        found = self._as_recorded(
            [row for entry in manifests[-MAX_OLD_MANIFESTS:] for row in self.read_manifest(entry)]
        )
        listed = {row.pack for row in found.values()}
        since = manifests[-1].mtime if manifests else 0.0
        for entry in self._files:  # left by a run that was killed
            pack, _, kind = entry.name.rpartition(".")
            if kind == "parquet" and pack not in listed and (entry.mtime >= since or pack in packs):
                found |= {row.key: row for row in self._pack_rows(pack)}
        return found

    def _as_recorded(self, rows: list[ManifestRow]) -> dict[str, ManifestRow]:
        """By unit key. Of a pack that is not as long as its manifest says, its own record tells: it was built
        again since, or is damaged."""
        other = {row.pack for row in rows if self.known(row.pack) and not self.known(row.pack, row)}
        self.has_manifest = self.has_manifest and not other
        own = [row for pack in sorted(other) for row in self._pack_rows(pack)]
        return {row.key: row for row in [*(row for row in rows if row.pack not in other), *own]}

    def list_manifests(self) -> list[FileEntry]:
        """Those of this node, oldest first."""
        return sorted(
            self.store.list(locations.manifests_folder(self.stage)), key=lambda e: (e.mtime, e.name)
        )

    def read_manifest(self, entry: FileEntry) -> list[ManifestRow]:
        key = entry.name.removesuffix(".parquet")
        return self.readable(lambda: read_node_manifest(self.store, self.stage, key), [])

    def _pack_rows(self, pack: str) -> list[ManifestRow]:
        return self.readable(lambda: read_pack_manifest(self.store, self.stage, pack), [])
