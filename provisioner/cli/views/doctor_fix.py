"""How `provision doctor --fix` reads: each finding with what mends it, then what a second look found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from provisioner.actions.apply import Applied
from provisioner.actions.mend import Outcome, Patient
from provisioner.cli.views.apply import applied_json
from provisioner.cli.views.doctor import diagnosis_json, diagnosis_text
from provisioner.cli.words import next_command, paint, safe
from provisioner.errors import HostError

FORMAT = 1


def prescription_text(patients: Sequence[Patient]) -> str:
    """Every host with its findings; where no plan could be made, or it is blocked, the reason stands below them."""
    blocks = []
    for patient in patients:
        lines = [diagnosis_text(patient.diagnosis, mends=patient.mends)]
        name = safe(patient.host.name)
        if patient.problem and patient.wants_plan:
            lines.append(f"\nNo plan for {name}: {safe(patient.problem)}")
        if patient.plan is not None and patient.plan.blocked and patient.wants_plan:
            lines.append(f"\nThe plan of {name} is blocked:")
            lines += [f"  {safe(line)}" for line in patient.plan.blocked]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def fixed_text(outcomes: Mapping[str, Outcome], inventory: Sequence[str] = ()) -> str:
    """What is mended, what is left, what has come since, host by host."""
    width = max(map(len, outcomes), default=0)
    lines = ["", "Looked again:"]
    for name, found in outcomes.items():
        rows = [
            *((paint("✓", "green"), "mended", title) for title in found.mended.values()),
            *((paint("✗", "yellow"), "left", title) for title in found.left.values()),
            *((paint("!", "yellow"), "new", title) for title in found.new.values()),
        ]
        if not rows:
            lines.append(f"  {name.ljust(width)}  nothing is wrong")
        for number, (mark, word, title) in enumerate(rows):
            lines.append(f"  {(name if number == 0 else '').ljust(width)}  {mark} {word:<6} {safe(title)}")
    over = [name for name, found in outcomes.items() if found.left or found.new]
    if over:
        lines += ["", f"Next: {next_command(['doctor', *over], inventory)}     (what is left is mended by hand)"]
    return "\n".join(lines)


def fixed_json(
    patients: Sequence[Patient],
    failed: Iterable[HostError],
    applied: Applied | None,
    outcomes: Mapping[str, Outcome],
) -> str:
    """Format 1 of docs/reference/doctor.md, with `fix` beside each host's findings."""
    return json.dumps(
        {
            "format": FORMAT,
            "hosts": [{**diagnosis_json(p.diagnosis), "fix": _fix(p, outcomes.get(p.host.name))} for p in patients],
            "failures": [{"host": p.host, "reference": p.reference, "message": p.message} for p in failed],
            "applied": json.loads(applied_json(applied)) if applied is not None else None,
        },
        indent=2,
    )


def _fix(patient: Patient, found: Outcome | None) -> dict[str, Any]:
    return {
        "mends": [
            {
                "mechanism": mend.finding.mechanism.id,
                "changes": [change.what for change in mend.changes],
                "why_not": None if mend.by_plan else mend.why,
            }
            for mend in patient.mends
        ],
        "blocked": list(patient.plan.blocked) if patient.plan is not None else [],
        "problem": patient.problem or None,
        "mended": sorted(found.mended) if found is not None else [],
        "left": sorted(found.left) if found is not None else None,
        "new": sorted(found.new) if found is not None else None,
    }
