"""Two drivers, one piece of work: the second waits, and a dead holder is not waited for."""

import subprocess
import sys
import threading
import time

import pytest

from storage import leases, locations
from storage.files import Store

FAST = leases.Lease(ttl=5.0, beat=0.1, poll=0.02)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def test_the_second_waits_until_the_first_is_done(store):
    order: list[str] = []

    def second() -> None:
        with leases.held(store, "train", "k", terms=FAST) as waited:
            order.append(f"second, waited {waited}")

    with leases.held(store, "train", "k", terms=FAST) as waited:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append(f"first, waited {waited}")
    thread.join(5)
    assert order == ["first, waited False", "second, waited True"]


def test_other_keys_do_not_wait(store):
    with leases.held(store, "train", "a", terms=FAST), leases.held(store, "train", "b", terms=FAST) as waited:
        assert not waited


def test_a_holder_that_died_here_is_not_waited_for(store):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    import socket

    claim = {"holder": f"{socket.gethostname()}:{child.pid}", "claimed": 0.0, "until": time.time() + 3600}
    store.write_json(f"{locations.lease('train', 'k')}/old.json", claim)
    with leases.held(store, "train", "k", terms=FAST) as waited:
        assert not waited


def test_a_silent_holder_elsewhere_expires(store):
    claim = {"holder": "elsewhere:1", "claimed": 0.0, "until": time.time() + 0.3}
    store.write_json(f"{locations.lease('train', 'k')}/old.json", claim)
    begin = time.time()
    with leases.held(store, "train", "k", terms=FAST) as waited:
        assert waited
        assert 0.2 < time.time() - begin < 2


def test_nothing_is_left_behind(store):
    with leases.held(store, "train", "k", terms=FAST):
        assert len(store.list(locations.lease("train", "k"))) == 1
    assert store.list(locations.lease("train", "k")) == []
