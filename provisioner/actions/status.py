"""The steps of `provision status`: look once, compare with the lock, read and check each host's enrolment record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from provisioner.actions.locked import OLDER
from provisioner.actions.observe import Seen, observe
from provisioner.actions.plan import goal_of, plan_of, request_for
from provisioner.actions.ports import Prober, Signatures
from provisioner.errors import HostError
from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.enrolment import RECORD, EnrolmentRecord, is_of_an_older_format, lock_digest, read_record
from provisioner.model.facts import TunnelFacts
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan
from provisioner.model.stack import HostLock, Lock
from provisioner.model.version import DebianVersion
from provisioner.plan.trial import notes_of
from provisioner.probe.request import STATE, Request

State = Literal["bare", "differs", "up to date", "enrolled", "out", "not seen"]


@dataclass(frozen=True)
class HostStatus:
    """One line of the table. `driver` and `runtime` are what is there now: None is absent, UNKNOWN was not seen.

    `bare`: nothing of the lock is there yet. `out`: there is a record, and it does not hold for what was seen.
    """

    host: str
    state: State
    reason: str = ""
    driver: str | Unknown | None = UNKNOWN
    runtime: str | Unknown | None = UNKNOWN
    networks: tuple[str, ...] = ()
    enrolled_at: datetime | None = None
    reference: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()  # what the host did by itself, or will do
    as_locked: bool = False  # nothing but the record is missing or wrong
    clients: Mapping[str, str] = field(default_factory=dict)  # network -> version of its client in the lock
    tunnel: TunnelFacts = field(default_factory=TunnelFacts)


def status(
    hosts: Sequence[InventoryHost], lock: Lock | None, *, prober: Prober, signatures: Signatures
) -> tuple[HostStatus, ...]:
    """Return every host's state, in inventory order, from one look; no lock yet means that no host is locked."""
    locked = dict(lock.hosts) if lock is not None else {}
    requests = {
        h.name: request_for(goal_of(locked[h.name], _matrix_of(lock, h.name))) if h.name in locked else Request(STATE)
        for h in hosts
    }
    seen, failed = observe(hosts, requests, prober)
    return tuple(
        _not_seen(host, failed[host.name])
        if host.name in failed
        else _status(seen[host.name], locked.get(host.name), lock, signatures)
        for host in hosts
    )


def _matrix_of(lock: Lock | None, host: str) -> str:
    return lock.matrix_of(host) if lock is not None else ""


def _not_seen(host: InventoryHost, problem: HostError) -> HostStatus:
    return HostStatus(
        host.name,
        "not seen",
        problem.message,
        networks=host.intent.networks,
        reference=problem.reference,
        hint=problem.hint or "",
    )


def _status(seen: Seen, entry: HostLock | None, lock: Lock | None, signatures: Signatures) -> HostStatus:
    """An entry of another matrix still says what the host should be; that no plan follows it is its reason."""
    matrix = _matrix_of(lock, seen.host.name)
    plan = plan_of(seen, entry, matrix, signatures) if entry is not None else None
    state, reason, record = _state(seen, entry, plan, matrix, signatures)
    return HostStatus(
        seen.host.name,
        state,
        OLDER if lock is not None and seen.host.name in lock.older else reason,
        notes=notes_of(seen.facts),
        driver=seen.facts.driver.loaded,
        runtime=_runtime(seen),
        networks=entry.intent.networks if entry is not None else seen.host.intent.networks,
        as_locked=plan is not None and plan.up_to_date,
        clients={name: one.value for name, one in entry.networks.items() if one.value} if entry is not None else {},
        tunnel=seen.facts.tunnel,
        enrolled_at=record.enrolled_at if record is not None and state == "enrolled" else None,
    )


def _runtime(seen: Seen) -> str | Unknown | None:
    """`docker 20.10.24`; what the daemon says when it was asked, else what the package says."""
    version = seen.facts.runtime.docker_version
    if not isinstance(version, str) and seen.facts.packages is not UNKNOWN:
        package = seen.facts.packages.get("docker.io") or seen.facts.packages.get("docker-ce")
        version = DebianVersion(package.version).upstream.split("+")[0] if package is not None else None
    return f"docker {version}" if isinstance(version, str) else version


def _state(
    seen: Seen, entry: HostLock | None, plan: HostPlan | None, matrix: str, signatures: Signatures
) -> tuple[State, str, EnrolmentRecord | None]:
    """The record counts only when it is signed, for this host and this lock entry, and the host is still as locked."""
    text = seen.capture.file(RECORD)
    record = read_record(text) if isinstance(text, str) else None
    wrong = _wrong_with(text, record, seen, signatures) if isinstance(text, str) else ""
    if entry is None or plan is None:
        return ("out" if text else "bare"), "not in the lock", record
    if wrong:
        return "out", wrong, record
    if record is not None and (record.lock_digest != lock_digest(entry) or record.matrix_digest != matrix):
        return "out", "enrolled for another lock", record
    if plan.blocked:
        return ("out" if record else "differs"), plan.blocked[0], record
    if plan.changes:
        if record is not None:
            return "out", f"changed since it was enrolled: {_differences(plan)}", record
        return ("bare" if _is_bare(seen, entry) else "differs"), _differences(plan), record
    if text is UNKNOWN:
        return "up to date", "the capture does not show the enrolment record", None
    return ("enrolled", "", record) if record is not None else ("up to date", "not enrolled", None)


def _wrong_with(text: str, record: EnrolmentRecord | None, seen: Seen, signatures: Signatures) -> str:
    if record is None:
        if is_of_an_older_format(text):
            return "its enrolment record is of an older format"
        return f"{RECORD} is no enrolment record"
    if record.host != seen.host.name:
        return f"its enrolment record is that of {record.host}"
    trusted = signatures.verifies(record)
    if trusted is None:
        return f"enrolled with a key that is not known here ({record.key})"
    if not trusted:
        return "the signature of its enrolment record is wrong"
    if seen.capture.taken_at >= record.expires_at:
        return f"its enrolment ended at {record.expires_at:%Y-%m-%d %H:%M}"
    return ""


def _differences(plan: HostPlan) -> str:
    names = [change.what for change in plan.changes]
    return names[0] + (f" and {len(names) - 1} more differ" if len(names) > 1 else " differs")


def _is_bare(seen: Seen, entry: HostLock) -> bool:
    """Nothing of what was locked is there in any version. Unknown packages are not absent ones."""
    packages = seen.facts.packages
    return packages is not UNKNOWN and not any(locked.name in packages for locked in entry.packages)
