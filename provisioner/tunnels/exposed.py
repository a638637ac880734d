"""Ports that a proxy carries, as `expose` writes them: `tcp/2222=22`, `udp/4000-4010`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """Ports `outside` to `last` on the server; `inside` is the first of them on the rig."""

    protocol: str
    outside: int
    last: int
    inside: int

    def singles(self) -> Iterator[Port]:
        """`udp/4000-4001` is 4000 and 4001."""
        for step in range(self.last - self.outside + 1):
            yield Port(self.protocol, self.outside + step, self.outside + step, self.inside + step)


def ports_of(exposed: Iterable[str]) -> list[Port]:
    """Read the ports; web addresses (cloudflare-tunnel's way) are not among them."""
    found = []
    for text in exposed:
        protocol, slash, rest = text.partition("/")
        if not slash or protocol not in ("tcp", "udp"):
            continue
        outside, _, inside = rest.partition("=")
        low, _, high = outside.partition("-")
        found.append(Port(protocol, int(low), int(high or low), int(inside or low)))
    return found
