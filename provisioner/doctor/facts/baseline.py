"""The cards against how they were when the host was let in: the note that provision-baseline wrote at enrolment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provisioner.doctor.facts.cards import devices_of, parsed_json
from provisioner.doctor.facts.fact import UNSEEN, Fact, Seen
from provisioner.doctor.host import Host, shown
from provisioner.doctor.truth import Evidence
from provisioner.facts.gpus import slot
from provisioner.model.capture import UNKNOWN, Unknown

NOTE = "/var/lib/provision/baseline.json"


def _note(host: Host) -> dict[str, Any] | Unknown | None:
    """None: nothing was ever noted. UNKNOWN also for a file that is no note."""
    text = host.capture.file(NOTE)
    if not isinstance(text, str):
        return text
    data = parsed_json(text)
    return data if isinstance(data, dict) and isinstance(data.get("cards"), dict) else UNKNOWN


def _pairs(host: Host, note: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(the card now, the card as noted); one that sits in another slot by now is measured anew."""
    for device in devices_of(host):
        before = note["cards"].get(device.get("uuid")) if isinstance(device.get("uuid"), str) else None
        if isinstance(before, dict) and _slot(before.get("slot")) == _slot(device.get("bus_id")):
            yield device, before


def _slot(text: Any) -> str | None:
    return slot(text) if isinstance(text, str) else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _day(stamp: Any) -> str:
    return stamp[:10] if isinstance(stamp, str) else "before"


def _noted(host: Host) -> Seen:
    """The day of the note; None where none was ever made."""
    note = _note(host)
    if not isinstance(note, dict):
        return UNSEEN if note is UNKNOWN else Seen(None)
    day = _day(note.get("at"))
    return Seen(day, (shown("noted", f"{len(note['cards'])} cards on {day}", NOTE),))


def _link_lost(host: Host) -> Seen:
    """Cards that have fewer lanes, or can do a lower PCIe generation at most, than was noted."""
    note = _note(host)
    if not isinstance(note, dict):
        return UNSEEN if note is UNKNOWN else Seen(())
    found: dict[str, tuple[Evidence, ...]] = {}
    looked = False
    for device, before in _pairs(host, note):
        name = f"GPU {device.get('index')}"
        for now, then, mark in (
            (_number(device.get("pcie_width")), _number(before.get("width")), "x"),
            (_number(device.get("pcie_generation_max")), _number(before.get("generation")), "generation "),
        ):
            looked = looked or (now is not None and then is not None)
            if now is not None and then is not None and 0 < now < then:
                was = shown("was", f"{name}: {mark}{then}, noted on {_day(before.get('since'))}", NOTE)
                found[name] = (*found.get(name, ()), shown("link", f"{name}: {mark}{now}", "NVML"), was)
    if not looked and note["cards"]:
        return UNSEEN
    return Seen(tuple(found), tuple(row for rows in found.values() for row in rows))


def _rows_grown(host: Host) -> Seen:
    """By how many rows of memory with uncorrectable errors the worst card grew since the note."""
    note = _note(host)
    if not isinstance(note, dict):
        return UNSEEN if note is UNKNOWN else Seen(0)
    worst, rows, looked = 0, (), False
    told: tuple[Evidence, ...] = rows
    for device, before in _pairs(host, note):
        now, then = device.get("remapped_rows"), before.get("rows")
        looked = looked or "remapped_rows" in device  # null: a card that has no row remapping
        count = _number(now.get("uncorrectable")) if isinstance(now, dict) else None
        was = _number(then.get("uncorrectable")) if isinstance(then, dict) else None
        if count is not None and was is not None and count - was > worst:
            worst = count - was
            told = (
                shown("rows", f"GPU {device.get('index')}: {count} replaced for uncorrectable errors", "NVML"),
                shown("were", f"{was}, noted on {_day(before.get('rows_at'))}", NOTE),
            )
    if not looked and note["cards"]:
        return UNSEEN
    return Seen(worst, told)


FACTS = (
    Fact("baseline.day", "text", "the day on which the cards were noted", f"cat {NOTE}", _noted),
    Fact("cards.link_lost", "texts", "links below what was noted", f"nvidia-smi -q -d PCI; cat {NOTE}", _link_lost),
    Fact(
        "cards.rows_grown",
        "number",
        "rows of memory replaced since the note",
        f"nvidia-smi -q -d ROW_REMAPPER; cat {NOTE}",
        _rows_grown,
    ),
)
