"""Tunnels in the lock: who has one, taking a host out for good, asking for a new key."""

from __future__ import annotations

from collections.abc import Collection

from provisioner.errors import BadInput
from provisioner.model.stack import Lock, ParkedTunnel
from provisioner.model.tunnel import TunnelLock
from provisioner.tunnels.assign import KEYED
from provisioner.tunnels.certificates import fingerprint


def all_tunnels(lock: Lock | None) -> dict[str, ParkedTunnel]:
    """Every host that is joined, whether it has an entry or is only parked; by host, wish and decision."""
    if lock is None:
        return {}
    found = dict(lock.tunnels)
    for name, entry in lock.hosts.items():
        if entry.tunnel is not None and entry.tunnel.kind != "none":
            found[name] = ParkedTunnel(wish=entry.intent.tunnel, lock=entry.tunnel)
    return found


def without_entries(lock: Lock, names: Collection[str]) -> Lock:
    """The lock without these hosts' entries; their tunnels are parked, so that nobody is cut off."""
    parked = {name: one for name, one in all_tunnels(lock).items() if name in names}
    hosts = {name: entry for name, entry in lock.hosts.items() if name not in names}
    return lock.model_copy(update={"hosts": hosts, "tunnels": {**lock.tunnels, **parked}})


def removed(lock: Lock, host: str) -> Lock:
    """The lock without a host, and without it among the peers of others. Raises BadInput when it is not in a tunnel."""
    joined = all_tunnels(lock)
    if host not in joined:
        known = ", ".join(sorted(joined)) or "none"
        raise BadInput(
            "tunnel-host-unknown",
            f"{host} is in no tunnel of the lock; it may have been removed before",
            context=[f"hosts with a tunnel: {known}"],
        )
    spokes = sorted(name for name, one in joined.items() if one.lock.hub == host)
    if spokes:
        raise BadInput(
            "tunnel-hub-in-use",
            f"{host} is the hub of {', '.join(spokes)}, who would lose their only way",
            hint="give them another hub first: provision_tunnel.hub, then resolve and apply",
        )
    gone = joined[host].lock
    hosts = {
        name: entry.model_copy(update={"tunnel": _without_peer(entry.tunnel, gone)})
        for name, entry in lock.hosts.items()
        if name != host
    }
    parked = {
        name: one.model_copy(update={"lock": _without_peer(one.lock, gone)})
        for name, one in lock.tunnels.items()
        if name != host
    }
    return lock.model_copy(update={"hosts": hosts, "tunnels": parked})


def _without_peer(lock: TunnelLock | None, gone: TunnelLock) -> TunnelLock | None:
    if lock is None:
        return None
    return lock.model_copy(
        update={
            "peers": tuple(peer for peer in lock.peers if peer.host != gone.host),
            "waits_for": tuple(name for name in lock.waits_for if name != gone.host),
            "forwards": tuple(forward for forward in lock.forwards if forward.host != gone.host),
            "blocked": _blocked(lock, gone),
        }
    )


def _blocked(lock: TunnelLock, gone: TunnelLock) -> tuple[str, ...]:
    """With Nebula a removed host still holds a certificate: each host of its net is told that it counts no more."""
    net = gone.hub or gone.host
    if lock.kind != "nebula" or gone.certificate is None or net not in (lock.hub, lock.host):
        return lock.blocked
    return tuple(sorted({*lock.blocked, f"{gone.host} {fingerprint(gone.certificate)}"}))


def rotated(lock: Lock, host: str) -> Lock:
    """The lock in which a host is to make a new key; the old one stays in use until the new one is known everywhere."""
    entry = lock.hosts.get(host)
    tunnel = entry.tunnel if entry is not None else None
    if entry is None or tunnel is None or not _makes_a_key(tunnel):
        raise BadInput(
            "tunnel-host-unknown",
            f"{host} has no tunnel in the lock whose key could be made anew",
            hint=f"provision resolve --limit {host}",
        )
    if tunnel.next_generation is not None:
        raise BadInput(
            "tunnel-rotation-pending",
            f"{host} is to make a new key already",
            hint=f"provision apply --limit {host}, then provision resolve, then provision apply for all its peers",
        )
    changed = tunnel.model_copy(update={"next_generation": tunnel.generation + 1})
    return lock.model_copy(update={"hosts": {**lock.hosts, host: entry.model_copy(update={"tunnel": changed})}})


def _makes_a_key(tunnel: TunnelLock) -> bool:
    """The hub of a reverse tunnel is known by its ssh host key, which is not provision's."""
    return tunnel.kind in KEYED and (tunnel.kind, tunnel.role) != ("ssh-reverse", "hub")


def steps_of_rotation(lock: Lock, host: str) -> tuple[tuple[str, str], ...]:
    """What to type until the new key is in use, and what each of it does."""
    tunnel = lock.hosts[host].tunnel
    assert tunnel is not None
    others = sorted(name for name, one in all_tunnels(lock).items() if _knows(one.lock, host))
    together = ",".join(sorted({host, *([tunnel.hub] if tunnel.hub else others)}))
    steps = [(f"provision apply --limit {host}", "it makes the key")]
    if tunnel.kind == "nebula" and tunnel.hub:
        steps += [
            (f"provision resolve --limit {together}", "its public half is collected"),
            (f"provision apply --limit {tunnel.hub}", "the hub signs it"),
        ]
    steps += [
        (f"provision resolve --limit {together}", "what was made is collected"),
        (f"provision apply --limit {together}", "both sides take it in the same moment"),
    ]
    return tuple(steps)


def _knows(lock: TunnelLock, host: str) -> bool:
    return any(peer.host == host for peer in lock.peers)
