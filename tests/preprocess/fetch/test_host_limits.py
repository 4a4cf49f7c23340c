"""Limits of a host, kept by several processes together."""

import json
import pickle
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines.preprocess.fetch.host_limits import DownloadHostBusy, HostRateLimits, exclusive_lock
from pipelines.preprocess.fetch.plain_http import RetriesExhausted

ROOT = Path(__file__).resolve().parents[3]
WORKER = """
import json, sys, time
from pathlib import Path
from pipelines.preprocess.fetch.host_limits import HostRateLimits
folder, per_host, between, count = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
hosts, spans = HostRateLimits(Path(folder), per_host, 30), []
for _ in range(count):
    with hosts.use_slot("example.org", between):
        start = time.time()
        time.sleep(0.05)
        spans.append([start, time.time()])
print(json.dumps(spans))
"""


def spans_of(tmp_path, processes, per_host, between, count):
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(per_host), str(between), str(count)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    return sorted(span for process in running for span in json.loads(process.communicate(timeout=60)[0]))


def test_processes_share_the_slots_of_a_host(tmp_path):
    spans = spans_of(tmp_path, processes=4, per_host=2, between=0, count=4)
    most = max(sum(a <= start < b for a, b in spans) for start, _ in spans)
    assert len(spans) == 16
    assert most == 2


def test_processes_keep_the_distance_of_starts(tmp_path):
    spans = spans_of(tmp_path, processes=3, per_host=3, between=0.15, count=2)
    gaps = [b[0] - a[0] for a, b in pairwise(spans)]
    assert min(gaps) > 0.1  # a start may come a little late, and the next is on time


def test_hosts_do_not_wait_for_each_other(tmp_path):
    hosts = HostRateLimits(tmp_path, 1, 0.2)
    with hosts.use_slot("a.example", 60), hosts.use_slot("b.example", 60):
        pass
    with (
        pytest.raises(DownloadHostBusy, match=r"a\.example accepts no requests"),
        hosts.use_slot("a.example", 0),
    ):
        pass


def test_a_process_that_dies_gives_its_slot_back(tmp_path):
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom pipelines.preprocess.fetch.host_limits import "
        "HostRateLimits\n"
        "with HostRateLimits(Path(sys.argv[1]), 1, 1).use_slot('h', 0): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    with HostRateLimits(tmp_path, 1, 1).use_slot("h", 0):
        pass


def test_back_off_reaches_who_is_waiting_already(tmp_path):
    hosts, ended = HostRateLimits(tmp_path, 2, 1), []

    def wait():
        try:
            with hosts.use_slot("h", 0):
                ended.append("went")
        except DownloadHostBusy:
            ended.append("busy")

    with hosts.use_slot("h", 0.6):
        pass
    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    HostRateLimits(tmp_path, 2, 1).back_off("h", 3600)
    waiting.join()
    assert ended == ["busy"]


def test_no_host_says_more_than_a_day(tmp_path):
    HostRateLimits(tmp_path, 1, 1).back_off("h", 1e12)
    with (
        pytest.raises(DownloadHostBusy, match=r"another 86[34]00 s"),
        HostRateLimits(tmp_path, 1, 1).use_slot("h", 0),
    ):
        pass


def test_host_names_do_not_become_paths(tmp_path):
    with HostRateLimits(tmp_path / "hosts", 1, 1).use_slot("../../up", 0):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["hosts"]
    (folder,) = (tmp_path / "hosts").iterdir()
    assert len(folder.name) == 32


def test_a_clock_that_was_half_written_counts_as_none(tmp_path):
    hosts = HostRateLimits(tmp_path, 1, 1)
    hosts.back_off("h", 3600)
    (clock,) = tmp_path.glob("*/clock")
    clock.write_text('{"not_bef')
    with hosts.use_slot("h", 0):
        pass


def test_only_one_holds_a_lock_file_and_it_is_gone_afterwards(tmp_path):
    path, inside, most = tmp_path / "one.lock", [], []

    def work():
        with exclusive_lock(path, 20):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert most == [1] * 8
    assert not path.exists()
    with exclusive_lock(path, 1), pytest.raises(DownloadHostBusy), exclusive_lock(path, 0):
        pass


@pytest.mark.parametrize("kind", [DownloadHostBusy, RetriesExhausted])
def test_what_is_for_a_later_run_comes_whole_from_a_worker(kind):
    error = pickle.loads(pickle.dumps(kind("h accepts no requests")))
    assert (str(error), error.soon) == ("h accepts no requests", False)
