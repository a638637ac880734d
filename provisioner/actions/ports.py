"""What the actions need of the world, as protocols; cli/ hands in the adapters, tests hand in fakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from provisioner.errors import HostError
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.enrolment import EnrolmentRecord
from provisioner.model.inventory import InventoryHost
from provisioner.model.results import HostVerification
from provisioner.model.run import HostOutcome, RunEvent
from provisioner.model.stack import HostLock
from provisioner.probe.request import Request

if TYPE_CHECKING:
    # Only named here: `provision plan` must not pay for Jinja.
    from provisioner.render.project import Project


class Prober(Protocol):
    """Looks at hosts, one round trip each, all at once; a host's failure is its own."""

    def probe(
        self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]
    ) -> dict[str, Capture | HostError]: ...


class HostShell(Protocol):
    """Runs a short script as root on one host, for the tool's own records there (lock, enrolment); rc 124: too slow."""

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput: ...


class KeyReader(Protocol):
    """Reads the public key of a package source from a file or an https address, armored. Raises BadInput."""

    def read(self, where: str) -> str: ...


class Paths(Protocol):
    """How hosts are reached once their tunnel is there, and where that is kept."""

    def new(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        """Return the host as its lock entry says it is reached; always over a connection that nobody shares."""
        ...

    def fresh(self, host: InventoryHost) -> InventoryHost:
        """Return the host by the way that it is reached now, over a connection that nobody shares."""
        ...

    def keep(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        """From now on commands take this way; returns the host as it is reached by it."""
        ...


class Clock(Protocol):
    def now(self) -> datetime: ...


class PlaybookRunner(Protocol):
    """Runs the playbooks of a rendered project, groups side by side."""

    def run(
        self,
        folder: Path,
        project: Project,
        *,
        sources: Sequence[str],
        on_event: Callable[[RunEvent], None],
        on_done: Callable[[Mapping[str, HostOutcome]], None] = lambda outcomes: None,
    ) -> dict[str, HostOutcome]:
        """`on_done` gets the hosts of groups that have ended, in the caller's thread, while other groups still run."""
        ...


class RunStore(Protocol):
    """Keeps the rendered runs under .provision/runs/<id>/."""

    def new_id(self) -> str: ...

    def write(self, run: str, project: Project) -> Path: ...


class Verifier(Protocol):
    """Runs provisioner/checks against hosts, each against its lock entry; the second opinion."""

    def verify(
        self, hosts: Sequence[InventoryHost], locked: Mapping[str, HostLock], *, run: str
    ) -> dict[str, HostVerification]: ...


class Enroller(Protocol):
    """Writes a host's enrolment record and releases its client units, or takes both back."""

    def enrol(self, host: InventoryHost, verification: HostVerification, locked: HostLock, *, matrix: str) -> None: ...

    def withdraw(self, host: InventoryHost) -> None: ...


class Signatures(Protocol):
    """Whose signatures this operator trusts; None: the key is not among them."""

    def verifies(self, record: EnrolmentRecord) -> bool | None: ...
