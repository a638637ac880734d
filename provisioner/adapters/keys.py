"""Reads the public keys of package sources: from a file of the controller, or from where the vendor publishes them."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from provisioner.errors import BadInput
from provisioner.model.openpgp import armored

LARGEST = 1 << 18
TIMEOUT_S = 20


class KeyFiles:
    """Each place is read once; what it holds is checked against a fingerprint by whoever asks."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def read(self, where: str) -> str:
        """Return the key as armored text. Raises BadInput `key-not-readable`."""
        if where not in self._known:
            data = _fetched(where) if where.startswith("https://") else _file(where)
            try:
                self._known[where] = armored(data)
            except ValueError as problem:
                raise _not_readable(where, "it is no OpenPGP key") from problem
        return self._known[where]


def _file(where: str) -> bytes:
    try:
        with Path(where).expanduser().open("rb") as file:
            return file.read(LARGEST)
    except OSError as problem:
        raise _not_readable(where, problem.strerror or str(problem)) from problem


def _fetched(where: str) -> bytes:
    try:
        with urllib.request.urlopen(where, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(LARGEST)
            return data
    except (urllib.error.URLError, OSError, ValueError) as problem:
        reason = getattr(problem, "reason", None) or problem
        raise _not_readable(where, str(reason)) from problem


def _not_readable(where: str, why: str) -> BadInput:
    return BadInput(
        "key-not-readable",
        f"the key of a package source cannot be read from {where}: {why}",
        hint="save the vendor's key as a file and name it: provision_policy.sources: [{id: …, key: keys/vendor.asc}]",
    )
