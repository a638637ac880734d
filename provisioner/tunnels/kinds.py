"""The table of kinds: what each offers, and whether it has been seen to work."""

from __future__ import annotations

from provisioner.model.resource import Resource
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import Kind
from provisioner.tunnels import (
    cloudflare_tunnel,
    frp,
    headscale,
    nebula,
    rathole,
    ssh_reverse,
    tailscale,
    wireguard,
)
from provisioner.tunnels.contract import KindOfTunnel, Own, Question

KINDS: dict[Kind, KindOfTunnel] = {
    "wireguard": KindOfTunnel(wireguard.resources, wireguard.questions, "proven", reaches_ssh=True),
    "ssh-reverse": KindOfTunnel(ssh_reverse.resources, ssh_reverse.questions, "proven", reaches_ssh=True),
    "nebula": KindOfTunnel(nebula.resources, nebula.questions, "proven", reaches_ssh=True),
    "tailscale": KindOfTunnel(tailscale.resources, tailscale.questions, "rendered", reaches_ssh=False),
    "headscale": KindOfTunnel(headscale.resources, headscale.questions, "rendered", reaches_ssh=False),
    "cloudflare-tunnel": KindOfTunnel(
        cloudflare_tunnel.resources, cloudflare_tunnel.questions, "rendered", reaches_ssh=False
    ),
    "frp": KindOfTunnel(frp.resources, frp.questions, "rendered", reaches_ssh=False),
    "rathole": KindOfTunnel(rathole.resources, rathole.questions, "rendered", reaches_ssh=False),
}


def tunnel_resources(entry: HostLock) -> tuple[Resource, ...]:
    """What a host must have for the tunnel that its lock entry states; nothing without one."""
    lock = entry.tunnel
    if lock is None:
        return ()
    if lock.kind == "none":
        return (wireguard.gone(lock),)
    return KINDS[lock.kind].resources(Own(lock.host, entry.intent.tunnel, lock))


def questions(entry: HostLock) -> tuple[Question, ...]:
    """What to ask a host about its tunnel's health, by hand or in a page."""
    lock = entry.tunnel
    if lock is None or lock.kind == "none":
        return ()
    return KINDS[lock.kind].questions(Own(lock.host, entry.intent.tunnel, lock))
