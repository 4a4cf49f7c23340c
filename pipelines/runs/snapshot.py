"""A run executes a copy of the project's packages, taken once at its start: what ran is what its keys say.

The copy lies in the cache, named by its content; it is read-only, and shared by the runs that execute it. The
process is replaced by one that imports from the copy (`restart_process_in_snapshot`), and so are the workers
that Ray starts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

PROJECT_PACKAGES = ("pipelines", "models", "storage")
CHECKOUT_VARIABLE = "REENACT_CHECKOUT"
"""In the environment of a process that runs from a snapshot: the folder it was taken of."""
CODE_ROOT = Path(__file__).resolve().parents[2]
MAX_CODE_SNAPSHOTS = 4
"""Latest snapshots that are kept though no run uses them: their compiled modules save the next one time."""

_locks: list[IO[str]] = []


def checkout_folder() -> Path:
    """The folder that the user edits, whichever copy of it runs."""
    return Path(os.environ.get(CHECKOUT_VARIABLE) or CODE_ROOT)


def is_running_from_snapshot() -> bool:
    """Whether this process runs from a snapshot."""
    return bool(os.environ.get(CHECKOUT_VARIABLE)) and checkout_folder() != CODE_ROOT


def restart_process_in_snapshot(folder: Path, arguments: Sequence[str]) -> NoReturn:
    """Go on with the same command line in a snapshot: replaces this process. folder: where snapshots lie."""
    root = take_snapshot(folder)
    path = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {CHECKOUT_VARIABLE: str(CODE_ROOT), "PYTHONPATH": os.pathsep.join(path)}
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # -P: the current folder, often the checkout itself, does not come before the snapshot
    command = [sys.executable, "-P", "-m", "pipelines.cli.main", *arguments]
    os.execve(sys.executable, command, environment)


def take_snapshot(folder: Path, root: Path = CODE_ROOT) -> Path:
    """Copy the packages below `root` to a folder named by their content, if there is none yet."""
    target = folder / digest_source_files(root)
    if not _whole(target):
        aside = folder / f".{uuid.uuid4().hex}"
        for name in project_package_files(root):
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, aside / name)
            (aside / name).chmod(0o444)
        if digest_source_files(aside) != target.name:  # edited while it was copied
            target = folder / digest_source_files(aside)
        with (folder / "replace.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # what another run has just put there must stay
            if not _whole(target):
                _remove(target)
                aside.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
    os.utime(target)
    lock_code_snapshot(target)
    _prune(folder)
    return target


def _whole(target: Path) -> bool:
    """Whether a snapshot holds what its name says: somebody may have cleared a part of the cache."""
    return target.is_dir() and digest_source_files(target) == target.name


def _remove(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def lock_code_snapshot(root: Path = CODE_ROOT) -> None:
    """Keep others from deleting this snapshot while this process lives."""
    file = root.with_name(f"{root.name}.lock").open("a")
    fcntl.flock(file, fcntl.LOCK_SH)
    _locks.append(file)


def _prune(folder: Path) -> None:
    """Delete old snapshots that no run holds."""
    known = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: -p.stat().st_mtime)
    for old in known[MAX_CODE_SNAPSHOTS:]:
        with old.with_name(f"{old.name}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(old, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)


def project_package_files(root: Path) -> Iterator[str]:
    """The files of the packages, relative to `root`, in order."""
    for package in PROJECT_PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(root).as_posix()


def digest_source_files(root: Path) -> str:
    """Of every file's name and content; 32 hex digits."""
    total = hashlib.blake2b(digest_size=16)
    for name in project_package_files(root):
        content = hashlib.blake2b((root / name).read_bytes()).hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def find_files_edited_since_snapshot() -> list[str]:
    """Files of the checkout that differ from the snapshot that this process runs from."""
    here, there = CODE_ROOT, checkout_folder()
    names = sorted({*project_package_files(here), *project_package_files(there)})
    return [name for name in names if _content(here / name) != _content(there / name)]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
