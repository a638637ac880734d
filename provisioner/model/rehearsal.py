"""An upgrade tried on a throwaway host: which stack, which steps, what came of each; the shape of `rehearse --json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from provisioner.model.stack import HostLock

StepName = Literal["present", "upgrade", "verify", "back", "verify-back"]
STEPS: tuple[StepName, ...] = ("present", "upgrade", "verify", "back", "verify-back")
TITLES: dict[StepName, str] = {
    "present": "the host as it is now",
    "upgrade": "upgrade",
    "verify": "verify the upgraded host",
    "back": "roll back",
    "verify-back": "verify the host as it was",
}

Verdict = Literal["passed", "failed", "not-rehearsed"]
"""`not-rehearsed`: its present state could not be rebuilt, so nothing is known; never a pass."""


class Case(BaseModel):
    """One way from a stack to a stack, and every host of the fleet that would go it. `before` None: a new host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str  # digest of both sides: the same id is the same rehearsal
    name: str  # for people, folders and JUnit
    hosts: tuple[str, ...]
    before: HostLock | None
    after: HostLock
    present: str  # digest of all that the present state rests on: what its kept image is known by


@dataclass(frozen=True)
class Outcome:
    """What one command came to on the throwaway host.

    `unverified`: it was brought to where it should be, and a required check did not pass. `verify_s` is a part of
    `seconds`; `not_serving_s` is from the drain to the enrolment, as the commands measure it.
    """

    state: Literal["good", "unverified", "failed", "interrupted"]
    seconds: float = 0.0
    verify_s: float = 0.0
    not_serving_s: float = 0.0
    taken_back: bool = False  # it did not pass, and was brought back by itself
    reference: str = ""
    detail: tuple[str, ...] = ()
    hint: str = ""


class StepResult(BaseModel):
    """How one step went. `skipped`: a step before it failed; `not-made`: there was nothing it could be made on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: StepName
    status: Literal["passed", "failed", "skipped", "not-made"]
    seconds: float = 0.0
    not_serving_s: float = 0.0
    reference: str = ""
    detail: tuple[str, ...] = ()
    hint: str = ""


class CaseResult(BaseModel):
    """What came of one stack. `plan` is the text of the upgrade's plan, `log` the file with all that was said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: Case
    verdict: Verdict
    why: str = ""
    steps: tuple[StepResult, ...] = ()
    cached: bool = False  # the present state came from a kept image
    earlier: bool = False  # taken over from a former rehearsal of the very same two stacks
    plan: str = ""
    log: str = ""

    def step(self, name: StepName) -> StepResult | None:
        return next((one for one in self.steps if one.step == name), None)

    @property
    def not_serving_s(self) -> float:
        """Seconds that the upgrade alone would keep a host from serving."""
        return sum(one.not_serving_s for one in self.steps if one.step in ("upgrade", "verify"))

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.steps)


class Rehearsal(BaseModel):
    """All of it; `unchanged` hosts have nothing to rehearse, `gone` ones stand in the first lock only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    made_by: str
    made_at: str
    before: str  # the matrix digests of the two locks
    after: str
    cases: tuple[CaseResult, ...] = ()
    unchanged: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    seconds: float = 0.0

    def named(self, verdict: Verdict) -> tuple[CaseResult, ...]:
        return tuple(one for one in self.cases if one.verdict == verdict)
