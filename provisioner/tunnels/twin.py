"""A host's tunnel as it can be rebuilt elsewhere: the same wish and addresses, with keys and a hub of that place.

The real keys are on the real hosts and stay there. What an upgrade meets is the same: programs, units, firewall, keeper
and checks of a spoke that is up.
"""

from __future__ import annotations

from collections.abc import Mapping

from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import Tunnel, TunnelLock
from provisioner.tunnels.assign import Member, assign

HUB = "hub"
PORT = 51820


def not_rebuilt(entry: HostLock) -> str | None:
    """Why this host's tunnel can't be had elsewhere, or None when it can, or when there is none."""
    wish, lock = entry.intent.tunnel, entry.tunnel
    if wish.kind == "none":
        return None
    if wish.kind != "wireguard" or wish.role != "spoke":
        return f"the lab cannot rebuild a tunnel by {wish.kind} as {wish.role}, only a wireguard spoke"
    if lock is None or lock.kind != "wireguard" or not lock.complete:
        return "its tunnel is in the lock and not in force yet: apply it, resolve again"
    return None


def has_tunnel(entry: HostLock) -> bool:
    return entry.intent.tunnel.kind != "none"


def wish_of(entry: HostLock) -> Tunnel:
    """What the host asks for, of the hub of that place."""
    wish = entry.intent.tunnel
    return wish.model_copy(update={"hub": HUB}) if has_tunnel(entry) else wish


def joined(
    host: str,
    entry: HostLock,
    keys: Mapping[str, str | None],
    former: Mapping[str, TunnelLock],
    *,
    kernel_module: bool,
) -> dict[str, TunnelLock]:
    """Both ends' tunnels, from the public keys that they show there; without keys, what makes them make some."""
    lock = entry.tunnel
    assert lock is not None
    hub = _hub_wish(lock.range, lock.hub_address)
    wish = wish_of(entry).model_copy(update={"address": lock.address or None})
    # Ports that networks need through the tunnel; ssh is let in by itself.
    ports = tuple(port for port in lock.admit if port != "tcp/22")

    def member(name: str, own: Tunnel, path_mtu: int | None = None, ports: tuple[str, ...] = ()) -> Member:
        key = keys.get(name)
        return Member(
            name,
            own,
            former.get(name),
            keys={1: key} if key is not None else {},
            path_mtu=path_mtu,
            kernel_module=kernel_module,
            ports=ports,
        )

    return assign([member(HUB, hub), member(host, wish, path_mtu=lock.path_mtu, ports=ports)])


def hub_entry(os: str, lock: TunnelLock | None) -> HostLock:
    """The other end as a host of its own: nothing but its end of the tunnel, as soon as there is one."""
    return HostLock(
        os=os,
        gpus=(),
        intent=Intent(tunnel=_hub_wish(lock.range, lock.address)) if lock is not None else Intent(),
        driver_branch=None,
        driver_version=None,
        modules=None,
        cuda=None,
        runtime=None,
        tunnel=lock,
    )


def _hub_wish(range: str, address: str) -> Tunnel:
    return Tunnel(kind="wireguard", role="hub", endpoint=f"{HUB}:{PORT}", range=range, address=address or None)
