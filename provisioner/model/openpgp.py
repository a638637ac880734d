"""OpenPGP public keys, as far as a package source needs them: which key a text holds, by its fingerprint (RFC 4880)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_ARMOR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[!-9;-~]+: [^\n]*\n)*\s*\n?(?P<body>[A-Za-z0-9+/=\s]+?)"
    r"\s*(?:\n=[A-Za-z0-9+/]{4}\s*)?-----END PGP PUBLIC KEY BLOCK-----"
)
_PUBLIC_KEY = 6  # packet tag of a primary key; 14 are its subkeys


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
