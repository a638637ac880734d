"""The tunnel of a host: how its peers are, which keys it shows, and what a tunnel has to fit in with."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Any

from provisioner.facts.listing import contents, listed, matching
from provisioner.facts.machine import virtualization
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import PeerHealth, Route, TunnelFacts
from provisioner.model.tunnel import INTERFACE

NOTES = "/run/provision/tunnel.json"
CHANGE = "/var/lib/provision/guard.json"
JOINED = "/var/lib/provision/joined/*.json"
KEYS = ("/etc/wireguard/prov0*.pub", "/etc/nebula/provision/prov0*.pub", "/etc/provision/prov0/prov0*.pub")
CERTIFICATES = "/etc/nebula/provision/signed/*.crt"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
_CONTAINERS = ("docker", "podman", "lxc", "lxc-libvirt", "systemd-nspawn", "openvz", "container-other")


def read(capture: Capture, running: str | Unknown) -> TunnelFacts:
    notes = _notes(capture)
    change = _json(capture.file(CHANGE))
    return TunnelFacts(
        interface_mtu=_interface_mtu(notes),
        kind=str(notes.get("kind", "wireguard")) if isinstance(notes, dict) else notes,
        peers=_peers(notes, capture),
        seen_age_s=_age(notes, capture),
        public_keys=_public_keys(capture),
        routes=_routes(capture),
        kernel_module=_kernel_module(capture, running),
        firewall=_firewall(capture),
        path_mtu=_path_mtu(capture),
        change=change if change is UNKNOWN or change is None else str(change.get("state", UNKNOWN)),
        change_why=str(change.get("why", "")) if isinstance(change, dict) else UNKNOWN if change is UNKNOWN else "",
        joined=_joined(capture),
    )


def _json(text: str | Unknown | None) -> dict[str, Any] | Unknown | None:
    if not isinstance(text, str):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return UNKNOWN
    return value if isinstance(value, dict) else UNKNOWN


def _notes(capture: Capture) -> dict[str, Any] | Unknown | None:
    """What the host's keeper wrote down last; None: there is no keeper, so no tunnel of provision's."""
    return _json(capture.file(NOTES))


def _interface_mtu(notes: dict[str, Any] | Unknown | None) -> int | Unknown | None:
    if not isinstance(notes, dict):
        return notes
    return notes["mtu"] if isinstance(notes.get("mtu"), int) else None


def _now(capture: Capture) -> float | None:
    answer = capture.command("date +%s.%N")
    if answer is UNKNOWN or not re.fullmatch(r"\d+\.\d+\s*", answer.stdout):
        return None
    return float(answer.stdout)


def _age(notes: dict[str, Any] | Unknown | None, capture: Capture) -> float | Unknown:
    now = _now(capture)
    if not isinstance(notes, dict) or now is None or not isinstance(notes.get("at"), (int, float)):
        return UNKNOWN
    return round(max(0.0, now - notes["at"]), 1)


def _peers(notes: dict[str, Any] | Unknown | None, capture: Capture) -> tuple[PeerHealth, ...] | Unknown:
    if not isinstance(notes, dict):
        return UNKNOWN if notes is UNKNOWN else ()
    now, found = _now(capture), []
    if not isinstance(notes.get("peers"), list):
        return UNKNOWN
    for peer in notes["peers"]:
        if not isinstance(peer, dict):
            return UNKNOWN
        last, rtt, outside = peer.get("handshake"), _number(peer.get("rtt_ms")), _number(peer.get("path_ms"))
        age = max(0.0, now - last) if last and now is not None and isinstance(last, (int, float)) else None
        found.append(
            PeerHealth(
                str(peer.get("host", "")),
                round(age, 1) if age is not None else None,
                _number(peer.get("loss_pct")),
                rtt,
                str(peer["endpoint"]) if peer.get("endpoint") else None,
                round(max(0.0, rtt - outside), 2) if rtt is not None and outside is not None else None,
            )
        )
    return tuple(found)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _public_keys(capture: Capture) -> dict[str, str] | Unknown:
    found: dict[str, str] = {}
    for pattern in (*KEYS, CERTIFICATES):
        texts = contents(capture, pattern)
        if texts is UNKNOWN:
            return UNKNOWN
        found |= texts
    host_key = capture.file(HOST_KEY)
    if isinstance(host_key, str):
        found[HOST_KEY] = host_key
    return found


def _routes(capture: Capture) -> tuple[Route, ...] | Unknown:
    """What the kernel routes, and what Docker is told to take for networks that are yet to come."""
    text = capture.file("/proc/net/route")
    if not isinstance(text, str):
        return UNKNOWN
    more = capture.file("/proc/net/ipv6_route")
    found = [*_routes_of_4(text), *(_routes_of_6(more) if isinstance(more, str) else ()), *_pools(capture)]
    return tuple(dict.fromkeys(found))


def _routes_of_4(text: str) -> Iterator[Route]:
    """`/proc/net/route` writes addresses as hexadecimal words in the machine's byte order, which is little here."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[0] in ("lo", INTERFACE):
            continue
        try:
            address, mask = (ipaddress.IPv4Address(bytes.fromhex(fields[i])[::-1]) for i in (1, 7))
            network = ipaddress.IPv4Network(f"{address}/{mask}")
        except ValueError:
            continue
        if network.prefixlen:
            yield Route(str(network), fields[0])


_REJECT = 0x0200  # RTF_REJECT of linux/route.h: nothing is reached there


def _routes_of_6(text: str) -> Iterator[Route]:
    """`/proc/net/ipv6_route`: network and length first, flags and interface last, all in hexadecimal; no heading."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10 or fields[-1] in ("lo", INTERFACE):
            continue
        try:
            length = int(fields[1], 16)
            network = ipaddress.IPv6Network((bytes.fromhex(fields[0]), length))
            flags = int(fields[-2], 16)
        except ValueError:
            continue
        if length and not flags & _REJECT and not (network.is_link_local or network.is_multicast):
            yield Route(str(network), fields[-1])


def _pools(capture: Capture) -> Iterator[Route]:
    """`bip` and `default-address-pools` of Docker's daemon.json."""
    config = _json(capture.file("/etc/docker/daemon.json"))
    if not isinstance(config, dict):
        return
    pools = config.get("default-address-pools")
    bases = [p.get("base") for p in pools if isinstance(p, dict)] if isinstance(pools, list) else []
    for text in (config.get("bip"), *bases):
        try:
            yield Route(str(ipaddress.ip_network(str(text), strict=False)), "Docker, by its daemon.json")
        except ValueError:
            continue


def _kernel_module(capture: Capture, running: str | Unknown) -> bool | Unknown:
    """Loaded, or on disk for the running kernel; a container loads none, whatever lies on its disk."""
    loaded = matching(capture, "/sys/module/wireguard")
    if loaded:
        return True
    inside = virtualization(capture)
    if isinstance(inside, str) and inside in _CONTAINERS and loaded == ():
        return False
    on_disk = listed(capture, "ls -d /lib/modules/*/kernel/drivers/net/wireguard/wireguard.ko*")
    if loaded is UNKNOWN or on_disk is UNKNOWN or inside is UNKNOWN or running is UNKNOWN:
        return UNKNOWN
    return any(path.startswith(f"/lib/modules/{running}/") for path in on_disk)


def _firewall(capture: Capture) -> str | Unknown | None:
    ufw, nft = capture.file("/etc/ufw/ufw.conf"), matching(capture, "/usr/sbin/nft")
    if ufw is UNKNOWN or nft is UNKNOWN:
        return UNKNOWN
    if isinstance(ufw, str) and re.search(r"^ENABLED=yes\s*$", ufw, re.MULTILINE | re.IGNORECASE):
        return "ufw"
    # Debian brings nft everywhere; who keeps rules for iptables lives by those, and an accept of another table is none.
    kept = matching(capture, "/etc/iptables/rules.v4")
    if kept is UNKNOWN or kept:
        return UNKNOWN if kept is UNKNOWN else "iptables"
    return "nftables" if nft else None


def _path_mtu(capture: Capture) -> int | Unknown | None:
    for line, answer in capture.commands.items():
        if "path-mtu" in line:
            match = re.search(r"^path-mtu (\d+|none)$", answer.stdout, re.MULTILINE)
            if match:
                return None if match[1] == "none" else int(match[1])
    return UNKNOWN


def _joined(capture: Capture) -> dict[str, str] | Unknown:
    texts = contents(capture, JOINED)
    if texts is UNKNOWN:
        return UNKNOWN
    return {path.rpartition("/")[2].removesuffix(".json"): text for path, text in texts.items()}
