"""The controller's own copies of enrolment records, `.provision/enrolled/<host>.json`: who was let in, and when.

Each stays in `past/<host>/` when the next one comes: the signed history of a host, which `attest report` shows.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from provisioner.model.enrolment import EnrolmentRecord


class EnrolledFolder:
    """The Ledger of the command line. The host's own record decides; these are for reading and for git."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, record: EnrolmentRecord) -> None:
        path = self._path(record.host)
        for place in (past_of(path, record.host) / f"{record.enrolled_at:%Y%m%dT%H%M%SZ}.json", path):
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh = place.with_name(f".{place.name}.{os.getpid()}")
            fresh.write_text(record.text, encoding="utf-8")
            fresh.replace(place)

    def drop(self, host: str) -> None:
        self._path(host).unlink(missing_ok=True)

    def _path(self, host: str) -> Path:
        return self._folder / f"{quote(host, safe='')}.json"


def past_of(path: Path, host: str) -> Path:
    """Where the earlier records of a host lie, beside the copy of its present one."""
    return path.parent / "past" / quote(host, safe="")


def past_records(path: Path, host: str) -> list[str]:
    """The texts of a host's records, oldest first; a record that lies alone has none beside it."""
    try:
        places = sorted(past_of(path, host).glob("[0-9]*.json"))
    except OSError:
        return []
    return [place.read_text(encoding="utf-8", errors="replace") for place in places]
