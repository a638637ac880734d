"""How errors and tables read in a terminal: plain text first, colour only where it is supported and wanted."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from provisioner import __version__
from provisioner.cli.options import LOCK
from provisioner.errors import ProvisionError

# Control characters, and those that turn letters round, hide them or begin a line of their own on a screen.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def safe(text: str) -> str:
    """Return text without control characters: what a host printed must not drive the operator's terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def coloured(stream: TextIO) -> bool:
    """Whether colour helps here: a terminal, and nobody said no (https://no-color.org)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if coloured(stream or sys.stdout) else text


def error_text(problem: ProvisionError) -> str:
    """Return an error as a person reads it: what, its reference, why, and what to type next."""
    head = f"error: {safe(problem.message)}"
    lines = [f"{head}{' ' * max(2, 80 - len(head))}[{problem.reference}]"]
    lines += [f"  {safe(line)}" for line in problem.context]
    if problem.hint:
        lines += ["", safe(problem.hint)]
    return "\n".join(lines)


def defect_text(argv: Sequence[str]) -> str:
    """Write the traceback of an unexpected error to a file and return what to say about it."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "provision"
    path = folder / f"defect-{time.strftime('%Y%m%d-%H%M%S')}.log"
    trace = traceback.format_exc()
    report = (
        f"provision {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"arguments: {' '.join(argv)}\n\n{trace}"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(report, encoding="utf-8")
        where = f"  A log to paste into a report: {path}"
    except OSError:
        where = trace
    last = trace.strip().splitlines()[-1]
    return f"error: provision itself failed: {safe(last)}        [internal-defect]\n{where}"


def next_command(
    command: str | Sequence[str], inventory: Sequence[str] = (), hosts: Sequence[str] = (), lock: str | None = None
) -> str:
    """Return `provision plan -i hosts --limit rig-01,rig-02`, ready to be typed; the default lock is not named."""
    words = ["provision", *([command] if isinstance(command, str) else command)]
    for source in inventory:
        words += ["-i", source]
    if hosts:
        words += ["--limit", ",".join(hosts)]
    if lock is not None and lock != LOCK:
        words += ["--lock", lock]
    return shlex.join(words)


def table(rows: Sequence[Sequence[str]], *, indent: int = 0) -> str:
    """Return rows as aligned columns, two spaces apart; the last column is not padded."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[i]) if i < len(row) - 1 else cell for i, cell in enumerate(row)]
        lines.append(" " * indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time as people say it, such as `45 s` or `~3 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
