"""Cloudflare Tunnel: cloudflared carries HTTP services out to Cloudflare's edge; no port ranges, no UDP."""

from __future__ import annotations

import json

from provisioner.model.resource import Directory, Guarded, GuardedFile, Resource, SecretFile
from provisioner.tunnels.contract import HEADER, STATE, Own, Question
from provisioner.tunnels.host import guard_program

CONFIG = "/etc/cloudflared/config.yml"
CREDENTIALS = f"{STATE}/cloudflared.json.key"
METRICS = "127.0.0.1:20241"


def resources(me: Own) -> tuple[Resource, ...]:
    """The program itself comes from the vendor's own packages, which are not installed for you."""
    return (
        Directory(path=STATE),
        Directory(path="/etc/cloudflared"),
        *guard_program(),
        SecretFile(path=CREDENTIALS, expression="provision_tunnel_secret"),
        Guarded(
            name="tunnel cloudflare",
            files=(
                GuardedFile(path=CONFIG, content=config(me)),
                GuardedFile(path="/etc/systemd/system/cloudflared.service", content=_UNIT),
            ),
            units=("cloudflared.service",),
            confirm_s=me.wish.confirm_s,
        ),
    )


def config(me: Own) -> str:
    """The text of config.yml; `server` is the tunnel's id, and the last rule is the catch-all that must be there."""
    rules = []
    for item in me.wish.expose:
        outside, _, inside = item.partition("=")
        if "://" in outside:
            host = outside.partition("://")[2].rstrip("/")
            rules.append(f"  - hostname: {json.dumps(host)}\n    service: {json.dumps(inside)}\n")
    return (
        HEADER
        + f"tunnel: {json.dumps(me.wish.server or me.host)}\ncredentials-file: {CREDENTIALS}\nmetrics: {METRICS}\n"
        + "no-autoupdate: true\ningress:\n"
        + "".join(rules)
        + "  - service: http_status:404\n"
    )


_UNIT = (
    HEADER
    + "[Unit]\nDescription=Cloudflare Tunnel\nWants=network-online.target\nAfter=network-online.target\n"
    + "StartLimitIntervalSec=0\n\n"
    + f"[Service]\nType=notify\nTimeoutStartSec=15\nExecStart=/usr/bin/cloudflared --config {CONFIG} tunnel run\n"
    + "Restart=always\nRestartSec=5\n\n[Install]\nWantedBy=multi-user.target\n"
)


def questions(me: Own) -> tuple[Question, ...]:
    """The readiness endpoint answers 200 while at least one connection to the edge is up."""
    return (Question("the edge", f"curl -fsS http://{METRICS}/ready", '"readyConnections" is above 0'),)
