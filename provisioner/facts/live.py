"""What a host's clients do now: their units, what the gate says, and what the watchdog saw in its last round."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from provisioner.model.capture import UNKNOWN, Capture, Unknown

WATCHDOG = "/var/lib/provision/watchdog.json"
UPTIME = "/proc/uptime"
GATE = "/usr/local/sbin/provision-gate"
STALE = timedelta(minutes=5)
"""The watchdog looks every minute; what is older than this is not how the host is now."""


@dataclass(frozen=True)
class ClientNow:
    """One network's client. `since` is when its unit came up; `closed` is what the gate says against a start."""

    network: str
    active: bool | Unknown = UNKNOWN
    since: datetime | None = None
    closed: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardNow:
    name: str
    temperature_c: float | None = None
    power_w: float | None = None
    limit_w: float | None = None


@dataclass(frozen=True)
class LiveFacts:
    """`looked_at` is the watchdog's last round; None: it has made none. `causes` is what it found wrong then."""

    clients: tuple[ClientNow, ...] = ()
    looked_at: datetime | None = None
    stale: bool = False
    causes: tuple[tuple[str, str], ...] = ()
    held: tuple[tuple[str, str], ...] = ()
    cards: tuple[CardNow, ...] = ()


def units_line(networks: tuple[str, ...]) -> str:
    """The command that tells of the units, as the probe runs it."""
    named = " ".join(f"provision-client@{network}.service" for network in networks)
    return f"systemctl show -p Id,ActiveState,ActiveEnterTimestampMonotonic {named}"


def gate_line(network: str) -> str:
    return f"{GATE} check {network}"


def live(capture: Capture, networks: tuple[str, ...]) -> LiveFacts:
    """Return what was seen of the clients of these networks; what was not looked at stays unknown."""
    noted = _json(capture.file(WATCHDOG))
    looked_at = _time(noted.get("at"))
    seen = noted.get("nvml")
    gpus = seen.get("gpus", []) if isinstance(seen, dict) else []
    return LiveFacts(
        clients=tuple(_client(network, capture, _units(capture, networks)) for network in networks),
        looked_at=looked_at,
        stale=looked_at is not None and capture.taken_at - looked_at > STALE,
        causes=_pairs(noted.get("causes")),
        held=_pairs(noted.get("held")),
        cards=tuple(_card(one) for one in gpus if isinstance(one, dict)),
    )


def _client(network: str, capture: Capture, units: dict[str, dict[str, str]]) -> ClientNow:
    unit = units.get(f"provision-client@{network}.service")
    if unit is None:
        return ClientNow(network)
    active = unit.get("ActiveState") == "active"
    said = capture.command(gate_line(network))
    closed: tuple[str, ...] = ()
    if said is not UNKNOWN and said.rc == 1:
        lines = [line.partition(": ")[2] or line for line in said.stderr.splitlines() if line.strip()]
        closed = tuple(lines)
    return ClientNow(network, active, _since(unit, capture) if active else None, closed)


def _units(capture: Capture, networks: tuple[str, ...]) -> dict[str, dict[str, str]]:
    said = capture.command(units_line(networks))
    if said is UNKNOWN or said.rc != 0:
        return {}
    found = {}
    for block in said.stdout.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[fields.get("Id", "")] = fields
    return found


def _since(unit: dict[str, str], capture: Capture) -> datetime | None:
    """systemd's own clock counts microseconds from the boot, whatever the wall clock did since."""
    uptime = capture.file(UPTIME)
    try:
        passed = float(str(uptime).split()[0]) - int(unit["ActiveEnterTimestampMonotonic"]) / 1e6
        return (capture.taken_at - timedelta(seconds=max(0.0, passed))).replace(microsecond=0)
    except (ValueError, IndexError, KeyError):
        return None


def _json(text: str | Unknown | None) -> dict[str, Any]:
    """A file that is being made, or is damaged, says nothing."""
    try:
        value = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _time(value: object) -> datetime | None:
    try:
        return datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(key), str(text)) for key, text in value.items())) if isinstance(value, dict) else ()


def _card(one: dict[str, Any]) -> CardNow:
    numbers = {key: float(one[key]) for key in ("temperature_c", "power_w", "limit_w") if _is_number(one.get(key))}
    return CardNow(str(one.get("name")), **numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
