"""How the status of a fleet reads: a row per host, the reason of what is not enrolled, what to type next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from provisioner.actions.locked import OLDER
from provisioner.actions.status import HostStatus
from provisioner.cli.views.tunnel import tunnel_words
from provisioner.cli.words import next_command, paint, safe, table
from provisioner.facts.live import CardNow, ClientNow, LiveFacts
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
    now = [row for one in states if one.live is not None for row in _now_rows(one, one.live)]
    tail += ["", paint("now", "dim"), *table(now).splitlines()] if now else []
    return "\n".join([head, "", paint(lines[0], "dim"), *coloured, *tail, *_next(states, lock, inventory)])


def _row(one: HostStatus) -> list[str]:
    since = one.enrolled_at.strftime("%Y-%m-%d %H:%M") if one.enrolled_at else "-"
    networks = ", ".join(one.networks) or "-"
    return [one.host, one.state, safe(_word(one.driver)), safe(_word(one.runtime)), networks, since]


def _now_rows(one: HostStatus, live: LiveFacts) -> list[list[str]]:
    """A row for each client; what is wrong with the host as a whole, and how its cards are, in rows of their own."""
    rows = [[one.host, client.network, safe(_client(client, live))] for client in live.clients]
    whole = [(cause, words) for cause, words in live.causes if "/" not in cause]
    held = dict(live.held)
    rows += [
        [one.host, "", safe(f"{cause}: {words}" + (f" (held back: {held[cause]})" if cause in held else ""))]
        for cause, words in whole
    ]
    if live.stale and live.looked_at is not None:
        rows.append([one.host, "", f"the watchdog has not looked since {live.looked_at:%Y-%m-%d %H:%M} UTC"])
    cards = [_card(card) for card in live.cards]
    if cards:
        rows.append([one.host, "", safe(" · ".join(cards))])
    return rows


def _client(client: ClientNow, live: LiveFacts) -> str:
    """`serves since …`, or the first thing that keeps it from serving."""
    wrong = [f"{cause.partition('/')[0]}: {words}" for cause, words in live.causes if _is_of(cause, client.network)]
    since = f" since {client.since:%Y-%m-%d %H:%M} UTC" if client.since is not None else ""
    if client.active is UNKNOWN:
        return "not seen"
    if client.active:
        told = [*wrong, *([f"the gate would not open again: {client.closed[0]}"] if client.closed else [])]
        return f"runs{since}, but {told[0]}" if told else f"serves{since}"
    if client.closed:
        more = f" (and {len(client.closed) - 1} more)" if len(client.closed) > 1 else ""
        return f"stopped: {client.closed[0]}{more}"
    return f"stopped: {wrong[0]}" if wrong else "stopped; its gate is open"


def _is_of(cause: str, network: str) -> bool:
    return cause.partition("/")[2] == network


def _card(card: CardNow) -> str:
    """`RTX 4090 62 °C 280 of 350 W`; what a card does not tell is left out."""
    words = [card.name.removeprefix("NVIDIA ").removeprefix("GeForce ")]
    if card.temperature_c is not None:
        words.append(f"{card.temperature_c:.0f} °C")
    if card.power_w is not None:
        words.append(f"{card.power_w:.0f}{f' of {card.limit_w:.0f}' if card.limit_w is not None else ''} W")
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


def status_json(states: Sequence[HostStatus]) -> str:
    """Return the versioned shape: null is absent, "unknown" was not seen."""
    hosts = {}
    for one in states:
        value = asdict(one)
        value.pop("host")
        value["tunnel"] = tunnel_words(one.tunnel)
        value["live"] = _live_json(one.live) if one.live is not None else None
        value["enrolled_at"] = one.enrolled_at.isoformat() if one.enrolled_at else None
        for key in ("driver", "runtime"):
            value[key] = "unknown" if value[key] is UNKNOWN else value[key]
        hosts[one.host] = value
    return json.dumps({"format": 1, "hosts": hosts}, indent=2)


def _live_json(live: LiveFacts) -> dict[str, object]:
    return {
        "looked_at": live.looked_at.isoformat() if live.looked_at is not None else None,
        "stale": live.stale,
        "clients": {
            one.network: {
                "active": "unknown" if one.active is UNKNOWN else one.active,
                "since": one.since.isoformat() if one.since is not None else None,
                "closed": list(one.closed),
            }
            for one in live.clients
        },
        "causes": dict(live.causes),
        "held": dict(live.held),
        "cards": [asdict(card) for card in live.cards],
    }
