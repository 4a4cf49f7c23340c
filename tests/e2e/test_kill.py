"""kill -9 in the middle, run again: the same bytes as a run that nobody killed."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import published

MICRO = str(Path(__file__).with_name("micro.yaml"))
AFTER = ("train.fsrt.adversarial", "score.fsrt", "report")  # whole nodes after the phase that is killed


def kill_tree(process: subprocess.Popen) -> None:
    """The driver alone is killed, as an out-of-memory killer would; Ray's own processes go with it."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)


def alive(group: int) -> list[str]:
    """Processes of a session that still run."""
    argv = ["ps", "-e", "-o", "pgid=,stat=,args="]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [row[2] for row in rows if row[0] == str(group) and not row[1].startswith("Z")]


@pytest.mark.parametrize("moment", [pytest.param("clips", marks=pytest.mark.slow), "train.fsrt.perceptual"])
def test_a_killed_run_resumed_publishes_the_same_bytes(micro, tmp_path, moment):
    wanted: list[str] = []
    expected = published(micro.store)
    if moment == "clips":
        victim = type(micro)(tmp_path)
        reached = lambda: len(list((victim.store / "packs/clips").glob("*.parquet"))) >= 1  # noqa: E731
    else:
        shutil.copytree(micro.store, tmp_path / "store")
        for node in (moment, *AFTER):
            shutil.rmtree(tmp_path / "store/whole" / node)
        wanted = ["--only", moment]
        expected = {n: data for n, data in expected.items() if n.split("/")[1] not in AFTER}
        shutil.rmtree(tmp_path / "store/work", ignore_errors=True)
        victim = type(micro)(tmp_path)
        reached = lambda: any((victim.store / "work" / moment).rglob("step-*.safetensors"))  # noqa: E731
    process = victim.start("run", MICRO, *wanted, "--set", "runtime.train_workers=1")
    victim.wait_for(reached, process)
    kill_tree(process)
    done = victim.call("run", MICRO, *wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    found = published(victim.store)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_polite_stop_ends_the_workers_and_keeps_the_units_that_are_done(micro, tmp_path, number):
    victim = type(micro)(tmp_path)
    process = victim.start("run", MICRO)
    victim.wait_for(lambda: len(list((victim.store / "packs/download").glob("*.parquet"))) >= 1, process)
    os.kill(process.pid, number)
    assert process.wait(60) == 130
    out = process.stdout.read()
    assert "Traceback" not in out
    assert "SIGTERM" not in out
    victim.wait_for(lambda: not alive(process.pid), None, 15)
    (download,) = (
        line.split() for line in victim.ask("plan", MICRO).splitlines() if line.startswith("download ")
    )
    units, cached = int(download[2]), int(download[3])
    assert 1 <= cached <= units
