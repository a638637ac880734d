"""Which ports of TCP somebody listens on, from /proc/net/tcp and tcp6 (proc(5): state 0A is LISTEN)."""

from __future__ import annotations

LISTENERS = ("/proc/net/tcp", "/proc/net/tcp6")


def listeners(text: str) -> set[int]:
    """Return the ports; `0: 00000000:1F90 00000000:0000 0A …` is {8080}."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[3] == "0A":
            found.add(int(words[1].rpartition(":")[2], 16))
    return found
