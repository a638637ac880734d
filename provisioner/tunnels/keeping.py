"""The keeper on the host: what it is told of the tunnel, its units, and its program; for kinds that carry ssh."""

from __future__ import annotations

import json

from provisioner.model.resource import File, GuardedFile
from provisioner.model.tunnel import INTERFACE
from provisioner.tunnels.contract import HEADER, PROGRAMS, STATE, Own
from provisioner.tunnels.host import program

UNIT = "provision-tunnel"
TIMER = f"{UNIT}.timer"
FACTS = f"{STATE}/tunnel.json"


def keeper() -> File:
    """The program; nothing happens until its timer is there."""
    return File(path=f"{PROGRAMS}/keeper", content=program("keeper"), mode="0755", kept=False)


def files(me: Own, unit: str, mtu: int) -> tuple[GuardedFile, ...]:
    """What the keeper is told, and the units that start it; `unit` carries the tunnel, `mtu` is that of its interface.

    Where there is nothing to start again or no interface, they are empty. They are part of the guarded change: a keeper
    that went on looking after the tunnel of before would undo a revert.
    """
    return (
        GuardedFile(path=FACTS, content=facts_for_the_host(me, unit, mtu)),
        GuardedFile(path=f"/etc/systemd/system/{UNIT}.service", content=_SERVICE),
        GuardedFile(path=f"/etc/systemd/system/{TIMER}", content=_TIMER),
    )


def facts_for_the_host(me: Own, unit: str, mtu: int) -> str:
    """What the keeper works from: who the peers are, where they are dialled, whom to ask for a sign of life."""
    lock = me.lock
    peers = [
        {
            "host": peer.host,
            "public_key": peer.public_key if lock.kind == "wireguard" else "",
            "endpoint": peer.endpoint,
            "address": peer.allowed[0].partition("/")[0] if peer.allowed else "",
        }
        for peer in sorted(lock.peers, key=lambda p: p.host)
    ]
    value = {"interface": INTERFACE, "kind": lock.kind, "unit": unit, "mtu": mtu, "role": lock.role, "peers": peers}
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


_SERVICE = (
    HEADER
    + "[Unit]\nDescription=Keeps provision's tunnel carrying, and notes how it is\n\n"
    + f"[Service]\nType=oneshot\nExecStart={PROGRAMS}/keeper\n"
)

_TIMER = (
    HEADER
    + "[Unit]\nDescription=Looks after provision's tunnel four times a minute\n\n"
    + "[Timer]\nOnActiveSec=5\nOnBootSec=15\nOnUnitInactiveSec=15\nAccuracySec=1\n\n"
    + "[Install]\nWantedBy=timers.target\n"
)
