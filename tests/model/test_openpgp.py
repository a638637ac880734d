"""Fingerprints of OpenPGP keys, against what gpg said of them when they were made."""

from __future__ import annotations

import base64

import pytest

from provisioner.model.openpgp import armored, fingerprints
from tests.actions.test_resolve import KEY

FINGERPRINT = "98D1F7E8DAA19B46D3FF0615D1EA9165F2BD78B2"


def test_the_fingerprint_of_a_key() -> None:
    assert fingerprints(KEY) == (FINGERPRINT,)


def test_two_keys_in_one_file_are_two_fingerprints() -> None:
    """A key that rides along would be trusted too."""
    assert fingerprints(KEY + KEY) == (FINGERPRINT, FINGERPRINT)


def test_a_binary_key_becomes_text() -> None:
    """Vendors publish both; the text is what gpg writes, checksum included."""
    body = KEY.split("\n\n")[1].partition("\n=")[0]
    data = base64.b64decode(body)

    assert fingerprints(armored(data)) == (FINGERPRINT,)
    assert armored(data) == KEY
    assert armored(KEY.replace("\n", "\r\n").encode()) == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>not found</html>",
        KEY[:200] + "\n-----END PGP PUBLIC KEY BLOCK-----\n",
        armored(b"\x00\x01"),
        armored(b"\x99"),
        armored(b"\xc6\xe0"),
        armored(b""),
    ],
)
def test_what_is_no_key(text: str) -> None:
    """An error page, a key cut short: never a fingerprint, always ValueError."""
    with pytest.raises(ValueError):
        fingerprints(text)


def test_a_key_tells_until_when_it_holds() -> None:
    """The key of the proof of matrix/failures/apt-key-expired.yaml, made with gpg for thirty days; armored as well."""
    import base64
    import re
    from pathlib import Path

    from provisioner.model.openpgp import public_keys

    text = (Path(__file__).parents[2] / "matrix/failures/apt-key-expired.yaml").read_text(encoding="utf-8")
    past, endless = (base64.b64decode(found) for found in re.findall(r"example\.asc ([A-Za-z0-9+/=]+)", text))

    assert [str(key.until) for key in public_keys(past)] == ["2026-01-31 00:00:00+00:00"]
    assert public_keys(armored(past).encode()) == public_keys(past)
    assert [key.until for key in public_keys(endless)] == [None]
