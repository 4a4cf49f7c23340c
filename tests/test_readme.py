"""The README: every command in it is one that exists, with options it takes; those that only plan are run."""

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from models import MODELS
from pipelines.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```[a-z]*\n(.*?)```", README, re.S)
LINES = [line.split("#")[0].strip().removeprefix("$ ") for block in BLOCKS for line in block.splitlines()]
COMMANDS = sorted({line for line in LINES if line.startswith(("reenact ", "make "))})
SHARD = ".reenact/store/packs/clips/KEY.tar"  # stands for one that a run left
SOURCE_FILES = [
    path for top in ("pipelines", "models", "storage", "configs") for path in (ROOT / top).rglob("*.*")
    if path.suffix in (".py", ".yaml")
]  # fmt: skip
SOURCE_WORDS = {
    word
    for path in SOURCE_FILES
    for word in (*re.findall(r"\w+", path.read_text()), path.stem, path.suffix[1:])
}
MENTIONED = sorted(set(re.findall(r"`reenact (\w+)", README)))


def parsed(argv: list[str]) -> click.Context:
    """The context click makes of a command line, without running it."""
    command: click.Command = main
    context = click.Context(main, info_name="reenact")
    while isinstance(command, click.Group):
        name, found, argv = command.resolve_command(context, argv)
        assert found is not None, name
        command = found
    return command.make_context(command.name, argv, parent=context)


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("reenact ")])
def test_every_command_line_is_understood(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard = tmp_path / SHARD
    shard.parent.mkdir(parents=True)
    shard.touch()
    parsed(shlex.split(line)[1:])


@pytest.mark.parametrize("name", MENTIONED)
def test_every_command_mentioned_exists(name):
    assert name in main.commands


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("make ")])
def test_every_target_is_in_the_makefile(line):
    done = subprocess.run(
        ["make", "-n", line.split()[1]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [c for c in COMMANDS if re.match(r"reenact (run|plan) ", c)])
def test_every_run_file_with_its_settings_plans(line, tmp_path, monkeypatch):
    """With the paths of the examples made, since planning reads them."""
    words = shlex.split(line)[1:]
    videos, csv = tmp_path / "videos", tmp_path / "vox.csv"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"x")
    header = "video_id,start,end,bbox,fps,width,height,partition,person_id"
    row = "WMh3ye5tBsE,3657,3994,624-48-1018-553,25,1280,720,train,id10005"
    csv.write_text(f"{header}\n{row}\n")
    swap = {"/videos": str(videos), "/mirror": str(videos), "vox-metadata.csv": str(csv)}
    words = ["plan", *words[1:]]
    for old, new in swap.items():
        words = [word.replace(f"={old}", f"={new}") for word in words]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("REENACT_STORE", str(tmp_path / "store"))
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "nodes to run" in done.output


def test_the_tree_names_every_module():
    tree = next(block for block in BLOCKS if block.startswith("pipelines/"))
    modules = [p.stem for p in (ROOT / "pipelines").glob("*.py") if not p.stem.startswith("__")]
    assert [m for m in modules if not re.search(rf"\b{m}(\.py|\b)", tree)] == []


@pytest.mark.parametrize(
    "readme", ["README.md", *(f"models/{name}/README.md" for name in (*MODELS, "perception"))]
)
def test_a_name_in_backticks_is_one_of_the_source(readme):
    """A table from the paper to the code that lags behind the code helps nobody."""
    spans = re.findall(r"`([A-Za-z_][\w.]*)`", (ROOT / readme).read_text())
    assert spans
    assert [span for span in spans if not {*span.split(".")} <= SOURCE_WORDS] == []
