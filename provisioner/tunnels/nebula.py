"""Nebula: the hub is lighthouse and signs; each host makes its own key, and only certificates travel."""

from __future__ import annotations

import ipaddress
import re

from provisioner.model.resource import Directory, Guarded, GuardedFile, KeyPair, Resource, Tool
from provisioner.model.tunnel import INTERFACE, TunnelLock, split_endpoint
from provisioner.tunnels import certificates, firewall, keeping
from provisioner.tunnels.contract import HEADER, STATE, Own, Question
from provisioner.tunnels.host import guard_program
from provisioner.tunnels.keys import private_path, public_path

FOLDER = "/etc/nebula/provision"
CONFIG = f"{FOLDER}/config.yml"
UNIT = "provision-nebula.service"
CERTIFICATES = f"{FOLDER}/signed"
"""On the hub: HOST.crt for each host of the lock, signed there; the key of the authority never leaves this host."""
YEARS = 10
"""How long the authority lasts, and all that it signs. Nebula's own is one, after which no host would be let in."""


AGAIN_S = 5
"""How often a host tells its hub where it is: after a start the hub knows no way to it until then."""


def resources(me: Own) -> tuple[Resource, ...]:
    """Key first; the hub signs what the lock names; a host that has its certificate gets its config."""
    lock = me.lock
    found: list[Resource] = [
        Directory(path="/etc/nebula"),
        Directory(path=FOLDER, mode="0700"),
        Directory(path=STATE),
        Tool(name="nebula"),
        *([Tool(name="nftables")] if lock.firewall != "iptables" else []),
        Tool(name="iputils-ping"),
        *guard_program(),
        keeping.keeper(),
        *(
            KeyPair(path=private_path("nebula", one), public=public_path("nebula", one), maker="nebula")
            for one in (lock.generation, lock.next_generation)
            if one is not None
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
        *firewall.kept(lock),
        *keeping.files(me, UNIT, _mtu(me)),
    ]
    run = list(firewall.ufw_commands(lock))
    if lock.role == "hub":
        files += [
            GuardedFile(path=f"{FOLDER}/asked/{peer.host}.pub", content=peer.public_key + "\n") for peer in lock.peers
        ]
        signed = (_certificate(lock), f"{CERTIFICATES}/{me.host}.crt", f"{CERTIFICATES}/{me.host}.pub")
        files += [GuardedFile(path=path, content=None) for path in signed]
        run.append(("/bin/sh", "-c", signing(me)))
    elif lock.certificate is not None:
        authority, own = certificates.joined(lock.certificate)
        files.append(GuardedFile(path=f"{FOLDER}/ca.crt", content=authority + "\n"))
        files.append(GuardedFile(path=_certificate(lock), content=own + "\n"))
    # systemd says well of a program that ends a moment after its start: a config that it refuses is told before.
    run.append(("nebula", "-test", "-config", CONFIG))
    return Guarded(
        name="tunnel nebula",
        files=tuple(files),
        run=tuple(run),
        undo=firewall.undo(lock),
        units=(firewall.UNIT, UNIT, keeping.TIMER),
        confirm_s=me.wish.confirm_s,
        path=lock.address if lock.role == "spoke" and me.wish.reach == "tunnel" else "",
        peer=lock.hub_address,
    )


def _certificate(lock: TunnelLock) -> str:
    """Beside the key that it was made for, so that a way back finds both."""
    return private_path("nebula", lock.generation).removesuffix(".key") + ".crt"


def signing(me: Own) -> str:
    """What the hub runs to sign: an authority once, then a certificate for itself and each host, if its key is new.

    Who is no part of the lock any more loses its certificate: should it come back, it gets one that is not refused.
    """
    lock = me.lock
    bits = lock.range.partition("/")[2]
    known = " ".join(sorted((me.host, *(peer.host for peer in lock.peers))))
    lines = [
        "set -e; umask 077",
        f"cd {FOLDER}; mkdir -p signed asked",
        f"[ -e ca.key ] || nebula-cert ca -name provision -duration {YEARS * 8760}h -out-crt ca.crt -out-key ca.key",
        'for f in signed/*.crt; do n=${f#signed/}; n=${n%.crt}; case " ' + known + ' " in *" $n "*) ;; '
        '*) rm -f "signed/$n".* "asked/$n.pub";; esac; done',
        _SIGN,
        f"sign {me.host} {lock.address}/{bits} {public_path('nebula', lock.generation)} {_certificate(lock)}",
    ]
    for peer in lock.peers:
        address = peer.allowed[0].partition("/")[0]
        lines.append(f"sign {peer.host} {address}/{bits} asked/{peer.host}.pub signed/{peer.host}.own")
    return "\n".join(lines)


_SIGN = """sign() {
    { cat "$3"; echo "# $2"; } >signed/new.pub
    if [ ! -e "$4" ] || ! cmp -s signed/new.pub "signed/$1.pub"; then
        rm -f "$4"
        nebula-cert sign -ca-crt ca.crt -ca-key ca.key -name "$1" -ip "$2" -in-pub "$3" -out-crt "$4"
        { cat ca.crt; echo; cat "$4"; } >signed/new.crt
        mv signed/new.crt "signed/$1.crt"
        cp signed/new.pub "signed/$1.pub"
    fi
    rm signed/new.pub
}"""
"""NAME ADDRESS/BITS KEY CERTIFICATE: signs unless it has, for this key and this address."""


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
    spokes = "".join(f"# {SPOKE} {peer.host} {peer.allowed[0]}\n" for peer in lock.peers if hub and peer.allowed)
    blocked = "".join(f"    - {one.split()[1]}  # {one.split()[0]}\n" for one in lock.blocked)
    return (
        HEADER
        + spokes
        + f"pki:\n  ca: {FOLDER}/ca.crt\n  cert: {_certificate(lock)}\n"
        + f"  key: {private_path('nebula', lock.generation)}\n"
        + "  disconnect_invalid: true\n"
        + (f"  blocklist:\n{blocked}" if blocked else "")
        + f"static_host_map:{known}\n"
        + f"lighthouse:\n  am_lighthouse: {str(hub).lower()}\n  interval: {AGAIN_S}{lighthouses}\n"
        + f'listen:\n  host: "{_listens(me.wish.endpoint if hub else far.endpoint if far is not None else None)}"\n'
        + f"  port: {port}\n"
        + "punchy:\n  punch: true\n"
        + f"tun:\n  dev: {INTERFACE}\n  mtu: {_mtu(me)}\n"
        + "firewall:\n  outbound:\n    - port: any\n      proto: any\n      host: any\n  inbound:\n"
        + "    - port: any\n      proto: icmp\n      host: any\n"
        + rules
    )


def _listens(endpoint: str | None) -> str:
    """Both versions of IP outside (`::` takes both), unless the hub is known by an address of version 4."""
    try:
        version = ipaddress.ip_address(split_endpoint(endpoint or "")[0]).version
    except ValueError:
        version = 6
    return "0.0.0.0" if version == 4 else "::"


SPOKE = "spoke"


def cut_off(text: str, lock: TunnelLock) -> list[str]:
    """Whom a hub with this config would lose if it had the lock's, and they went on as they are."""
    spokes = dict(re.findall(rf"^# {SPOKE} (\S+) (\S+)$", text, re.MULTILINE))
    if lock.kind != "nebula":
        return list(spokes)
    # By the number behind `port:` of `listen`, and by who is refused from now on.
    port = re.search(r"^listen:\n  host: .*\n  port: (\d+)$", text, re.MULTILINE)
    moved = port is not None and lock.port is not None and int(port[1]) != lock.port
    refused = {one.split()[0] for one in lock.blocked if one.split()[1] not in text}
    now = {peer.host: peer.allowed[0] for peer in lock.peers if peer.allowed}
    stay = [name for name in spokes if name in now]
    return [name for name in stay if moved or name in refused or now[name] != spokes[name]]


_UNIT = (
    HEADER
    + "[Unit]\nDescription=Nebula tunnel of provision\nWants=network-online.target\nAfter=network-online.target\n"
    + "StartLimitIntervalSec=0\n\n"
    # No reload: port and size would be read and not taken, and nobody would know until the next start.
    + f"[Service]\nExecStart=/usr/bin/nebula -config {CONFIG}\n"
    + "Restart=always\nRestartSec=5\n\n[Install]\nWantedBy=multi-user.target\n"
)


def questions(me: Own) -> tuple[Question, ...]:
    """The unit, and the way through."""
    asked = [Question("the service", f"systemctl is-active {UNIT}", "active")]
    if me.lock.hub_address and me.lock.role == "spoke":
        asked.append(Question("the way through", f"ping -c 5 -i 0.2 -q {me.lock.hub_address}", "no loss"))
    return tuple(asked)
