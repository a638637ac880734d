"""The steps of `provision plan`: look once, compare with the lock, put the difference in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from provisioner import __version__
from provisioner.actions.locked import not_locked
from provisioner.actions.observe import Seen, observe
from provisioner.actions.ports import Clock, Prober, Signatures
from provisioner.errors import HostError
from provisioner.model.enrolment import RECORD, lock_digest, record_in
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import DrainStep, HostPlan, Plan
from provisioner.model.resource import Directory, File, Service, Settings
from provisioner.model.stack import HostLock, Lock
from provisioner.plan.order import host_plan
from provisioner.probe.request import STATE, Request
from provisioner.resources.difference import difference
from provisioner.resources.wanted import wanted

if TYPE_CHECKING:
    from provisioner.matrix.entries import Contract

Contracts = Callable[[], "Mapping[str, Contract | None]"]
"""Gives the contract of each network of the matrix, by its id."""


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made from; `failed` holds the hosts that could not be planned."""

    plan: Plan
    seen: dict[str, Seen] = field(default_factory=dict)
    failed: dict[str, HostError] = field(default_factory=dict)


def make_plan(
    hosts: Sequence[InventoryHost],
    lock: Lock,
    *,
    prober: Prober,
    clock: Clock,
    signatures: Signatures,
    sources: tuple[str, ...] = (),
    limit: str | None = None,
    contracts: Contracts | None = None,
) -> Planned:
    """Return what each host needs to be what its lock entry says; changes nothing.

    `contracts` is asked only when a client has to stop: a plan that changes nothing must not pay for the matrix.
    """
    locked, failed = _locked(hosts, lock)
    targets = [host for host in hosts if host.name in locked]
    seen, unseen = observe(targets, {name: request_for(entry) for name, entry in locked.items()}, prober)
    failed |= unseen
    plans = {name: plan_of(one, locked[name], lock.matrix, signatures) for name, one in seen.items()}
    if contracts is not None and any(one.drain for one in plans.values()):
        known = contracts()
        serving = [name for name, one in seen.items() if isinstance(one.capture.file(RECORD), str)]
        plans |= {name: with_drains(plans[name], known) for name in serving}
    plan = Plan(
        made_by=__version__,
        made_at=clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        matrix=lock.matrix,
        inventory=sources,
        limit=limit,
        locked={name: locked[name] for name in plans},
        hosts=plans,
        failed={name: f"{problem.reference}: {problem.message}" for name, problem in failed.items()},
    )
    return Planned(plan, seen, failed)


def with_drains(plan: HostPlan, contracts: Mapping[str, Contract | None]) -> HostPlan:
    """Say how each client of an enrolled host stops, as its network's contract has it; others have nothing to drain."""
    steps = []
    for network in plan.drain:
        contract = contracts.get(network)
        if contract is None:
            continue
        drain, busy = contract.drain, contract.busy
        steps.append(
            DrainStep(
                network=network,
                kind=drain.kind,
                how=drain.how,
                by_hand=drain.by_hand,
                command=drain.command,
                undo=drain.undo,
                containers=busy.containers,
                sees_jobs=busy.kind != "unknown",
                wait_s=drain.wait_min * 60,
                penalty=drain.penalty,
            )
        )
    return plan.model_copy(update={"drains": tuple(steps)})


def interrupting(planned: Planned) -> Planned:
    """The same plan for somebody who said that running jobs may be lost: clients are stopped at once."""
    hosts = {name: plan.model_copy(update={"drains": ()}) for name, plan in planned.plan.hosts.items()}
    return replace(planned, plan=planned.plan.model_copy(update={"hosts": hosts}))


def request_for(entry: HostLock) -> Request:
    """Return what must be looked at to compare a host with its lock entry."""
    resources = wanted(entry)
    return Request(
        STATE,
        files=tuple(r.path for r in resources if isinstance(r, (Directory, File, Settings))),
        units=tuple(r.name for r in resources if isinstance(r, Service)),
    )


def plan_of(seen: Seen, entry: HostLock, matrix: str, signatures: Signatures) -> HostPlan:
    """Return one host's plan from what was seen of it."""
    record = record_in(seen.capture)
    enrolled = (
        record is not None
        and record.host == seen.host.name
        and record.lock_digest == lock_digest(entry)
        and record.matrix_digest == matrix
        and seen.capture.taken_at < record.expires_at
        and signatures.verifies(record) is True
    )
    differences = difference(wanted(entry), seen.facts, seen.capture)
    return host_plan(seen.host.name, entry, differences, enrolled=enrolled)


def _locked(hosts: Sequence[InventoryHost], lock: Lock) -> tuple[dict[str, HostLock], dict[str, HostError]]:
    locked: dict[str, HostLock] = {}
    failed: dict[str, HostError] = {}
    for host in hosts:
        problem = not_locked(host.name, lock)
        if problem is not None:
            failed[host.name] = problem
            continue
        entry = lock.hosts[host.name]
        if entry.intent != host.intent:
            failed[host.name] = HostError(
                "lock-out-of-date",
                host.name,
                f"{host.name}: the lock was made for another intent than the inventory states now",
                context=_changed(entry, host),
                hint=f"provision resolve --limit {host.name}",
            )
        else:
            locked[host.name] = entry
    return locked, failed


def _changed(entry: HostLock, host: InventoryHost) -> list[str]:
    then, now = entry.intent.model_dump(mode="json"), host.intent.model_dump(mode="json")
    return [f"provision_{key}: {then[key]!r} in the lock, {now[key]!r} now" for key in now if then[key] != now[key]]
