"""Three-valued answers that keep their reasons: what was seen, and what would have to be seen.

Theory: Kleene's strong logic. Seeing more never turns a yes into a no or back, it only settles what was open; a test
holds every mechanism against that law.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class Truth(Enum):
    """UNSEEN is an answer of its own: neither a finding nor a clean bill."""

    YES = "yes"
    NO = "no"
    UNSEEN = "unseen"


@dataclass(frozen=True)
class Evidence:
    """What the host itself shows: a name for it, the very text, and the path or command it comes from."""

    label: str
    text: str
    where: str
    part: str = field(default="", compare=False)
    """What of a long text is telling; empty: its beginning."""


@dataclass(frozen=True)
class Look:
    """What was not seen, and the command that would show it; `asked`: doctor's own look should have shown it."""

    what: str
    show: str
    asked: bool = True


@dataclass(frozen=True)
class Verdict:
    """An answer with its reasons; `telling` counts the signs of trouble among what was seen."""

    truth: Truth
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[Look, ...] = ()
    telling: int = 0


NO = Verdict(Truth.NO)


def both(verdicts: Iterable[Verdict]) -> Verdict:
    """All of them; one no decides. What was seen of an open one is kept, for it may be half a finding."""
    parts = []
    for part in verdicts:
        if part.truth is Truth.NO:
            return NO  # the rest need not be asked
        parts.append(part)
    truth = Truth.UNSEEN if any(part.truth is Truth.UNSEEN for part in parts) else Truth.YES
    return _joined(truth, tuple(parts))


def either(verdicts: Iterable[Verdict]) -> Verdict:
    """At least one of them; the evidence is of those that hold."""
    parts = tuple(verdicts)
    holding = tuple(part for part in parts if part.truth is Truth.YES)
    if holding:
        return _joined(Truth.YES, holding)
    still_open = tuple(part for part in parts if part.truth is Truth.UNSEEN)
    return _joined(Truth.UNSEEN, still_open) if still_open else NO


def neither(verdicts: Iterable[Verdict]) -> Verdict:
    """None of them holds. That something is not so has no line to show."""
    found = either(verdicts)
    if found.truth is Truth.YES:
        return NO
    return Verdict(Truth.YES) if found.truth is Truth.NO else Verdict(Truth.UNSEEN, missing=found.missing)


def _joined(truth: Truth, parts: tuple[Verdict, ...]) -> Verdict:
    evidence = dict.fromkeys(item for part in parts for item in part.evidence)
    missing = dict.fromkeys(item for part in parts for item in part.missing) if truth is Truth.UNSEEN else {}
    return Verdict(truth, tuple(evidence), tuple(missing), sum(part.telling for part in parts))
