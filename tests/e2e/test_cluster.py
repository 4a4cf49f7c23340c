"""A cluster as a user starts it: submit, follow, submit again, stop in the middle, and a rerun resumes."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

MICRO = Path(__file__).with_name("micro.yaml")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass
class Cluster:
    address: str
    """Of its dashboard, where jobs are submitted."""
    ray: str
    """Where a driver joins it."""
    env: dict[str, str]
    """What a machine of the cluster, or one that submits to it, has: where its token lies."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """`ray start --head --block` in its own session, stopped by its process group."""
    home = tmp_path_factory.mktemp("r")
    port, dashboard, client = free_port(), free_port(), free_port()
    (home / "token").write_text(secrets.token_hex(32))
    mine = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home / "token")}
    outer = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env = outer | mine | {"RAY_USAGE_STATS_ENABLED": "0"}
    argv = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
        f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=20000", "--max-worker-port=20999",
        "--num-cpus=2", f"--object-store-memory={400 * 2**20}", f"--temp-dir=/tmp/rx{port}",
    ]  # fmt: skip
    log = (home / "ray.log").open("w")
    process = subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until_up(dashboard, process, home / "ray.log")
        token = {"RAY_AUTH_TOKEN_PATH": str(home / "token")}
        yield Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", token)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # SIGTERM takes Ray 20 s, and nothing here is to be kept
        process.wait(20)


def wait_until_up(port: int, process: subprocess.Popen, log: Path) -> None:
    import urllib.error
    import urllib.request

    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/authentication_mode", timeout=2)
            return
        time.sleep(0.3)
    raise AssertionError(log.read_text())


@pytest.fixture
def run_file():
    """Inside the checkout: only that travels."""
    return str(MICRO)


@pytest.mark.parametrize(
    ("only", "last"),
    [
        (("--only", "train.fsrt.keypoints"), r"v train\.fsrt\.keypoints"),
        pytest.param((), "psnr_frame", marks=pytest.mark.slow),
    ],
)
def test_submit_runs_the_pipeline_there_and_again_runs_nothing(
    micro, cluster, run_file, tmp_path, only, last
):
    """In a worker of Ray Train; one phase alone, on a store that holds all that it reads."""
    home = type(micro)(tmp_path, env=cluster.env)
    only = (*only, "--set", "runtime.train_workers=1")
    if "--only" in only:
        shutil.copytree(micro.store, home.store, copy_function=shutil.copy2)
        shutil.rmtree(home.store / "whole" / "train.fsrt.keypoints")
    done = home.call("submit", run_file, "--address", cluster.address, "--follow", *only, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(last, done.stdout)
    again = home.call("submit", run_file, "--address", cluster.address, "--follow", *only, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to do" in again.stdout
    listed = home.call("jobs", "--address", cluster.address).stdout
    assert listed.count("SUCCEEDED") >= 2


@pytest.mark.slow
def test_stop_in_the_middle_leaves_a_store_that_a_rerun_takes_up(micro, cluster, run_file, tmp_path):
    home = type(micro)(tmp_path, env=cluster.env)
    shutil.copytree(micro.store, home.store, copy_function=shutil.copy2)
    for node in (one for place in ("packs", "manifests", "whole") for one in (home.store / place).iterdir()):
        if node.name not in ("recordings", "download"):
            shutil.rmtree(node)
    started = home.call("submit", run_file, "--address", cluster.address)
    job = re.search(r"job (\S+):", started.stdout).group(1)
    limit = time.monotonic() + 240
    while not list((home.store / "packs/clips").glob("*.parquet")):
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert home.call("stop", job, "--address", cluster.address).returncode == 0
    assert home.call("logs", job, "--address", cluster.address).returncode == 130
    kept = {p.name: p.stat().st_mtime_ns for p in (home.store / "packs/clips").glob("*.tar")}
    assert home.states()["download"] == "cached"
    # by a driver that joins the cluster, whose workers are shipped the snapshot that it runs from
    done = home.call("run", run_file, "--only", "clips", "--set", f"runtime.ray={cluster.ray}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {p.name: p.stat().st_mtime_ns for p in (home.store / "packs/clips").glob("*.tar")}
    assert kept.items() <= found.items()
    assert set(found) == {p.name for p in (micro.store / "packs/clips").glob("*.tar")}


def test_a_failed_job_ends_with_its_own_exit_code(micro, cluster, run_file, tmp_path):
    home, video = type(micro)(tmp_path, env=cluster.env), tmp_path / "videos/someone/empty.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"")
    settings = (
        "data.main.source=folder",
        f"data.main.folder.path={tmp_path / 'videos'}",
        "runtime.max_rejected=0.0",
    )
    sets = [word for setting in settings for word in ("--set", setting)]
    done = home.call(
        "submit", run_file, "--address", cluster.address, "--follow", "--only", "download", *sets
    )
    assert done.returncode == 3, done.stdout + done.stderr


def test_who_has_no_token_is_turned_away_in_one_line(micro, cluster, run_file, tmp_path):
    stranger = type(micro)(tmp_path, env={"RAY_AUTH_TOKEN": "0" * 64})
    done = stranger.call("submit", run_file, "--address", cluster.address)
    assert done.returncode == 1
    assert "takes no call without its token" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_cluster_is_one_line(micro, run_file):
    done = micro.call("submit", run_file, "--address", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "no Ray job server at" in done.stderr
    assert "Traceback" not in done.stderr
