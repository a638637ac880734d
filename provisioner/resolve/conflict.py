"""Why there is no solution: a tree of reasons as frozen values. It holds no wording; explain.py has all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from provisioner.model.stack import HostLock


@dataclass(frozen=True)
class Source:
    """What a claim rests on: a matrix entry (`networks/ionet`) or a fact of the host (`host: packages`)."""

    entry: str
    seen: str | None = None
    confidence: str | None = None
    where: str | None = None


def entry(room: str, claim: Any, entry_id: str, within: Any = None) -> Source:
    """Where a claim stands; day and confidence that it leaves open it has from the entry it stands `within`."""
    return Source(
        f"{room}/{entry_id}",
        getattr(claim, "listed_on", None) or claim.seen or getattr(within, "seen", None),
        claim.confidence or getattr(within, "confidence", None),
        claim.sources[0] if claim.sources else None,
    )


def from_host(what: str) -> Source:
    return Source(f"host: {what}")


@dataclass(frozen=True)
class Claim:
    """A leaf: one rule that holds. `kind` chooses the sentence, `about` is its subject, `words` fill it in.

    Claim("cuda-ceiling", "gtx-1080", (("capability", "6.1"), ("ceiling", "12.9")), (Source("gpus/gtx-1080"),))
    """

    kind: str
    about: str
    words: tuple[tuple[str, str], ...] = ()
    rests_on: tuple[Source, ...] = ()

    def word(self, key: str) -> str:
        return dict(self.words).get(key, "")


@dataclass(frozen=True)
class Falls:
    """An inner node: these values of one variable fall, each because of what stands below."""

    variable: str
    values: tuple[str, ...]
    because: tuple[Reason, ...]


Reason: TypeAlias = "Claim | Falls"


@dataclass(frozen=True)
class Conflict:
    """A minimal set of claims that cannot hold together: leave any one out and the rest can.

    `tree` shows how: for each group of values of the pivotal variable, the claims that take it away.
    """

    claims: tuple[Claim, ...]
    tree: Falls


@dataclass(frozen=True)
class Edit:
    """One change of request or host that a person could make, with what it costs.

    `kind` and `value`: ("drop-network", "ionet"), ("os", "debian-13"), ("take-out", "0000:01:00.0").
    """

    kind: str
    value: str
    rank: int  # cheaper in downtime first; see repairs.RANKS
    words: tuple[tuple[str, str], ...] = ()

    def word(self, key: str) -> str:
        return dict(self.words).get(key, "")


@dataclass(frozen=True)
class Repair:
    """A minimal set of edits and the stack that it was solved to give; `assumed` says what could not be proven here."""

    edits: tuple[Edit, ...]
    stack: HostLock
    reboot: bool
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoSolution:
    """No set of versions serves the host. `complete` is false when there are more conflicts than the bound."""

    host: str
    conflicts: tuple[Conflict, ...]
    repairs: tuple[Repair, ...]
    unseen: tuple[str, ...] = ()  # facts that were needed and could not be seen
    complete: bool = True
