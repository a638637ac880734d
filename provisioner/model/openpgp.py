"""OpenPGP public keys, as far as a package source needs them: which key a text holds, by its fingerprint (RFC 4880)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

_ARMOR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[!-9;-~]+: [^\n]*\n)*\s*\n?(?P<body>[A-Za-z0-9+/=\s]+?)"
    r"\s*(?:\n=[A-Za-z0-9+/]{4}\s*)?-----END PGP PUBLIC KEY BLOCK-----"
)
_PUBLIC_KEY = 6  # packet tag of a primary key; 14 are its subkeys
_SIGNATURE = 2
# Signatures by which a key speaks of itself: certifications of a name, and the key directly (RFC 4880, section 5.2.1).
_OF_ITSELF = (0x10, 0x11, 0x12, 0x13, 0x1F)
_MADE, _EXPIRES_AFTER, _ISSUER = 2, 9, 16  # subpackets, section 5.2.3.1


@dataclass(frozen=True)
class PublicKey:
    """A primary key: its fingerprint, and until when it holds; None: it says nothing of an end."""

    fingerprint: str
    until: datetime | None


def fingerprints(text: str) -> tuple[str, ...]:
    """Return the fingerprints of the primary keys in an armored text, in order, as hexadecimal digits.

    Raises ValueError for what holds no key or cannot be read.
    """
    blocks = [match["body"] for match in _ARMOR.finditer(text)]
    if not blocks:
        raise ValueError("no armored OpenPGP key")
    found: list[str] = []
    for block in blocks:
        try:
            data = base64.b64decode("".join(block.split()), validate=True)
        except binascii.Error as problem:
            raise ValueError("its base64 text is damaged") from problem
        found += [_fingerprint(body) for tag, body in _packets(data) if tag == _PUBLIC_KEY]
    if not found:
        raise ValueError("no public key in the text")
    return tuple(found)


def public_keys(data: bytes) -> tuple[PublicKey, ...]:
    """Return the primary keys of a keyring, armored or binary, with their ends. Raises ValueError for what is none."""
    if b"-----BEGIN PGP" in data:
        blocks = [match["body"] for match in _ARMOR.finditer(data.decode("ascii", "replace"))]
        data = b"".join(base64.b64decode("".join(block.split())) for block in blocks)
    found: list[PublicKey] = []
    latest = 0
    made = 0
    for tag, body in _packets(data):
        if tag == _PUBLIC_KEY:
            made, latest = int.from_bytes(body[1:5], "big"), 0
            found.append(PublicKey(_fingerprint(body), None))
        elif tag == _SIGNATURE and found and body[:1] == b"\x04" and body[1] in _OF_ITSELF:
            said = _subpackets(body)
            at = int.from_bytes(said.get(_MADE, b""), "big")
            issuer = said.get(_ISSUER, b"").hex().upper()
            if at >= latest and found[-1].fingerprint.endswith(issuer):
                latest = at
                after = int.from_bytes(said.get(_EXPIRES_AFTER, b""), "big")
                end = datetime.fromtimestamp(0, timezone.utc) + timedelta(seconds=made + after) if after else None
                found[-1] = PublicKey(found[-1].fingerprint, end)
    if not found:
        raise ValueError("no public key in it")
    return tuple(found)


def _subpackets(signature: bytes) -> dict[int, bytes]:
    """What a signature of version 4 says, hashed and not (RFC 4880, section 5.2.3)."""
    found: dict[int, bytes] = {}
    at = 4
    for _ in range(2):
        end = at + 2 + int.from_bytes(signature[at : at + 2], "big")
        at += 2
        while at < min(end, len(signature)):
            length, size = signature[at], 1
            if length >= 255:
                length, size = int.from_bytes(signature[at + 1 : at + 5], "big"), 5
            elif length >= 192:
                length, size = ((length - 192) << 8) + int.from_bytes(signature[at + 1 : at + 2], "big") + 192, 2
            body = signature[at + size : at + size + length]
            if body:
                found.setdefault(body[0] & 0x7F, body[1:])
            at += size + max(length, 1)
        at = end
    return found


def armored(data: bytes) -> str:
    """Return a key as text: vendors publish it armored or binary, and apt tells the two apart by the file's name."""
    if data.lstrip()[:5] == b"-----":
        return data.decode("ascii", "strict").replace("\r\n", "\n").strip() + "\n"
    body = base64.b64encode(data).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    checksum = base64.b64encode(_crc24(data).to_bytes(3, "big")).decode()
    return f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{lines}\n={checksum}\n-----END PGP PUBLIC KEY BLOCK-----\n"


def _crc24(data: bytes) -> int:
    """RFC 4880, section 6.1."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc & 0xFFFFFF


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and body of each packet; lengths as in RFC 4880, section 4.2."""
    found = []
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80 or at + 1 >= len(data):
            raise ValueError("no OpenPGP packet where one should begin")
        at += 1
        if head & 0x40:
            tag = head & 0x3F
            first = data[at]
            if first < 192:
                length, size = first, 1
            elif first < 224:
                length, size = ((first - 192) << 8) + int.from_bytes(data[at + 1 : at + 2], "big") + 192, 2
            elif first == 255:
                length, size = int.from_bytes(data[at + 1 : at + 5], "big"), 5
            else:
                raise ValueError("a key in packets of unknown length")
        else:
            tag = head >> 2 & 0xF
            size = 1 << (head & 3)
            if size == 8:
                raise ValueError("a key in packets of unknown length")
            length = int.from_bytes(data[at : at + size], "big")
        at += size
        if at + length > len(data):
            raise ValueError("the key is cut short")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _fingerprint(body: bytes) -> str:
    """Of version 4 (RFC 4880, section 12.2) and 6 (RFC 9580, section 5.5.4)."""
    version = body[:1]
    if version == b"\x04":
        # The algorithm is the format's, and the fingerprint is compared, not trusted by itself.
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
    if version == b"\x06":
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise ValueError(f"a key of version {body[0] if body else 'none'}")
