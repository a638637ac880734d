"""How the status of a fleet reads: a row per host, the reason of what is not enrolled, what to type next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from provisioner.actions.live import Live
from provisioner.actions.locked import OLDER
from provisioner.actions.status import HostStatus
from provisioner.cli.views.tunnel import tunnel_words
from provisioner.cli.words import next_command, paint, safe, table
from provisioner.model.capture import UNKNOWN, Unknown

_COLOURS = {"enrolled": "green", "out": "red", "not seen": "red", "differs": "yellow", "up to date": "yellow"}


def status_text(
    states: Sequence[HostStatus],
    *,
    seconds: float,
    lock: str | None,
    inventory: Sequence[str] = (),
    now: Mapping[str, Live] | None = None,
) -> str:
    """Return the whole screen of `provision status`; `inventory` is what a next command has to name again.

    `now` is what the hosts told of their clients (`--live`).
    """
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
    serving = _serving(states, now) if now else []
    return "\n".join([head, "", paint(lines[0], "dim"), *coloured, *serving, *tail, *_next(states, lock, inventory)])


def _row(one: HostStatus) -> list[str]:
    since = one.enrolled_at.strftime("%Y-%m-%d %H:%M") if one.enrolled_at else "-"
    networks = ", ".join(_client(one, name) for name in one.networks) or "-"
    return [one.host, one.state, safe(_word(one.driver)), safe(_word(one.runtime)), networks, since]


def _client(one: HostStatus, name: str) -> str:
    """A network with its client's version where the host is as the lock says; elsewhere that is only a wish."""
    way = name.partition("@")[0]
    version = one.clients.get(way.partition("/")[0]) if one.state in ("enrolled", "up to date") else None
    return f"{way} {version}" if version else name


def _serving(states: Sequence[HostStatus], now: Mapping[str, Live]) -> list[str]:
    """A row per client: since when it serves, or why not; below each host what its watchdog saw last."""
    rows = [["host", "client", "serves", "why not"]]
    for one in states:
        told = now.get(one.host)
        if told is None:
            continue
        if told.problem:
            rows.append([one.host, "-", "unknown", safe(told.problem)])
        for network, client in told.clients.items():
            since = f"since {client.since:%Y-%m-%d %H:%M}" if client.since else "yes" if client.serves else "no"
            rows.append([one.host, network, since, safe(client.why)])
        rows += [[one.host, "watchdog", safe(seen), safe(words)] for seen, words in _watchdog(told.watchdog or {})]
    head, *lines = table(rows).splitlines()
    return ["", paint(head, "dim"), *lines]


def _watchdog(noted: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it found wrong in its last round, what it holds back, and how it saw the cards; a damaged note says less."""
    held = _mapping(noted.get("held"))
    rows = [
        (str(cause), f"{words}; held: {held[cause]}" if cause in held else str(words))
        for cause, words in sorted(_mapping(noted.get("causes")).items())
    ]
    gpus = _mapping(noted.get("nvml")).get("gpus")
    cards = [_card(one) for one in gpus if isinstance(one, dict)] if isinstance(gpus, list) else []
    return rows + ([(f"at {noted.get('at', '?')}", " · ".join(cards))] if cards else [])


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _card(card: Mapping[str, Any]) -> str:
    """`RTX 4090 62 °C 280 of 350 W`; what a card does not tell is left out."""
    words = [str(card.get("name", "GPU")).removeprefix("NVIDIA ").removeprefix("GeForce ")]
    heat, power, limit = (card.get(key) for key in ("temperature_c", "power_w", "limit_w"))
    if isinstance(heat, (int, float)):
        words.append(f"{heat:.0f} °C")
    if isinstance(power, (int, float)):
        words.append(f"{power:.0f}{f' of {limit:.0f}' if isinstance(limit, (int, float)) else ''} W")
    return " ".join(words)


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


def status_json(states: Sequence[HostStatus], now: Mapping[str, Live] | None = None) -> str:
    """Return the versioned shape: null is absent, "unknown" was not seen; `live` stands where a host was asked."""
    hosts = {}
    for one in states:
        value = asdict(one)
        value.pop("host")
        value["tunnel"] = tunnel_words(one.tunnel)
        value["enrolled_at"] = one.enrolled_at.isoformat() if one.enrolled_at else None
        for key in ("driver", "runtime"):
            value[key] = "unknown" if value[key] is UNKNOWN else value[key]
        if now and one.host in now:
            value["live"] = now[one.host].model_dump(mode="json", exclude={"format"})
        hosts[one.host] = value
    return json.dumps({"format": 1, "hosts": hosts}, indent=2)
