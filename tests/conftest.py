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


@pytest.fixture
def bucket(monkeypatch):
    """An S3 server that is named by a query, with the credentials where they belong."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = _module("storage/s3_server").served()
    yield made
    made.server.shutdown()
    made.server.server_close()


def _module(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
