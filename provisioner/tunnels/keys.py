"""Public keys as hosts show them, by kind: what one looks like, and where it lies."""

from __future__ import annotations

import base64
import binascii
import re

from provisioner.model.tunnel import INTERFACE

FOLDER = {
    "wireguard": "/etc/wireguard",
    "nebula": "/etc/nebula/provision",
    "ssh-reverse": f"/etc/provision/{INTERFACE}",
}
_SSH = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}( \S+)?")


def private_path(kind: str, generation: int = 1) -> str:
    """Where a host's private key lies for good: /etc/wireguard/prov0.key, after a rotation prov0.2.key."""
    return f"{FOLDER[kind]}/{_name(generation)}.key"


def public_path(kind: str, generation: int = 1) -> str:
    """Where the public half lies, which the probe reads."""
    return f"{FOLDER[kind]}/{_name(generation)}.pub"


def _name(generation: int) -> str:
    return INTERFACE if generation == 1 else f"{INTERFACE}.{generation}"


def public_key(kind: str, text: str) -> str | None:
    """The key in a public key file; None when it holds none (a crash may leave an empty file)."""
    text = text.strip()
    if kind == "wireguard":
        return text if is_wireguard(text) else None
    if kind == "ssh-reverse":
        return " ".join(text.split()[:2]) if _SSH.fullmatch(text) else None
    return text if text.startswith("-----BEGIN NEBULA ") and text.endswith("-----") else None


def is_wireguard(text: str) -> bool:
    """32 bytes as base64, which is 44 characters and ends in `=`; not all zero, which is what a key never set reads."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return False
    return len(raw) == 32 and len(text) == 44 and any(raw)
