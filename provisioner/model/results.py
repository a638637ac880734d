"""What verification found on a host: one result per check, and whether they allow enrolment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "unknown", "not-applicable"]


@dataclass(frozen=True)
class CheckResult:
    """One check on one host. `unknown`: it could not be made, which is not the same as failed."""

    host: str
    id: str
    title: str
    status: Status
    required: bool
    detail: str = ""
    seconds: float = 0.0

    @property
    def blocks(self) -> bool:
        """Whether this result alone keeps the host from being enrolled."""
        return self.required and self.status in ("failed", "unknown")


@dataclass(frozen=True)
class Fault:
    """Why a host could not be verified at all: the words of a HostError, kept as a value."""

    reference: str
    message: str
    context: tuple[str, ...] = ()
    hint: str | None = None


@dataclass(frozen=True)
class HostVerification:
    """All that one run of the checks found on one host, for one lock entry (`lock_digest`)."""

    host: str
    run: str
    lock_digest: str
    results: tuple[CheckResult, ...]
    fault: Fault | None = None

    @property
    def blocking(self) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.blocks)

    @property
    def passed(self) -> bool:
        """True only when checks were made and no required one failed or could not be made."""
        return self.fault is None and bool(self.results) and not self.blocking

    def count(self, status: Status) -> int:
        return sum(result.status == status for result in self.results)
