"""What is different of a plan for a RHEL-like: what is refused there, and the versions that dnf's table leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import HostFacts, Package
from provisioner.model.manager import PLUGIN, plugin_is_on
from provisioner.model.plan import HostPlan
from provisioner.model.resource import (
    Guarded,
    KernelModule,
    PackageSource,
    PythonEnvironment,
    Resource,
    Tool,
    VersionLock,
)
from provisioner.model.resource import Package as Wanted
from provisioner.model.transaction import Move

_NOT_YET: tuple[tuple[type, str], ...] = (
    (PackageSource, "writing a package source: put the vendor's .repo file there, and resolve without it"),
    (PythonEnvironment, "a client in Python"),
    (Tool, "a tunnel"),
    (Guarded, "a tunnel"),
)


def as_dnf(plan: HostPlan, facts: HostFacts, capture: Capture) -> HostPlan:
    """Return the plan as one of a host with dnf, with why it may not be done there."""
    notes = ["a RHEL-like: the change is not tried across its reboot, the host does not go back by itself"]
    return plan.model_copy(
        update={
            "manager": "dnf",
            "blocked": (*plan.blocked, *refused(plan, facts, capture)),
            "notes": (*plan.notes, *(notes if plan.reboot else [])),
        }
    )


def refused(plan: HostPlan, facts: HostFacts, capture: Capture) -> tuple[str, ...]:
    """Return what cannot be done on RHEL-likes, each with what to type."""
    wanted: list[Resource] = [change.wanted for change in plan.changes]
    found = [f"{what} is not supported yet on RHEL-likes" for what in _not_yet(wanted)]
    if any(isinstance(one, VersionLock) for one in wanted) or plan.moving:
        plugin = capture.file(PLUGIN)
        if not plugin_is_on(plugin):
            why = "is switched off" if isinstance(plugin, str) else "is not installed"
            found.append(
                f"dnf's version lock {why}, so nothing would hold what is installed: "
                f"dnf install python3-dnf-plugin-versionlock, and enabled = 1 in {PLUGIN}"
            )
    twice = [] if facts.packages is UNKNOWN else sorted(p.name for p in facts.packages.values() if not p.whole)
    if twice:
        found.append(
            f"{', '.join(twice)} is installed in two versions: a transaction was cut short. "
            "Look at dnf check, then dnf remove --duplicates"
        )
    return (*found, *_without_kernel_devel(wanted, facts))


def _not_yet(wanted: Sequence[Resource]) -> list[str]:
    return list(dict.fromkeys(what for one in wanted for kind, what in _NOT_YET if isinstance(one, kind)))


def _without_kernel_devel(wanted: Sequence[Resource], facts: HostFacts) -> list[str]:
    """A lock has one version of each package: of two kernels without kernel-devel only one gets it."""
    headers = facts.kernel.headers
    coming = {
        f"{one.version}.{one.architecture}" for one in wanted if isinstance(one, Wanted) and one.name == "kernel-devel"
    }
    return [
        f"kernel {one.kernel} has no kernel-devel, and gets none by this plan: dnf install kernel-devel-{one.kernel}"
        for one in wanted
        if isinstance(one, KernelModule)
        and headers is not UNKNOWN
        and one.kernel not in headers
        and one.kernel not in coming
    ]


def with_before(moves: Sequence[Move], installed: dict[str, Package] | Unknown) -> tuple[Move, ...]:
    """Return the moves with the versions that are there now; a kernel that comes beside another replaces none."""
    if installed is UNKNOWN:
        return tuple(moves)
    return tuple(
        move.model_copy(update={"before": installed[move.name].version})
        if move.before is None and move.action != "install" and move.name in installed
        else move
        for move in moves
    )
