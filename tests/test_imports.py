"""The house rules: imports run one way, and planning stays light."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "models": {"pipelines", "storage", "ray", "mlflow", "pyarrow"},
    "storage": {"pipelines", "models", "ray", "mlflow"},
    "pipelines/engine": {"models", "torch", "ray", "mlflow", "numpy"},
}
ONLY_IMPORTER = {"mlflow": "pipelines/tracking", "ray.data": "pipelines/cluster/executor.py"}
HEAVY = ("torch", "ray", "mlflow", "av", "dlib", "scipy", "webdataset", "yt_dlp", "transformers")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


@pytest.mark.parametrize("library", ONLY_IMPORTER)
def test_a_library_has_one_importer(library):
    files = {
        str(path.relative_to(ROOT))
        for top in ("pipelines", "models", "storage")
        for path in (ROOT / top).rglob("*.py")
        for name in imported(path)
        if name == library or name.startswith(f"{library}.")
    }
    assert all(f.startswith(ONLY_IMPORTER[library]) for f in files)
    assert files


def test_planning_imports_nothing_heavy(tmp_path):
    program = (
        "import sys\nfrom pipelines.cli.main import main\n"
        "try: main(['plan', 'configs/run/demo.yaml'])\nexcept SystemExit as e: assert not e.code, e.code\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    env = os.environ | {"REENACT_STORE": str(tmp_path / "store"), "REENACT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_no_file_is_left_empty_handed():
    """Every module of ours but a package's __init__ opens with what it is for."""
    silent = [
        str(path.relative_to(ROOT))
        for top in ("pipelines", "models", "storage")
        for path in (ROOT / top).rglob("*.py")
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent
