"""The copy of the source that a run executes."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runs import snapshot


@pytest.fixture
def source(tmp_path) -> Path:
    """A checkout of three packages of one file."""
    root = tmp_path / "checkout"
    for name in snapshot.PROJECT_PACKAGES:
        (root / name).mkdir(parents=True)
        (root / name / "code.py").write_text(f"NAME = {name!r}\n")
    (root / "models/table.csv").write_text("a,b\n")
    (root / "models/__pycache__").mkdir()
    (root / "models/__pycache__/code.pyc").write_bytes(b"\0")
    (root / "notes.txt").write_text("not of a package")
    return root


@pytest.fixture(autouse=True)
def release():
    """The locks that a test took in this process."""
    yield
    while snapshot._locks:
        snapshot._locks.pop().close()


def test_a_snapshot_holds_the_packages_alone_and_cannot_be_written(source, tmp_path):
    taken = snapshot.take_snapshot(tmp_path / "code", source)
    found = sorted(p.relative_to(taken).as_posix() for p in taken.rglob("*") if p.is_file())
    assert found == ["models/code.py", "models/table.csv", "pipelines/code.py", "storage/code.py"]
    assert all(not (p.stat().st_mode & 0o222) for p in taken.rglob("*") if p.is_file())


def test_the_same_source_is_copied_once_and_an_edit_makes_another(source, tmp_path):
    first = snapshot.take_snapshot(tmp_path / "code", source)
    inode = (first / "models/code.py").stat().st_ino
    assert snapshot.take_snapshot(tmp_path / "code", source) == first
    assert (first / "models/code.py").stat().st_ino == inode
    (source / "models/code.py").write_text("NAME = 'other'\n")
    second = snapshot.take_snapshot(tmp_path / "code", source)
    assert second != first
    assert "other" not in (first / "models/code.py").read_text()


def test_old_snapshots_go_unless_a_run_holds_them(source, tmp_path):
    taken = []
    for i in range(snapshot.MAX_CODE_SNAPSHOTS + 3):
        (source / "models/code.py").write_text(f"NAME = {i}\n")
        taken.append(snapshot.take_snapshot(tmp_path / "code", source))
        os.utime(taken[-1], (i, i))
    assert all(one.exists() for one in taken)  # this process holds them all
    for lock in snapshot._locks[1:]:
        fcntl.flock(lock, fcntl.LOCK_UN)
    (source / "models/code.py").write_text("NAME = 'last'\n")
    last = snapshot.take_snapshot(tmp_path / "code", source)
    left = {p for p in (tmp_path / "code").iterdir() if p.is_dir()}
    assert left == {taken[0], *taken[-(snapshot.MAX_CODE_SNAPSHOTS - 1) :], last}


ENTER = """
import sys
from pathlib import Path
from pipelines.runs import snapshot
if snapshot.is_running_from_snapshot():
    edited = snapshot.find_files_edited_since_snapshot()
    print(snapshot.CODE_ROOT, snapshot.checkout_folder(), sys.argv[1:], edited)
else:
    Path("models/code.py").write_text("NAME = 'edited'")
    snapshot.restart_process_in_snapshot(Path(sys.argv[1]), ["run", "a b"])
"""


def test_a_process_goes_on_in_the_snapshot_though_it_stands_in_the_checkout(source, tmp_path):
    """The command line is replaced by a file that says where it runs; the edit comes after the import."""
    real = Path(snapshot.__file__).read_text()
    for folder in ("runs", "cli"):
        (source / "pipelines" / folder).mkdir()
        (source / "pipelines" / folder / "__init__.py").touch()
    (source / "pipelines/runs/snapshot.py").write_text(real)
    (source / "pipelines/cli/main.py").write_text(ENTER)
    argv = [sys.executable, "-m", "pipelines.cli.main", str(tmp_path / "code")]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(argv, cwd=source, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (taken,) = [p for p in (tmp_path / "code").iterdir() if p.is_dir()]
    assert done.stdout.strip() == f"{taken} {source} ['run', 'a b'] []"


@pytest.mark.parametrize("kind", ["half", "a file", "a dangling link"])
def test_what_is_no_whole_snapshot_is_made_anew(source, tmp_path, kind):
    taken = snapshot.take_snapshot(tmp_path / "code", source)
    if kind == "half":
        (taken / "models/code.py").unlink()
    else:
        shutil.rmtree(taken)
        taken.touch() if kind == "a file" else taken.symlink_to("gone")
    again = snapshot.take_snapshot(tmp_path / "code", source)
    assert again == taken
    assert snapshot.digest_source_files(again) == taken.name
