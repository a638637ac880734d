"""Keeps rendered runs under .provision/runs/<id>/, and gives the time."""

from __future__ import annotations

import secrets
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.errors import BadInput

if TYPE_CHECKING:  # rendering brings Jinja, which a plan with nothing to change never needs
    from provisioner.render.project import Project


class SystemClock:
    """The controller's clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)


class RunFolders:
    """The RunStore that the command line uses."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def new_id(self) -> str:
        """Return an id that sorts by time and does not collide: runs of one second differ in the last part."""
        return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"

    def write(self, run: str, project: Project) -> Path:
        """Write the project and return its folder. Raises BadInput when the disk refuses."""
        folder = (self._root / run).resolve()
        try:
            for name, text in project.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except OSError as problem:
            raise BadInput("run-not-written", f"the run cannot be written to {folder}: {problem}") from problem
        return folder
