"""The end of a run for what could cut a host off: switch under guard, come back over the new path, confirm.

The host decides alone: what nobody confirms within its time it takes back, whatever became of this machine. A hub and
its spokes switch together, and are confirmed together: if a spoke whose key moved does not come back, its hub is left
unconfirmed too, so that both go back to the keys that they shared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from provisioner.errors import HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan
from provisioner.model.resource import Guarded
from provisioner.model.run import HostResult, RunEvent
from provisioner.model.stack import HostLock
from provisioner.render.project import GUARD, change_id
from provisioner.tunnels.kinds import HUBS

if TYPE_CHECKING:
    from provisioner.actions.plan import Planned
    from provisioner.actions.ports import HostShell, Paths

AT_ONCE = 16
AGAIN_S = 2.0
SWITCH_S = 3.0
"""The host switches two seconds after it answered; who comes earlier dials a way that is not there yet."""
BEFORE_S = 5.0
"""How long the path of before is asked between two tries: it may lead to an address that is gone, and hang."""
GRACE_S = 45.0
"""How long after a host's own time limit it is asked over the old path what became of the change."""


def without_switch(plan: HostPlan) -> HostPlan:
    """The plan up to the switch."""
    return plan.model_copy(update={"changes": tuple(c for c in plan.changes if c.phase != "guard")})


def only_switch(plan: HostPlan) -> HostPlan:
    """What is left of a plan for the switch alone."""
    left = tuple(c for c in plan.changes if c.phase == "guard")
    return plan.model_copy(
        update={"changes": left, "reboot": False, "drain": (), "download_bytes": 0, "keep": None, "transaction": None}
    )


def left_behind(hosts: Sequence[InventoryHost], planned: Planned) -> dict[str, HostResult]:
    """Hubs whose switch would cut off a host: a key, an address or the port moves, or the kind of the tunnel.

    Safe is a host that switches in the same run, or that this run reaches without a tunnel.
    """
    safe = {host.name for host in hosts} | {name for name, seen in planned.seen.items() if not seen.host.path}
    found = {}
    for host in hosts:
        tunnel = planned.plan.locked[host.name].tunnel
        if tunnel is None:
            continue
        capture = planned.seen[host.name].capture
        lost, stays = [], True
        for kind, path, cut_off in HUBS:
            text = capture.file(path)
            names = cut_off(text, tunnel) if isinstance(text, str) else []
            lost += [name for name in names if name not in safe]
            stays = stays and (not names or tunnel.kind == kind)
        if lost:
            found[host.name] = HostResult(
                host.name,
                "failed",
                "tunnel-peer-left-behind",
                f"{host.name} was not switched: {', '.join(lost)} would be cut off, for only {host.name} moves",
                hint=f"provision apply --limit {','.join([host.name, *lost])}"
                if stays
                else "give the new kind a hub of its own, and move these hosts one by one",
            )
    return found


@dataclass(frozen=True)
class Switched:
    """One host in the middle of its switch."""

    host: InventoryHost  # as it was reached so far
    new: InventoryHost  # as it must be reached from now on
    change: Guarded
    id: str
    had_before: bool  # there was a tunnel to go back to
    entry: HostLock | None  # None: a change that is no part of the lock, and moves no way


def come_back(
    hosts: Sequence[InventoryHost],
    planned: Planned,
    *,
    run: str,
    shell: HostShell,
    paths: Paths,
    on_event: Callable[[RunEvent], None],
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[dict[str, InventoryHost], dict[str, HostResult]]:
    """Reach every host over its new path and confirm; return who is confirmed, by its new way, and what failed."""
    failed: dict[str, HostResult] = {}
    switched = []
    for host in hosts:
        change = next(c for c in planned.plan.hosts[host.name].changes if c.phase == "guard")
        assert isinstance(change.wanted, Guarded)
        entry = planned.plan.locked[host.name]
        try:
            new = paths.new(host, entry)
        except HostError as problem:
            failed[host.name] = _failed(host.name, problem)
            continue
        switched.append(Switched(host, new, change.wanted, change_id(run), change.before is not None, entry))
    moved, lost = confirmed(switched, shell=shell, paths=paths, on_event=on_event, sleep=sleep)
    return moved, failed | lost


def confirmed(
    switched: Sequence[Switched],
    *,
    shell: HostShell,
    paths: Paths,
    on_event: Callable[[RunEvent], None],
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[dict[str, InventoryHost], dict[str, HostResult]]:
    """The same for changes that are armed already, wherever the wish for them came from."""
    failed: dict[str, HostResult] = {}
    moved: dict[str, InventoryHost] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        states = dict(
            zip(
                [one.host.name for one in switched],
                pool.map(lambda one: _reached(one, shell, on_event, sleep), switched),
                strict=True,
            )
        )
        held_back = _held_back(switched, states)
        answers = list(
            pool.map(
                lambda one: (
                    _confirm(one, shell, paths, moved)
                    if isinstance(states[one.host.name], dict) and one.host.name not in held_back
                    else None
                ),
                switched,
            )
        )
        ends = [
            pool.submit(_what_became, one, states[one.host.name], answer, held_back, shell, on_event, sleep)
            for one, answer in zip(switched, answers, strict=True)
        ]
        for one, end in zip(switched, ends, strict=True):
            result = end.result()
            if result is not None:
                failed[one.host.name] = result
    return moved, failed


def _reached(
    one: Switched, shell: HostShell, on_event: Callable[[RunEvent], None], sleep: Callable[[float], None]
) -> dict[str, Any] | str:
    """The guard's state as the new path gives it, once the change is in force; else why it was not reached."""
    way = f"over {one.change.path}" if one.change.path else "over a new session"
    on_event(RunEvent(one.host.name, "guard", "start", f"come back {way} within {one.change.confirm_s} s"))
    until = time.monotonic() + one.change.confirm_s
    last = "it was not asked"
    sleep(SWITCH_S)
    while time.monotonic() < until:
        try:
            answer = shell.run(one.new, f"{GUARD} status {one.id}", timeout_s=_one_try(one.change.confirm_s))
            state = _state(answer.stdout) if answer.rc == 0 else {}
            if state.get("state") == "applied":
                return state
            if state.get("state") in ("reverted", "refused"):
                return str(state.get("why", "the host took it back"))
            last = answer.stderr.strip() or f"the change is {state.get('state', 'unknown')} there"
        except HostError as problem:
            last = problem.message
            taken_back = _taken_back(one, shell)
            if taken_back:
                return last if taken_back.startswith("nobody confirmed") else taken_back
        sleep(AGAIN_S)
    return last


def _one_try(confirm_s: int) -> float:
    """Seconds for one attempt: a session that began in the middle of a switch may hang, and must not take them all.

    A third of the time, so that there are three; a line that loses a fifth of its packets gets by in half a minute.
    """
    return min(30.0, max(6.0, confirm_s / 3))


def _taken_back(one: Switched, shell: HostShell) -> str:
    """Why the host took it back already, as the path of before tells: a change that could not be put in force."""
    try:
        told = _state(shell.run(one.host, f"{GUARD} status {one.id}", timeout_s=BEFORE_S).stdout)
    except HostError:
        return ""
    return str(told.get("why", "taken back")) if told.get("state") in ("reverted", "refused") else ""


def _held_back(switched: Sequence[Switched], states: Mapping[str, Any]) -> set[str]:
    """Hubs of spokes that had a tunnel, switched with them, and did not come back."""
    return {
        one.entry.tunnel.hub
        for one in switched
        if one.had_before and not isinstance(states[one.host.name], dict)
        if one.entry is not None and one.entry.tunnel is not None and one.entry.tunnel.hub is not None
    }


def _confirm(one: Switched, shell: HostShell, paths: Paths, moved: dict[str, InventoryHost]) -> str:
    """Confirm over the new path; '' when it is, else why not."""
    try:
        answer = shell.run(one.new, f"{GUARD} confirm {one.id}")
    except HostError as problem:
        return problem.message
    if answer.rc != 0:
        return answer.stderr.strip() or f"guard ended with exit code {answer.rc}"
    if one.entry is not None:
        moved[one.host.name] = paths.keep(one.host, one.entry)
    return ""


def _what_became(
    one: Switched,
    state: dict[str, Any] | str,
    answer: str | None,
    held_back: set[str],
    shell: HostShell,
    on_event: Callable[[RunEvent], None],
    sleep: Callable[[float], None],
) -> HostResult | None:
    """None for a host that is confirmed; for another, what it did by itself, seen over the path of before."""
    name = one.host.name
    if answer == "":
        on_event(RunEvent(name, "guard", "ok", "confirmed: the change stays"))
        return None
    if name in held_back and isinstance(state, dict):
        why = "one of its spokes did not come back, and would be cut off by the new keys"
    else:
        why = answer or str(state)
    on_event(RunEvent(name, "guard", "failed", "not confirmed: the host takes it back by itself", why))
    until = time.monotonic() + (one.change.confirm_s if isinstance(state, dict) else 0) + GRACE_S
    seen = "what became of it could not be seen over the path of before"
    while time.monotonic() < until:
        try:
            limit = _one_try(one.change.confirm_s)
            told = _state(shell.run(one.host, f"{GUARD} status {one.id}", timeout_s=limit).stdout)
        except HostError:
            told = {}
        if told.get("state") == "reverted":
            seen = f"seen over the path of before: {told.get('why', 'taken back')}"
            break
        sleep(AGAIN_S)
    again = f"provision apply --limit {name}" if one.entry is not None else "the same command"
    return HostResult(
        name,
        "failed",
        "change-reverted",
        f"{name}: {one.change.name} was not confirmed, and the host took it back",
        context=(why, seen),
        hint=f"the host is as it was before: mend the cause, then {again} again",
    )


def _state(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _failed(name: str, problem: HostError) -> HostResult:
    return HostResult(name, "failed", problem.reference, problem.message, problem.context, problem.hint or "")
