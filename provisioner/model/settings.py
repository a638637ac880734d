"""What two owners write into one JSON file: merged key by key, compared, and told apart from what stood there once."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue

Values = Mapping[str, JsonValue]


def merged(theirs: Values, ours: Values) -> dict[str, JsonValue]:
    """Return `theirs` with all of `ours` in it; mappings are merged, lists of options by the name before the `=`.

    >>> merged({"runtimes": {"a": {}}}, {"runtimes": {"b": {}}})  # both runtimes
    """
    found = dict(theirs)
    for key, value in ours.items():
        before = found.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            found[key] = merged(before, value)
        elif _options(value) and _options(before):
            found[key] = _with_options(before, value)
        else:
            found[key] = value
    return found


def lacking(theirs: Values, ours: Values, above: str = "") -> tuple[str, ...]:
    """Return the keys of `ours` that `theirs` does not have just so, as `runtimes.nvidia.path`."""
    found: list[str] = []
    for key, value in ours.items():
        name = f"{above}{key}"
        before = theirs.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            found += lacking(before, value, f"{name}.")
        elif _options(value) and _options(before):
            found += [name] if _with_options(before, value) != before else []
        elif key not in theirs or before != value:
            found.append(name)
    return tuple(sorted(found))


def at(values: Values, name: str) -> JsonValue:
    """Return what stands at `runtimes.nvidia.path`; None where nothing does."""
    value: JsonValue = dict(values)
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def told(keys: tuple[str, ...], *, wrote: Values | None, there: Values, wanted: Values) -> tuple[str, ...]:
    """Return a line for each key that somebody changed since we wrote it: what was written, is there, is wanted."""
    if wrote is None:
        return ()
    return tuple(
        f"{key}: provision wrote {_shown(at(wrote, key))}, {_shown(at(there, key))} stands there now, "
        f"{_shown(at(wanted, key))} is wanted"
        for key in keys
        if at(wrote, key) is not None and at(wrote, key) != at(there, key)
    )


def _shown(value: JsonValue) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _options(value: JsonValue) -> bool:
    """`["native.cgroupdriver=systemd"]`, and the empty list."""
    return isinstance(value, list) and all(isinstance(item, str) and "=" in item for item in value)


def _with_options(before: JsonValue, value: JsonValue) -> JsonValue:
    assert isinstance(before, list)
    assert isinstance(value, list)
    named = {str(item).partition("=")[0]: item for item in value}
    kept = [named.pop(str(item).partition("=")[0], item) for item in before]
    return [*kept, *named.values()]
