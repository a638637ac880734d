"""How a plan reads: state, why, what it costs, what to type next."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from provisioner.actions.plan import Planned
from provisioner.cli.words import duration, paint, safe
from provisioner.errors import HostError
from provisioner.model.plan import Ahead, Change, HostPlan, Plan, Trial
from provisioner.model.resource import AbsentFile, AbsentPackage, Guarded, KeptFile, Package, RunningDriver, Service
from provisioner.model.transaction import Action, Move
from provisioner.model.units import megabytes
from provisioner.plan.trial import driver_move


def plan_text(planned: Planned, *, seconds: float, lock: str, next_command: str) -> str:
    """Return the whole screen of `provision plan`."""
    plan = planned.plan
    differing = list(plan.differing())
    head = f"{_hosts(len(planned.seen))} observed in {seconds:.1f} s · matrix {plan.matrix[:12]} · lock {lock}"
    if not differing and not planned.failed:
        waiting = [p for p in plan.hosts.values() if not p.enrolled]
        notes = "".join(f"\n  {p.host}: {safe(note)}" for p in plan.hosts.values() for note in p.notes)
        if not waiting:
            return f"{head}\nNothing to change: {_all(plan.hosts)} as locked, and enrolled.{notes}"
        names = ", ".join(p.host for p in waiting)
        return f"{head}\nNothing to change, but not enrolled yet: {names}{notes}\n\nNext: {next_command}"
    lines = [f"{head} ({_differ(len(differing), len(plan.hosts))})", ""]
    width = max(len(name) for name in [*plan.hosts, *planned.failed])
    for host_plan in plan.hosts.values():
        lines += host_lines(host_plan, width)
    for name, problem in planned.failed.items():
        lines += _not_seen(name, problem, width)
    if differing:
        lines += ["", f"Next: {next_command}"]
    return "\n".join(lines)


def _differ(some: int, of: int) -> str:
    return f"{some} of {of} {'differs' if some == 1 else 'differ'}"


def _hosts(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}"


def _all(hosts: Mapping[str, HostPlan]) -> str:
    return f"all {len(hosts)} hosts are" if len(hosts) > 1 else f"{next(iter(hosts), 'no host')} is"


def host_lines(plan: HostPlan, width: int) -> list[str]:
    """Return one host's part of the screen."""
    name = paint(plan.host.ljust(width), "bold")
    notes = [f"{' ' * width}  {paint('note', 'yellow')}: {safe(note)}" for note in plan.notes]
    if plan.up_to_date:
        return [f"{name}  up to date" + ("" if plan.enrolled else ", not enrolled yet: verify, then enrol"), *notes]
    lines = [f"{name}  {headline(plan)}"]
    lines[0] = _spread(lines[0], cost(plan))
    lines += notes
    lines += [f"{' ' * width}  {paint('blocked', 'red')}: {safe(line)}" for line in plan.blocked]
    lines += [f"{' ' * width}  why: {safe(reason)}" for reason in plan.reasons]
    lines += [f"{' ' * width}  {line}" for line in ahead_lines(plan)]
    for phase, words in phase_lines(plan):
        lines.append(f"    {phase.ljust(7)}  {words}")
        lines += [
            f"             {safe(note)}" for change in plan.changes if change.phase == phase for note in change.notes
        ]
        if phase == "change":
            lines += [f"             {line}" for line in transaction_lines(plan)]
    return lines


_AHEAD = {(True, True): "new", (True, False): "may", (False, True): "stays", (False, False): "stays"}


def ahead_word(item: Ahead) -> str:
    """`stop`: the plan is refused; `new`, `may`: it comes or may come with the change; `stays`: it is so now."""
    return "stop" if item.stops else _AHEAD[item.new, item.sure]


def ahead_lines(plan: HostPlan) -> list[str]:
    """What a preflight found, and the first line that shows it; of what stops the plan only that line is news."""
    lines = []
    for item in plan.ahead:
        if not item.told:
            continue
        if not item.stops:
            lines.append(f"{paint('ahead', 'yellow')} ({ahead_word(item)}): {safe(item.title)}: {safe(item.costs)}")
        lines += [f"    {safe(line)}" for line in item.evidence[:1]]
        lines.append(f"    mend: {safe(item.mend)}   docs/failures/{item.mechanism}.md")
    return lines


_SIGNS: dict[Action, str] = {
    "install": "+",
    "upgrade": "↑",
    "downgrade": "↓",
    "reinstall": "=",
    "remove": "−",
    "purge": "−",
}
_WIDTH = 104


def transaction_lines(plan: HostPlan) -> list[str]:
    """Return every package that apt would move, those of one version together: `↑ 1.2 → 1.3: libfoo1, foo`."""
    if plan.transaction is None:
        if not plan.moving or plan.blocked:
            return []
        why = "it is when dpkg has finished what was interrupted" if plan.interrupted else "the capture does not tell"
        return [f"{plan.manager} was not asked what it would do: {why}"]
    alike: dict[tuple[Action, str], list[str]] = {}
    for move in plan.transaction:
        versions = f"{move.before} → {move.after}" if move.before and move.after else move.after or move.before or ""
        alike.setdefault((move.action, versions), []).append(move.name)
    notes = {move.name: f" ({move.instead} takes its place)" for move in plan.transaction if move.instead}
    lines = []
    for action, sign in _SIGNS.items():
        groups = [(versions, names) for (of, versions), names in alike.items() if of == action]
        for versions, names in sorted(groups, key=lambda group: (-len(group[1]), group[0])):
            if len(names) > 1:
                lines += _wrapped(f"{sign} {versions}: ", sorted(names))
        single = sorted(
            f"{names[0]} {versions}{notes.get(names[0], '')}" for versions, names in groups if not names[1:]
        )
        if single:
            lines += _wrapped(f"{sign} ", single)
    return [safe(line) for line in lines]


def _wrapped(head: str, words: Sequence[str]) -> list[str]:
    """Lines that break between words only; a word here may hold a blank of its own."""
    lines, line = [], head
    for number, word in enumerate(words):
        piece = word + ("," if number < len(words) - 1 else "")
        if len(line) + len(piece) > _WIDTH and line.strip():
            lines.append(line.rstrip())
            line = "    "
        line += piece + " "
    return [*lines, line.rstrip()]


def _spread(left: str, right: str) -> str:
    return f"{left}{' ' * max(3, 60 - len(left))}{right}"


def headline(plan: HostPlan) -> str:
    """Return what matters most about a plan in a few words: the driver first, then packages, then the rest."""
    running = [c for c in plan.changes if isinstance(c.wanted, RunningDriver)]
    packages = [c for c in plan.changes if isinstance(c.wanted, (Package, AbsentPackage))]
    if running:
        return driver_move(running[0])
    fresh = [c for c in packages if c.moves is not None]
    if fresh:
        return _package_words(fresh)
    loose = [c for c in packages if c.keys == ("held",)]
    if loose:
        return f"{len(loose)} package{'s are' if len(loose) > 1 else ' is'} not held"
    if not plan.changes:
        return "cannot be planned"
    first = plan.changes[0]
    more = f" and {len(plan.changes) - 1} more" if len(plan.changes) > 1 else ""
    return _one(first) + more


def _package_words(changes: Sequence[Change]) -> str:
    if len(changes) == 1:
        change = changes[0]
        return f"{change.what.removeprefix('package ')} {change.before or 'is not installed'} → {change.after}"
    units = sorted({c.wanted.unit for c in changes if isinstance(c.wanted, Package)})
    gone = sum(change.before is None for change in changes)
    words = (
        f"{gone} of them not installed" if 0 < gone < len(changes) else "not installed" if gone else "other versions"
    )
    return f"{len(changes)} packages of {' and '.join(units)}, {words}"


_KINDS = {
    "settings": "file",
    "kept-file": "file",
    "absent-file": "file",
    "absent-package": "package",
    "kernel-module": "kernel module",
    "package-source": "package source",
    "replaced-source": "file",
    "no-run-file": "driver of NVIDIA's installer",
    "key-pair": "key",
    "version-lock": "version lock",
    "secret-file": "secret",
}


def _one(change: Change) -> str:
    if change.before is None:
        return f"{change.what} is missing"
    if isinstance(change.wanted, (KeptFile, AbsentFile)):
        return f"{change.what} {'as it was' if isinstance(change.wanted, KeptFile) else 'goes'}"
    if change.before == change.after:
        return f"{change.what} changes"
    return f"{change.what}: {change.before} → {change.after}"


def cost(plan: HostPlan) -> str:
    """Return what the plan costs: reboot or not, how long not serving, who is drained first."""
    parts = ["reboot" if plan.reboot else "no reboot"]
    parts.append(f"not serving ~{duration(plan.not_serving_s)}" if plan.not_serving_s else "serving all along")
    if plan.drain:
        parts.append(f"serves {', '.join(plan.drain)}: drain first")
    return " · ".join(parts)


def phase_lines(plan: HostPlan) -> Iterable[tuple[str, str]]:
    """Yield phase and what happens in it, in order."""
    fresh = [c for c in plan.changes if isinstance(c.moves, Package)]
    stage = _counted(plan.in_phase("stage"))
    if fresh:
        stage.insert(0, _fetched(fresh, plan))
    if stage:
        yield "stage", ", ".join(stage)
    if plan.drain:
        yield from _drain_lines(plan)
    change = _counted(plan.in_phase("change"))
    if plan.transaction:
        change.append(_moved(plan.transaction, plan.manager))
    if change and plan.reloads:
        change.append(
            "systemd reloads" + ("" if plan.drain else " (containers keep their GPUs: linked in /dev/char first)")
        )
    if change:
        yield "change", ", ".join(change)
    if plan.reboot:
        units = [c.wanted.name for c in plan.in_phase("reboot") if isinstance(c.wanted, Service)]
        yield "reboot", "once" + (f", then start {', '.join(units)}" if units else "")
        if plan.trial is not None:
            yield "", trial_words(plan.trial)
    for guarded in plan.in_phase("guard"):
        if isinstance(guarded.wanted, Guarded):
            way = f"over {guarded.wanted.path}" if guarded.wanted.path else "over a new session"
            yield "guard", f"{_one(guarded)}; back by itself in {guarded.wanted.confirm_s} s unless confirmed {way}"
    if not plan.blocked:
        yield "verify", "all checks, then enrol" if plan.verified else "look again; it was not enrolled then"


def trial_words(trial: Trial) -> str:
    """Return what the host does by itself after the reboot."""
    once = f"GRUB boots kernel {trial.once} once; " if trial.once else ""
    tail = f"; {trial.note}" if trial.note else ""
    return safe(f"{once}on trial: back by itself unless sound and confirmed within {trial.minutes} min{tail}")


def _fetched(fresh: Sequence[Change], plan: HostPlan) -> str:
    kept = sum(isinstance(c.wanted, Package) and c.wanted.archive is not None for c in fresh)
    if kept == len(fresh):
        return f"{kept} packages are kept on the host, nothing to download"
    return f"download {len(fresh) - kept} packages ({megabytes(plan.download_bytes)}) and what they need"


def _moved(moves: Sequence[Move], manager: str) -> str:
    """Return `apt: 30 new, 2 newer, 1 removed`, with the name of the package manager."""
    words = {"install": "new", "upgrade": "newer", "downgrade": "older", "reinstall": "again"}
    counts = Counter(words.get(move.action, "removed") for move in moves)
    return f"{manager}: " + ", ".join(f"{count} {word}" for word, count in counts.items())


_DRAINS = {
    "scale-zero": "scale the provider to 0",
    "unlist": "unlist it",
    "pause": "pause it on its page",
    "notice-period": "set a notice period",
    "maintenance-window": "start maintenance in an open window",
    "wait-for-job": "take no new job",
    "stop": "take no new job",
    "none": "no way without penalty is known",
    "absent": "nothing of Kubernetes is on this host, so there is no provider to scale down",
}


def _drain_lines(plan: HostPlan) -> Iterable[tuple[str, str]]:
    """Yield how each client stops and what it may cost all the same, then that the host is out."""
    phase = "drain"
    for step in plan.drains:
        first = _DRAINS[step.kind] + (" (by hand, before you apply)" if step.by_hand and step.kind != "none" else "")
        if step.then:
            first += " and cordon the node"
        if step.interrupt:
            wait = "end what runs there, without waiting"
        elif not step.sees_jobs:
            wait = "nothing on the host tells whether a job runs: look first"
        elif step.wait_s:
            wait = f"wait up to {duration(step.wait_s)} for the running job"
        else:
            wait = "no job to wait for"
        yield phase, f"{step.network}: {first}, {wait}"
        if step.penalty:
            yield "", f"penalty at {step.network}: {safe(step.penalty)}"
        phase = ""
    yield phase, f"stop the clients of {', '.join(plan.drain)}, take back the enrolment"


def _counted(changes: Sequence[Change]) -> list[str]:
    """Return `38 packages, 2 files, 1 service`; a single small change is named in full."""
    if 0 < len(changes) <= 2:
        return [_one(change) for change in changes]
    kinds: dict[str, int] = {}
    for change in changes:
        kind = _KINDS.get(change.wanted.kind, change.wanted.kind)
        kinds[kind] = kinds.get(kind, 0) + 1
    plural = {"directory": "folders", "whole-packages": "interrupted installations"}
    return [f"{n} {plural.get(kind, kind + 's') if n > 1 else kind}" for kind, n in kinds.items()]


def _not_seen(name: str, problem: HostError, width: int) -> list[str]:
    lines = [
        f"{name.ljust(width)}  {paint(safe(problem.message.removeprefix(f'{name}: ')), 'red')}   [{problem.reference}]"
    ]
    lines += [f"{' ' * width}  {safe(line)}" for line in problem.context]
    if problem.hint:
        lines.append(f"{' ' * width}  {safe(problem.hint)}")
    return lines


def plan_json(plan: Plan) -> str:
    """Return the documented shape (docs/reference/plan.md), format 1."""
    return json.dumps(plan.model_dump(mode="json"), indent=2, ensure_ascii=False)
