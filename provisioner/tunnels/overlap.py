"""Whether a tunnel's networks get in the way of what a host routes already: LAN, Docker, Kubernetes, other tunnels."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from provisioner.errors import BadInput

Net = ipaddress.IPv4Network | ipaddress.IPv6Network

DOCKER = ("172.17.0.0/16",)
"""What Docker's bridge takes on a fresh host, before there is a route that could be seen."""

KUBERNETES = ("10.42.0.0/16", "10.43.0.0/16", "10.233.0.0/18", "10.233.64.0/18")
"""Pods and services of k3s, and services and pods of kubespray, as both choose by default."""


def clash(networks: Iterable[str], routed: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for every network of the tunnel that overlaps one that is routed: (network, by what)."""
    found = []
    for text in networks:
        mine = ipaddress.ip_network(text)
        for other, what in routed:
            theirs = ipaddress.ip_network(other)
            # A default route overlaps everything and stands in the way of nothing.
            if theirs.prefixlen and mine.version == theirs.version and mine.overlaps(theirs):
                found.append(f"{text} overlaps {other} ({what})")
    return found


def refuse(host: str, lines: list[str]) -> None:
    """Raise BadInput `tunnel-range-overlaps` when there are any."""
    if lines:
        raise BadInput(
            "tunnel-range-overlaps",
            f"{host}: the tunnel's networks overlap what the host routes already",
            context=lines,
            hint="choose a range in provision_tunnel that none of these hosts uses; 10.87.0.0/24 often is free",
        )
