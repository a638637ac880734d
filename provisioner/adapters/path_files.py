"""Which tunnel a host is reached by, as it was confirmed: `.provision/tunnels/<host>.json`, and nothing around it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

FOLDER = Path(".provision") / "tunnels"


def file_of(host: str, folder: Path = FOLDER) -> Path:
    return folder / f"{quote(host, safe='')}.json"


def stored(host: str, folder: Path = FOLDER) -> dict[str, Any]:
    """`hub`, `address`, `port` and `alias`; empty when there is none. Raises ValueError when it is damaged."""
    try:
        text = file_of(host, folder).read_text(encoding="utf-8")
    except OSError:
        return {}
    value = json.loads(text)
    if not isinstance(value, dict) or not isinstance(value.get("hub"), str) or not isinstance(value.get("alias"), str):
        raise ValueError("it is no record of a tunnel")
    return value


def store(host: str, value: Mapping[str, Any], folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = file_of(host, folder)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(dict(value), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(path)


def forget(host: str, folder: Path = FOLDER) -> None:
    """From now on the host is reached as the inventory says."""
    file_of(host, folder).unlink(missing_ok=True)
