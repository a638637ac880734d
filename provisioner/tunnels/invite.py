"""An invitation as text: what the hub is told of it, and the file that the rig's owner runs. Pure; secrets come in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.model.intent import Intent
from provisioner.model.tunnel import split_endpoint
from provisioner.tunnels import wireguard
from provisioner.tunnels.contract import Own
from provisioner.tunnels.host import program

DOOR = "provision-join"
JOIN = wireguard.JOIN


@dataclass(frozen=True)
class Secrets:
    """What is made for one invitation: its id, the code, and the door's key pair as OpenSSH writes it."""

    id: str
    code: str
    salt: str
    code_digest: str
    door_private: str
    door_public: str


def intent_digest(intent: Intent) -> str:
    """What an invitation is bound to: another intent for the host makes it void."""
    return hashlib.sha256(json.dumps(intent.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def record(me: Own, intent: Intent, secrets: Secrets, *, expires: int, user: str, keys: Sequence[str]) -> str:
    """What the hub keeps until the rig comes: nothing that lets anybody in by itself."""
    return json.dumps(
        {
            "id": secrets.id,
            "host": me.host,
            "expires": expires,
            "salt": secrets.salt,
            "code": secrets.code_digest,
            "door_key": secrets.door_public,
            "address": me.lock.address,
            "hub_address": me.lock.hub_address,
            "config": wireguard.config(me),
            "user": user,
            "operator_keys": list(keys),
            "intent": intent_digest(intent),
        },
        sort_keys=True,
    )


def file_text(me: Own, secrets: Secrets, *, expires: int, hub_keys: Sequence[str], hub_host: str, hub_port: int) -> str:
    """The program with this invitation in it. Without the code, which goes another way, it opens nothing."""
    endpoint = me.lock.peers[0].endpoint or ""
    value = {
        "host": me.host,
        "hub": me.lock.hub,
        "hub_host": hub_host or split_endpoint(endpoint)[0],
        "hub_port": hub_port,
        "hub_keys": list(hub_keys),
        "endpoint": endpoint,
        "door": DOOR,
        "door_key": secrets.door_private,
        "expires": expires,
    }
    return program("invitation").replace('"@INVITATION@"', repr(json.dumps(value, sort_keys=True)), 1)
