"""The steps of `provision history` and `rollback`: read what a host keeps, plan the way back, forget it afterwards."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from provisioner import __version__
from provisioner.actions.observe import Seen, observe
from provisioner.actions.plan import Contracts, Goal, Planned, draining, plan_for, request_for, simulated
from provisioner.actions.ports import Clock, HostShell, Prober, Signatures
from provisioner.errors import HostError
from provisioner.facts import history
from provisioner.model.capture import UNKNOWN
from provisioner.model.history import CLEAR_BUILD, HISTORY, NOW, Entry, Unreadable
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan, Plan
from provisioner.model.resource import AbsentPackage, Package
from provisioner.model.stack import HostLock
from provisioner.probe.request import STATE, Request
from provisioner.resources.undo import undo

if TYPE_CHECKING:
    from provisioner.matrix.reader import Matrix


@dataclass(frozen=True)
class Kept:
    """What each host keeps, oldest first; `failed` holds the hosts that were not seen."""

    entries: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    unreadable: dict[str, tuple[Unreadable, ...]] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    failed: dict[str, HostError] = field(default_factory=dict)


def look_back(hosts: Sequence[InventoryHost], prober: Prober) -> Kept:
    """Return the kept changes of every host, from one look."""
    asked = Request(STATE, files=(history.RECORDS, history.ENDS))
    seen, failed = observe(hosts, {host.name: asked for host in hosts}, prober)
    entries = {name: history.read(one.capture) for name, one in seen.items()}
    unreadable = {name: history.unreadable(one.capture) for name, one in seen.items()}
    return Kept(entries, unreadable, seen, failed)


def plan_rollback(
    hosts: Sequence[InventoryHost],
    run: str | None,
    *,
    prober: Prober,
    clock: Clock,
    signatures: Signatures,
    sources: tuple[str, ...] = (),
    made_in: str | None = None,
    contracts: Contracts | None = None,
    matrix: Callable[[], Matrix] | None = None,
) -> Planned:
    """Return what each host needs to be what it was before `run`, or before its last change; changes nothing.

    `made_in` takes back only a change of that run. With a matrix, a module that is known not to build for the kernel
    that is there by now stops the plan.
    """
    kept = look_back(hosts, prober)
    failed = dict(kept.failed)
    goals: dict[str, Goal] = {}
    for host in hosts:
        if host.name not in kept.entries:
            continue
        try:
            undone = _undone(host.name, kept.entries[host.name], run, kept.unreadable[host.name])
        except HostError as problem:
            failed[host.name] = problem
            continue
        if made_in is None or undone[-1].record.run == made_in:
            goals[host.name] = _goal(host, undone, kept.seen[host.name])
    targets = [host for host in hosts if host.name in goals]
    seen, unseen = observe(targets, {name: request_for(goal) for name, goal in goals.items()}, prober)
    plans = {name: plan_for(one, goals[name], signatures) for name, one in seen.items()}
    plans, unasked = simulated(plans, seen, prober)
    plans = draining(plans, seen, contracts)
    if matrix is not None:
        plans = {name: _buildable(one, goals[name], seen[name], matrix) for name, one in plans.items()}
    failed |= unseen | unasked
    plan = Plan(
        made_by=__version__,
        made_at=clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        matrix="",
        inventory=sources,
        locked=_locked(goals),
        hosts=plans,
        failed={name: f"{problem.reference}: {problem.message}" for name, problem in failed.items()},
    )
    return Planned(plan, {name: seen[name] for name in plans}, failed, goals)


def _undone(
    host: str, entries: Sequence[Entry], run: str | None, unreadable: Sequence[Unreadable] = ()
) -> Sequence[Entry]:
    """The entries from the one that is named to the last: a change can only be taken back with all that came after."""
    newest = max([entry.record.run for entry in entries] + [one.run for one in unreadable], default=None)
    if newest is None:
        raise HostError(
            "nothing-kept",
            host,
            f"{host} keeps no change that could be taken back",
            hint="every provision apply that changes a host keeps what it replaces",
        )
    named = run if run is not None else newest
    first = next((e.record.run for e in entries if named in (e.record.run, e.record.began)), None)
    if first is None and named not in {one.run for one in unreadable}:
        raise HostError(
            "run-not-kept",
            host,
            f"{host} keeps nothing of a run {run}",
            context=[f"kept: {entry.record.run}" for entry in entries],
            hint=f"provision history {host}",
        )
    first = first or named
    lost = [one for one in unreadable if one.run >= first]
    if lost:
        raise _not_read(host, lost, [entry.record.run for entry in entries if entry.record.run > lost[-1].run])
    return [entry for entry in entries if entry.record.run >= first]


def _not_read(host: str, lost: Sequence[Unreadable], after: Sequence[str]) -> HostError:
    """What such a change replaced is not known: the way back must not leave it out, nor guess."""
    folders = shlex.join(f"{HISTORY}/{one.run}" for one in lost)
    back = f"provision rollback {host} {after[0]} takes back only what came after it; " if after else ""
    return HostError(
        "record-unreadable",
        host,
        f"{host} keeps the change of run {lost[-1].run}, but its record cannot be read",
        context=[f"{HISTORY}/{one.run}/record.json: {one.why}" for one in lost],
        hint=f"{back}to do without this way back: ssh {host} sudo mv {folders} /root/, and provision apply goes on "
        "from what is there",
    )


def _goal(host: InventoryHost, undone: Sequence[Entry], seen: Seen) -> Goal:
    records = [entry.record for entry in undone]
    return Goal(
        resources=undo(records, seen.facts.kernel.installed),
        stack=records[0].before,
        policy=host.intent.policy,
        networks=host.intent.networks,
        undone=tuple(record.run for record in records),
        manager=records[0].manager,
    )


def _buildable(plan: HostPlan, goal: Goal, seen: Seen, matrix: Callable[[], Matrix]) -> HostPlan:
    """Stop where dpkg would build a module, minutes long, for a kernel that it is known not to compile for.

    The driver of before was built for the kernels of its time; one that came since stays, unless the change brought it.
    """
    put_in = {change.wanted.name for change in plan.changes if isinstance(change.wanted, Package)}
    gone = {change.wanted.name for change in plan.changes if isinstance(change.wanted, AbsentPackage)}
    kernel = seen.facts.kernel
    kernels = [
        release
        for release in dict.fromkeys((kernel.running, kernel.next_boot))
        if release is not UNKNOWN and f"linux-image-{release}" not in gone
    ]
    if goal.stack is None or not put_in or not kernels:
        return plan
    from provisioner.resolve.builds import unbuildable
    from provisioner.resolve.explain import warning

    stops = tuple(
        f"{warning(claim)}. What would work: boot an older kernel and take this one away (apt purge "
        f"linux-image-{claim.about} linux-headers-{claim.about}), then provision rollback {plan.host}"
        for claim in unbuildable(goal.stack.entry, kernels, matrix())
        if claim.word("package") in put_in
    )
    return plan.model_copy(update={"blocked": (*plan.blocked, *stops)})


def _locked(goals: Mapping[str, Goal]) -> dict[str, HostLock]:
    return {name: goal.stack.entry for name, goal in goals.items() if goal.stack is not None}


def forget(host: InventoryHost, goal: Goal, shell: HostShell) -> None:
    """Take kept changes off a host that has been brought back to before them."""
    if not goal.undone:
        return
    folders = [f"{HISTORY}/{run}" for run in goal.undone]
    gone = [*folders, NOW] if goal.stack is None else folders
    answer = shell.run(host, f"{CLEAR_BUILD}; rm -rf -- {shlex.join(gone)}")
    if answer.rc != 0:
        raise HostError(
            "history-not-cleared",
            host.name,
            f"{host.name} is back, but still keeps the change that was taken back",
            context=answer.stderr.strip().splitlines()[-3:],
        )
