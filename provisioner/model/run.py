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
    """How the playbook ended for one host; `seconds` per phase that was entered."""

    ok: bool
    failed_task: str = ""
    detail: str = ""
    seconds: dict[Phase, float] = field(default_factory=dict)


@dataclass(frozen=True)
class HostResult:
    """What a whole apply came to for one host, as observed afterwards."""

    host: str
    state: Literal["enrolled", "unchanged", "failed", "out"]
    reference: str = ""
    reason: str = ""
    context: tuple[str, ...] = ()
    hint: str = ""

    @property
    def good(self) -> bool:
        return self.state in ("enrolled", "unchanged")
