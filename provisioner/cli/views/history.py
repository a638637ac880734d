"""How kept changes and the way back read: what each run changed, what it kept, and what going back would cost."""

from __future__ import annotations

import json
from collections.abc import Sequence

from provisioner.actions.plan import Planned
from provisioner.actions.rollback import Kept
from provisioner.cli.views.plan import host_lines
from provisioner.cli.words import next_command, paint, safe
from provisioner.model.history import Entry, Record, Unreadable
from provisioner.model.units import megabytes
from provisioner.plan.trial import notes_of


def history_text(kept: Kept, inventory: Sequence[str] = ()) -> str:
    """Return every host's changes, the newest first, and how to take the newest back."""
    parts = []
    newest = ""
    for name, entries in kept.entries.items():
        notes = [f"  {safe(note)}" for note in notes_of(kept.seen[name].facts)]
        unreadable = kept.unreadable.get(name, ())
        if not entries and not unreadable:
            parts.append("\n".join([f"{paint(name, 'bold')}  keeps no change", *notes]))
            continue
        told = {entry.record.run: _lines(entry) for entry in entries} | {one.run: _lost(one) for one in unreadable}
        lines = [line for run in sorted(told, reverse=True) for line in told[run]]
        parts.append("\n".join([paint(name, "bold"), *notes, *lines]))
        newest = newest or name
    text = "\n\n".join(parts)
    if newest:
        text += f"\n\nNext: {next_command('rollback', inventory)} {newest} --dry-run        shows the way back"
    return text


def _lines(entry: Entry) -> list[str]:
    record = entry.record
    before = record.before.words if record.before is not None else "what was there before the first enrolment"
    size = f", keeps {megabytes(record.bytes)}" if record.bytes >= 1_000_000 else ""
    end = "" if entry.done else paint(" · not finished", "yellow")
    pad = " " * (len(record.run) + 4)
    return [f"  {record.run}  {safe(what_changed(record))}{end}", f"{pad}goes back to {safe(before)}{size}"]


def _lost(one: Unreadable) -> list[str]:
    run = safe(one.run)
    return [
        f"  {run}  {paint('its record cannot be read', 'red')}: {safe(one.why)}",
        f"{' ' * (len(run) + 4)}no way back to before it",
    ]


def what_changed(record: Record) -> str:
    """Return `nvidia-kernel-dkms 535.216.03-1 → 535.261.03-1 and 37 more packages, 2 files`."""
    moved = [name for name, kept in record.packages.items() if name in record.to and record.to[name] != kept.version]
    words = []
    if moved:
        first = next((name for name in moved if name.endswith("kernel-dkms")), moved[0])
        before, after = record.packages[first].version, record.to[first]
        more = f" and {len(moved) - 1} more package{'s' if len(moved) > 2 else ''}" if len(moved) > 1 else ""
        words.append(f"{first} {before or 'none'} → {after or 'none'}{more}")
    elif record.packages:
        words.append(f"holds of {len(record.packages)} package{'s' if len(record.packages) > 1 else ''}")
    if record.files:
        words.append(f"{len(record.files)} file{'s' if len(record.files) > 1 else ''}")
    if not words and record.units:
        words.append(", ".join(record.units))
    return ", ".join(words) or "nothing"


def way_back_text(planned: Planned, *, seconds: float) -> str:
    """Return the plan of a rollback: what is taken back, to what, and what that costs."""
    lines = []
    for name, plan in planned.plan.hosts.items():
        goal = planned.goals[name]
        runs = "runs" if len(goal.undone) > 1 else "run"
        before = goal.stack.words if goal.stack is not None else "what it was before its first enrolment"
        lines.append(f"{name} goes back to {before}: takes back {runs} {', '.join(goal.undone)} · {seconds:.1f} s")
        lines.append("")
        lines += host_lines(plan, len(name))
    return "\n".join(lines)


def history_json(kept: Kept) -> str:
    """Return the documented shape (docs/guide/rollback.md), format 1: per host the kept records, oldest first."""
    hosts = {
        name: [{"done": entry.done, **entry.record.model_dump(mode="json", by_alias=True)} for entry in entries]
        for name, entries in kept.entries.items()
    }
    unreadable = {name: [one.model_dump() for one in lost] for name, lost in kept.unreadable.items() if lost}
    told = {name: notes for name, one in kept.seen.items() if (notes := notes_of(one.facts))}
    failed = {name: f"{problem.reference}: {problem.message}" for name, problem in kept.failed.items()}
    shape = {"format": 1, "hosts": hosts, "unreadable": unreadable, "notes": told, "failed": failed}
    return json.dumps(shape, indent=2)
