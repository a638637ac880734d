"""A process that holds a socket of one sort, as a tunnel's program does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CONNECTED = "far = socket.create_server(('127.0.0.1', 0)); held = socket.create_connection(far.getsockname())"
LISTENS = "held = socket.create_server(('127.0.0.1', 0))"
ASKS_A_NAME_SERVER = "held = socket.socket(type=socket.SOCK_DGRAM); held.connect(('127.0.0.1', 53))"
HAS_ENDED = "far = socket.create_server(('127.0.0.1', 0)); socket.create_connection(far.getsockname()).close()"


@contextmanager
def holder(held: str) -> Iterator[int]:
    """The process id of one that holds such a socket for as long as the context lasts."""
    code = f"import socket, sys\n{held}\nprint('held', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.communicate()
