"""How the status of a fleet reads: a row per host, the reason of what is not enrolled, what to type next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from provisioner.actions.locked import OLDER
from provisioner.actions.status import HostStatus
from provisioner.cli.views.tunnel import tunnel_words
from provisioner.cli.words import next_command, paint, safe, table
from provisioner.model.capture import UNKNOWN, Unknown

_COLOURS = {"enrolled": "green", "out": "red", "not seen": "red", "differs": "yellow", "up to date": "yellow"}


def status_text(
    states: Sequence[HostStatus], *, seconds: float, lock: str | None, inventory: Sequence[str] = ()
) -> str:
    """Return the whole screen of `provision status`; `inventory` is what a next command has to name again."""
    count = f"{len(states)} host{'' if len(states) == 1 else 's'}"
    enrolled = sum(one.state == "enrolled" for one in states)
    head = f"{count} observed in {seconds:.1f} s · lock {lock or 'not made yet'} · {enrolled} enrolled"
    rows = [["host", "state", "driver", "runtime", "networks", "enrolled since"]]
    rows += [_row(one) for one in states]
    tunnels = [tunnel_words(one.tunnel) for one in states]
    if any(tunnels):
        rows = [[*row, words] for row, words in zip(rows, ["tunnel", *(safe(t) or "-" for t in tunnels)], strict=True)]
    lines = table(rows).splitlines()
    # Colour last: the escape codes must not count as width.
    coloured = [_painted(line, one) for line, one in zip(lines[1:], states, strict=True)]
    reasons = [[one.host, safe(one.reason)] for one in states if one.reason]
    tail = ["", *table(reasons, indent=2).splitlines()] if reasons else []
    tail += [f"  {one.host}: {safe(note)}" for one in states for note in one.notes]
    tail += [f"  {one.host}: {safe(one.hint)}" for one in states if one.hint]
    return "\n".join([head, "", paint(lines[0], "dim"), *coloured, *tail, *_next(states, lock, inventory)])


def _row(one: HostStatus) -> list[str]:
    since = one.enrolled_at.strftime("%Y-%m-%d %H:%M") if one.enrolled_at else "-"
    networks = ", ".join(one.networks) or "-"
    return [one.host, one.state, safe(_word(one.driver)), safe(_word(one.runtime)), networks, since]


def _word(value: str | Unknown | None) -> str:
    return "unknown" if value is UNKNOWN else value or "none"


def _painted(line: str, one: HostStatus) -> str:
    colour = _COLOURS.get(one.state)
    rest = line[len(one.host) :]
    return one.host + rest.replace(one.state, paint(one.state, colour), 1) if colour else line


def _next(states: Sequence[HostStatus], lock: str | None, inventory: Sequence[str]) -> list[str]:
    waiting = [one.host for one in states if one.state in ("bare", "differs", "up to date", "out")]
    if lock is None:
        return ["", f"Next: {next_command('resolve', inventory)}"]
    unlocked = [one.host for one in states if one.reason in ("not in the lock", OLDER)]
    if unlocked:
        return ["", f"Next: {next_command('resolve', inventory, unlocked, lock)}"]
    ready = [one.host for one in states if one.as_locked and one.host in waiting]
    if waiting and waiting == ready:
        return ["", f"Next: {next_command('verify', inventory, ready, lock)} --enrol"]
    return ["", f"Next: {next_command('plan', inventory, waiting, lock)}"] if waiting else []


def status_json(states: Sequence[HostStatus]) -> str:
    """Return the versioned shape: null is absent, "unknown" was not seen."""
    hosts = {}
    for one in states:
        value = asdict(one)
        value.pop("host")
        value["tunnel"] = tunnel_words(one.tunnel)
        value["enrolled_at"] = one.enrolled_at.isoformat() if one.enrolled_at else None
        for key in ("driver", "runtime"):
            value[key] = "unknown" if value[key] is UNKNOWN else value[key]
        hosts[one.host] = value
    return json.dumps({"format": 1, "hosts": hosts}, indent=2)
