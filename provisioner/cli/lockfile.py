"""The lock as a command writes it: its argument, what was there before, and the file put in place whole."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli.options import LOCK
from provisioner.errors import BadInput

if TYPE_CHECKING:
    from provisioner.model.stack import Lock


def arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Add -o and --dry-run; `what` is what a dry run shows, such as "the answer"."""
    parser.add_argument(
        "-o",
        "--lock",
        "--out",
        dest="lock",
        type=Path,
        default=Path(LOCK),
        metavar="FILE",
        help=f"the lock to start from and to write (default {LOCK}); entries of other hosts stay",
    )
    parser.add_argument("--dry-run", action="store_true", help=f"show {what}, write no lock")


def before(path: Path) -> Lock | None:
    """The lock that is there, for the hosts that are not asked now; of whatever matrix."""
    from provisioner.resolve.lock import read_lock

    return read_lock(path) if path.exists() else None


def write(path: Path, lock: Lock, old: Lock | None) -> str:
    """Put the lock in its place when it says something else than `old`; return what to say of it."""
    from provisioner.resolve.lock import LARGEST, lock_text

    text = lock_text(lock)
    if old is not None and lock_text(old) == text:
        return f"{path} (unchanged)"
    size = len(text.encode())
    if size > LARGEST:
        raise BadInput("lock-too-large", f"the lock would have {size} bytes, and may have {LARGEST}; none was written")
    # Beside the old file first, then in its place: a reader never meets half a lock.
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as problem:
        raise BadInput("lock-not-written", f"the lock cannot be written to {path}: {problem}") from problem
    return str(path)
