"""What tests of several folders share."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def formula_nets():
    """tests/formula_nets.py, which imports torch: only for those who ask."""
    return _module("formula_nets")


@pytest.fixture(scope="session")
def shape_files():
    """tests/shape_files.py: face models and checkpoints in their publishers' layouts."""
    return _module("shape_files")


def _module(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
