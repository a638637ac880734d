"""The wording of an upgrade: each host with its step, why, and in which order to go on."""

from __future__ import annotations

from collections.abc import Mapping

from provisioner.model.stack import HostLock
from provisioner.resolve import explain
from provisioner.resolve.conflict import Claim, Conflict
from provisioner.resolve.explain_why import answer_text
from provisioner.resolve.upgrade import Step

_ORDER = ("moves", "waits", "holds", "done", "cannot")


def steps_text(steps: Mapping[str, Step], program: str, to: str) -> str:
    """One block a host: those that must do something first come first."""
    width = max((len(name) for name in steps), default=0)
    lines = []
    for name, step in sorted(steps.items(), key=lambda pair: _ORDER.index(pair[1].state)):
        lead = f"{name:<{width}}  {step.state:<6}  "
        lines += explain.wrapped(lead, _step(step, program, to))
        for conflict in step.why:
            lines += _reason(conflict, " " * len(lead))
        for claim in step.brings:
            lines += _told(claim, " " * len(lead), "!")
        if step.answer is not None:
            told = answer_text(step.answer, "").splitlines()
            lines += [f"    {line}".rstrip() for line in told]
    return "\n".join(lines) + "\n"


def _step(step: Step, program: str, to: str) -> str:
    if step.state == "done":
        return f"{program} {to} is in the lock, and what it needs is on the host"
    if step.state == "holds":
        return f"{_pins(step.before)} stay; {program} {step.client or 'none'} → {to}"
    if step.state == "waits":
        return f"the lock pins {_pins(step.before)}, and the host runs {step.runs}: apply first"
    if step.state == "cannot":
        return f"no set of versions serves it with {program} {to}; its entry stays as it is"
    moves = f"{_moved(step.before, step.entry)} first"
    if step.together:
        return f"{moves}, and {program} {step.client or 'none'} → {to} with it: the former client can't run on that"
    return f"{moves}; {program} {step.client} stays until then"


def _pins(lock: HostLock) -> str:
    parts = [f"driver {lock.driver_version.value}"] if lock.driver_version is not None else []
    parts += [lock.runtime.value] if lock.runtime is not None else []
    return " and ".join(parts) or "no driver and no runtime"


def _moved(before: HostLock, after: HostLock) -> str:
    """`driver 535.309.01 → 535.261.03 (reboot)`, `docker.io 20 → 26`."""
    parts = []
    for label, then, now in (
        ("driver", before.driver_version, after.driver_version),
        ("modules", before.modules, after.modules),
        ("forward compatibility", before.compat, after.compat),
        ("runtime", before.runtime, after.runtime),
        ("toolkit", before.toolkit, after.toolkit),
        ("CDI", before.cdi, after.cdi),
    ):
        old, new = (choice.value if choice is not None else "none" for choice in (then, now))
        if old != new:
            parts.append(f"{label} {old} → {new}" + (" (reboot)" if label == "driver" else ""))
    return ", ".join(parts) or "packages move"


def _reason(conflict: Conflict, indent: str) -> list[str]:
    lines = []
    for claim in conflict.claims:
        if claim.kind == "wanted-client":
            continue  # that the new client is wanted is what all of this is about
        lines += _told(claim, indent, "·")
    return lines


def _told(claim: Claim, indent: str, sign: str) -> list[str]:
    rests = "; ".join(explain.sources(claim))
    return explain.wrapped(f"{indent}{sign} ", f"{explain.sentence(claim)} ({rests})")
