"""What the networks' Python clients are made from: a list per network, every file by its hash, shipped or own."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from provisioner.errors import BadInput
from provisioner.model.paths import data_dir

OWN = Path("provision-requirements")
"""Lists of the operator in the folder where provision runs, NETWORK.txt; each goes before the one that ships."""
PACKAGES = {"bittensor": "bittensor-cli"}
"""Network → the package whose version is the client's, where the client is a Python package."""
LARGEST = 1 << 20

_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9_,-]+\])?==(?P<version>[A-Za-z0-9.!+_-]+)"
    r"(\s*;[^#]*?)?(?P<hashes>(\s+--hash=sha256:[0-9a-f]{64})+)"
)


def requirements(network: str) -> str | None:
    """Return the list for a network; None: its client is no Python package, or is not pinned here.

    Raises BadInput for a list of the operator in which something is not pinned: pip would ask an index what is newest.
    """
    path = OWN / f"{network}.txt"
    if not path.is_file():
        return _shipped(network)
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput("file-too-large", f"{path} is larger than {LARGEST} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput("file-not-readable", f"{path}: {problem}") from problem
    pinned(text, str(path))
    return text


@lru_cache(maxsize=64)
def _shipped(network: str) -> str | None:
    path = data_dir("requirements") / f"{network}.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def pinned(text: str, where: str = "") -> dict[str, str]:
    """Return package → version. Raises BadInput for a line that is not `name==version --hash=sha256:…`."""
    found: dict[str, str] = {}
    number = 1
    for line in re.sub(r"(?m)^\s*#.*$", "", text).replace("\\\n", "\\ ").splitlines():
        whole = line.replace("\\ ", " ").strip()
        match = _PINNED.fullmatch(whole)
        if whole and match is None:
            raise BadInput(
                "requirements-not-pinned",
                f"{where}:{number}: '{whole[:80]}' is not NAME==VERSION with --hash=sha256:…",
                context=("an index and its password belong into the host's pip.conf, not here",)
                if whole.startswith("-")
                else (),
                hint="uv pip compile --generate-hashes writes such a list, or pip-compile --generate-hashes",
            )
        if match is not None:
            found[match["name"].lower().replace("_", "-")] = match["version"]
        number += 1 + line.count("\\ ")
    if not found and where:
        raise BadInput("requirements-not-pinned", f"{where} names no package")
    return found


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
