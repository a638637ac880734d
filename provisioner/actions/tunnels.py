"""The part of `provision resolve` that joins hosts: what to ask them, and each one's tunnel from what they showed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from provisioner.actions.observe import Seen
from provisioner.errors import BadInput
from provisioner.facts.tunnel import CERTIFICATES, HOST_KEY
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import HostLock, Lock
from provisioner.model.tunnel import Tunnel, TunnelLock, split_endpoint
from provisioner.probe.request import FULL, Command, Request
from provisioner.resolve.tunnels import ports_needed
from provisioner.tunnels import mtu
from provisioner.tunnels.assign import KEYED, Member, assign
from provisioner.tunnels.keys import public_key, public_path
from provisioner.tunnels.lock import all_tunnels

Resolves = Callable[[str], bool]
"""Whether this machine finds an address for a name."""


def request_of(host: InventoryHost, hosts: Sequence[InventoryHost], before: Lock | None) -> Request:
    """Everything that the resolver reads; a host that dials another also measures the path to it."""
    wish = host.intent.tunnel
    far = None
    if wish.kind in ("wireguard", "nebula") and wish.role != "hub":
        far = next((end for end in _ends(host, hosts, before) if end is not None), None)
    if far is None:
        return Request(FULL)
    return Request(FULL, asked=(Command(mtu.measure(split_endpoint(far)[0]), limit_s=45, shell=True),))


def _ends(host: InventoryHost, hosts: Sequence[InventoryHost], before: Lock | None) -> list[str | None]:
    """Where the others of its tunnel are reached."""
    wishes = {one.name: one.intent.tunnel for one in hosts}
    if before is not None:
        wishes = {name: one.wish for name, one in all_tunnels(before).items()} | wishes
    mine = host.intent.tunnel
    if mine.role == "spoke":
        hub = wishes.get(mine.hub or "")
        return [hub.endpoint if hub is not None else None]
    return [w.endpoint for name, w in wishes.items() if w.role == "site" and w.mesh == mine.mesh and name != host.name]


def join(
    seen: Mapping[str, Seen],
    stacks: Mapping[str, HostLock],
    before: Lock | None,
    matrix: Matrix,
    resolves: Resolves,
) -> tuple[dict[str, HostLock], Lock | None]:
    """Return the stacks with their tunnels, and the former lock with those of its hosts that a new one changes.

    Raises BadInput for what cannot work, before anything is touched.
    """
    former = all_tunnels(before)
    members = [
        _member(name, stacks[name].intent, former[name].lock if name in former else None, seen.get(name), matrix)
        for name in stacks
        if stacks[name].intent.tunnel.kind != "none"
    ]
    # Hosts that are not looked at this time stay joined as they were: to leave them out would cut them off.
    for name in (name for name in former if name not in stacks):
        intent = before.hosts[name].intent if before is not None and name in before.hosts else None
        if intent is not None:
            members.append(_member(name, intent, former[name].lock, None, matrix))
        else:
            members.append(Member(name, former[name].wish, former[name].lock))
    found = assign(_with_joined(members, seen))
    _refuse_unresolved(stacks, members, resolves)
    mine = {
        name: entry.model_copy(update={"tunnel": _tunnel(name, found, seen, before)}) for name, entry in stacks.items()
    }
    if before is None:
        return mine, None
    theirs = {
        name: entry.model_copy(update={"tunnel": found[name]}) if name in found else entry
        for name, entry in before.hosts.items()
    }
    parked = {
        name: one.model_copy(update={"lock": found[name]}) for name, one in before.tunnels.items() if name in found
    }
    return mine, before.model_copy(update={"hosts": theirs, "tunnels": parked})


def _tunnel(
    name: str, found: Mapping[str, TunnelLock], seen: Mapping[str, Seen], before: Lock | None
) -> TunnelLock | None:
    """A host that wants no tunnel and has one, or had one by the former lock, is to be without."""
    if name in found:
        return found[name]
    one, former = seen.get(name), before.hosts.get(name) if before is not None else None
    has_one = one is not None and isinstance(one.facts.tunnel.interface_mtu, int)
    was = former.tunnel if former is not None else None
    if was is not None:  # what ufw was told of it has to be taken back
        return TunnelLock(kind="none", role=was.role, host=name, port=was.port, firewall=was.firewall)
    return TunnelLock(kind="none", role="spoke", host=name) if has_one else None


def _member(name: str, intent: Intent, before: TunnelLock | None, seen: Seen | None, matrix: Matrix) -> Member:
    wish = intent.tunnel
    ports = ports_needed(intent, matrix)
    if seen is None:
        return Member(name, wish, before, ports=ports)
    facts = seen.facts.tunnel
    firewall: Literal["nftables", "ufw", "iptables"] | None = None
    if facts.firewall in ("nftables", "ufw", "iptables"):
        firewall = facts.firewall
    return Member(
        host=name,
        wish=wish,
        before=before,
        keys=_keys(wish, before, facts.public_keys) if facts.public_keys is not UNKNOWN else None,
        routed=None if facts.routes is UNKNOWN else tuple((r.network, r.interface) for r in facts.routes),
        path_mtu=facts.path_mtu if isinstance(facts.path_mtu, int) else None,
        kernel_module=None if facts.kernel_module is UNKNOWN else facts.kernel_module,
        firewall=firewall,
        ssh_port=_ssh_port(seen.host),
        ports=ports,
    )


def _ssh_port(host: InventoryHost) -> int:
    """The port of sshd on the host itself; a way through a tunnel may have another one in front."""
    if "ansible_port" in host.path:
        return 22
    port = str(host.variables.get("ansible_port") or "")
    return int(port) if port.isdigit() else 22


def _keys(wish: Tunnel, before: TunnelLock | None, shown: Mapping[str, str]) -> dict[int, str]:
    """Generation → public key. The hub of an ssh tunnel is known by its host key."""
    if wish.kind not in KEYED:
        return {}
    if wish.kind == "ssh-reverse" and wish.role == "hub":
        key = public_key(wish.kind, shown.get(HOST_KEY, ""))
        return {1: key} if key is not None else {}
    generations = {1, *((before.generation, before.next_generation or 1) if before is not None else ())}
    found = {}
    for generation in sorted(generations):
        key = public_key(wish.kind, shown.get(public_path(wish.kind, generation), ""))
        if key is not None:
            found[generation] = key
    return found


def _with_joined(members: Sequence[Member], seen: Mapping[str, Seen]) -> list[Member]:
    """What only the hub knows: the certificates that it signed, its own among them."""
    found = []
    for member in members:
        certificate = None
        hub = seen.get(member.host if member.wish.role == "hub" else member.wish.hub or "")
        if member.wish.kind == "nebula" and hub is not None and hub.facts.tunnel.public_keys is not UNKNOWN:
            certificate = hub.facts.tunnel.public_keys.get(CERTIFICATES.replace("*", member.host))
        found.append(member if certificate is None else replace(member, certificate=certificate))
    return found


def _refuse_unresolved(names: Collection[str], members: Sequence[Member], resolves: Resolves) -> None:
    """A name counts as found when this machine finds it, or a host that dials it has measured the way there.

    Whether anybody's key is known yet does not matter: a wrong name is said before the first key is made.
    """
    for member in (m for m in members if m.host in names and m.path_mtu is None):
        for other, end in _dialled(member, members):
            name = split_endpoint(end)[0]
            if not resolves(name):
                raise BadInput(
                    "tunnel-endpoint-unresolved",
                    f"{member.host}: the endpoint of {other}, {end}, does not resolve to an address",
                    context=[f"neither this machine nor {member.host} found an address for {name}"],
                    hint=f"correct provision_tunnel.endpoint of {other}",
                )


def _dialled(member: Member, members: Sequence[Member]) -> list[tuple[str, str]]:
    """(host, endpoint) of those that a host dials: a spoke its hub, a site all sites that are reached."""
    mine, found = member.wish, []
    for other in members:
        wish = other.wish
        if other.host == member.host or wish.endpoint is None or wish.kind != mine.kind or mine.kind not in KEYED:
            continue
        same_mesh = mine.role == wish.role == "site" and wish.mesh == mine.mesh
        if same_mesh or (mine.role == "spoke" and other.host == mine.hub):
            found.append((other.host, wish.endpoint))
    return found
