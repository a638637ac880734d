"""The tunnel as its keeper on the host noted it, and the last change that was under guard."""

from __future__ import annotations

import json
from typing import Any

from provisioner.doctor.facts.fact import UNSEEN, Fact, Seen
from provisioner.doctor.host import Host, shown
from provisioner.facts.tunnel import CHANGE, NOTES
from provisioner.model.capture import UNKNOWN, Unknown

_STALE_S = 180
"""REJECT_AFTER_TIME of WireGuard: with keepalive on, an older handshake means that there is no session."""


def _read(host: Host, path: str) -> dict[str, Any] | Unknown | None:
    """None: there is no such file, so no tunnel, or no guarded change. UNKNOWN also for one that holds no JSON."""
    text = host.capture.file(path)
    if not isinstance(text, str):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return UNKNOWN
    return value if isinstance(value, dict) else UNKNOWN


def _ends(notes: dict[str, Any]) -> list[dict[str, Any]]:
    ends = notes.get("peers")
    return [end for end in ends if isinstance(end, dict) and end.get("host")] if isinstance(ends, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _silent(host: Host) -> Seen:
    """Far ends that do not answer: no ping came back; of those that were not asked, no handshake is recent."""
    notes = _read(host, NOTES)
    if not isinstance(notes, dict):
        return UNSEEN if notes is UNKNOWN else Seen(())
    at, found = _number(notes.get("at")), {}
    for end in _ends(notes):
        loss, heard = _number(end.get("loss_pct")), _number(end.get("handshake"))
        ago = "never heard" if not heard else f"last heard {at - heard:.0f} s earlier" if at is not None else ""
        old = not heard or (at is not None and at - heard > _STALE_S)
        if (loss is not None and loss >= 100) or (loss is None and old):
            lost = "no ping came back" if loss is not None else ""
            words = ", ".join(text for text in (str(end["host"]), lost, ago) if text)
            found[str(end["host"])] = shown("silent", words, NOTES)
    return Seen(tuple(found), tuple(found.values()))


def _loss(host: Host) -> Seen:
    """Per cent of packets lost to the worst end that answers at all; None where nobody was asked."""
    notes = _read(host, NOTES)
    if not isinstance(notes, dict):
        return UNSEEN if notes is UNKNOWN else Seen(None)
    rates = {str(end["host"]): _number(end.get("loss_pct")) for end in _ends(notes)}
    worst = max(((rate, name) for name, rate in rates.items() if rate is not None and rate < 100), default=None)
    if worst is None:
        return Seen(None)
    return Seen(worst[0], (shown("lost", f"{worst[0]:g} of 100 packets to {worst[1]}", NOTES),))


def _added(host: Host) -> Seen:
    """Milliseconds that the tunnel adds to the way there and back, of the worst end; None where nobody could say."""
    notes = _read(host, NOTES)
    if not isinstance(notes, dict):
        return UNSEEN if notes is UNKNOWN else Seen(None)
    found = []
    for end in _ends(notes):
        inside, outside = _number(end.get("rtt_ms")), _number(end.get("path_ms"))
        if inside is not None and outside is not None:
            found.append((round(max(0.0, inside - outside), 1), str(end["host"]), inside, outside))
    if not found:
        return Seen(None)
    added, name, inside, outside = max(found)
    return Seen(added, (shown("times", f"{name} {inside:g} ms through the tunnel, {outside:g} ms outside", NOTES),))


def _narrowed(host: Host) -> Seen:
    """Sizes that the keeper lowered, because larger packets did not come through: of the interface, or of a route."""
    notes = _read(host, NOTES)
    if not isinstance(notes, dict):
        return UNSEEN if notes is UNKNOWN else Seen(())
    found = []
    if notes.get("lowered_at"):
        found.append(f"MTU {notes.get('mtu')}")
    routes = notes.get("routes")
    for address, route in routes.items() if isinstance(routes, dict) else ():
        found.append(f"{route.get('mtu')} to {address}" if isinstance(route, dict) else str(address))
    return Seen(tuple(found), tuple(shown("narrowed", text, NOTES) for text in found[:2]))


def _unwatched(host: Host) -> Seen:
    """Seconds since the keeper looked last; None without a tunnel. The host's own clock measures both ends."""
    notes = _read(host, NOTES)
    if not isinstance(notes, dict):
        return UNSEEN if notes is UNKNOWN else Seen(None)
    at = _number(notes.get("at"))
    for line, answer in host.answers("date +%s.%N"):
        try:
            now = float(answer.stdout)
        except ValueError:
            continue
        if at is not None:
            age = max(0.0, now - at)
            return Seen(round(age), (shown("looked", f"{age:.0f} s ago", line),))
    return UNSEEN


def _change(host: Host) -> Seen:
    """What became of the last change under guard: `confirmed`, `reverted`, …; None when there never was one."""
    told = _read(host, CHANGE)
    if not isinstance(told, dict):
        return UNSEEN if told is UNKNOWN else Seen(None)
    if not isinstance(told.get("state"), str):
        return UNSEEN
    words = ": ".join(str(told[key]) for key in ("what", "state", "why") if told.get(key))
    return Seen(told["state"], (shown("change", words, CHANGE),))


FACTS = (
    Fact("tunnel.silent", "texts", "far ends of the tunnel that do not answer", f"cat {NOTES}", _silent),
    Fact("tunnel.loss", "number", "per cent of packets that the tunnel loses", f"cat {NOTES}", _loss),
    Fact("tunnel.added", "number", "ms that the tunnel adds to the way there and back", f"cat {NOTES}", _added),
    Fact("tunnel.narrowed", "texts", "sizes that the tunnel's keeper lowered", f"cat {NOTES}", _narrowed),
    Fact("tunnel.unwatched", "number", "seconds since the tunnel was looked after", f"cat {NOTES}", _unwatched),
    Fact("change.state", "text", "what became of the last guarded change", f"cat {CHANGE}", _change),
)
