"""What happens in a run: events as they come, and how it ended for each host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from provisioner.model.plan import Phase


@dataclass(frozen=True)
class RunEvent:
    """One thing that happened to one host in a run; `detail` is what a failed task printed."""

    host: str
    phase: Phase
    kind: Literal["start", "ok", "failed", "unreachable"]
    task: str
    detail: str = ""


@dataclass
class HostOutcome:
    """How the playbook ended for one host; `seconds` per phase that was entered, `rebooting` of the reboot alone.

    `away_since` is when it began to drain or to change, on the controller's monotonic clock.
    """

    ok: bool
    failed_task: str = ""
    detail: str = ""
    seconds: dict[Phase, float] = field(default_factory=dict)
    rebooting: float = 0.0
    away_since: float | None = None


@dataclass
class Spent:
    """Seconds that a run took of one host: per phase, not serving from the drain to the enrolment, and rebooting."""

    phases: dict[Phase, float] = field(default_factory=dict)
    not_serving: float = 0.0
    rebooting: float = 0.0


@dataclass(frozen=True)
class HostResult:
    """What a whole run came to for one host, as observed afterwards.

    `restored`: it is as before a change, and was not enrolled then. `rolled-back`: it did not pass after the change,
    and is enrolled again as before it.
    """

    host: str
    state: Literal["enrolled", "restored", "unchanged", "failed", "out", "rolled-back"]
    reference: str = ""
    reason: str = ""
    context: tuple[str, ...] = ()
    hint: str = ""

    @property
    def good(self) -> bool:
        return self.state in ("enrolled", "restored", "unchanged")
