"""How the tunnel of a host reads in a line."""

from __future__ import annotations

from provisioner.cli.words import duration
from provisioner.model.facts import TunnelFacts


def tunnel_words(tunnel: TunnelFacts) -> str:
    """`hub 12 s ago, 3.1 ms (0.6 added), MTU 1420`; empty where there is no tunnel, or it was not looked for."""
    if not isinstance(tunnel.interface_mtu, int) and not (isinstance(tunnel.peers, tuple) and tunnel.peers):
        return ""
    parts = []
    for peer in tunnel.peers if isinstance(tunnel.peers, tuple) else ():
        age = "never" if peer.handshake_age_s is None else f"{duration(peer.handshake_age_s)} ago"
        added = f" ({peer.added_ms:.1f} added)" if peer.added_ms is not None else ""
        more = [f"{peer.rtt_ms:.1f} ms{added}"] if peer.rtt_ms is not None else []
        more += [f"{peer.loss_pct:.0f} % lost"] if peer.loss_pct else []
        parts.append(", ".join([f"{peer.host} {age}", *more]))
    size = f"MTU {tunnel.interface_mtu}" if isinstance(tunnel.interface_mtu, int) else "its interface is gone"
    if tunnel.kind == "ssh-reverse":
        size = "by ssh"  # which has no interface
    return " · ".join([*parts[:3], *([f"{len(parts) - 3} more"] if len(parts) > 3 else []), size])
