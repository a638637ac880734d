"""Members of a tunnel for tests: a hub, spokes, sites, with keys that look like keys."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from provisioner.model.tunnel import Tunnel
from provisioner.tunnels.assign import Member


def key(name: str) -> str:
    """A WireGuard public key that belongs to a name: 32 bytes, base64."""
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


def hub(name: str = "hub", range_: str = "10.87.0.0/24", **more: Any) -> Member:
    wish = {"kind": "wireguard", "role": "hub", "endpoint": "203.0.113.1:51820", "range": range_}
    return Member(name, Tunnel.model_validate(wish | more.pop("wish", {})), keys={1: key(name)}, **more)


def spoke(name: str, hub_name: str = "hub", **more: Any) -> Member:
    wish = {"kind": "wireguard", "hub": hub_name}
    keys = more.pop("keys", {1: key(name)})
    return Member(name, Tunnel.model_validate(wish | more.pop("wish", {})), keys=keys, **more)


def site(name: str, endpoint: str | None, **more: Any) -> Member:
    wish = {"kind": "wireguard", "role": "site", "mesh": "office", "range": "10.88.0.0/24", "endpoint": endpoint}
    return Member(name, Tunnel.model_validate(wish | more.pop("wish", {})), keys={1: key(name)}, **more)
