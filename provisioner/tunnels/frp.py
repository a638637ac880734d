"""frp: chosen ports of a rig appear on a public server; one proxy for each port or range."""

from __future__ import annotations

import json

from provisioner.model.resource import Directory, Guarded, GuardedFile, Resource, SecretFile
from provisioner.model.tunnel import split_endpoint
from provisioner.tunnels.contract import HEADER, STATE, Own, Question
from provisioner.tunnels.exposed import Port, ports_of
from provisioner.tunnels.host import guard_program

CLIENT, SERVER = "/etc/frp/frpc.toml", "/etc/frp/frps.toml"
TOKEN = f"{STATE}/frp.key"


def resources(me: Own) -> tuple[Resource, ...]:
    """The program itself has no Debian package; its binary in /usr/local/bin is for you to put there."""
    hub = me.lock.role == "hub"
    name, path, text = ("frps", SERVER, server(me)) if hub else ("frpc", CLIENT, client(me))
    return (
        Directory(path=STATE),
        Directory(path="/etc/frp"),
        *guard_program(),
        SecretFile(path=TOKEN, expression="provision_tunnel_secret"),
        Guarded(
            name="tunnel frp",
            files=(
                GuardedFile(path=path, content=text, mode="0600"),
                GuardedFile(path=f"/etc/systemd/system/{name}.service", content=unit(name, path)),
            ),
            units=(f"{name}.service",),
            confirm_s=me.wish.confirm_s,
        ),
    )


def client(me: Own) -> str:
    """frpc.toml: a server that restarts must not end the client, TLS is on, the token is read from its file."""
    host, port = split_endpoint(me.wish.server or "")
    lines = [
        HEADER + f"serverAddr = {json.dumps(host)}",
        f"serverPort = {port}",
        "loginFailExit = false",
        'auth.method = "token"',
        'auth.tokenSource.type = "file"',
        f"auth.tokenSource.file.path = {json.dumps(TOKEN)}",
        "transport.tls.enable = true",
        'webServer.addr = "127.0.0.1"',
        "webServer.port = 7400",
    ]
    for port_ in (single for exposed in ports_of(me.wish.expose) for single in exposed.singles()):
        lines += [
            "",
            "[[proxies]]",
            f"name = {json.dumps(f'{me.host}-{port_.protocol}-{port_.outside}')}",
            f'type = "{port_.protocol}"',
            'localIP = "127.0.0.1"',
            f"localPort = {port_.inside}",
            f"remotePort = {port_.outside}",
        ]
    return "\n".join(lines) + "\n"


def server(me: Own) -> str:
    """frps.toml: locked down, for any client that has the token may ask for ports."""
    _, port = split_endpoint(me.wish.endpoint or f"{me.host}:7000")
    exposed: list[Port] = ports_of(me.wish.expose)
    allowed = ", ".join(f"{{ start = {p.outside}, end = {p.last} }}" for p in exposed)
    lines = [
        HEADER + f"bindPort = {port}",
        'auth.method = "token"',
        'auth.tokenSource.type = "file"',
        f"auth.tokenSource.file.path = {json.dumps(TOKEN)}",
        "transport.tls.force = true",
        f"allowPorts = [{allowed}]",
        f"maxPortsPerClient = {sum(p.last - p.outside + 1 for p in exposed)}",
    ]
    return "\n".join(lines) + "\n"


def unit(name: str, path: str) -> str:
    return (
        HEADER
        + f"[Unit]\nDescription=frp ({name})\nWants=network-online.target\nAfter=network-online.target\n"
        + "StartLimitIntervalSec=0\n\n"
        + f"[Service]\nExecStart=/usr/local/bin/{name} -c {path}\nRestart=always\nRestartSec=5\n\n"
        + "[Install]\nWantedBy=multi-user.target\n"
    )


def questions(me: Own) -> tuple[Question, ...]:
    if me.lock.role == "hub":
        return (Question("the server", "systemctl is-active frps.service", "active"),)
    return (Question("the proxies", "curl -fsS http://127.0.0.1:7400/api/status", 'every proxy is "running"'),)
