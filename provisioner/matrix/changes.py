"""What differs between two matrices, entry by entry and claim by claim; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from provisioner.matrix.entries import ROOMS
from provisioner.matrix.reader import Matrix

_NAMES = ("id", "key", "version", "name", "device", "cve", "bulletin", "topic", "label")
"""What tells the items of a list apart, best first: so that one new release is one change, not a whole new list."""


@dataclass(frozen=True)
class ClaimChange:
    """One claim of an entry; `field` is its path, such as `latest.version`. None: it is not there."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class EntryChange:
    """One entry, by the name that reasons use for it (`drivers/535`)."""

    name: str
    kind: Literal["added", "removed", "changed"]
    title: str
    claims: tuple[ClaimChange, ...] = ()


def changes(old: Matrix, new: Matrix) -> tuple[EntryChange, ...]:
    """Return every entry that is not the same in both, in the order of rooms and ids."""
    found = []
    for room in ROOMS:
        before, after = old.room(room), new.room(room)
        for entry_id in sorted({*before, *after}):
            name = f"{room}/{entry_id}"
            if entry_id not in after:
                found.append(EntryChange(name, "removed", before[entry_id].title))
            elif entry_id not in before:
                found.append(EntryChange(name, "added", after[entry_id].title))
            elif before[entry_id] != after[entry_id]:
                first, second = (one[entry_id].model_dump(mode="json", by_alias=True) for one in (before, after))
                found.append(EntryChange(name, "changed", after[entry_id].title, tuple(_claims(first, second, ""))))
    return tuple(found)


def _claims(before: Any, after: Any, where: str) -> Iterator[ClaimChange]:
    """Go down as far as both sides have the same shape: `a.b` for fields, `a[id]` or `a[3]` for items of lists."""
    if before == after:
        return
    parts = _parts(before, after)
    if parts is None:
        yield ClaimChange(where, before, after)
        return
    for key, first, second in parts:
        yield from _claims(first, second, f"{where}{key}" if key.startswith("[") else f"{where}.{key}".lstrip("."))


def _parts(before: Any, after: Any) -> list[tuple[str, Any, Any]] | None:
    """The parts of two values side by side, by name; None when they are shown whole."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [(key, before.get(key), after.get(key)) for key in dict.fromkeys((*before, *after))]
    if not (isinstance(before, list) and isinstance(after, list)):
        return None
    if not all(isinstance(item, dict) for item in (*before, *after)):
        return None
    for name in _NAMES:
        keys = [[str(item.get(name)) for item in one] for one in (before, after)]
        if all(one and "None" not in one and len(set(one)) == len(one) for one in keys):
            first, second = (dict(zip(key, one, strict=True)) for key, one in zip(keys, (before, after), strict=True))
            return [(f"[{key}]", first.get(key), second.get(key)) for key in dict.fromkeys((*first, *second))]
    # Nothing tells them apart (the requirements of a profile): those that are in both lists are left out.
    left = [(place, item) for place, item in enumerate(before) if item not in after]
    right = [item for item in after if item not in before]
    if len(left) != len(right):
        return None
    return [(f"[{place}]", item, other) for (place, item), other in zip(left, right, strict=True)]
