"""rathole: as frp, smaller; no release since 2023-10-01, and one entry with a token for each port."""

from __future__ import annotations

import json

from provisioner.model.resource import Directory, Guarded, GuardedFile, Resource, SecretFile
from provisioner.tunnels.contract import HEADER, STATE, Own, Question
from provisioner.tunnels.exposed import ports_of
from provisioner.tunnels.host import guard_program

TEMPLATE, CONFIG = f"{STATE}/rathole.toml", "/run/provision/rathole.toml"
TOKEN = f"{STATE}/rathole.key"
NAME, MARK = "@NAME@", "@TOKEN@"
"""Two marks, because the probe takes out what stands behind the name of a secret, and could not compare the file."""


def resources(me: Own) -> tuple[Resource, ...]:
    """The program itself has no Debian package; its binary in /usr/local/bin is for you to put there."""
    return (
        Directory(path=STATE),
        *guard_program(),
        SecretFile(path=TOKEN, expression="provision_tunnel_secret"),
        Guarded(
            name="tunnel rathole",
            files=(
                GuardedFile(path=TEMPLATE, content=config(me)),
                GuardedFile(path="/etc/systemd/system/rathole.service", content=unit(me)),
            ),
            units=("rathole.service",),
            confirm_s=me.wish.confirm_s,
        ),
    )


def config(me: Own) -> str:
    """The text of the config with a mark where the token goes: rathole reads tokens from its config alone."""
    hub = me.lock.role == "hub"
    side = "server" if hub else "client"
    where = (
        f"bind_addr = {json.dumps('0.0.0.0:' + (me.wish.endpoint or ':2333').rpartition(':')[2])}"
        if hub
        else f"remote_addr = {json.dumps(me.wish.server)}"
    )
    # The client must wait longer than the server's heartbeat of 30 s.
    beat = "heartbeat_interval = 30" if hub else "heartbeat_timeout = 40\nretry_interval = 1"
    lines = [HEADER + f"[{side}]", where, f'default_{NAME} = "{MARK}"', beat]
    for port in (single for exposed in ports_of(me.wish.expose) for single in exposed.singles()):
        name = f"{port.protocol}-{port.outside}"
        address = f"0.0.0.0:{port.outside}" if hub else f"127.0.0.1:{port.inside}"
        key = "bind_addr" if hub else "local_addr"
        lines += ["", f"[{side}.services.{name}]", f'type = "{port.protocol}"', f'{key} = "{address}"']
    return "\n".join(lines) + "\n"


def unit(me: Own) -> str:
    """The token is put in at each start, into a file in memory that root alone can read."""
    side = "--server" if me.lock.role == "hub" else "--client"
    fill = f'umask 077; mkdir -p /run/provision; sed "s|{NAME}|token|; s|{MARK}|$(cat {TOKEN})|" {TEMPLATE} >{CONFIG}'
    return (
        HEADER
        + "[Unit]\nDescription=rathole\nWants=network-online.target\nAfter=network-online.target\n"
        + "StartLimitIntervalSec=0\n\n"
        + f"[Service]\nExecStartPre=/bin/sh -c '{fill}'\nExecStart=/usr/local/bin/rathole {side} {CONFIG}\n"
        + "Restart=always\nRestartSec=5\n\n[Install]\nWantedBy=multi-user.target\n"
    )


def questions(me: Own) -> tuple[Question, ...]:
    """It has no status of its own: the unit, and a look at the public port from outside."""
    return (Question("the service", "systemctl is-active rathole.service", "active"),)
