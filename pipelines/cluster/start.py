"""How Ray is started: its environment, its tokens, its signals and messages, and the wait for its cores."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CLUSTER_CORES_TIMEOUT = 30.0
"""Seconds that a cluster may take to report its cores."""
LOOPBACK_ADDRESS = "127.0.0.1"


def wait_for_cores() -> None:
    """A cluster that has just started reports its resources a moment later, on a busy machine seconds."""
    import ray

    until = time.monotonic() + CLUSTER_CORES_TIMEOUT
    while not ray.cluster_resources().get("CPU") and time.monotonic() < until:
        time.sleep(0.1)


def set_auth_token(private: bool) -> None:
    """Set before ray is imported: who reaches a port of Ray runs code as its user, so calls carry a token.

    A cluster's token is the user's (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token); to go without
    takes an explicit RAY_AUTH_MODE=disabled. A private Ray always has one, made for this run and kept in its
    environment, and is reached from this machine alone.
    """
    if not private:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # How Ray keeps to the loopback address, as it does on macOS and Windows; an address handed to ray.init
    # would be replaced by the machine's own.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # where training workers listen for each other
        os.environ[name] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def is_private_cluster() -> bool:
    """Whether the Ray in use is of this machine alone, and reached from nowhere else."""
    import ray

    return ray.util.get_node_ip_address() == LOOPBACK_ADDRESS


def quiet_ray() -> None:
    """Set before ray is imported: no usage reports, no bars of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # or a thread that outlives shutdown starts another cluster
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # each pool of Ray Data trips a warning of core
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what goes wrong comes as an exception


@contextmanager
def keep_signal_handlers() -> Iterator[None]:
    """Ray would handle SIGTERM with a native stack trace and an exit of its own: put our handlers back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def hide_native_messages() -> Iterator[None]:
    """Ray's C++ part writes to the file descriptor itself; its failures come as exceptions all the same."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
