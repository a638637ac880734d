"""Nebula: the hub is lighthouse and signs; each host makes its own key, and only certificates travel."""

from __future__ import annotations

from provisioner.model.resource import Directory, Guarded, GuardedFile, KeyPair, Resource, Tool
from provisioner.model.tunnel import INTERFACE, split_endpoint
from provisioner.tunnels import firewall, keeping
from provisioner.tunnels.contract import HEADER, STATE, Own, Question
from provisioner.tunnels.host import guard_program
from provisioner.tunnels.keys import private_path, public_path

FOLDER = "/etc/nebula/provision"
CONFIG = f"{FOLDER}/config.yml"
UNIT = "provision-nebula.service"
CERTIFICATES = f"{FOLDER}/signed"
"""On the hub: HOST.crt for each host of the lock, signed there; the key of the authority never leaves this host."""


def resources(me: Own) -> tuple[Resource, ...]:
    """Key first; the hub signs what the lock names; a host that has its certificate gets its config."""
    lock = me.lock
    found: list[Resource] = [
        Directory(path="/etc/nebula"),
        Directory(path=FOLDER, mode="0700"),
        Directory(path=STATE),
        Tool(name="nebula"),
        Tool(name="nftables"),
        Tool(name="iputils-ping"),
        *guard_program(),
        keeping.keeper(),
        KeyPair(
            path=private_path("nebula", lock.generation),
            public=public_path("nebula", lock.generation),
            maker="nebula",
        ),
    ]
    if lock.complete:
        found.append(_guarded(me))
    return tuple(found)


def _guarded(me: Own) -> Guarded:
    lock = me.lock
    files = [
        GuardedFile(path=CONFIG, content=config(me), mode="0600"),
        GuardedFile(path=f"/etc/systemd/system/{UNIT}", content=_UNIT),
        *firewall.files(lock),
        *keeping.files(me, UNIT, _mtu(me)),
    ]
    run: tuple[tuple[str, ...], ...] = ()
    if lock.role == "hub":
        files += [
            GuardedFile(path=f"{FOLDER}/asked/{peer.host}.pub", content=peer.public_key + "\n") for peer in lock.peers
        ]
        run = (("/bin/sh", "-c", signing(me)),)
    elif lock.certificate is not None:
        authority, _, own = lock.certificate.partition("\n\n")
        files.append(GuardedFile(path=f"{FOLDER}/ca.crt", content=authority.strip() + "\n"))
        files.append(GuardedFile(path=f"{FOLDER}/{INTERFACE}.crt", content=own.strip() + "\n"))
    return Guarded(
        name="tunnel nebula",
        files=tuple(files),
        run=run,
        units=(firewall.UNIT, UNIT, keeping.TIMER),
        confirm_s=me.wish.confirm_s,
        path=lock.address if lock.role == "spoke" and me.wish.reach == "tunnel" else "",
        peer=lock.hub_address,
    )


def signing(me: Own) -> str:
    """What the hub runs to sign: an authority once, then a certificate for each host that has none for its key."""
    lock = me.lock
    bits = lock.range.partition("/")[2]
    lines = [
        "set -e; umask 077",
        f"cd {FOLDER}; mkdir -p signed",
        "[ -e ca.key ] || nebula-cert ca -name provision -out-crt ca.crt -out-key ca.key",
        f"[ -e {INTERFACE}.crt ] || nebula-cert sign -ca-crt ca.crt -ca-key ca.key -name {me.host} -ip "
        f"{lock.address}/{bits} -in-pub {public_path('nebula', lock.generation)} -out-crt {INTERFACE}.crt",
    ]
    for peer in lock.peers:
        address = peer.allowed[0].partition("/")[0]
        lines.append(
            f"cmp -s asked/{peer.host}.pub signed/{peer.host}.pub || {{ rm -f signed/{peer.host}.crt; "
            f"nebula-cert sign -ca-crt ca.crt -ca-key ca.key -name {peer.host} -ip {address}/{bits} "
            f"-in-pub asked/{peer.host}.pub -out-crt signed/{peer.host}.new; "
            f"{{ cat ca.crt; echo; cat signed/{peer.host}.new; }} >signed/{peer.host}.crt; rm signed/{peer.host}.new; "
            f"cp asked/{peer.host}.pub signed/{peer.host}.pub; }}"
        )
    return "\n".join(lines)


def _mtu(me: Own) -> int:
    """Nebula's own default of 1300, or less where the path is narrower."""
    return min(me.lock.mtu, 1300)


def config(me: Own) -> str:
    """The text of config.yml: keys by path, the hub as the only lighthouse, and Nebula's own firewall as narrow."""
    lock = me.lock
    hub = lock.role == "hub"
    far = lock.peers[0] if lock.peers and not hub else None
    known = f'\n  "{lock.hub_address}": ["{far.endpoint}"]' if far is not None else " {}"
    lighthouses = "" if hub else f'\n  hosts: ["{lock.hub_address}"]'
    port = split_endpoint(me.wish.endpoint)[1] if hub and me.wish.endpoint else 0
    rules = "".join(
        f'    - port: {p.partition("/")[2]}\n      proto: {p.partition("/")[0]}\n      cidr: "{lock.hub_address}/32"\n'
        for p in lock.admit
    )
    return (
        HEADER
        + f"pki:\n  ca: {FOLDER}/ca.crt\n  cert: {FOLDER}/{INTERFACE}.crt\n"
        + f"  key: {private_path('nebula', lock.generation)}\n"
        + f"static_host_map:{known}\n"
        + f"lighthouse:\n  am_lighthouse: {str(hub).lower()}\n  interval: 15{lighthouses}\n"
        + f'listen:\n  host: "0.0.0.0"\n  port: {port}\n'
        + "punchy:\n  punch: true\n"
        + f"tun:\n  dev: {INTERFACE}\n  mtu: {_mtu(me)}\n"
        + "firewall:\n  outbound:\n    - port: any\n      proto: any\n      host: any\n  inbound:\n"
        + "    - port: any\n      proto: icmp\n      host: any\n"
        + rules
    )


_UNIT = (
    HEADER
    + "[Unit]\nDescription=Nebula tunnel of provision\nWants=network-online.target\nAfter=network-online.target\n"
    + "StartLimitIntervalSec=0\n\n"
    + f"[Service]\nExecStart=/usr/bin/nebula -config {CONFIG}\nExecReload=/bin/kill -HUP $MAINPID\n"
    + "Restart=always\nRestartSec=5\n\n[Install]\nWantedBy=multi-user.target\n"
)


def questions(me: Own) -> tuple[Question, ...]:
    """The unit, and the way through."""
    asked = [Question("the service", f"systemctl is-active {UNIT}", "active")]
    if me.lock.hub_address and me.lock.role == "spoke":
        asked.append(Question("the way through", f"ping -c 5 -i 0.2 -q {me.lock.hub_address}", "no loss"))
    return tuple(asked)
