"""How two matrices read side by side: the claims that changed, then the hosts that would move, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from provisioner.actions.matrix_diff import MatrixDiff
from provisioner.cli.views.resolve import conflict_json
from provisioner.cli.words import paint, safe, table
from provisioner.matrix.changes import ClaimChange, EntryChange
from provisioner.resolve.explain import no_solution
from provisioner.resolve.moves import HostMove, Moved

SHAPE = 1
"""Version of the --json shape; docs/guide/matrix-releases.md describes it."""
MOST_CLAIMS = 8
MOST_PACKAGES = 3
_WIDE = 60
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def diff_text(diff: MatrixDiff) -> str:
    """Return the whole screen of `provision matrix diff`."""
    if not diff.entries:
        return f"the same matrix, {diff.new[:12]}: nothing would move\n"
    lines = [f"{_counted(diff.entries)} · matrix {diff.old[:12]} → {diff.new[:12]}", ""]
    for entry in diff.entries:
        lines += _entry(entry)
    if diff.hosts or diff.failed:
        lines += ["", *_hosts(diff)]
    else:
        lines += ["", "Which hosts would move: -i INVENTORY, --capture FILE, or --lock provision.lock"]
    return "\n".join(lines) + "\n"


def _counted(entries: Sequence[EntryChange]) -> str:
    kinds = [(kind, sum(entry.kind == kind for entry in entries)) for kind in ("changed", "added", "removed")]
    found = [f"{count} {kind}" for kind, count in kinds if count]
    return f"{found[0].split()[0]} entr{'y' if found[0].startswith('1 ') else 'ies'} " + ", ".join(
        [found[0].split()[1], *found[1:]]
    )


def _entry(entry: EntryChange) -> list[str]:
    lines = [f"{_SIGNS[entry.kind]} {entry.name}  {safe(entry.title)}"]
    rows = [(claim.field, _claim_text(claim)) for claim in entry.claims[:MOST_CLAIMS]]
    lines += [safe(line) for line in table(rows, indent=4).splitlines()]
    if len(entry.claims) > MOST_CLAIMS:
        lines.append(f"    and {len(entry.claims) - MOST_CLAIMS} more: --json has all")
    return lines


def _claim_text(claim: ClaimChange) -> str:
    """Of two lists of words, or alternatives of a specifier, only what went and what came: `- 535.261.03`."""
    before, after = _words(claim.before), _words(claim.after)
    if before is None or after is None:
        return f"{_value(claim.before)} → {_value(claim.after)}"
    went = [f"- {word}" for word in before if word not in after]
    came = [f"+ {word}" for word in after if word not in before]
    return _value(", ".join((*went, *came)) or "another order")


def _words(value: Any) -> list[str] | None:
    if isinstance(value, str) and " || " in value:
        return [word.removeprefix("==") for word in value.split(" || ")]
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return [str(item) for item in value]
    return None


def _value(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"


def _hosts(diff: MatrixDiff) -> list[str]:
    moving = diff.named("moves", "lost", "found")
    asked = [name for name, move in diff.hosts.items() if move.state not in ("touched", "untouched")]
    lines = []
    if asked:
        lines += [f"{len(moving)} of {len(asked)} host{'' if len(asked) == 1 else 's'} would move", ""]
    for names, move in _alike(diff, moving):
        lines += _move(", ".join(names), names[0], move)
    unseen = diff.named("touched")
    if unseen:
        text = "not looked at, and may move, for their lock entries rest on what changed:"
        lines += [*([""] if lines else []), f"{len(unseen)} host{'' if len(unseen) == 1 else 's'} {text}"]
        lines += [f"  {', '.join(names)}: {', '.join(move.entries)}" for names, move in _alike(diff, unseen)]
    if diff.named("untouched"):
        lines += ["", f"{len(diff.named('untouched'))} not looked at, and nothing that they rest on changed"]
    if diff.named("none"):
        lines += ["", f"without a stack in both: {', '.join(diff.named('none'))}"]
    for name, problem in diff.failed.items():
        lines.append(f"{name}  {paint('not seen', 'red')}: {safe(problem.message)}   [{problem.reference}]")
    return lines


def _alike(diff: MatrixDiff, names: Sequence[str]) -> Iterator[tuple[list[str], HostMove]]:
    """Hosts to which the same happens stand together."""
    groups: list[tuple[list[str], HostMove]] = []
    for name in names:
        for known, move in groups:
            if move == diff.hosts[name]:
                known.append(name)
                break
        else:
            groups.append(([name], diff.hosts[name]))
    return iter(groups)


def _move(names: str, first: str, move: HostMove) -> list[str]:
    behind = f"changed: {', '.join(move.entries)}" if move.entries else "no reason of its own changed"
    if move.state == "lost":
        lines = [f"{names}  {paint('no stack any more', 'red')}"]
        if move.no_solution is not None:
            lines += [
                f"  {safe(line)}" if line else "" for line in no_solution(first, move.no_solution).splitlines()[1:]
            ]
        return [*lines, *([f"  {safe(move.reason)}"] if move.reason else []), f"  {behind}"]
    choices = [one for one in move.moved if not one.what.startswith("package ")]
    packages = [one for one in move.moved if one.what.startswith("package ")]
    what = " · ".join(_moved_text(one) for one in choices) or f"{len(packages)} package{'s' * (len(packages) != 1)}"
    if move.state == "found":
        what = f"a stack, where there was none: {what}"
    lines = [f"{names}  {what}" + ("    reboot" if move.reboot else "")]
    for one in choices:
        rests = f"   ({', '.join(one.entries)} changed)" if one.entries else ""
        lines += [f"  why: {safe(one.why)}{rests}"] if one.why or rests else []
    most = MOST_PACKAGES if choices else MOST_CLAIMS
    lines += [f"  {_moved_text(one)}" for one in packages[:most]]
    if len(packages) > most:
        lines.append(f"  and {len(packages) - most} more packages: --json has all")
    return [*lines, *([] if any(one.entries for one in choices) else [f"  {behind}"])]


def _moved_text(one: Moved) -> str:
    return f"{one.what} {safe(one.before or 'none')} → {safe(one.after or 'none')}"


def diff_json(diff: MatrixDiff) -> str:
    """Return the --json shape: entries with their claims, hosts with what moves, and why."""
    return json.dumps(
        {
            "format": SHAPE,
            "old": diff.old,
            "new": diff.new,
            "entries": [
                {"name": e.name, "change": e.kind, "title": e.title, "claims": [_claim(c) for c in e.claims]}
                for e in diff.entries
            ],
            "hosts": {name: _host(move) for name, move in diff.hosts.items()},
            "failed": {
                name: {"reference": problem.reference, "message": problem.message}
                for name, problem in diff.failed.items()
            },
        },
        indent=2,
        ensure_ascii=False,
    )


def _claim(claim: ClaimChange) -> dict[str, Any]:
    return {"field": claim.field, "before": claim.before, "after": claim.after}


def _host(move: HostMove) -> dict[str, Any]:
    return {
        "state": move.state,
        "moved": [
            {"what": m.what, "before": m.before, "after": m.after, "why": m.why, "entries": list(m.entries)}
            for m in move.moved
        ],
        "entries": list(move.entries),
        "reboot": move.reboot,
        "reason": move.reason,
        "conflicts": [conflict_json(c) for c in move.no_solution.conflicts] if move.no_solution is not None else [],
    }
