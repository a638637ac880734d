"""Refuses a package transaction that does what nobody asked for: apt's own simulation against the plan."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.driver_package import branch_of
from provisioner.model.facts import Package as Installed
from provisioner.model.manager import Manager
from provisioner.model.plan import Change
from provisioner.model.resource import AbsentPackage, Package
from provisioner.model.transaction import Move

_DISTRIBUTION = ("Debian", "Ubuntu")
# Repositories of RHEL-likes' own, and EPEL, which DKMS comes from.
_REPOSITORIES = re.compile(r"rhel-|(baseos|appstream|crb|extras|powertools|codeready-builder|epel)(-|$)", re.IGNORECASE)
_KERNEL = re.compile(r"linux-(image|modules)-|kernel(-(core|modules.*|rt.*|uek.*))?$")
_RUNTIME = re.compile(r"(docker|containerd|podman|runc|crun)([.-]|$)")


def refusals(
    moves: Sequence[Move],
    changes: Sequence[Change],
    installed: dict[str, Installed] | Unknown,
    manager: Manager = "apt",
) -> tuple[str, ...]:
    """Return why the transaction may not be made, one line for each thing that the plan did not ask for."""
    found = _refusals(moves, changes, installed, manager)
    return tuple(line.replace("apt would", f"{manager} would", 1) for line in found)


def unmade(moves: Sequence[Move], asked: Sequence[Package | AbsentPackage]) -> tuple[str, ...]:
    """Return what was asked for and would not be done: `dnf shell` leaves out what it cannot do, and goes on."""
    touched = {move.name: move for move in moves}
    return tuple(
        f"dnf would not {'remove' if isinstance(package, AbsentPackage) else 'install'} {package.name}"
        for package in asked
        if package.name not in touched
    )


def _refusals(
    moves: Sequence[Move], changes: Sequence[Change], installed: dict[str, Installed] | Unknown, manager: Manager
) -> tuple[str, ...]:
    named = {c.wanted.name: c.wanted for c in changes if isinstance(c.wanted, (Package, AbsentPackage))}
    ours = {_family(move.origin) for move in moves if move.name in named} | set(_DISTRIBUTION)
    branches = {
        branch
        for wanted in named.values()
        if isinstance(wanted, Package) and (branch := branch_of(wanted.name, wanted.version))
    }
    held = set() if installed is UNKNOWN else {name for name, package in installed.items() if package.held}
    found: list[str] = []
    for move in moves:
        wanted = named.get(move.name)
        if wanted is not None:
            found += _other_than_named(move, wanted)
        elif move.action in ("remove", "purge") and not (move.instead in named and _may_be_replaced(move, manager)):
            found.append(
                f"apt would remove {_kind(move.name)}{move.name} {move.before}, which the plan did not ask for"
            )
        elif move.after is not None:
            found += _beside(move, ours, branches, held)
    return tuple(found)


def _other_than_named(move: Move, wanted: Package | AbsentPackage) -> Iterator[str]:
    if isinstance(wanted, AbsentPackage):
        if move.action not in ("remove", "purge"):
            yield f"apt would install {move.name} {move.after}, which the plan takes away"
    elif move.action in ("remove", "purge"):
        yield f"apt would remove {move.name} {move.before}, which the plan installs"
    elif move.after != wanted.version:
        yield f"apt would install {move.name} {move.after}, the plan says {wanted.version}"


def _beside(move: Move, ours: set[str], branches: set[str], held: set[str]) -> Iterator[str]:
    """What comes along as a dependency may do so; what changes kernel, branch, origin or direction may not."""
    words = f"{move.name} {move.before} → {move.after}" if move.before else f"{move.name} {move.after}"
    branch = branch_of(move.name, move.after or "")
    if _KERNEL.match(move.name):
        yield f"apt would bring the kernel package {words}, for which nothing has built a module"
    elif move.action == "downgrade":
        yield f"apt would take {words} down, which the plan did not ask for"
    elif move.before and move.name in held:
        yield f"apt would change {words}, which is held"
    elif branch and branches and branch not in branches:
        yield f"apt would bring {words}, of another driver branch than the plan's {', '.join(sorted(branches))}"
    elif move.origin and _family(move.origin) not in ours:
        yield f"apt would take {words} from {move.origin}, which nothing in the plan comes from"


def _may_be_replaced(move: Move, manager: Manager) -> bool:
    """An RPM can call any other one obsolete, and need not provide what that did: only the driver's own may go so."""
    if _kind(move.name):
        return False
    return manager == "apt" or branch_of(move.name, move.before or "") is not None


def _kind(name: str) -> str:
    if _KERNEL.match(name):
        return "the kernel "
    return "the container runtime " if _RUNTIME.match(name) else ""


def _family(origin: str) -> str:
    """`Debian-Security:12/oldstable-security` and `Debian:12.15/oldstable` are one family."""
    name = re.split(r"[:, ]", origin, maxsplit=1)[0]
    if _REPOSITORIES.match(name):
        return _DISTRIBUTION[0]
    return next((known for known in _DISTRIBUTION if name.startswith(known)), name)
