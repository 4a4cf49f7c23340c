"""A stand-in for the interpreter that imports weights: each import in a process of its own, forked from one
that has torch already, which takes two seconds to import.

python import_server.py SOCKET EXECUTABLE: writes the executable, and serves what it is called with,
`-m storage.weights_import ARGUMENTS`, until the standard input ends.
"""

import contextlib
import io
import json
import os
import socketserver
import sys
import threading
import traceback
from pathlib import Path

CLIENT = """#!{python} -IS
import json, socket, sys
with socket.socket(socket.AF_UNIX) as one:
    one.connect({socket!r})
    one.sendall(json.dumps(sys.argv[1:]).encode())
    one.shutdown(socket.SHUT_WR)
    status, out, err = json.loads(b"".join(iter(lambda: one.recv(65536), b"")))
sys.stdout.write(out), sys.stderr.write(err), sys.exit(status)
"""
"""An executable that takes the interpreter's place."""


class Handler(socketserver.StreamRequestHandler):
    """One import."""

    def handle(self) -> None:
        out, err = io.StringIO(), io.StringIO()
        status = 0
        module, *sys.argv[1:] = json.loads(self.rfile.read())[1:]
        assert module == "storage.weights_import"
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                weights_import.main()
            except BaseException:  # noqa: BLE001 - as the interpreter ends with any
                traceback.print_exc()
                status = 1
        self.wfile.write(json.dumps([status, out.getvalue(), err.getvalue()]).encode())


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    pass


if __name__ == "__main__":
    import safetensors.torch  # noqa: F401

    from storage import weights_import

    with Server(sys.argv[1], Handler) as server:
        Path(sys.argv[2]).write_text(CLIENT.format(python=sys.executable, socket=sys.argv[1]))
        Path(sys.argv[2]).chmod(0o755)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        server.serve_forever()
