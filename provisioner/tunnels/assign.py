"""Who is joined with whom, under which address: from wishes, former lock and seen keys to each host's TunnelLock.

The same members give the same answer. An address that the former lock gave stays with its host; a new host gets the
lowest that is free. Everything that cannot work is said here, before anything is touched.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from provisioner.errors import BadInput
from provisioner.model.tunnel import Forward, Tunnel, TunnelLock, TunnelPeer, split_endpoint
from provisioner.tunnels import certificates, mtu, overlap
from provisioner.tunnels.keys import private_path, public_path

KEYED = ("wireguard", "nebula", "ssh-reverse")
"""Kinds whose ends know each other by keys that their hosts make."""

FIRST_PORT = 22001
"""Where the ports begin that ssh-reverse opens on the hub's loopback address, one for each spoke."""


@dataclass(frozen=True)
class Member:
    """One host with a tunnel: what it asks, what it had, and what was seen of it (None: not seen this time)."""

    host: str
    wish: Tunnel
    before: TunnelLock | None = None
    keys: Mapping[int, str] | None = None  # generation -> public key, as the host shows them
    certificate: str | None = None
    routed: tuple[tuple[str, str], ...] | None = None  # (network, by what)
    path_mtu: int | None = None
    kernel_module: bool | None = None
    firewall: Literal["nftables", "ufw", "iptables"] | None = None
    ssh_port: int = 22
    ports: tuple[str, ...] = ()  # what its networks need from outside, such as tcp/8080


def assign(members: Sequence[Member]) -> dict[str, TunnelLock]:
    """Return the tunnel of every member. Raises BadInput for what cannot work, naming hosts and values."""
    by_name = {member.host: member for member in members}
    _refuse_keys_twice(members)
    addresses = _addresses(members, by_name)
    found = {}
    for member in members:
        _refuse_overlaps(member, members, by_name)
        _refuse_ingress_by_six(member, by_name)
        _refuse_another_address_than_signed(member, addresses)
        found[member.host] = _lock(member, members, by_name, addresses)
    return _smallest_mtu_at_the_hub(found)


# Addresses.


def hub_of(member: Member, by_name: Mapping[str, Member]) -> Member:
    """The hub that a spoke names. Raises BadInput when it is no hub of this kind."""
    hub = by_name.get(member.wish.hub or "")
    if hub is not None and hub.wish.kind == member.wish.kind and hub.wish.role == "hub":
        return hub
    what = "is not among the hosts" if hub is None else f"is no {member.wish.kind} hub"
    raise BadInput(
        "tunnel-hub-unknown",
        f"{member.host}: its hub {member.wish.hub} {what}",
        hint=f"give {member.wish.hub} provision_tunnel: {{kind: {member.wish.kind}, role: hub, "
        "endpoint: HOST:PORT, range: 10.87.0.0/24}, and resolve both together",
    )


def _net_of(member: Member, by_name: Mapping[str, Member]) -> tuple[str, str, str]:
    """What members of one tunnel have in common: (kind, name, range)."""
    if member.wish.role == "site":
        return member.wish.kind, f"mesh {member.wish.mesh}", member.wish.range or ""
    hub = member if member.wish.role == "hub" else hub_of(member, by_name)
    return hub.wish.kind, f"hub {hub.host}", hub.wish.range or ""


def _addresses(members: Sequence[Member], by_name: Mapping[str, Member]) -> dict[str, str]:
    nets: dict[tuple[str, str], list[Member]] = {}
    ranges: dict[tuple[str, str], str] = {}
    for member in members:
        if member.wish.kind not in ("wireguard", "nebula"):
            continue
        kind, name, wanted = _net_of(member, by_name)
        if ranges.setdefault((kind, name), wanted) != wanted:
            raise BadInput(
                "tunnel-ranges-differ",
                f"{member.host}: sites of {name} name different ranges: {ranges[kind, name]} and {wanted}",
                hint="give all sites of a mesh the same range",
            )
        nets.setdefault((kind, name), []).append(member)
    _refuse_common_ranges(ranges)
    found: dict[str, str] = {}
    for key, those in nets.items():
        found |= _of_one_net(those, ranges[key])
    return found


def _refuse_common_ranges(ranges: Mapping[tuple[str, str], str]) -> None:
    seen: list[tuple[str, str]] = []
    for (_, name), text in ranges.items():
        for other, theirs in seen:
            if ipaddress.ip_network(text).overlaps(ipaddress.ip_network(theirs)):
                raise BadInput(
                    "tunnel-range-overlaps",
                    f"two tunnels have networks that overlap: {name} {text}, {other} {theirs}",
                    hint="give each hub and each mesh a range of its own",
                )
        seen.append((name, text))


def _of_one_net(members: Sequence[Member], text: str) -> dict[str, str]:
    net = ipaddress.ip_network(text)
    found: dict[str, str] = {}
    taken: dict[str, str] = {}

    def take(host: str, address: str) -> None:
        if address in taken:
            raise BadInput(
                "tunnel-address-twice",
                f"{taken[address]} and {host} both have the address {address} in {text}",
                hint=f"take provision_tunnel.address away from one of them: it gets a free one of {text}",
            )
        found[host], taken[address] = address, host

    for member in members:
        if member.wish.address is not None:
            take(member.host, member.wish.address)
    for member in members:
        kept = member.before.address if member.before is not None else ""
        if member.host not in found and kept and ipaddress.ip_address(kept) in net and kept not in taken:
            take(member.host, kept)
    free = (str(a) for a in net.hosts() if str(a) not in taken)
    # The hub first, then by name: who comes later does not move who was there.
    for member in sorted(members, key=lambda m: (m.wish.role == "spoke", m.host)):
        if member.host not in found:
            address = next(free, None)
            if address is None:
                raise BadInput(
                    "tunnel-range-full",
                    f"{member.host}: the range {text} has no address left for it",
                    context=[f"{len(taken)} addresses are taken, the last by {list(taken.values())[-1]}"],
                    hint="give the hub a larger range (a /24 holds 254 hosts), or remove hosts that are gone: "
                    "provision tunnel remove HOST",
                )
            take(member.host, address)
    return found


# What cannot work.


def _refuse_keys_twice(members: Sequence[Member]) -> None:
    """Two hosts with one key are a copied disk: the hub would send each other's packets to whoever spoke last.

    Only keys in use count: a key that was made anew takes the place of the copied one, which may lie there still.
    """
    owners: dict[str, Member] = {}
    for member in members:
        key = _key(member)[1] if member.wish.kind in KEYED else None
        other = owners.setdefault(key, member) if key is not None else member
        if other.host != member.host:
            # The one that is no part of the lock yet is the copy, and it has nothing to rotate there.
            copy = next((m for m in (member, other) if m.before is None or m.before.public_key is None), None)
            again = copy.host if copy is not None else member.host
            raise BadInput(
                "tunnel-key-twice",
                f"{other.host} and {member.host} have the same {member.wish.kind} key",
                context=[f"public key {key}"],
                hint=f"one of them is a copy of the other's disk: on {again}, sudo rm "
                f"{private_path(member.wish.kind)} {public_path(member.wish.kind)}, then provision resolve again"
                if copy is not None
                else f"one of them is a copy of the other's disk: provision tunnel rotate {again}, then provision "
                f"apply --limit {again}, then provision resolve again",
            )


def _refuse_overlaps(member: Member, members: Sequence[Member], by_name: Mapping[str, Member]) -> None:
    if member.wish.kind not in ("wireguard", "nebula"):
        return
    net = _net_of(member, by_name)
    mine = [net[2]]
    for other in members:
        same = other.host != member.host and other.wish.kind == member.wish.kind and _net_of(other, by_name) == net
        if same:
            mine += other.wish.lans
    routed = [*(member.routed or ()), *((docker, "Docker's own bridge") for docker in overlap.DOCKER)]
    routed += [(text, "pods or services of Kubernetes") for text in overlap.KUBERNETES]
    routed += [(text, "a LAN of this host") for text in member.wish.lans]
    overlap.refuse(member.host, list(dict.fromkeys(overlap.clash(mine, routed))))


def _refuse_ingress_by_six(member: Member, by_name: Mapping[str, Member]) -> None:
    """A hub hands its public ports on by an address of the same version, and customers come by IPv4."""
    if member.wish.ingress != "tunnel" or member.wish.kind != "wireguard" or member.wish.role != "spoke":
        return
    range_ = _net_of(member, by_name)[2]
    if range_ and ipaddress.ip_network(range_).version == 6:
        raise BadInput(
            "tunnel-ingress-version",
            f"{member.host}: its customers come by IPv4, and its tunnel has IPv6 inside ({range_})",
            hint=f"give {hub_of(member, by_name).host} a range of IPv4, such as 10.87.0.0/24, "
            f"or {member.host} ingress: direct",
        )


def _refuse_another_address_than_signed(member: Member, addresses: Mapping[str, str]) -> None:
    """Nebula's address stands in the certificate: with another one both ends would wait for each other."""
    before = member.before
    if before is None or before.kind != "nebula" or member.wish.kind != "nebula" or before.certificate is None:
        return
    if before.address != addresses[member.host]:
        raise BadInput(
            "tunnel-address-signed",
            f"{member.host} is to be {addresses[member.host]}, and its certificate says {before.address}",
            hint=f"leave it as it is, or provision tunnel remove {member.host}, and join it anew",
        )


# One host.


def _lock(
    member: Member, members: Sequence[Member], by_name: Mapping[str, Member], addresses: Mapping[str, str]
) -> TunnelLock:
    wish, before = member.wish, member.before
    generation, key, following = _key(member)
    others = sorted(_others(member, members, by_name), key=lambda m: m.host)
    hub = None if wish.role != "spoke" or wish.kind not in KEYED else hub_of(member, by_name)
    path = member.path_mtu or (before.path_mtu if before is not None else None)
    range_ = _net_of(member, by_name)[2] if wish.kind in ("wireguard", "nebula") else ""
    carries = ipaddress.ip_network(range_).version if range_ else 4
    if carries == 6 and wish.mtu is not None and wish.mtu < mtu.IPV6_MINIMUM:
        raise BadInput(
            "tunnel-mtu-too-small",
            f"{member.host}: mtu {wish.mtu} is less than IPv6 takes, which is inside its tunnel ({range_})",
            hint=f"take provision_tunnel.mtu away, or give it {mtu.IPV6_MINIMUM} or more",
        )
    waits = [other.host for other in others if wish.kind in KEYED and _key(other)[1] is None]
    return TunnelLock(
        kind=wish.kind,
        role=wish.role,
        host=member.host,
        address=addresses.get(member.host, "127.0.0.1" if wish.kind == "ssh-reverse" else ""),
        port=_port(member, members),
        range=range_,
        hub=hub.host if hub is not None else None,
        hub_address=addresses.get(hub.host, "127.0.0.1") if hub is not None else "",
        public_key=key,
        generation=generation,
        next_generation=following,
        mtu=wish.mtu or mtu.inside(path, _outside(member, others), carries=carries),
        path_mtu=path,
        peers=tuple(_peer(member, other, addresses, members) for other in others if _key(other)[1] is not None),
        waits_for=tuple(waits),
        admit=_admitted(member),
        forwards=_forwards(others, addresses) if wish.role == "hub" else (),
        lans=wish.lans,
        userspace=(before is not None and before.userspace)
        if member.kernel_module is None
        else not member.kernel_module,
        firewall=member.firewall or (before.firewall if before is not None else "nftables"),
        certificate=_certificate(member, key),
        blocked=_blocked(member, members, by_name) if wish.kind == "nebula" else (),
    )


def _key(member: Member) -> tuple[int, str | None, int | None]:
    """(generation in use, its public key, generation to come): the next key counts once its host shows it."""
    before = member.before
    seen = member.keys or {}
    if before is None or before.kind != member.wish.kind:
        return 1, seen.get(1), None
    wanted = before.next_generation
    if wanted is not None and wanted in seen and _signed(member, seen[wanted]):
        return wanted, seen[wanted], None
    return before.generation, seen.get(before.generation) or before.public_key, wanted


def _signed(member: Member, key: str) -> bool:
    """A host of Nebula takes its new key only when its hub has signed it; a hub signs its own as it switches."""
    if member.wish.kind != "nebula" or member.wish.role == "hub":
        return True
    return member.certificate is not None and certificates.holds(member.certificate, key)


def _certificate(member: Member, key: str | None) -> str | None:
    """The newest one that was made for the key in use: with another the program would not even start."""
    former = member.before.certificate if member.before is not None else None
    for text in (member.certificate, former):
        if text and key and certificates.holds(text, key):
            return text
    return None


def _blocked(member: Member, members: Sequence[Member], by_name: Mapping[str, Member]) -> tuple[str, ...]:
    """Certificates of this net that count no more: of hosts that were removed, and those that a newer one replaced."""
    net = _net_of(member, by_name)
    found: set[str] = set()
    for other in members:
        if other.wish.kind != "nebula" or _net_of(other, by_name) != net or other.before is None:
            continue
        found.update(other.before.blocked)
        former = other.before.certificate
        now = _certificate(other, _key(other)[1])
        if former is not None and (now is None or certificates.fingerprint(now) != certificates.fingerprint(former)):
            found.add(f"{other.host} {certificates.fingerprint(former)}")
    return tuple(sorted(found))


def _to_sign(hub: Member, spoke: Member) -> str | None:
    """The key of a spoke that its hub is to sign: the next one as soon as it is there, before the spoke takes it."""
    following = spoke.before.next_generation if spoke.before is not None else None
    if hub.wish.kind == "nebula" and hub.wish.role == "hub" and following is not None:
        shown = (spoke.keys or {}).get(following)
        if shown is None and spoke.keys is None and hub.before is not None:  # not looked at this time
            shown = next((peer.public_key for peer in hub.before.peers if peer.host == spoke.host), None)
        if shown is not None:
            return shown
    return _key(spoke)[1]


def _others(member: Member, members: Sequence[Member], by_name: Mapping[str, Member]) -> list[Member]:
    """The other ends: a spoke's hub, a hub's spokes, a site's sites."""
    wish = member.wish
    if wish.kind not in KEYED:
        return []
    if wish.role == "spoke":
        return [hub_of(member, by_name)]
    if wish.role == "hub":
        return [m for m in members if m.wish.role == "spoke" and m.wish.kind == wish.kind and m.wish.hub == member.host]
    sites = [m for m in members if m.wish.role == "site" and m.wish.mesh == wish.mesh and m.host != member.host]
    if wish.endpoint is None and any(site.wish.endpoint is None for site in sites):
        lost = [site.host for site in sites if site.wish.endpoint is None]
        raise BadInput(
            "tunnel-no-endpoint",
            f"{member.host} and {', '.join(lost)}: neither site says where it is reached",
            hint="of any two sites one names its endpoint: HOST:PORT",
        )
    return sites


def _peer(member: Member, other: Member, addresses: Mapping[str, str], members: Sequence[Member]) -> TunnelPeer:
    """As little as possible is allowed: the other's own address and its LANs, nothing of the rest of the range."""
    wish = member.wish
    key = _to_sign(member, other)
    assert key is not None
    address = addresses.get(other.host)
    own = [_single(address)] if address else []
    if wish.kind == "ssh-reverse" and wish.role == "hub":
        own = [f"127.0.0.1:{_port(other, members)}"]  # all that its key may listen on
    dials = wish.role != "hub" and other.wish.endpoint is not None
    return TunnelPeer(
        host=other.host,
        public_key=key,
        allowed=(*own, *other.wish.lans),
        endpoint=other.wish.endpoint if dials else None,
        keepalive=wish.keepalive if dials else 0,
        preshared=wish.preshared or other.wish.preshared,
    )


def _single(address: str) -> str:
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"


def _outside(member: Member, others: Iterable[Member]) -> int:
    """IP version of the addresses outside; 0 when a name or several ends leave it open."""
    ends = [m.wish.endpoint for m in (member, *others) if m.wish.endpoint is not None]
    versions: set[int] = set()
    for end in ends:
        try:
            versions.add(ipaddress.ip_address(split_endpoint(end)[0]).version)
        except ValueError:
            versions.add(0)
    return versions.pop() if len(versions) == 1 else 0


def _port(member: Member, members: Sequence[Member]) -> int | None:
    wish = member.wish
    if wish.kind != "ssh-reverse" or wish.role == "hub":
        return split_endpoint(wish.endpoint)[1] if wish.endpoint is not None else None
    spokes = [m for m in members if m.wish.kind == "ssh-reverse" and m.wish.hub == wish.hub and m.wish.role == "spoke"]
    taken = {m.host: m.before.port for m in spokes if m.before is not None and m.before.port is not None}
    for one in sorted(spokes, key=lambda m: m.host):
        if one.host not in taken:
            taken[one.host] = next(p for p in range(FIRST_PORT, 65536) if p not in taken.values())
    return taken[member.host]


def _admitted(member: Member) -> tuple[str, ...]:
    """Ports that may be reached through the tunnel: ssh, and what networks need when customers come in this way.

    A hub offers its spokes nothing: who gets hold of a rig has no way to the machine that all rigs hang on.
    """
    if member.wish.role == "hub":
        return ()
    ports = member.ports if member.wish.ingress == "tunnel" else ()
    return tuple(dict.fromkeys((f"tcp/{member.ssh_port}", *ports)))


def _forwards(spokes: Sequence[Member], addresses: Mapping[str, str]) -> tuple[Forward, ...]:
    """The hub's public ports that are handed to spokes. Raises BadInput when two spokes want the same."""
    found: list[Forward] = []
    for spoke in (m for m in spokes if m.wish.ingress == "tunnel" and m.host in addresses):
        for port in spoke.ports:
            protocol, _, numbers = port.partition("/")
            low, high = _span(numbers)
            for other in found:
                if other.protocol == protocol and low <= _span(other.ports)[1] and _span(other.ports)[0] <= high:
                    raise BadInput(
                        "tunnel-port-twice",
                        f"{other.host} and {spoke.host} both want {protocol} port {numbers} of their hub",
                        context=[f"{other.host}: {other.protocol} {other.ports}", f"{spoke.host}: {port}"],
                        hint="one public address has each port once: give one of them a hub of its own, "
                        "or ingress: direct",
                    )
            found.append(
                Forward(
                    host=spoke.host,
                    address=addresses[spoke.host],
                    protocol="udp" if protocol == "udp" else "tcp",
                    ports=numbers,
                )
            )
    return tuple(found)


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _smallest_mtu_at_the_hub(found: Mapping[str, TunnelLock]) -> dict[str, TunnelLock]:
    """What a hub sends has to fit through the narrowest path to any of its spokes."""
    narrow = {}
    for host, lock in found.items():
        if lock.role == "hub":
            spokes = [found[peer.host].mtu for peer in lock.peers if peer.host in found]
            lock = lock.model_copy(update={"mtu": min(spokes)}) if spokes else lock
        narrow[host] = lock
    return narrow
