"""The controller's own copies of enrolment records, `.provision/enrolled/<host>.json`: who was let in, and when."""

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
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(record.host)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(record.text, encoding="utf-8")
        fresh.replace(path)

    def drop(self, host: str) -> None:
        self._path(host).unlink(missing_ok=True)

    def _path(self, host: str) -> Path:
        return self._folder / f"{quote(host, safe='')}.json"
