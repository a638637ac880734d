"""The steps of `provision matrix diff`: what changed between two matrices, and what that does to each host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from provisioner.actions.observe import Seen, observe
from provisioner.actions.ports import Prober
from provisioner.errors import BadInput, HostError
from provisioner.matrix.changes import EntryChange, changes
from provisioner.matrix.reader import Matrix
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import Lock
from provisioner.probe.request import FULL, Request
from provisioner.resolve.fleet import Fleet
from provisioner.resolve.moves import HostMove, State, compare, touched


@dataclass(frozen=True)
class MatrixDiff:
    """`hosts` by name; those that were not looked at stand there when the lock has an entry for them."""

    old: str  # digests
    new: str
    entries: tuple[EntryChange, ...]
    hosts: dict[str, HostMove] = field(default_factory=dict)
    failed: dict[str, HostError] = field(default_factory=dict)

    def named(self, *states: State) -> tuple[str, ...]:
        return tuple(name for name, move in self.hosts.items() if move.state in states)

    @property
    def moves(self) -> bool:
        """Whether anything is moved: a host where hosts were asked about, else an entry."""
        return bool(self.named("moves", "lost", "found", "touched")) if self.hosts else bool(self.entries)


def matrix_diff(
    old: Matrix, new: Matrix, hosts: Sequence[InventoryHost], *, prober: Prober, lock: Lock | None = None
) -> MatrixDiff:
    """Look at `hosts` and resolve each with both matrices; other hosts of the lock are judged by their reasons."""
    entries = changes(old, new)
    changed = {entry.name for entry in entries}
    seen, failed = observe(hosts, {host.name: Request(FULL) for host in hosts}, prober)
    fleets = Fleet(old), Fleet(new)
    found = {name: _move(one, fleets, changed) for name, one in seen.items()}
    for name, entry in (lock.hosts if lock is not None else {}).items():
        if name not in found:
            found[name] = touched(entry, changed)
    return MatrixDiff(old.digest, new.digest, entries, found, failed)


def _move(one: Seen, fleets: tuple[Fleet, Fleet], changed: set[str]) -> HostMove:
    """A request that only one of the matrices can read (a network that is gone) is a move too."""
    before = fleets[0].solve(one.facts, one.host.intent)
    try:
        after = fleets[1].solve(one.facts, one.host.intent)
    except BadInput as problem:
        return HostMove("lost", entries=tuple(sorted(changed)), reason=problem.message)
    return compare(before, after, changed)
