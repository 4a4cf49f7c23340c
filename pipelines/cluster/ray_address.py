"""Whether Ray can be joined at an address, or started here: found out in seconds, before Ray is asked.

Ray itself waits for minutes for a cluster that is gone, and a folder that is too deep for its sockets ends it
with a traceback.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

from pipelines.errors import UserError
from storage.content_cache import is_writable

RAY_REPLY_TIMEOUT_SECONDS = 4.0
"""For a connection, and for its reply: clusters are in the same network."""
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
"""How a client of gRPC begins, which Ray's control store and its client server speak: HTTP/2's preface and no
settings. Both ends send a frame of settings first."""
HTTP2_SETTINGS_FRAME_PATTERN = re.compile(rb"...\x04.\0{4}", re.DOTALL)
MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket."""
RAY_ADDRESS_HINT = (
    "set runtime.ray or RAY_ADDRESS to the HOST:PORT of a cluster that is up, or unset both for a private Ray"
)


def check_ray_reachable(address: str) -> None:
    """UserError, which says what was tried, where no Ray answers at HOST:PORT or ray://HOST:PORT."""
    found = re.fullmatch(r"(?:ray://)?(?:\[([0-9a-fA-F:.%]+)\]|([^\[\]:/\s]+)):(\d{1,5})/?", address)
    if not found or not 0 < int(found[3]) < 2**16:
        raise UserError(
            f"Ray's address {address!r}: expected HOST:PORT, such as head:6379; {RAY_ADDRESS_HINT}"
        )
    host, port = found[1] or found[2], int(found[3])
    try:
        with socket.create_connection((host, port), RAY_REPLY_TIMEOUT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("0", ""):
                _greet(connection)
    except TimeoutError:
        raise UserError(
            f"no Ray at {address}: no answer within {RAY_REPLY_TIMEOUT_SECONDS:g} s; {RAY_ADDRESS_HINT}"
        ) from None
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"no Ray at {address}: {why}; {RAY_ADDRESS_HINT}") from None


def _greet(connection: socket.socket) -> None:
    connection.sendall(HTTP2_PREFACE)
    reply = b""
    while len(reply) < 9 and (more := connection.recv(9 - len(reply))):
        reply += more
    if not HTTP2_SETTINGS_FRAME_PATTERN.fullmatch(reply):
        raise OSError(f"what listens there is no Ray; it replies {reply!r}")


def default_ray_folder() -> str:
    """Where Ray keeps its files unless it is given a folder."""
    return f"{os.environ.get('RAY_TMPDIR') or os.environ.get('TMPDIR') or '/tmp'}/ray"


def short_ray_folder() -> str | None:
    """None where Ray's own choice of a folder for its files will do, else one whose paths are short enough.
    UserError where there is none."""
    if _fits(default_ray_folder()):
        return None
    for folder in ("/tmp/ray", f"/tmp/ray-{os.getuid()}", f"/var/tmp/ray-{os.getuid()}"):
        if _fits(folder):
            return folder
    raise UserError(
        f"Ray can keep its sockets neither in {default_ray_folder()} nor in /tmp: their paths have more than "
        f"{MAX_SOCKET_PATH} bytes, or nothing can be written there; set RAY_TMPDIR to a short path that can "
        "be"
    )


def _fits(folder: str) -> bool:
    """Whether Ray can make its sockets below this folder."""
    longest = f"{folder}/session_2026-11-29_20-15-00_000000_{os.getpid()}/sockets/plasma_store"
    return len(os.fsencode(longest)) <= MAX_SOCKET_PATH and is_writable(Path(folder))
