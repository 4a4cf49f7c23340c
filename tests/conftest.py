"""What tests of several folders share."""

import importlib.util
import struct
import zlib
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


@pytest.fixture(scope="session")
def png_head():
    """(width, height) -> a PNG file that claims this size, and holds no row of it."""

    def make(width, height):
        def chunk(kind, data):
            body = kind + data
            return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        data = zlib.compress(b"")
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")

    return make


def _module(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
