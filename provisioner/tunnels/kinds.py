"""The table of kinds: what each offers, and whether it has been seen to work."""

from __future__ import annotations

from collections.abc import Callable

from provisioner.model.resource import Guarded, Resource
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import Kind, TunnelLock
from provisioner.tunnels import (
    cloudflare_tunnel,
    firewall,
    frp,
    headscale,
    keeping,
    nebula,
    rathole,
    ssh_reverse,
    tailscale,
    wireguard,
)
from provisioner.tunnels.contract import KindOfTunnel, Own, Question
from provisioner.tunnels.host import guard_program

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
        return (*guard_program(), _alone(Guarded(name="tunnel"), lock))
    found = KINDS[lock.kind].resources(Own(lock.host, entry.intent.tunnel, lock))
    return tuple(_alone(resource, lock) if isinstance(resource, Guarded) else resource for resource in found)


LEFT_BY: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "wireguard": (
        (wireguard.CONFIG, wireguard.DROP_IN, keeping.FACTS, firewall.RULES, firewall.IPTABLES),
        (keeping.TIMER, wireguard.UNIT, firewall.UNIT),
    ),
    "ssh-reverse": (
        (
            f"/etc/systemd/system/{ssh_reverse.UNIT}",
            f"/etc/ssh/sshd_config.d/{ssh_reverse.USER}.conf",
            ssh_reverse.KEYS,
        ),
        (ssh_reverse.UNIT,),
    ),
    "nebula": ((nebula.CONFIG,), (nebula.UNIT,)),
}
"""Files and units of each kind that would go on carrying after the host got a tunnel of another kind."""


HUBS: tuple[tuple[Kind, str, Callable[[str, TunnelLock], list[str]]], ...] = (
    ("wireguard", wireguard.CONFIG, wireguard.cut_off),
    ("nebula", nebula.CONFIG, nebula.cut_off),
    ("ssh-reverse", ssh_reverse.KEYS, ssh_reverse.cut_off),
)
"""Where a hub of each kind knows its spokes by name, and whom of that text the lock's tunnel would cut off."""


def _alone(change: Guarded, lock: TunnelLock) -> Guarded:
    """The change, and with it the end of whatever tunnel was there before: of another kind, or of none any more."""
    mine = {file.path for file in change.files}
    absent = [path for files, _ in LEFT_BY.values() for path in files if path not in mine]
    stop = [unit for _, units in LEFT_BY.values() for unit in units if unit not in change.units]
    return change.model_copy(
        update={
            "files": (*change.files, *(file for file in firewall.kept(lock) if file.path not in mine)),
            "run": (*firewall.ufw_forget(lock), *change.run),
            "undo": change.undo or firewall.undo(lock),
            "absent": tuple(dict.fromkeys((*change.absent, *absent))),
            "stop": tuple(dict.fromkeys((*change.stop, *stop))),
        }
    )


def questions(entry: HostLock) -> tuple[Question, ...]:
    """What to ask a host about its tunnel's health, by hand or in a page."""
    lock = entry.tunnel
    if lock is None or lock.kind == "none":
        return ()
    return KINDS[lock.kind].questions(Own(lock.host, entry.intent.tunnel, lock))
