"""Files that the user named: whether they can be written is known before the work, and none is ever half."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from pipelines.cli.main import main
from pipelines.errors import UserError, replace_output_file
from storage import checkpoints


def unusable(kind: str, folder: Path) -> Path:
    """An output that cannot be written, whoever asks."""
    if kind == "a folder":
        (folder / "out.png").mkdir()
        return folder / "out.png"
    if kind == "a folder behind a link":
        (folder / "there").mkdir()
        (folder / "out.png").symlink_to("there")
        return folder / "out.png"
    if kind == "a long name":
        return folder / f"{'x' * 300}.png"
    (folder / "file").touch()
    return folder / "file" / "out.png"


KINDS = ("a folder", "a folder behind a link", "a long name", "below a file")


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_cannot_be_is_found_before_the_block(kind, tmp_path):
    path, began = unusable(kind, tmp_path), []
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot write ") as error, replace_output_file(path):
        began.append(1)
    assert not began
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_animate_finds_it_before_it_looks_at_a_model(kind, tmp_path):
    source, model = tmp_path / "p.png", tmp_path / "no-model.safetensors"
    Image.new("RGB", (64, 64)).save(source)
    out = unusable(kind, tmp_path)
    done = CliRunner().invoke(main, ["animate", str(source), "-o", str(out), "--checkpoint", str(model)])
    assert done.exit_code == 2
    assert str(out if kind != "below a file" else out.parent) in done.output
    assert "no-model" not in done.output


def test_a_long_name_that_fits_is_written(tmp_path):
    out = tmp_path / f"{'x' * 250}.mp4"
    with replace_output_file(out) as aside:
        aside.write_bytes(b"a video")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_bytes() == b"a video"


def test_work_that_fails_leaves_the_output_as_it_was(tmp_path):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"of yesterday")
    with pytest.raises(FileNotFoundError), replace_output_file(out) as aside:
        aside.write_bytes((tmp_path / "gone").read_bytes())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out.mp4": b"of yesterday"}


def test_a_disk_that_fills_up_is_one_line_and_another_fault_stays_one(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*out\.mp4: No space left on device"), \
         replace_output_file(tmp_path / "out.mp4"):  # fmt: skip
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="Bad file descriptor"), replace_output_file(tmp_path / "out.mp4"):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_a_folder_of_somebody_else_is_one_line(tmp_path):
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    code = (
        "import os, sys; from pathlib import Path; from pipelines.errors import UserError, "
        "replace_output_file\n"
        "os.setuid(65534)\n"
        "try:\n  with replace_output_file(Path(sys.argv[1])): print('began')\n"
        "except UserError as error: print(error)"
    )
    out = tmp_path / "out.mp4"
    done = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {out}: Permission denied; give a file in a folder")


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawing_of_the_graph_that_cannot_be_written_is_one_line(kind, tmp_path):
    done = CliRunner().invoke(
        main, ["graph", "configs/run/tiny.yaml", "--svg", str(unusable(kind, tmp_path))]
    )
    assert done.exit_code == 2
    assert done.output.startswith("error: cannot write ")


def test_a_checkpoint_is_not_exported_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    checkpoints.save_checkpoint(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"model": "fsrt"})
    done = CliRunner().invoke(
        main, ["weights", "export", f"{tmp_path}/x.safetensors", f"{tmp_path}/file/out"]
    )
    assert done.exit_code == 2
    assert "file/out: no files can be made there" in done.output
