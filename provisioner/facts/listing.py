"""Files behind a pattern, as far as a capture shows them: one that was listed but not read makes the answer unknown."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from provisioner.model.capture import UNKNOWN, Capture, Unknown

_NO_SUCH = ("No such file or directory", "No such file")


def matching(capture: Capture, pattern: str) -> tuple[str, ...] | Unknown:
    """The paths that `ls -d PATTERN` printed; () when it found none, UNKNOWN when it did not run."""
    paths = listed(capture, f"ls -d {pattern}")
    depth = pattern.count("/")
    if paths is UNKNOWN or all(path.count("/") == depth and fnmatchcase(path, pattern) for path in paths):
        return paths
    return UNKNOWN  # whatever printed this, it was not ls


def listed(capture: Capture, line: str) -> tuple[str, ...] | Unknown:
    """The lines that a listing printed; () for "no such file"."""
    answer = capture.command(line)
    if answer is UNKNOWN:
        return UNKNOWN
    if answer.rc == 0:
        return tuple(item for item in answer.stdout.splitlines() if item)
    if answer.rc in (1, 2) and any(words in answer.stderr for words in _NO_SUCH):
        return ()
    return UNKNOWN


def contents(capture: Capture, pattern: str) -> dict[str, str] | Unknown:
    """Path to text of everything that matches; UNKNOWN when one of them was not read."""
    paths = matching(capture, pattern)
    if paths is UNKNOWN:
        return UNKNOWN
    found: dict[str, str] = {}
    for path in paths:
        text = capture.file(path)
        if text is UNKNOWN:
            return UNKNOWN
        if text is not None:
            found[path] = text
    return found


def commands_like(capture: Capture, *beginnings: str) -> list[str]:
    """Lines of the commands that begin with one of these words, in the capture's order."""
    return [line for line in capture.commands if line.startswith(beginnings)]


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts `6.1.0-9-amd64` before `6.1.0-50-amd64`, as `sort -V` does."""
    return tuple(
        (1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.findall(r"\d+|[A-Za-z~]+", text)
    )
