"""The house rules: imports run one way, and planning stays light."""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "models": {"pipelines", "storage", "ray", "mlflow", "pyarrow"},
    "storage": {"pipelines", "models", "ray", "mlflow"},
    "pipelines/engine": {"models", "torch", "ray", "mlflow", "numpy"},
}
ONLY_IMPORTERS = {
    "mlflow": ("pipelines/tracking/",),
    "click": ("pipelines/cli/",),
    "av": ("pipelines/media/", "storage/frame_codec.py"),
    "ffmpeg": ("pipelines/media/",),
    "ray.data": ("pipelines/cluster/",),
    "ray.job_submission": ("pipelines/cluster/",),
    "ray": (
        "pipelines/cluster/",
        "pipelines/train/launch.py",
        "pipelines/train/distributed.py",
        "pipelines/train/process_group.py",
    ),
}
"""Library -> the folders and files of ours that may import it. Of training, group.py and device.py are what
launch.py starts. storage imports nothing of pipelines, so its frames in H.264 are encoded there."""
LONGEST_FILE, LONGEST_FUNCTION = 450, 60
MIRRORED = 0.9
"""Share of the files that have a test file of their own; it only rises."""
HEAVY = ("torch", "ray", "mlflow", "av", "dlib", "scipy", "webdataset", "yt_dlp", "transformers")


SOURCES = [path for top in ("pipelines", "models", "storage") for path in sorted((ROOT / top).rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_run_one_way(folder):
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in FORBIDDEN[folder]
    }
    assert not wrong


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_a_library_has_one_importer(library):
    files = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for name in imported(path)
        if name == library or name.startswith(f"{library}.")
    }
    assert not [name for name in files if not name.startswith(ONLY_IMPORTERS[library])]
    assert files


# --- circles ------------------------------------------------------------------------------------------------
def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of modules that reach each other, by what each reaches."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        found, stack = set(), [start]
        while stack:
            for name in graph[stack.pop()] - found:
                found.add(name)
                stack.append(name)
        reached[start] = found
    groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]}
    return [set(group) for group in groups]


def test_no_modules_import_each_other_in_a_circle():
    """Imports for type checking and inside functions count: each of two modules would explain the other."""
    ours = {module_of(path) for path in SOURCES}
    graph = {module_of(path): imported(path) & ours - {module_of(path)} for path in SOURCES}
    found = [sorted(group) for group in circles(graph)]
    assert not found


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles(graph) == [{"a", "b", "c"}]


# --- sizes and tests ----------------------------------------------------------------------------------------
def test_files_and_functions_are_short():
    files = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in SOURCES
        if (lines := path.read_text().count("\n")) > LONGEST_FILE
    ]
    functions = [
        f"{path.relative_to(ROOT)}:{node.name}: {node.end_lineno - node.lineno + 1}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert files + functions == []


def test_tests_mirror_the_source():
    """pipelines/x/y.py -> tests/x/test_y.py, models/x.py -> tests/models/test_x.py; files of more than 40
    lines."""
    long = [path.relative_to(ROOT) for path in SOURCES if path.read_text().count("\n") > 40]
    missing = []
    for path in long:
        folder = Path(*path.parts[path.parts[0] == "pipelines" : -1])
        if not (ROOT / "tests" / folder / f"test_{path.stem}.py").exists():
            missing.append(path.as_posix())
    assert len(missing) <= (1 - MIRRORED) * len(long), missing


def test_planning_imports_nothing_heavy(tmp_path):
    program = (
        "import sys\nfrom pipelines.cli.main import main\n"
        "try: main(['plan', 'configs/run/demo.yaml'])\nexcept SystemExit as e: assert not e.code, e.code\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    env = os.environ | {"REENACT_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_no_file_is_left_empty_handed():
    """Every module of ours but a package's __init__ opens with what it is for."""
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.stat().st_size and not ast.get_docstring(tree(path))
    ]
    assert not silent
