"""The steps of `provision apply`: plan, take the hosts, render, run, look again, verify, enrol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from provisioner import __version__
from provisioner.actions import hostlock, switch
from provisioner.actions.observe import observe
from provisioner.actions.plan import Planned, plan_of, request_for
from provisioner.actions.ports import (
    Enroller,
    HostShell,
    Paths,
    PlaybookRunner,
    Prober,
    RunStore,
    Signatures,
    Verifier,
)
from provisioner.errors import BadInput, Exit, HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan, Phase, Plan
from provisioner.model.results import HostVerification
from provisioner.model.run import HostOutcome, HostResult, RunEvent
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
    seconds: dict[str, dict[Phase, float]] = field(default_factory=dict)  # per host and phase that was entered
    folder: Path | None = None
    moved: dict[str, InventoryHost] = field(default_factory=dict)  # hosts that are reached another way since

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
    with _held(hosts, lease, ports, applied, force=break_lock) as held:
        changed = _run(held, planned, ports, applied, on_event)
        _verify_and_enrol(changed, planned, ports, applied, on_event)
    return applied


@contextmanager
def _held(
    hosts: Sequence[InventoryHost], lease: hostlock.Lease, ports: ApplyPorts, applied: Applied, *, force: bool
) -> Iterator[list[InventoryHost]]:
    """Take every host that can be taken, and give each back whatever happens."""
    taken: list[InventoryHost] = []

    def take(host: InventoryHost) -> HostError | None:
        try:
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


def _run(
    hosts: Sequence[InventoryHost],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
) -> list[InventoryHost]:
    """Run what differs, look again, and return the hosts on which nothing is left to do."""
    plans = {host.name: planned.plan.hosts[host.name] for host in hosts}
    changing = [host for host in hosts if plans[host.name].changes]
    if not changing:
        return list(hosts)
    first = {name: switch.without_switch(plan) for name, plan in plans.items()}
    good = _play(
        [host for host in changing if first[host.name].changes], first, applied.run, planned, ports, applied, on_event
    )
    good += [host for host in changing if not first[host.name].changes]
    good = _switch(good, plans, planned, ports, applied, on_event)
    left = _left_over(good, planned, ports, applied)
    ready = {host.name: host for host in good if host.name not in left}
    return [ready.get(host.name, host) for host in hosts if host not in changing or host.name in ready]


def _play(
    hosts: Sequence[InventoryHost],
    plans: Mapping[str, HostPlan],
    run: str,
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
) -> list[InventoryHost]:
    """Render and run the plans; return the hosts on which every task ended well."""
    if not hosts:
        return []
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
    outcomes = ports.runner.run(folder, rendered, sources=planned.plan.inventory, on_event=on_event)
    good = []
    for host in hosts:
        outcome = outcomes[host.name]
        applied.seconds.setdefault(host.name, {}).update(outcome.seconds)
        if outcome.ok:
            good.append(host)
        else:
            applied.results[host.name] = _task_failed(host.name, outcome)
    return good


def _switch(
    hosts: Sequence[InventoryHost],
    plans: Mapping[str, HostPlan],
    planned: Planned,
    ports: ApplyPorts,
    applied: Applied,
    on_event: Callable[[RunEvent], None],
) -> list[InventoryHost]:
    """Switch what could cut a host off, all hosts at once; return those that need no switch or came back."""
    switching = [host for host in hosts if plans[host.name].in_phase("guard")]
    lost = switch.left_behind(switching, planned)
    applied.results |= lost
    switching = [host for host in switching if host.name not in lost]
    if not switching:
        return [host for host in hosts if host.name not in lost]
    only = {name: switch.only_switch(plan) for name, plan in plans.items()}
    run = f"{applied.run}-switch"
    armed = _play(switching, only, run, planned, ports, applied, on_event)
    began = time.monotonic()
    moved, failed = switch.come_back(
        armed, planned, run=applied.run, shell=ports.shell, paths=ports.paths, on_event=on_event
    )
    applied.moved |= moved
    for host in armed:
        seconds = applied.seconds.setdefault(host.name, {})
        seconds["guard"] = round(seconds.get("guard", 0.0) + time.monotonic() - began, 1)
    applied.results |= failed
    bad = set(failed) | {host.name for host in switching if host not in armed} | set(lost)
    return [moved.get(host.name, host) for host in hosts if host.name not in bad]


def _left_over(hosts: Sequence[InventoryHost], planned: Planned, ports: ApplyPorts, applied: Applied) -> set[str]:
    """Observe again: done is what is seen, not what was sent. Returns the hosts where a difference is left."""
    locked = planned.plan.locked
    seen, failed = observe(hosts, {host.name: request_for(locked[host.name]) for host in hosts}, ports.prober)
    for name, problem in failed.items():
        applied.results[name] = _failed(name, problem)
    left = set(failed)
    for name, one in seen.items():
        rest = plan_of(one, locked[name], planned.plan.matrix, ports.signatures)
        if rest.changes or rest.blocked:
            left.add(name)
            lines = [f"{change.what}: {change.before or 'absent'}, wanted {change.after}" for change in rest.changes]
            applied.results[name] = HostResult(
                name,
                "failed",
                "difference-left",
                f"{name}: the playbook ended well, yet the host is not as wanted",
                context=(*lines, *rest.blocked),
                hint=f"provision apply --limit {name} tries again; the run is in {applied.folder}",
            )
    return left


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
    for host in hosts:
        on_event(RunEvent(host.name, "verify", "start", "run the checks"))
    began = time.monotonic()
    locked = {host.name: planned.plan.locked[host.name] for host in hosts}
    applied.verified = ports.verifier.verify(hosts, locked, run=applied.run)
    seconds = round(time.monotonic() - began, 1)
    for host in hosts:
        verification = applied.verified[host.name]
        applied.seconds.setdefault(host.name, {})["verify"] = seconds
        try:
            if verification.passed:
                ports.enroller.enrol(host, verification, locked[host.name], matrix=planned.plan.matrix)
                on_event(RunEvent(host.name, "enrol", "ok", "write the enrolment record"))
                applied.results[host.name] = HostResult(host.name, "enrolled")
            else:
                ports.enroller.withdraw(host)
                applied.results[host.name] = _kept_out(host.name, verification)
        except HostError as problem:
            applied.results[host.name] = _failed(host.name, problem)


def _failed(name: str, problem: HostError) -> HostResult:
    return HostResult(name, "failed", problem.reference, problem.message, problem.context, problem.hint or "")


def _task_failed(name: str, outcome: HostOutcome) -> HostResult:
    return HostResult(
        name,
        "failed",
        "task-failed",
        f"{name} failed at: {outcome.failed_task}",
        context=tuple(outcome.detail.splitlines()),
        hint=f"mend the cause, then provision apply --limit {name}: it goes on from what it finds",
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
