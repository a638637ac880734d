"""Unknown is not absent: a capture that shows less never makes a fact say something else, only less."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from provisioner import facts
from provisioner.model.capture import UNKNOWN, Capture
from tests.facts.hosts import NAMES, recorded

# With whom unknown has another spelling: an architecture is empty, a list of patterns tells what was looked at.
OTHERWISE = {"os.architecture": ("",), "package_patterns": ((),), "units": (), "packages": ()}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Facts by their dotted place."""
    if not is_dataclass(value):
        return {path: value}
    found: dict[str, Any] = {}
    for field in fields(value):
        found |= flat(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    return found


def weakened(before: Any, after: Any) -> bool:
    """Whether `after` says the same as `before` or less, looking into lists of values with unknown parts."""
    if after is UNKNOWN or after == before:
        return True
    if is_dataclass(before) and type(before) is type(after):
        return all(weakened(getattr(before, f.name), getattr(after, f.name)) for f in fields(before))
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        return all(weakened(a, b) for a, b in zip(before, after, strict=True))
    return False


def changed(whole: Capture, less: Capture) -> list[str]:
    """Places where the facts of `less` contradict those of `whole`."""
    before, after = flat(facts.read(whole)), flat(facts.read(less))
    wrong = []
    for place, value in before.items():
        parents = [place.rpartition(".")[0]] if "." in place else []
        if any(after.get(parent) is UNKNOWN for parent in parents):
            continue
        now = after.get(place, UNKNOWN)
        if not weakened(value, now) and now not in OTHERWISE.get(place, ()):
            wrong.append(f"{place}: {str(value)[:200]} became {str(now)[:200]}")
    return wrong


@pytest.mark.parametrize("name", NAMES)
def test_capture_that_shows_less_contradicts_nothing(name: str) -> None:
    """Each file and each command is taken away once; whatever changes becomes unknown."""
    whole = recorded(name)
    wrong = {}
    for key in whole.files:
        less = whole.model_copy(update={"files": {path: text for path, text in whole.files.items() if path != key}})
        wrong[key] = changed(whole, less)
    for key in whole.commands:
        rest = {line: output for line, output in whole.commands.items() if line != key}
        # A list of held packages is a second source for what dpkg's status letters say; without it less is held.
        if key != "apt-mark showhold":
            wrong[key] = changed(whole, whole.model_copy(update={"commands": rest}))
    wrong["nvml"] = changed(whole, whole.model_copy(update={"nvml": None}))

    assert {key: lines for key, lines in wrong.items() if lines} == {}


def test_empty_capture_knows_nothing() -> None:
    """Without files and commands every fact is unknown."""
    empty = recorded(NAMES[0]).model_copy(update={"files": {}, "commands": {}, "nvml": None})

    found = flat(facts.read(empty))

    assert {place for place, value in found.items() if value is not UNKNOWN} == {"host", "taken_at", "package_patterns"}
    assert found["package_patterns"] == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", ["", "\x00\x1b[31m\ufffd", "a" * 3000, "\n\n=\n:\t\t\t\n{[", "= = =\n0x\n"])
def test_odd_text_never_raises(name: str, noise: str) -> None:
    """Whatever a broken host prints in place of its answers, facts come out."""
    whole = recorded(name)
    spoiled = whole.model_copy(
        update={
            "files": dict.fromkeys(whole.files, noise),
            "commands": {line: out.model_copy(update={"stdout": noise}) for line, out in whole.commands.items()},
            "nvml": {"devices": noise, "driver_version": 5, "error": None, "cuda_driver_version": noise},
        }
    )

    assert facts.read(spoiled).host == whole.host
