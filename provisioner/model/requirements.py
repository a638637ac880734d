"""What the networks' Python clients are made from: a list per network in requirements/, every file by its hash."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from provisioner.model.paths import data_dir


@lru_cache(maxsize=64)
def requirements(network: str) -> str | None:
    """Return the list for a network; None: its client is no Python package, or is not pinned here."""
    path = data_dir("requirements") / f"{network}.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
