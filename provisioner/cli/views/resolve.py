"""How resolved hosts read: one line each, then what should be known, then the hosts that have no stack."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Any

from provisioner.actions.resolve import Resolved
from provisioner.cli.words import paint, safe, table
from provisioner.model.stack import HostLock
from provisioner.resolve import explain, explain_assume
from provisioner.resolve.conflict import Claim, Conflict, NoSolution, Repair

SHAPE = 1
"""Version of the --json shape; docs/guide/resolve.md describes it."""


def resolved_text(resolved: Resolved, *, explained: bool, written: str | None, next_command: str) -> str:
    """Return the whole screen of `provision resolve`."""
    lines: list[str] = explain_assume.heading(resolved.assumed) if resolved.assumed else []
    if explained:
        for name, stack in resolved.stacks.items():
            lines += [paint(name, "bold"), safe(explain.choices(stack).rstrip("\n"))]
        lines += [""] if resolved.stacks else []
    elif resolved.stacks:
        rows = [(name, *_cells(stack)) for name, stack in resolved.stacks.items()]
        lines += [safe(line) for line in table(rows).splitlines()]
        lines += _warnings(resolved.stacks)
        lines.append("")
    for name, answer in resolved.unresolvable.items():
        lines += [*safe(explain.no_solution(name, answer, assumed=bool(resolved.assumed))).splitlines(), ""]
    for name, problem in resolved.failed.items():
        lines.append(f"{name}  {paint('not seen', 'red')}: {safe(problem.message)}   [{problem.reference}]")
        lines += [f"  {safe(line)}" for line in problem.context]
        if problem.hint:
            lines.append(f"  {safe(problem.hint)}")
        lines.append("")
    lines += _ending(resolved, written, next_command, explained)
    return "\n".join(lines).rstrip("\n") + "\n"


def _cells(stack: HostLock) -> tuple[str, ...]:
    driver = "no driver"
    if stack.driver_version is not None:
        driver = f"driver {stack.driver_version.value}"
        if stack.modules is not None and stack.modules.value == "open":
            driver += " open"
    return (
        stack.os,
        ", ".join(_counted(stack.gpus)) or "no GPU",
        driver,
        f"CUDA {stack.cuda.value}" if stack.cuda is not None else "no CUDA",
        ", ".join(stack.networks) or "no network",
    )


def _counted(names: Iterable[str]) -> list[str]:
    """Two of one model are `2 × rtx-3090`."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return [name if count == 1 else f"{count} × {name}" for name, count in counts.items()]


def _warnings(stacks: dict[str, HostLock]) -> list[str]:
    """Each warning once, with the hosts it is about; what could not be checked is counted, --explain tells it."""
    about: dict[str, list[str]] = {}
    unchecked = sum(len(stack.unchecked) for stack in stacks.values())
    for name, stack in stacks.items():
        for text in stack.warnings:
            about.setdefault(text, []).append(name)
    lines = [""] if about or unchecked else []
    for text, names in about.items():
        who = "all hosts" if len(names) == len(stacks) > 1 else ", ".join(names)
        folded = textwrap.wrap(f"{who}: {safe(text)}", explain.WIDTH - 2, break_on_hyphens=False)
        lines += [f"{paint('!', 'yellow') if place == 0 else ' '} {line}" for place, line in enumerate(folded)]
    if unchecked:
        count = "1 wish of the networks is" if unchecked == 1 else f"{unchecked} wishes of the networks are"
        lines.append(f"  {count} not for the resolver to check: --explain lists them")
    return lines


def _ending(resolved: Resolved, written: str | None, next_command: str, explained: bool) -> list[str]:
    total = len(resolved.stacks) + len(resolved.unresolvable) + len(resolved.failed)
    lines = []
    if resolved.assumed:
        lines.append(explain_assume.ending(len(resolved.stacks), total))
    if written is not None:
        lines.append(f"{len(resolved.stacks)} of {total} hosts resolved{_stacks(resolved)} · lock {written}")
    if resolved.lock.older and not resolved.assumed:
        names = ", ".join(resolved.lock.older)
        text = f"made with another matrix, kept, and left alone by every plan until resolved again: {names}"
        folded = textwrap.wrap(text, explain.WIDTH - 2, break_on_hyphens=False)
        lines += [f"{paint('!', 'yellow') if place == 0 else ' '} {line}" for place, line in enumerate(folded)]
    if written is not None and resolved.stacks:
        lines += ["", f"Next: {next_command}"]
    return lines


def _stacks(resolved: Resolved) -> str:
    """`, 3 different stacks (2 would do: --unify)`; "no fewer would do" only where that is proven."""
    if len(resolved.stacks) < 2:
        return ""
    different, fleet = resolved.distinct, resolved.fleet
    said = f", {different} different stack{'' if different == 1 else 's'}"
    if fleet is None or different == 1:
        return said
    if len(fleet.stacks) >= different:
        return f"{said} (no fewer would do)" if fleet.proven else said
    return f"{said} ({len(fleet.stacks)} would do: --unify)"


def resolved_json(resolved: Resolved) -> str:
    """Return the --json shape: per host a stack, the conflicts with their repairs, or the error."""
    return json.dumps(
        {
            "format": SHAPE,
            "matrix": resolved.lock.matrix,
            "older": dict(resolved.lock.older),
            "stacks": _fleet(resolved),
            "assumed": [one.text for one in resolved.assumed],
            "hosts": {name: stack.model_dump(mode="json") for name, stack in resolved.stacks.items()},
            "unresolvable": {
                name: _answer(name, answer, bool(resolved.assumed)) for name, answer in resolved.unresolvable.items()
            },
            "failed": {
                name: {"reference": p.reference, "message": p.message, "hint": p.hint}
                for name, p in resolved.failed.items()
            },
        },
        indent=2,
        ensure_ascii=False,
    )


def _fleet(resolved: Resolved) -> dict[str, Any]:
    fleet = resolved.fleet
    return {
        "distinct": resolved.distinct,
        "smallest": len(fleet.stacks) if fleet is not None else resolved.distinct,
        "proven": fleet.proven if fleet is not None else True,
    }


def _answer(host: str, answer: NoSolution, assumed: bool) -> dict[str, Any]:
    closer = None if assumed else explain.look_closer(host, answer)
    return {
        "conflicts": [conflict_json(conflict) for conflict in answer.conflicts],
        "all_conflicts": answer.complete,
        "repairs": [repair_json(repair) for repair in answer.repairs],
        "not_seen": list(answer.unseen),
        "look_closer": closer.partition(": ")[2] if closer else None,
    }


def conflict_json(conflict: Conflict) -> list[dict[str, Any]]:
    return [claim_json(claim) for claim in conflict.claims]


def claim_json(claim: Claim) -> dict[str, Any]:
    return {"rule": claim.kind, "text": explain.sentence(claim), "rests_on": list(explain.sources(claim))}


def repair_json(repair: Repair) -> dict[str, Any]:
    stack = repair.stack
    return {
        "edits": [{"kind": e.kind, "value": e.value, "text": explain.edit(e)} for e in repair.edits],
        "reboot": repair.reboot,
        "assumed": list(repair.assumed),
        "driver": stack.driver_version.value if stack.driver_version is not None else None,
        "cuda": stack.cuda.value if stack.cuda is not None else None,
        "networks": list(stack.networks),
    }
