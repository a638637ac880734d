"""The steps of `provision verify`: pair hosts with their lock entries, check, and let in or keep out when asked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from provisioner.actions.locked import not_locked
from provisioner.errors import HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.results import HostVerification
from provisioner.model.stack import Lock

if TYPE_CHECKING:
    from provisioner.actions.ports import Enroller, Verifier


@dataclass
class Verified:
    """What came of it, host by host; `failed` holds the hosts that could not be checked, enrolled or withdrawn."""

    run: str
    hosts: dict[str, HostVerification] = field(default_factory=dict)
    failed: dict[str, HostError] = field(default_factory=dict)
    enrolled: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.failed and all(one.passed for one in self.hosts.values())


def verify(hosts: Sequence[InventoryHost], lock: Lock, verifier: Verifier, *, run: str) -> Verified:
    """Check every host that has a lock entry; changes nothing."""
    verified = Verified(run)
    for host in hosts:
        problem = not_locked(host.name, lock)
        if problem is not None:
            verified.failed[host.name] = problem
    locked = [host for host in hosts if host.name not in verified.failed]
    verified.hosts = verifier.verify(locked, {host.name: lock.hosts[host.name] for host in locked}, run=run)
    return verified


def settle(verified: Verified, hosts: Sequence[InventoryHost], lock: Lock, enroller: Enroller) -> None:
    """Let in what passed and close what did not. A host that could not be reached keeps its state: nothing is known."""
    for host in hosts:
        verification = verified.hosts.get(host.name)
        if verification is None or verification.fault is not None:
            continue
        try:
            if verification.passed:
                enroller.enrol(host, verification, lock.hosts[host.name], matrix=lock.matrix)
                verified.enrolled.append(host.name)
            else:
                enroller.withdraw(host)
                verified.withdrawn.append(host.name)
        except HostError as problem:
            verified.failed[host.name] = problem
