"""Recorded hosts for the tests of facts."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from provisioner import facts
from provisioner.facts.files import parse_capture
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.facts import HostFacts

CAPTURES = Path(__file__).parents[1] / "captures"
NAMES = sorted(path.name for path in CAPTURES.iterdir() if path.suffix in (".json", ".yaml"))
NO_SUCH = CommandOutput(rc=2, stderr="ls: cannot access 'x': No such file or directory\n")


def recorded(name: str) -> Capture:
    """The capture with this file name."""
    return parse_capture((CAPTURES / name).read_bytes(), name)


def known(name: str) -> HostFacts:
    """The facts of a recorded host."""
    return facts.read(recorded(name))


def capture(files: dict[str, str | None] | None = None, commands: dict[str, Any] | None = None, **more: Any) -> Capture:
    """A small capture: texts of commands that ended with 0, or whole outputs."""
    return Capture(
        host="rig-01",
        taken_at=datetime(2026, 11, 24, 3, 7, tzinfo=timezone.utc),
        probe="0.1.0",
        files=files or {},
        commands={
            line: given if isinstance(given, CommandOutput) else CommandOutput(rc=0, stdout=given)
            for line, given in (commands or {}).items()
        },
        **more,
    )
