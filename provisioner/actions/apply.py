"""The steps of `provision apply`: take the hosts, render, run, look again, verify, enrol; take back what did not pass.

`provision rollback` takes the same steps towards a state of before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from provisioner import __version__
from provisioner.actions import hostlock, switch, trial
from provisioner.actions import settle as settling
from provisioner.actions.observe import Seen, observe
from provisioner.actions.plan import Goal, Planned, plan_for, request_for, simulated
from provisioner.actions.ports import (
    Clock,
    Enroller,
    HostShell,
    Paths,
    PlaybookRunner,
    Prober,
    RunStore,
    Signatures,
    Verifier,
)
from provisioner.actions.rollback import forget, plan_rollback
from provisioner.errors import BadInput, Exit, HostError
from provisioner.model.capture import UNKNOWN
from provisioner.model.enrolment import lock_digest
from provisioner.model.facts import TrialFacts
from provisioner.model.history import Stack
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan, Plan, Trial
from provisioner.model.resource import WholePackages
from provisioner.model.results import HostVerification
from provisioner.model.run import HostOutcome, HostResult, RunEvent, Spent
from provisioner.plan.order import mending
from provisioner.render.project import project

_AT_ONCE = 16


@dataclass(frozen=True)
class ApplyPorts:
    """Everything that an apply needs of the world; `alive` says whether a process of this machine still runs."""

    prober: Prober
    shell: HostShell
    runner: PlaybookRunner
    store: RunStore
    verifier: Verifier
    enroller: Enroller
    signatures: Signatures
    paths: Paths
    clock: Clock
    alive: Callable[[int], bool]


@dataclass(frozen=True)
class Who:
    """The person and process behind a run, for the lock on the hosts."""

    user: str
    controller: str
    pid: int


@dataclass
class Applied:
    """What came of it, host by host; `folder` is the rendered run, None when no playbook had to run."""

    run: str
    results: dict[str, HostResult] = field(default_factory=dict)
    verified: dict[str, HostVerification] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)
    folder: Path | None = None
    moved: dict[str, InventoryHost] = field(default_factory=dict)  # hosts that are reached another way since
    taken_back: Applied | None = None  # the run that brought back hosts which did not pass

    @property
    def exit_code(self) -> Exit:
        if all(result.good for result in self.results.values()):
            return Exit.OK
        busy = [result for result in self.results.values() if result.reference == "host-busy"]
        bad = [result for result in self.results.values() if not result.good]
        return Exit.BUSY if len(busy) == len(bad) else Exit.FAILED


def refuse_if_moved(saved: Plan, fresh: Planned) -> None:
    """A saved plan is applied exactly or not at all. Raises BadInput `plan-stale` naming what moved."""
    moved = []
    for name, plan in saved.hosts.items():
        now = fresh.plan.hosts.get(name)
        if now is None:
            problem = fresh.failed.get(name)
            moved.append(f"{name}: {problem.message if problem else 'is no longer in the inventory'}")
        elif now.changes != plan.changes:
            moved.append(f"{name}: {_what_moved(plan, now)}")
        elif now.transaction != plan.transaction:
            moved.append(f"{name}: {plan.manager} would do something else now: {_which_moved(plan, now)}")
        elif fresh.plan.locked[name] != saved.locked[name]:
            moved.append(f"{name}: its lock entry is another one now")
    if moved:
        raise BadInput(
            "plan-stale",
            f"the plan of {saved.made_at} no longer fits; nothing was changed",
            context=moved,
            hint="make a new one: provision plan -o FILE",
        )


def _what_moved(then: HostPlan, now: HostPlan) -> str:
    before = {change.what: change for change in then.changes}
    after = {change.what: change for change in now.changes}
    names = [what for what in {**before, **after} if before.get(what) != after.get(what)]
    return "has changed since: " + ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _which_moved(then: HostPlan, now: HostPlan) -> str:
    before, after = set(then.transaction or ()), set(now.transaction or ())
    names = sorted({move.name for move in before ^ after})
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def apply(
    planned: Planned,
    ports: ApplyPorts,
    who: Who,
    *,
    on_event: Callable[[RunEvent], None],
    break_lock: bool = False,
) -> Applied:
    """Bring the hosts to their plans, verify, and enrol those whose required checks all passed."""
    applied = Applied(run=ports.store.new_id())
    for name, problem in planned.failed.items():
        applied.results[name] = _failed(name, problem)
    hosts = []
    for name, seen in planned.seen.items():
        plan = planned.plan.hosts[name]
        if plan.blocked:
            applied.results[name] = HostResult(
                name, "failed", "plan-blocked", f"{name} was left as it is", context=plan.blocked
            )
        elif plan.up_to_date and plan.enrolled:
            applied.results[name] = HostResult(name, "unchanged")
        else:
            hosts.append(seen.host)
    lease = hostlock.Lease(applied.run, who.user, who.controller, who.pid)
    with _held(hosts, lease, ports, applied, on_event, force=break_lock) as held:
        _end_trials(
            [host for host in held if _changes_one_on_trial(planned.plan.hosts[host.name], planned.seen[host.name])],
            ports,
            applied,
        )
        _bring(held, planned, ports, applied, on_event)
        _take_back(held, planned, ports, applied, on_event)
    return applied


def _changes_one_on_trial(plan: HostPlan, seen: Seen) -> bool:
    """A trial that was left behind by a dead run: one where nothing differs is confirmed when the host is enrolled."""
    return bool(plan.changes) and isinstance(seen.facts.trial, TrialFacts)


def _end_trials(hosts: Sequence[InventoryHost], ports: ApplyPorts, applied: Applied) -> None:
    """From here on this run changes the hosts, and they do not; one that is at it already gets its result here."""
    for host in hosts:
        try:
            trial.cancel(host, ports.shell)
        except HostError as problem:
            applied.results[host.name] = _failed(host.name, problem)


def _bring(
    hosts: Sequence[InventoryHost],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
    *,
    goes_back: bool = False,
) -> None:
    """Run, look again, verify and enrol, on hosts that are held; each serves again as soon as its own run has ended."""
    hosts = [host for host in hosts if host.name not in applied.results]
    planned = _settled(hosts, planned, ports, applied, on_event, goes_back=goes_back)
    hosts = [host for host in hosts if host.name not in applied.results]
    planned, mended = _mended(hosts, planned, ports, applied, on_event)
    whole = [host for host in hosts if host.name not in applied.results]
    ended: set[str] = set()

    def finish(members: Sequence[InventoryHost], away: Mapping[str, float]) -> None:
        good = [applied.moved.get(host.name, host) for host in members if host.name not in applied.results]
        _left_over([host for host in good if planned.plan.hosts[host.name].changes], planned, ports, applied)
        _verify_and_enrol(
            [host for host in good if host.name not in applied.results], planned, ports, applied, on_event
        )
        ended.update(host.name for host in members)
        for name, since in {**away, **{h.name: mended[h.name] for h in members if h.name in mended}}.items():
            applied.spent.setdefault(name, Spent()).not_serving = round(time.monotonic() - since, 1)

    away = _run(whole, planned, ports, applied, on_event, finish)
    finish([host for host in whole if host.name not in ended], away)
    for name in mended.keys() - ended:
        applied.spent.setdefault(name, Spent()).not_serving = round(time.monotonic() - mended[name], 1)


def _settled(
    hosts: Sequence[InventoryHost],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
    *,
    goes_back: bool,
) -> Planned:
    """Where somebody's apt is at work, or was while the plan was made, wait for it while the host serves; plan anew.

    It may be the apt of a run that was killed, which goes on by itself. A host that has booted since is seen anew too;
    one that is to go down before a change could be through is left as it is.
    """
    changing = [host for host in hosts if planned.plan.hosts[host.name].changes]

    def settle(host: InventoryHost) -> bool | HostError:
        try:
            now = settling.look(host, ports.shell)
            waited = now.apt
            if waited:
                on_event(RunEvent(host.name, "stage", "start", "wait for the apt or dpkg that is at work there"))
                settling.wait(host, ports.shell)
                now = settling.look(host, ports.shell)  # unattended-upgrades may have ended with a reboot to come
            if not goes_back:
                settling.refuse_soon(host, now)
        except HostError as problem:
            return problem
        booted = bool(now.boot) and planned.seen[host.name].facts.boot_identity not in (now.boot, UNKNOWN)
        return waited or booted or planned.plan.hosts[host.name].at_work

    moved = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for host, came in zip(changing, pool.map(settle, changing), strict=True):
            if isinstance(came, HostError):
                applied.results[host.name] = _failed(host.name, came)
            elif came:
                moved.append(host)
    return _anew(moved, planned, ports, applied)


def _mended(
    hosts: Sequence[InventoryHost],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
) -> tuple[Planned, dict[str, float]]:
    """Where packages are not whole, let dpkg finish first; only then can apt say what the rest of the plan would do.

    It may be the dpkg of a run that was killed and is still at it: it is waited for, and the host is seen again.
    Returns the plans as they are then, and since when hosts do not serve.
    """
    broken = [host for host in hosts if mending(planned.plan.hosts[host.name]).changes]
    if not broken:
        return planned, {}
    run = f"{applied.run}-mend"
    rendered = project(
        [mending(planned.plan.hosts[host.name]) for host in broken],
        {host.name: host.variables for host in broken},
        run=run,
        made_by=__version__,
        made_at=planned.plan.made_at,
    )
    folder = ports.store.write(run, rendered)
    outcomes = ports.runner.run(folder, rendered, sources=planned.plan.inventory, on_event=on_event)
    away = {host.name: since for host in broken if (since := outcomes[host.name].away_since) is not None}
    for host in broken:
        if not outcomes[host.name].ok:
            applied.results[host.name] = _task_failed(host.name, outcomes[host.name], planned.goals[host.name], None)
    planned = _anew([host for host in broken if outcomes[host.name].ok], planned, ports, applied, drained=True)
    for host in broken:
        plan = planned.plan.hosts[host.name]
        if plan.interrupted and host.name not in applied.results:
            applied.results[host.name] = HostResult(
                host.name,
                "failed",
                "dpkg-not-whole",
                f"{host.name}: what was interrupted could not be finished",
                context=tuple(c.before or "" for c in plan.changes if isinstance(c.wanted, WholePackages)),
                hint=f"on the host: dpkg --audit; then {_again(host.name, planned.goals[host.name])}",
            )
    return planned, away


def _anew(
    asked: Sequence[InventoryHost], planned: Planned, ports: ApplyPorts, applied: Applied, *, drained: bool = False
) -> Planned:
    """See the hosts again and plan what is left to do, which must be a part of what was shown.

    A host where it is not, or where apt would do what nobody asked for, gets its result here.
    """
    if not asked:
        return planned
    goals = planned.goals
    seen, failed = observe(asked, {host.name: request_for(goals[host.name]) for host in asked}, ports.prober)
    plans = {name: plan_for(one, goals[name], ports.signatures) for name, one in seen.items()}
    plans, unasked = simulated(plans, seen, ports.prober)
    for name, problem in {**failed, **unasked}.items():
        applied.results[name] = _failed(name, problem)
    for name, plan in plans.items():
        shown = {change.what for change in planned.plan.hosts[name].changes}
        more = [change.what for change in plan.changes if change.what not in shown]
        if not drained:
            steps = planned.plan.hosts[name].drains if plan.drain else ()
            plans[name] = plan.model_copy(update={"drains": steps})
        if plan.interrupted:
            continue
        if plan.blocked or more:
            lines = plan.blocked or tuple(f"not in the plan that was shown: {what}" for what in more)
            applied.results[name] = HostResult(
                name,
                "failed",
                "plan-blocked" if plan.blocked else "plan-stale",
                f"{name}: what was under way there is finished, and the rest was left",
                context=lines,
                hint=f"{_again(name, goals[name])} makes a new plan",
            )
    hosts_now = {**planned.plan.hosts, **plans}
    return replace(planned, plan=planned.plan.model_copy(update={"hosts": hosts_now}), seen=planned.seen | seen)


def _take_back(
    hosts: Sequence[InventoryHost],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
) -> None:
    """Bring hosts that did not pass after a change of their stack back to the stack that they were enrolled with."""
    failed = [
        host
        for host in hosts
        if applied.results[host.name].reference in ("not-verified", "difference-left")
        and host.name in applied.spent
        and planned.plan.hosts[host.name].changes
        and not planned.goals[host.name].undone
        and planned.goals[host.name].policy.rollback == "auto"
    ]
    if not failed:
        return
    back = plan_rollback(
        failed,
        None,
        prober=ports.prober,
        clock=ports.clock,
        signatures=ports.signatures,
        sources=planned.plan.inventory,
        made_in=applied.run,
    )
    for host in failed:
        problem = back.failed.get(host.name)
        if problem is not None:
            told = (*applied.results[host.name].context, f"not brought back: {problem.message}", *problem.context)
            applied.results[host.name] = replace(applied.results[host.name], context=told)
    again = [host for host in failed if host.name in back.seen and _other_stack(planned, back, host.name)]
    if not again:
        return
    applied.taken_back = Applied(run=ports.store.new_id())
    for host in again:
        on_event(RunEvent(host.name, "stage", "start", "take the change back: it did not pass"))
    _end_trials(again, ports, applied.taken_back)
    blocked = [host for host in again if back.plan.hosts[host.name].blocked]
    for host in blocked:
        reasons = back.plan.hosts[host.name].blocked
        applied.taken_back.results[host.name] = HostResult(
            host.name, "failed", "plan-blocked", f"{host.name} could not be brought back", context=reasons
        )
    # A host that is to go down soon goes back all the same: it does not serve as it is.
    _bring([host for host in again if host not in blocked], back, ports, applied.taken_back, on_event, goes_back=True)
    for host in again:
        applied.results[host.name] = _taken_back(host.name, planned, back, applied)


def _other_stack(planned: Planned, back: Planned, name: str) -> bool:
    """Whether there is a former stack to go back to; after a mere repair, the same one would not pass again."""
    before, now = back.goals[name].stack, planned.goals[name].stack
    return before is not None and (now is None or lock_digest(before.entry) != lock_digest(now.entry))


def _taken_back(name: str, planned: Planned, back: Planned, applied: Applied) -> HostResult:
    first, tried, before = applied.results[name], planned.goals[name].stack, back.goals[name].stack
    assert applied.taken_back is not None and before is not None
    second = applied.taken_back.results[name]
    spent = applied.taken_back.spent.get(name, Spent())
    whole = applied.spent[name]
    whole.not_serving = round(whole.not_serving + spent.not_serving, 1)
    whole.rebooting = round(whole.rebooting + spent.rebooting, 1)
    words = tried.words if tried is not None else "the new stack"
    if second.good:
        return HostResult(
            name,
            "rolled-back",
            first.reference,
            f"{name} did not pass with {words}; it is back to {before.words}, and enrolled",
            context=first.context,
            hint=f"mend the cause and apply again, or put the former entry of {name} back into the lock",
        )
    return HostResult(
        name,
        "failed",
        "rollback-failed",
        f"{name} did not pass with {words}, and could not be brought back to {before.words}",
        context=(*first.context, f"then: {second.reason}", *second.context),
        hint=f"provision rollback {name} tries again",
    )


@contextmanager
def _held(
    hosts: Sequence[InventoryHost],
    lease: hostlock.Lease,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
    *,
    force: bool,
) -> Iterator[list[InventoryHost]]:
    """Take every host that can be taken, and give each back whatever happens.

    One that was seen a moment ago and is gone now, or going, is waited for: a run that was killed may have told it to
    reboot.
    """
    taken: list[InventoryHost] = []

    def take(host: InventoryHost) -> HostError | None:
        try:
            try:
                hostlock.take(host, lease, ports.shell, ports.alive, force=force)
            except HostError as problem:
                if problem.reference not in settling.GONE:
                    raise
                on_event(RunEvent(host.name, "stage", "start", "wait until it is up: it reboots, or went away"))
                settling.back(host, ports.shell)
                hostlock.take(host, lease, ports.shell, ports.alive, force=force)
        except HostError as problem:
            return problem
        taken.append(host)
        return None

    def give_back(host: InventoryHost) -> None:
        try:
            hostlock.give_back(applied.moved.get(host.name, host), lease, ports.shell)
        except HostError:
            # Gone for now; its lease ends by itself, or the next run of this controller takes it over.
            return

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for host, problem in zip(hosts, pool.map(take, hosts), strict=True):
                if problem is not None:
                    applied.results[host.name] = _failed(host.name, problem)
            yield [host for host in hosts if host in taken]
        finally:
            list(pool.map(give_back, taken))


Finish = Callable[[Sequence[InventoryHost], Mapping[str, float]], None]
"""What is done with hosts whose run has ended, and since when each does not serve, on the monotonic clock."""


def _run(
    hosts: Sequence[InventoryHost],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
    finish: Finish,
) -> dict[str, float]:
    """Run what differs, and finish those whose playbook has ended while others still run.

    Returns since when the others do not serve: those that are switched, all at once, when every playbook has ended.
    """
    plans = {host.name: planned.plan.hosts[host.name] for host in hosts}
    changing = [host for host in hosts if plans[host.name].changes]
    if not changing:
        return {}
    first = {name: switch.without_switch(plan) for name, plan in plans.items()}
    before = [host for host in changing if first[host.name].changes]
    waiting: dict[str, float] = {}

    def then(members: Sequence[InventoryHost], away: Mapping[str, float]) -> None:
        # The way to a host that is switched may lead through one that is still being changed.
        later = {host.name for host in members if plans[host.name].in_phase("guard")}
        waiting.update({name: since for name, since in away.items() if name in later})
        finish(
            [host for host in members if host.name not in later],
            {name: since for name, since in away.items() if name not in later},
        )

    _play(before, first, applied.run, planned, ports, applied, on_event, then)
    _switch([h for h in changing if h.name not in applied.results], plans, planned, ports, applied, on_event)
    return waiting


def _play(
    hosts: Sequence[InventoryHost],
    plans: Mapping[str, HostPlan],
    run: str,
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
    then: Finish,
) -> None:
    """Render and run the plans. A host that failed gets its result here; `then` gets all whose playbook has ended."""
    if not hosts:
        return
    rendered = project(
        [plans[host.name] for host in hosts],
        {host.name: host.variables for host in hosts},
        run=applied.run,
        made_by=__version__,
        made_at=planned.plan.made_at,
        paths={host.name: host.path for host in hosts},
    )
    folder = ports.store.write(run, rendered)
    applied.folder = applied.folder or folder

    def done(outcomes: Mapping[str, HostOutcome]) -> None:
        members = [host for host in hosts if host.name in outcomes]
        away = {}
        for host in members:
            outcome = outcomes[host.name]
            spent = applied.spent.setdefault(host.name, Spent())
            spent.phases.update(outcome.seconds)
            spent.rebooting = spent.rebooting or outcome.rebooting
            if outcome.away_since is not None and plans[host.name].not_serving_s:
                away[host.name] = outcome.away_since
            if not outcome.ok:
                applied.results[host.name] = _task_failed(
                    host.name, outcome, planned.goals[host.name], plans[host.name].trial
                )
        then(members, away)

    ports.runner.run(folder, rendered, sources=planned.plan.inventory, on_event=on_event, on_done=done)


def _switch(
    hosts: Sequence[InventoryHost],
    plans: Mapping[str, HostPlan],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
) -> None:
    """Switch what could cut a host off, all hosts at once; who does not come back gets its result here."""
    switching = [host for host in hosts if plans[host.name].in_phase("guard")]
    applied.results |= switch.left_behind(switching, planned)
    switching = [host for host in switching if host.name not in applied.results]
    if not switching:
        return
    only = {name: switch.only_switch(plan) for name, plan in plans.items()}
    _play(switching, only, f"{applied.run}-switch", planned, ports, applied, on_event, lambda members, away: None)
    armed = [host for host in switching if host.name not in applied.results]
    began = time.monotonic()
    moved, failed = switch.come_back(
        armed, planned, run=applied.run, shell=ports.shell, paths=ports.paths, on_event=on_event
    )
    applied.moved |= moved
    applied.results |= failed
    for host in armed:
        phases = applied.spent.setdefault(host.name, Spent()).phases
        phases["guard"] = round(phases.get("guard", 0.0) + time.monotonic() - began, 1)


def _left_over(hosts: Sequence[InventoryHost], planned: Planned, ports: ApplyPorts, applied: Applied) -> None:
    """Observe again: done is what is seen, not what was sent. A host where a difference is left has failed."""
    if not hosts:
        return
    goals = planned.goals
    seen, failed = observe(hosts, {host.name: request_for(goals[host.name]) for host in hosts}, ports.prober)
    for name, problem in failed.items():
        applied.results[name] = _failed(name, problem)
    for name, one in seen.items():
        rest = plan_for(one, goals[name], ports.signatures)
        if rest.changes or rest.blocked:
            lines = [f"{change.what}: {change.before or 'absent'}, wanted {change.after}" for change in rest.changes]
            applied.results[name] = HostResult(
                name,
                "failed",
                "difference-left",
                f"{name}: the playbook ended well, yet the host is not as wanted",
                context=(*lines, *rest.blocked),
                hint=f"{_again(name, goals[name])} tries again; the run is in {applied.folder}",
            )


def _verify_and_enrol(
    hosts: Sequence[InventoryHost],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
) -> None:
    """Verify every host that is as wanted; enrol those that pass, keep the others out with the reason."""
    if not hosts:
        return
    began = time.monotonic()
    goals = {host.name: planned.goals[host.name] for host in hosts}
    checked = [host for host in hosts if goals[host.name].stack is not None]
    for host in checked:
        on_event(RunEvent(host.name, "verify", "start", "run the checks"))
    locked = {name: goal.stack.entry for name, goal in goals.items() if goal.stack is not None}
    applied.verified |= ports.verifier.verify(checked, locked, run=applied.run) if checked else {}
    seconds = round(time.monotonic() - began, 1)
    for host in hosts:
        stack = goals[host.name].stack
        try:
            if stack is None:
                applied.results[host.name] = HostResult(host.name, "restored")
            else:
                applied.spent.setdefault(host.name, Spent()).phases["verify"] = seconds
                _let_in(host, applied.verified[host.name], stack, ports, applied, on_event)
            if applied.results[host.name].good:
                forget(host, goals[host.name], ports.shell)
        except HostError as problem:
            applied.results[host.name] = _failed(host.name, problem)


def _let_in(
    host: InventoryHost,
    verification: HostVerification,
    stack: Stack,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
) -> None:
    if verification.passed:
        ports.enroller.enrol(host, verification, stack.entry, matrix=stack.matrix)
        on_event(RunEvent(host.name, "enrol", "ok", "write the enrolment record"))
        applied.results[host.name] = HostResult(host.name, "enrolled")
    else:
        ports.enroller.withdraw(host)
        applied.results[host.name] = _kept_out(host.name, verification)


def _failed(name: str, problem: HostError) -> HostResult:
    return HostResult(name, "failed", problem.reference, problem.message, problem.context, problem.hint or "")


def _again(name: str, goal: Goal) -> str:
    return f"provision rollback {name}" if goal.undone else f"provision apply --limit {name}"


def _task_failed(name: str, outcome: HostOutcome, goal: Goal, tried: Trial | None) -> HostResult:
    """A run that fails after the reboot leaves a trial that nobody confirms."""
    back = []
    if tried is not None and outcome.rebooting:
        back = [f"unless somebody does, the host goes back by itself {tried.minutes} min after its boot"]
    return HostResult(
        name,
        "failed",
        "task-failed",
        f"{name} failed at: {outcome.failed_task}",
        context=(*outcome.detail.splitlines(), *back),
        hint=f"mend the cause, then {_again(name, goal)}: it goes on from what it finds",
    )


def _kept_out(name: str, verification: HostVerification) -> HostResult:
    if verification.fault is not None:
        fault = verification.fault
        return HostResult(name, "out", fault.reference, fault.message, fault.context, fault.hint or "")
    lines = tuple(f"{r.title}: {r.detail or r.status}" for r in verification.blocking)
    return HostResult(
        name,
        "out",
        "not-verified",
        f"{name} is not enrolled: {len(lines)} required check{'s' if len(lines) != 1 else ''} did not pass",
        context=lines,
        hint=f"provision verify {name} shows all checks",
    )
