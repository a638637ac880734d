"""What a new matrix means for one host: the two answers side by side, and which changed entries stand behind it.

Both answers are solved from the same facts, so whatever differs comes from the matrix. A value moves because of what
its reasons rest on: of those entries the changed ones are named. Where they rest on none of them, all changed entries
that the host's answers rest on are the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from provisioner.model.enrolment import lock_digest
from provisioner.model.stack import Choice, HostLock
from provisioner.resolve.conflict import NoSolution
from provisioner.resolve.options import named_parts

State = Literal["same", "moves", "lost", "found", "none", "touched", "untouched"]
"""`lost`: had a stack and has none; `found`: the other way; `none`: has none with either matrix.

`touched` and `untouched` are said of a host that was not looked at: its lock entry rests on a changed entry, or not.
"""


@dataclass(frozen=True)
class Moved:
    """One value of the lock entry. None: there is none. `why` is the first reason of the new one (or of the old)."""

    what: str
    before: str | None
    after: str | None
    why: str = ""
    entries: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostMove:
    """What becomes of one host."""

    state: State
    moved: tuple[Moved, ...] = ()
    entries: tuple[str, ...] = ()  # changed entries that its answer rests on
    no_solution: NoSolution | None = None
    reason: str = ""  # why the request itself can no longer be read
    reboot: bool = False


def compare(old: HostLock | NoSolution, new: HostLock | NoSolution, changed: Collection[str]) -> HostMove:
    """Return what the second answer does to a host that has the first; `changed` are names of entries."""
    if isinstance(new, NoSolution):
        return HostMove("none" if isinstance(old, NoSolution) else "lost", (), _behind(new, changed), new)
    if isinstance(old, NoSolution):
        return HostMove("found", tuple(_moved(None, new, changed)), _behind(old, changed), old)
    entries = tuple(sorted({*_named(old, changed), *_named(new, changed)}))
    if lock_digest(old) == lock_digest(new):
        return HostMove("same", (), entries)
    moved = tuple(_moved(old, new, changed))
    return HostMove("moves", moved, entries, reboot=any(one.what in ("driver", "modules") for one in moved))


def touched(entry: HostLock, changed: Collection[str]) -> HostMove:
    """What can be said without the host's facts: whether a reason of its lock entry rests on a changed entry."""
    entries = _named(entry, changed)
    return HostMove("touched" if entries else "untouched", (), entries)


def _moved(old: HostLock | None, new: HostLock, changed: Collection[str]) -> Iterator[Moved]:
    for what, before, after in _choices(old, new):
        if (before.value if before else None) == (after.value if after else None):
            continue
        reasons = (*(after.because if after else ()), *(before.because if before else ()))
        more = (*(after.not_newer if after else ()), *(before.not_newer if before else ()))
        names = {name for reason in (*reasons, *more) for name in _entries(reason.rests_on)}
        yield Moved(
            what,
            before.value if before else None,
            after.value if after else None,
            next((reason.text for reason in reasons), ""),
            tuple(sorted(names & set(changed))),
        )
    first = {p.name: p.version for p in old.packages} if old is not None else {}
    second = {p.name: p.version for p in new.packages}
    for name in sorted({*first, *second}):
        if first.get(name) != second.get(name):
            yield Moved(f"package {name}", first.get(name), second.get(name))


def _choices(old: HostLock | None, new: HostLock) -> Iterator[tuple[str, Choice | None, Choice | None]]:
    for what, field in (("driver", "driver_version"), ("modules", "modules"), ("CUDA", "cuda"), ("runtime", "runtime")):
        yield what, getattr(old, field, None), getattr(new, field)
    clients = old.networks if old is not None else {}
    for name in sorted({*clients, *new.networks}):
        yield name, clients.get(name), new.networks.get(name)


def _named(entry: HostLock, changed: Collection[str]) -> tuple[str, ...]:
    """Changed entries that a lock entry rests on: by its reasons, and by being what the host is."""
    names = {f"os/{entry.os}", *(f"gpus/{gpu}" for gpu in entry.gpus)}
    names |= {f"networks/{named_parts(name)[0]}" for name in entry.intent.networks}
    names |= {f"runtimes/{entry.intent.runtime}"}
    if entry.driver_branch is not None:
        names.add(f"drivers/{entry.driver_branch.value}")
    choices = [choice for _, _, choice in _choices(None, entry) if choice is not None]
    for choice in (*choices, *((entry.driver_branch,) if entry.driver_branch is not None else ())):
        for reason in (*choice.because, *choice.not_newer):
            names |= set(_entries(reason.rests_on))
    return tuple(sorted(names & set(changed)))


def _behind(answer: NoSolution, changed: Collection[str]) -> tuple[str, ...]:
    names = {source.entry for conflict in answer.conflicts for claim in conflict.claims for source in claim.rests_on}
    return tuple(sorted(names & set(changed)))


def _entries(rests_on: tuple[str, ...]) -> Iterator[str]:
    """`networks/ionet, seen 2026-03-19` rests on `networks/ionet`."""
    return (text.partition(",")[0] for text in rests_on)
