"""The steps of `provision rehearse`: each stack on a throwaway host: as it is now, upgraded, and brought back.

Several stacks at once, each from beginning to end by one thread. A case that passed is kept by the digest of its two
stacks, so an interrupted rehearsal goes on from there. Whatever happens, each host is taken down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Literal, Protocol

from provisioner import __version__
from provisioner.actions.ports import Clock
from provisioner.errors import ProvisionError
from provisioner.model.rehearsal import Case, CaseResult, Outcome, Rehearsal, StepName, StepResult, Verdict
from provisioner.model.stack import HostLock, Lock
from provisioner.resolve.rehearsal import ways


class Stage(Protocol):
    """One throwaway host, under way through one case; `log` is where all that was said is kept."""

    cached: bool
    log: str

    def apply(self, entry: HostLock) -> Outcome: ...

    def plan(self, entry: HostLock) -> str: ...

    def back(self) -> Outcome: ...

    def keep(self) -> None:
        """Keep the host as it is now, so that the next rehearsal from this state begins here."""
        ...


class Theatre(Protocol):
    """Where throwaway hosts come from."""

    def lacks(self, case: Case) -> str | None:
        """Why this case's present state cannot be rebuilt here, or None."""
        ...

    def sweep(self) -> None:
        """Remove what killed rehearsals left behind."""
        ...

    def raise_up(self, case: Case) -> Stage:
        """Bring a host up for a case, from its kept image if there is one. Raises ProvisionError."""
        ...

    def take_down(self, case: Case) -> None:
        """Remove the case's host, and what is left of one; never raises for what is not there."""
        ...

    def stop(self) -> None:
        """End the commands that run now."""
        ...


class Memory(Protocol):
    """What passed in former rehearsals, by case."""

    def passed(self, case: Case) -> CaseResult | None: ...

    def note(self, result: CaseResult) -> None: ...


Say = Callable[[Case, StepName | None, str], None]


def rehearse(
    before: Lock,
    after: Lock,
    *,
    theatre: Theatre,
    memory: Memory,
    clock: Clock,
    jobs: int,
    fresh: bool = False,
    say: Say = lambda _case, _step, _text: None,
) -> Rehearsal:
    """Try every way between the two locks once; `jobs` bounds the hosts at once, `fresh` leaves out what is known."""
    began = time.monotonic()
    found = ways(before, after)
    results: dict[str, CaseResult] = {}
    todo: list[Case] = []
    for case in found.cases:
        known = None if fresh else memory.passed(case)
        if known is not None:
            # Which hosts go this way may have changed since; what happens on it has not.
            results[case.id] = known.model_copy(update={"earlier": True, "case": case})
            say(case, None, "passed before")
        else:
            todo.append(case)
    for result in _all(todo, theatre, memory, jobs, say):
        results[result.case.id] = result
    return Rehearsal(
        made_by=__version__,
        made_at=clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        before=before.matrix,
        after=after.matrix,
        cases=tuple(results[case.id] for case in found.cases),
        unchanged=found.unchanged,
        gone=found.gone,
        seconds=round(time.monotonic() - began, 1),
    )


def in_turn(cases: Sequence[Case]) -> list[Case]:
    """Different present states first: whoever comes later with one of them begins from the image that was kept."""
    seen: set[str] = set()
    first: list[Case] = []
    later: list[Case] = []
    for case in cases:
        (later if case.present in seen else first).append(case)
        seen.add(case.present)
    return first + later


def _all(cases: Sequence[Case], theatre: Theatre, memory: Memory, jobs: int, say: Say) -> list[CaseResult]:
    """Run the cases side by side. Ctrl-C ends the commands under way and takes every host down, then goes on up.

    What is done is noted at once: a kill must not cost more than what is under way.
    """
    if not cases:
        return []
    theatre.sweep()
    ended = threading.Event()
    found: list[CaseResult] = []
    noting = threading.Lock()

    def work(case: Case) -> None:
        result = _one(case, theatre, say, ended)
        if result is not None:
            with noting:
                memory.note(result)
                found.append(result)

    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="rehearse")
    try:
        waiting: set[Future[None]] = {pool.submit(work, case) for case in in_turn(cases)}
        while waiting:
            # With a time limit, for a wait without one cannot be interrupted on every system.
            done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
    except BaseException:
        ended.set()
        theatre.stop()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True)
    return found


def _one(case: Case, theatre: Theatre, say: Say, ended: threading.Event) -> CaseResult | None:
    if ended.is_set():
        return None
    reason = theatre.lacks(case)
    if reason is not None:
        say(case, None, f"not rehearsed: {reason}")
        return CaseResult(case=case, verdict="not-rehearsed", why=reason, steps=(_not_made("present"),))
    try:
        stage = theatre.raise_up(case)
        return _through(case, stage, say, ended)
    except ProvisionError as problem:
        step = StepResult(
            step="present",
            status="not-made",
            reference=problem.reference,
            detail=(problem.message, *problem.context),
            hint=problem.hint or "",
        )
        say(case, "present", f"not rehearsed: {problem.message}")
        return CaseResult(case=case, verdict="not-rehearsed", why=problem.message, steps=(step,))
    finally:
        theatre.take_down(case)


def _not_made(step: StepName) -> StepResult:
    return StepResult(step=step, status="not-made")


def _through(case: Case, stage: Stage, say: Say, ended: threading.Event) -> CaseResult | None:
    """The steps in order; the first that fails ends the case. None when the rehearsal was interrupted meanwhile."""
    steps: list[StepResult] = []
    plan = ""

    def result(verdict: Verdict, why: str = "") -> CaseResult | None:
        return (
            None
            if ended.is_set()
            else CaseResult(
                case=case, verdict=verdict, why=why, steps=tuple(steps), cached=stage.cached, plan=plan, log=stage.log
            )
        )

    if case.before is not None:
        say(case, "present", "from its kept image" if stage.cached else "from a bare host")
        present = stage.apply(case.before)
        if present.state != "good":
            steps.append(_step("present", present, status="not-made", seconds=present.seconds))
            return result("not-rehearsed", _why("its present state could not be rebuilt", present))
        steps.append(_step("present", present, status="passed", seconds=present.seconds))
        if not stage.cached:
            stage.keep()
    plan = stage.plan(case.after)
    say(case, "upgrade", "")
    upgrade = stage.apply(case.after)
    reached = upgrade.state in ("good", "unverified")
    steps.append(
        _step(
            "upgrade",
            upgrade,
            status="passed" if reached else "failed",
            seconds=upgrade.seconds - upgrade.verify_s,
            away=upgrade.not_serving_s,
        )
    )
    if not reached:
        return result("failed", _why("the upgrade failed", upgrade))
    good = upgrade.state == "good"
    steps.append(_step("verify", upgrade, status="passed" if good else "failed", seconds=upgrade.verify_s))
    if not good:
        if upgrade.taken_back:
            steps.append(StepResult(step="back", status="passed", detail=("by itself, for it did not pass",)))
        return result("failed", _why("the upgraded host does not pass", upgrade))
    if case.before is None:
        return result("passed")
    say(case, "back", "")
    back = stage.back()
    reached = back.state in ("good", "unverified")
    steps.append(
        _step(
            "back",
            back,
            status="passed" if reached else "failed",
            seconds=back.seconds - back.verify_s,
            away=back.not_serving_s,
        )
    )
    if not reached:
        return result("failed", _why("the way back failed", back))
    good = back.state == "good"
    steps.append(_step("verify-back", back, status="passed" if good else "failed", seconds=back.verify_s))
    return result("passed") if good else result("failed", _why("the host that was brought back does not pass", back))


def _step(
    step: StepName,
    outcome: Outcome,
    *,
    status: Literal["passed", "failed", "not-made"],
    seconds: float,
    away: float = 0.0,
) -> StepResult:
    bad = status != "passed"
    return StepResult(
        step=step,
        status=status,
        seconds=round(max(0.0, seconds), 1),
        not_serving_s=round(away, 1),
        reference=outcome.reference if bad else "",
        detail=outcome.detail if bad else (),
        hint=outcome.hint if bad else "",
    )


def _why(what: str, outcome: Outcome) -> str:
    return f"{what}: {outcome.detail[0]}" if outcome.detail else what
