"""The steps of `provision plan`: look once, compare with the lock, put the difference in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from provisioner import __version__
from provisioner.actions.observe import Seen, observe
from provisioner.actions.ports import Clock, Prober, Signatures
from provisioner.errors import HostError
from provisioner.model.enrolment import lock_digest, record_in
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan, Plan
from provisioner.model.resource import (
    Directory,
    File,
    Guarded,
    KeyPair,
    Resource,
    SecretFile,
    Service,
    Settings,
)
from provisioner.model.stack import HostLock, Lock
from provisioner.plan.order import host_plan
from provisioner.probe.request import STATE, Request
from provisioner.resources.difference import difference
from provisioner.resources.wanted import wanted
from provisioner.tunnels.kinds import tunnel_resources


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
) -> Planned:
    """Return what each host needs to be what its lock entry says; changes nothing."""
    locked, failed = _locked(hosts, lock)
    targets = [host for host in hosts if host.name in locked]
    seen, unseen = observe(targets, {name: request_for(entry) for name, entry in locked.items()}, prober)
    failed |= unseen
    plans = {name: plan_of(one, locked[name], lock.matrix, signatures) for name, one in seen.items()}
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


def request_for(entry: HostLock) -> Request:
    """Return what must be looked at to compare a host with its lock entry."""
    resources = all_wanted(entry)
    files = [r.path for r in resources if isinstance(r, (Directory, File, Settings))]
    units = [r.name for r in resources if isinstance(r, Service)]
    stats = [r.path for r in resources if isinstance(r, SecretFile)]
    files += [r.public for r in resources if isinstance(r, KeyPair)]
    for change in (r for r in resources if isinstance(r, Guarded)):
        files += [file.path for file in change.files if file.content is not None]
        stats += change.absent
        units += [*change.units, *change.stop]
    return Request(STATE, files=tuple(files), units=tuple(units), stats=tuple(stats))


def all_wanted(entry: HostLock) -> tuple[Resource, ...]:
    """Return what a host must have: its stack, then its tunnel."""
    return (*wanted(entry), *tunnel_resources(entry))


def plan_of(seen: Seen, entry: HostLock, matrix: str, signatures: Signatures) -> HostPlan:
    """Return one host's plan from what was seen of it."""
    record = record_in(seen.capture)
    enrolled = (
        record is not None
        and record.host == seen.host.name
        and record.lock_digest == lock_digest(entry)
        and record.matrix_digest == matrix
        and signatures.verifies(record) is True
    )
    differences = difference(all_wanted(entry), seen.facts, seen.capture)
    plan = host_plan(seen.host.name, entry, differences, enrolled=enrolled)
    waiting = _waiting(entry)
    return plan.model_copy(update={"reasons": (*plan.reasons, waiting)}) if waiting and plan.changes else plan


def _waiting(entry: HostLock) -> str:
    """Why a tunnel is not in the plan yet; the keys are made on their hosts, and nobody knows them before."""
    lock = entry.tunnel
    if lock is None or lock.kind == "none" or lock.complete:
        return ""
    whose = [*(["this host"] if lock.public_key is None else []), *lock.waits_for]
    return f"its tunnel waits for the key of {', '.join(whose)}: apply there, then resolve, then apply again"


def _locked(hosts: Sequence[InventoryHost], lock: Lock) -> tuple[dict[str, HostLock], dict[str, HostError]]:
    locked: dict[str, HostLock] = {}
    failed: dict[str, HostError] = {}
    for host in hosts:
        entry = lock.hosts.get(host.name)
        if entry is None:
            failed[host.name] = HostError(
                "host-not-locked",
                host.name,
                f"{host.name} has no entry in the lock",
                hint=f"provision resolve --limit {host.name}",
            )
        elif entry.intent != host.intent:
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
