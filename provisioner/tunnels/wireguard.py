"""WireGuard: a hub and spokes behind NAT, or sites with one another; wg-quick's files, in the kernel or beside it."""

from __future__ import annotations

import ipaddress
import re

from provisioner.model.resource import (
    Directory,
    File,
    Guarded,
    GuardedFile,
    KeyPair,
    Resource,
    SecretFile,
    Tool,
)
from provisioner.model.tunnel import INTERFACE, TunnelLock, TunnelPeer
from provisioner.tunnels import firewall, keeping
from provisioner.tunnels.contract import HEADER, PROGRAMS, STATE, Own, Question
from provisioner.tunnels.host import guard_program, program
from provisioner.tunnels.keys import private_path, public_path

CONFIG = f"/etc/wireguard/{INTERFACE}.conf"
UNIT = f"wg-quick@{INTERFACE}.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/provision.conf"
JOIN = f"{PROGRAMS}/join"
STALE_S = 180
"""REJECT_AFTER_TIME of the protocol: with keepalive on, an older handshake means that there is no session."""


def resources(me: Own) -> tuple[Resource, ...]:
    """Programs, key, then everything that could cut the host off as one guarded change."""
    lock = me.lock
    found: list[Resource] = [
        Directory(path="/etc/wireguard", mode="0700"),
        Directory(path=STATE),
        Tool(name="wireguard-tools"),
        Tool(name="iputils-ping"),
    ]
    if lock.firewall != "iptables":
        found.append(Tool(name="nftables"))
    if lock.userspace:
        found.append(Tool(name="wireguard-go"))
    found += guard_program()
    found.append(keeping.keeper())
    found.append(File(path=f"{PROGRAMS}/wg-reload", content=program("wg_reload"), mode="0755", kept=False))
    if lock.role == "hub":
        found.append(File(path=JOIN, content=program("join"), mode="0755", kept=False))
    for generation in (lock.generation, lock.next_generation):
        if generation is not None:
            found.append(
                KeyPair(
                    path=private_path("wireguard", generation),
                    public=public_path("wireguard", generation),
                    maker="wireguard",
                )
            )
    found += [
        SecretFile(path=_preshared(peer), expression=_vault(me.host, peer, lock))
        for peer in lock.peers
        if peer.preshared
    ]
    if lock.complete:
        found.append(guarded(me))
    return tuple(found)


def guarded(me: Own) -> Guarded:
    """The change that is confirmed over the tunnel itself, or, on a hub, over a session that is not the old one."""
    lock = me.lock
    return Guarded(
        name=f"tunnel {INTERFACE}",
        files=(
            GuardedFile(path=CONFIG, content=config(me), mode="0600"),
            GuardedFile(path=DROP_IN, content=_DROP_IN),
            *keeping.files(me, UNIT, lock.mtu),
            *firewall.files(lock),
            *firewall.kept(lock),
        ),
        units=(firewall.UNIT, UNIT, keeping.TIMER),
        run=firewall.ufw_commands(lock),
        undo=firewall.undo(lock),
        settle=((JOIN, "settle"),) if lock.role == "hub" else (),
        confirm_s=me.wish.confirm_s,
        path=lock.address if lock.role == "spoke" and me.wish.reach == "tunnel" else "",
        peer=lock.hub_address,
    )


def config(me: Own) -> str:
    """The text of /etc/wireguard/prov0.conf: no secret stands in it, the keys are read from their files."""
    lock = me.lock
    prefix = lock.range.partition("/")[2] if lock.role == "hub" else ("128" if ":" in lock.address else "32")
    lines = [
        HEADER + "[Interface]",
        f"Address = {lock.address}/{prefix}",
        f"MTU = {lock.mtu}",
        f"PostUp = wg set %i private-key {private_path('wireguard', lock.generation)}",
    ]
    if lock.port is not None and lock.role != "spoke":
        lines.append(f"ListenPort = {lock.port}")
    if lock.lans or lock.forwards:
        lines += [f"PostUp = {line}" for line in _forwarding(lock)]
    lines += [
        f"PostUp = wg set %i peer {peer.public_key} preshared-key {_preshared(peer)}"
        for peer in lock.peers
        if peer.preshared
    ]
    if lock.role == "hub":
        lines.append(f"PostUp = [ ! -x {JOIN} ] || {JOIN} restore")
    for peer in sorted(lock.peers, key=lambda p: p.host):
        lines += ["", "[Peer]", f"# {peer.host}", f"PublicKey = {peer.public_key}"]
        lines.append(f"AllowedIPs = {', '.join(peer.allowed)}")
        if peer.endpoint is not None:
            lines.append(f"Endpoint = {peer.endpoint}")
        if peer.keepalive:
            lines.append(f"PersistentKeepalive = {peer.keepalive}")
    return "\n".join(lines) + "\n"


def _forwarding(lock: TunnelLock) -> list[str]:
    """In a container the setting is often there already and cannot be written."""
    versions = {ipaddress.ip_network(text).version for text in (*lock.lans, *([lock.range] if lock.range else []))}
    both = ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding"))
    keys = [name for version, name in both if version in versions]
    return [f'[ "$(cat /proc/sys/{key.replace(".", "/")})" = 1 ] || sysctl -q -w {key}=1' for key in keys]


def peers_in(text: str) -> dict[str, tuple[str, str]]:
    """Host → (public key, allowed addresses) as a config of ours names them."""
    found = re.findall(r"^\[Peer\]\n# (\S+)\nPublicKey = (\S+)\nAllowedIPs = (.+)$", text, re.MULTILINE)
    return {host: (key, allowed) for host, key, allowed in found}


def cut_off(text: str, lock: TunnelLock) -> list[str]:
    """Whom a host with this config would lose if it had the lock's, and they went on as they are.

    Only a host that is dialled loses anybody; who dials comes back by itself.
    """
    listens = re.search(r"^ListenPort = (\d+)$", text, re.MULTILINE)
    if listens is None:
        return []
    known = peers_in(text)
    if lock.kind != "wireguard":
        return list(known)
    address = re.search(r"^Address = (\S+)/", text, re.MULTILINE)
    moved = lock.port != int(listens[1]) or (address is not None and address[1] != lock.address)
    now = {peer.host: (peer.public_key, ", ".join(peer.allowed)) for peer in lock.peers}
    return [name for name in known if name in now and (moved or now[name] != known[name])]


def _preshared(peer: TunnelPeer) -> str:
    return f"/etc/wireguard/{INTERFACE}.{peer.host}.psk.key"


def _vault(host: str, peer: TunnelPeer, lock: TunnelLock) -> str:
    """The spoke's own variable; of two sites that of the one whose name comes first."""
    owner = host if lock.role == "spoke" else peer.host if lock.role == "hub" else min(host, peer.host)
    return f"hostvars['{owner}'].provision_tunnel_preshared"


_DROP_IN = (
    HEADER
    + "# wg-quick's own reload reads no key from a file, and would leave the interface without one.\n"
    + f"[Unit]\nAfter={firewall.UNIT}\n\n[Service]\nExecReload=\nExecReload={PROGRAMS}/wg-reload %i\n"
)


def questions(me: Own) -> tuple[Question, ...]:
    """Handshake, way through, size."""
    far = me.lock.hub_address or (me.lock.peers[0].allowed[0].partition("/")[0] if me.lock.peers else "")
    asked = [
        Question(
            "last handshake",
            f"wg show {INTERFACE} latest-handshakes",
            f"at most {STALE_S} s ago; 0 means that there never was one",
        )
    ]
    if far:
        headers = 48 if ":" in far else 28
        asked += [
            Question("the way through", f"ping -c 5 -i 0.2 -q {far}", "no loss"),
            Question("the size", f"ping -M do -c 2 -s {me.lock.mtu - headers} -q {far}", "comes back unfragmented"),
        ]
    return tuple(asked)
