"""What tests of several folders share."""

import importlib.util
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

LONG = ("tests/e2e", "tests/cluster/test_executor.py", "tests/models/headgan/test_learning.py",
        "tests/models/fsrt/test_train_step.py")  # fmt: skip
"""Groups that take longest: begun first, or they would be left for the end, with the other cores idle."""


def group_of(nodeid):
    """The tests of a file run in one worker, since they share what it makes; so do all end-to-end tests: they
    wait most of the time, and the unit tests use the cores meanwhile."""
    file = nodeid.partition("::")[0]
    return "tests/e2e" if file.startswith("tests/e2e/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        _split_scope = staticmethod(group_of)

    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    places = {group: place for place, group in enumerate(LONG)}
    items.sort(key=lambda item: places.get(group_of(item.nodeid), len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk():
    """What tests write need not outlive a power cut: each fsync takes milliseconds, each toy run sixty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory):
    """One cache for all tests and all workers of a session: to parse the project's source anew takes seconds,
    and so does compiling the copy of it that a run executes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REENACT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def project_code():
    """The project's source as keys see it, parsed and digested once: seconds, for those who ask."""
    from pipelines.runs.session import open_project_source_code

    return open_project_source_code()


@pytest.fixture(scope="session")
def import_server(tmp_path_factory):
    """The executable of tests/storage/import_server.py, served while the session lasts."""
    folder = tmp_path_factory.mktemp("import")
    script = Path(__file__).parent / "storage/import_server.py"
    argv = [sys.executable, str(script), str(folder / "socket"), str(folder / "python")]
    path = os.pathsep.join([str(script.parents[2]), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(argv, stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path})
    assert server.stdin is not None
    until = time.monotonic() + 60
    while not os.access(folder / "python", os.X_OK):
        assert server.poll() is None, "the import server has ended"
        assert time.monotonic() < until, "the import server did not start"
        time.sleep(0.02)
    yield folder / "python"
    server.stdin.close()
    server.wait(10)


@pytest.fixture
def quick_imports(import_server, monkeypatch):
    """Weights are imported in processes that need not import torch first."""
    monkeypatch.setattr(sys, "executable", str(import_server))


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
