"""What would be done to each host, phase by phase, with what it costs; the shape of `provision plan --json`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from provisioner.model.history import Keep
from provisioner.model.manager import Manager
from provisioner.model.resource import AbsentPackage, KernelModule, Package, Resource, Service, WholePackages
from provisioner.model.stack import HostLock
from provisioner.model.transaction import Move

Phase = Literal["stage", "drain", "change", "reboot", "guard", "verify", "enrol"]
PHASES: tuple[Phase, ...] = ("stage", "drain", "change", "reboot", "guard", "verify", "enrol")


class Change(BaseModel):
    """One resource that will be put in place. `before` and `after` are for people; `wanted` is what will be done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: Phase
    what: str
    before: str | None  # None: not there
    after: str
    wanted: Resource
    keys: tuple[str, ...] = ()  # what differs; empty when the resource is absent
    notes: tuple[str, ...] = ()  # what somebody else changed since provision wrote it, or cannot be brought back
    content: str | None = None  # the text of the file as it will be, where the owner's part is merged in

    @property
    def moves(self) -> Package | AbsentPackage | None:
        """The package that apt has to do something about; None for everything else, and for a lost hold alone."""
        if isinstance(self.wanted, AbsentPackage):
            return self.wanted
        if isinstance(self.wanted, Package) and (not self.keys or {"version", "whole"} & set(self.keys)):
            return self.wanted
        return None


class DrainStep(BaseModel):
    """How one network's client stops serving: what is done, how long a running job is waited for, what it may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    kind: str  # as in the contract of matrix/networks: scale-zero, unlist, pause, none …; absent: it is not there
    how: str
    by_hand: bool = False  # somebody has to do it on the network's page first
    command: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    then: tuple[str, ...] = ()  # when no job is left, or none counts
    interrupt: bool = False  # jobs may be lost: nothing is waited for
    containers: str | None = None  # a job is a container of this name; None: a compute process on a GPU
    sees_jobs: bool = True  # False: nothing on the host tells whether a job runs
    wait_s: int = 1800
    penalty: str | None = None


class Trial(BaseModel):
    """The change is tried across its reboot: the host takes it back by itself unless it is sound and is confirmed.

    `once`: the kernel that GRUB boots once; None: the kernel that runs boots again, or `note` says why it is not tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: int  # from the boot
    what: str  # `driver 535.216.03 → 535.261.03`
    driver: str | None  # that has to be loaded then
    once: str | None = None
    note: str = ""


class Ahead(BaseModel):
    """What would be wrong once the plan is done: a mechanism of matrix/failures that holds on the state after it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mechanism: str
    title: str
    costs: str
    evidence: tuple[str, ...] = ()
    mend: str = ""  # the first step against it
    sure: bool = True  # False: it is likely, or only the next boot will tell
    new: bool = True  # False: it is so now and would stay so
    stops: bool = False  # the plan is refused for it
    told: bool = True  # False: only `provision preflight` shows it


class HostPlan(BaseModel):
    """All that one host needs. `blocked` says why nothing may be done; then the changes are only for reading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    manager: Manager = "apt"
    changes: tuple[Change, ...] = ()
    reboot: bool = False
    drain: tuple[str, ...] = ()  # networks whose clients stop first
    drains: tuple[DrainStep, ...] = ()  # how, for those of `drain` whose contract is known
    transaction: tuple[Move, ...] | None = None  # what apt says it would do; None: it was not asked
    download_bytes: int = 0
    not_serving_s: int = 0  # an estimate, see provisioner/plan/cost.py
    enrolled: bool = False  # a record for this very lock is on the host
    keep: Keep | None = None  # what is replaced is kept on the host; None: the plan itself takes a change back
    takes_back: tuple[str, ...] = ()  # runs whose changes the plan undoes, oldest first
    trial: Trial | None = None
    verified: bool = True  # False: it had no stack then that it could be verified against, and was not enrolled
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what the host did by itself since, or will do
    at_work: bool = False  # somebody's apt changed packages while it was looked at: a run waits for it and looks again
    blocked: tuple[str, ...] = ()
    ahead: tuple[Ahead, ...] = ()  # what would be wrong after it; empty as well when nobody looked

    @property
    def interrupted(self) -> bool:
        """Whether dpkg has to finish something before apt can be asked what the transaction would do."""
        return any(isinstance(c.wanted, WholePackages) and "interrupted" in c.keys for c in self.changes)

    @property
    def moving(self) -> tuple[Package | AbsentPackage, ...]:
        """The packages that go into the one transaction."""
        return tuple(package for change in self.changes if (package := change.moves) is not None)

    @property
    def reloads(self) -> bool:
        """Whether systemd reads its units anew: packages with units make it do so, and so do units of ours."""
        return any(
            (change.moves is not None and change.moves.unit != "kernel")
            or isinstance(change.wanted, Service)
            or "/systemd/system/" in getattr(change.wanted, "path", "")
            for change in self.changes
        )

    @property
    def module_source(self) -> Package | None:
        """The package whose kernel module is built before the drain; None when nothing is, or DKMS comes only now."""
        sources = [p for p in self.moving if isinstance(p, Package) and p.name.endswith("kernel-dkms")]
        fresh = self.transaction is None or any(m.name == "dkms" and m.before is None for m in self.transaction)
        builds = any(isinstance(change.wanted, KernelModule) for change in self.changes)
        return sources[0] if builds and not fresh and len(sources) == 1 else None

    @property
    def up_to_date(self) -> bool:
        return not self.changes and not self.blocked

    def in_phase(self, phase: Phase) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.phase == phase)


class Plan(BaseModel):
    """`provision plan -o FILE` writes one; `provision apply FILE` does exactly that or refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    made_by: str
    made_at: str
    matrix: str
    inventory: tuple[str, ...] = ()
    limit: str | None = None
    locked: dict[str, HostLock] = Field(default_factory=dict)
    hosts: dict[str, HostPlan] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)  # host -> reference and message of why it was not seen

    def differing(self) -> Iterator[HostPlan]:
        """Yield the plans of hosts that need something done, in inventory order."""
        return (plan for plan in self.hosts.values() if not plan.up_to_date)
