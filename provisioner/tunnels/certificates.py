"""Nebula's certificates as text: whose key one holds, and the fingerprint by which it is refused.

A certificate is a protobuf message in base64 between two lines. Nothing of its inside has to be known: its fingerprint
is the SHA-256 of the message, and a key of 32 bytes that stands in it is the key that was signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_BLOCK = re.compile(r"-----BEGIN NEBULA ([A-Z0-9 ]+)-----\s*([A-Za-z0-9+/=\s]+?)\s*-----END NEBULA \1-----")


def joined(text: str) -> tuple[str, str]:
    """(authority, the host's own certificate) of what a hub hands out: both, with an empty line between them."""
    authority, _, own = text.partition("\n\n")
    return authority.strip(), own.strip()


def fingerprint(text: str) -> str | None:
    """Of a host's own certificate, as `nebula-cert print` shows it and a blocklist names it; None: there is none."""
    message = _message(joined(text)[1])
    return hashlib.sha256(message).hexdigest() if message is not None else None


def holds(text: str, public_key: str) -> bool:
    """Whether the host's own certificate was made for this key (the text of a .pub file)."""
    message, key = _message(joined(text)[1]), _message(public_key)
    return message is not None and key is not None and len(key) == 32 and key in message


def _message(text: str) -> bytes | None:
    found = _BLOCK.search(text)
    if found is None:
        return None
    try:
        return base64.b64decode("".join(found[2].split()), validate=True)
    except (ValueError, binascii.Error):
        return None
