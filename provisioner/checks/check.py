"""What a check is: commands that only read, and a pure judgement of what they gave against the lock."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from provisioner.model.results import Status
from provisioner.model.stack import HostLock


class NotMade(Exception):
    """The host did not give what the check needs; the text says what was missing."""


@dataclass(frozen=True)
class Seen:
    """What one look gave. `sent` and `answered` are the controller's clock around it."""

    rc: int
    stdout: str
    stderr: str = ""
    sent: float = 0.0
    answered: float = 0.0
    seconds: float = 0.0

    @property
    def output(self) -> str:
        """The output of a command that worked; a check that rests on another outcome was not made."""
        if self.rc == 124:
            raise NotMade("no answer within the time limit")
        if self.rc != 0:
            said = (self.stderr.strip() or self.stdout.strip()).splitlines()
            raise NotMade(f"exit {self.rc}: {said[-1]}" if said else f"exit {self.rc}")
        return self.stdout

    @property
    def content(self) -> str | None:
        """The text that `cat` gave, None when the file is not there."""
        if self.rc != 0 and "No such file or directory" in self.stderr:
            return None
        return self.output


@dataclass(frozen=True)
class Verdict:
    """What a check found, in a line that a person can act on."""

    status: Status
    detail: str = ""


def passed(detail: str = "") -> Verdict:
    return Verdict("passed", detail)


def failed(detail: str) -> Verdict:
    return Verdict("failed", detail)


def not_applicable(detail: str) -> Verdict:
    return Verdict("not-applicable", detail)


def found(right: bool, detail: str) -> Verdict:
    return Verdict("passed" if right else "failed", detail)


Judge = Callable[..., Verdict]
"""Takes the host's lock entry, then one Seen for each look."""


@dataclass(frozen=True)
class Check:
    """One line of the verification table. A required one that fails, or cannot be made, keeps the host out."""

    id: str
    title: str
    judge: Judge
    looks: tuple[str, ...]
    required: bool = True

    def make(self, wanted: HostLock, seen: tuple[Seen, ...]) -> Verdict:
        """Judge, and turn what was missing into `unknown`."""
        try:
            return self.judge(wanted, *seen)
        except NotMade as missing:
            return Verdict("unknown", f"not made: {missing}")


def cat(path: str) -> str:
    """The look that reads one file; `Seen.content` tells absent from unreadable."""
    return f"LC_ALL=C cat {shlex.quote(path)}"


def python(script: str, limit: int) -> str:
    """The look that runs a few lines of Python on the host, stopped after `limit` seconds; no site packages."""
    return f"timeout -k 5 {limit} python3 -IS -c {shlex.quote(script)}"


def listed(things: list[str], most: int = 4) -> str:
    """`a, b, c, d and 3 more`: a table cell has no room for all of them."""
    head = ", ".join(things[:most])
    return head if len(things) <= most else f"{head} and {len(things) - most} more"


def number(version: str) -> tuple[Any, ...]:
    """`535.261.03` as numbers, so that the text `535.261.3` is the same version."""
    return tuple(int(part) if part.isdigit() else part for part in version.split("."))
