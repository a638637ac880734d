"""How an upgrade reads: each host's step, then the order in which to go on."""

from __future__ import annotations

import json
from collections.abc import Sequence

from provisioner.actions.rollout import RolledOut
from provisioner.actions.upgrade import Upgraded
from provisioner.cli.views.resolve import claim_json, conflict_json, repair_json
from provisioner.cli.words import next_command, safe, table
from provisioner.resolve.explain_upgrade import steps_text

SHAPE = 1
"""Version of the --json shape; docs/guide/upgrade.md describes it."""


def upgraded_text(
    upgraded: Upgraded, network: str, to: str, written: str | None, inventory: Sequence[str], lock: str
) -> str:
    """Return the whole screen of `provision upgrade`."""
    lines = [f"{network}: {upgraded.program} {to}", ""]
    if upgraded.steps:
        lines += [*safe(steps_text(upgraded.steps, upgraded.program, to)).splitlines(), ""]
    for name, problem in upgraded.failed.items():
        lines += [f"{name}  not seen: {safe(problem.message)}   [{problem.reference}]"]
    if upgraded.unlocked:
        again = next_command("resolve", inventory, upgraded.unlocked, lock)
        lines += [f"no entry for what they serve now: {', '.join(upgraded.unlocked)}; first: {again}"]
    if upgraded.others:
        lines += [f"{len(upgraded.others)} of the hosts do not serve {network}"]
    if written is not None:
        lines += [f"lock {written}"]
    first, then = upgraded.named("moves", "waits"), upgraded.named("holds")
    steps = []
    if first:
        steps.append(f"First: {next_command('apply', inventory, first, lock)}, then the same upgrade again")
    if then:
        steps.append(f"{'Any time' if first else 'Next'}: {next_command('apply', inventory, then, lock)}")
    return "\n".join([*lines, "", *steps]).rstrip("\n") + "\n"


def rolled_out_text(out: RolledOut, network: str, to: str, inventory: Sequence[str], lock: str) -> str:
    """Return what became of each host, and what to type where one failed or was left."""
    words = {"done": f"serves with {to}", "rolled-back": "rolled back", "failed": "FAILED", "left": "not touched"}
    rows = [[name, words[fate.state], safe(fate.reason)] for name, fate in out.fates.items()]
    lines = ["", *table(rows).splitlines()] if rows else ["nothing to do"]
    failed = out.named("failed", "rolled-back")
    if failed:
        lines += [
            "",
            f"Stopped: {', '.join(failed)} did not serve with {network} {to}; hosts behind it were not touched.",
        ]
        lines += [f"Next: {next_command('doctor', inventory, failed[:1])}".rstrip()]
    return "\n".join(lines) + "\n"


def upgraded_json(upgraded: Upgraded) -> str:
    hosts = {}
    for name, step in upgraded.steps.items():
        hosts[name] = {
            "state": step.state,
            "client": step.client,
            "runs": step.runs,
            "together": step.together,
            "brings": [claim_json(claim) for claim in step.brings],
            "why": [conflict_json(conflict) for conflict in step.why],
            "conflicts": [conflict_json(c) for c in step.answer.conflicts] if step.answer is not None else [],
            "repairs": [repair_json(r) for r in step.answer.repairs] if step.answer is not None else [],
            "not_seen": list(step.answer.unseen) if step.answer is not None else [],
            "entry": step.entry.model_dump(mode="json"),
        }
    failed = {name: {"reference": p.reference, "message": p.message} for name, p in upgraded.failed.items()}
    return json.dumps(
        {
            "format": SHAPE,
            "hosts": hosts,
            "do_not_serve": list(upgraded.others),
            "without_entry": list(upgraded.unlocked),
            "failed": failed,
        },
        indent=2,
        ensure_ascii=False,
    )
