"""Whether a name has an address, asked of this machine's own resolver."""

from __future__ import annotations

import socket


def resolves(name: str) -> bool:
    """False only when the resolver says no; an address is its own answer."""
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False
