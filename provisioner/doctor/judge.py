"""Answers a condition for one host, with what was seen and what was not."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from provisioner.doctor.facts import FACTS
from provisioner.doctor.facts.cards import plugin_xids, xids
from provisioner.doctor.host import PLACES, Host, shown
from provisioner.doctor.mechanism import Condition, Mechanism
from provisioner.doctor.truth import NO, Evidence, Look, Truth, Verdict, both, either, neither
from provisioner.matrix.specifier import Answer, judge
from provisioner.model.capture import UNKNOWN
from provisioner.model.version import DottedVersion, Specifier
from provisioner.probe.request import DOCTOR, Request

_COMPARED = ("same_as", "differs_from", "older_than", "newer_than", "fewer_than")
# What doctor's own look leaves in a capture.
_OWN_LINES = (
    *(command.line for command in Request(DOCTOR).commands),
    *(f"ls -d {pattern}" for pattern in (*DOCTOR.listings, *(path for path in DOCTOR.files if "*" in path))),
    *(f"ls {folder}" for folder in DOCTOR.folders),
    *(f"readlink -f {path}" for path in DOCTOR.links),
)
_TELLING = set(_COMPARED[1:])


def verdict(condition: Condition, host: Host) -> Verdict:
    """Answer the condition; groups by Kleene's logic, single looks by what they must show."""
    if condition.all is not None:
        return both(verdict(part, host) for part in condition.all)
    if condition.any is not None:
        return either(verdict(part, host) for part in condition.any)
    if condition.none is not None:
        return neither(verdict(part, host) for part in condition.none)
    found = _single(condition, host)
    if found.truth is Truth.YES and _is_telling(condition):
        return Verdict(found.truth, found.evidence, found.missing, 1)
    return found


def of_mechanism(mechanism: Mechanism, host: Host) -> tuple[Verdict, bool]:
    """The mechanism's answer, and whether every exception could be looked at."""
    answer = verdict(mechanism.when, host)
    if answer.truth is Truth.NO or not mechanism.unless:
        return answer, True
    exceptions = either(verdict(part, host) for part in mechanism.unless)
    if exceptions.truth is Truth.YES:
        return NO, True
    return answer, exceptions.truth is Truth.NO


def _single(condition: Condition, host: Host) -> Verdict:
    if condition.fact is not None:
        return _fact(condition, host)
    if condition.said is not None:
        return _said(condition, host)
    if condition.exit is not None:
        return _exit(condition, host)
    if condition.xid is not None:
        return _xid(condition, host)
    return _host(condition, host)


def _is_telling(condition: Condition) -> bool:
    if condition.telling is not None:
        return condition.telling
    if condition.fact is not None:
        return bool(_TELLING & set(condition.operators))
    return condition.host is None


# Facts.


def _fact(condition: Condition, host: Host) -> Verdict:
    name = str(condition.fact)
    seen = FACTS[name].of(host)
    operator = condition.operators[0]
    wanted = getattr(condition, operator)
    if operator in _COMPARED:
        return _compared(name, operator, str(wanted), host)
    if seen.value is UNKNOWN:
        return _unseen(name)
    answer = _COMPARE[operator](seen.value, wanted)
    if answer is None:
        return _unseen(name)
    return Verdict(Truth.YES, seen.evidence) if answer else NO


def look_for(name: str) -> Look:
    """The look that a fact takes."""
    fact = FACTS[name]
    return Look(fact.words, fact.show, fact.asked)


def _unseen(*names: str) -> Verdict:
    return Verdict(Truth.UNSEEN, missing=tuple(look_for(name) for name in names))


def _compared(name: str, operator: str, other: str, host: Host) -> Verdict:
    """Two versions; one that is absent differs from nothing and is like nothing."""
    mine, theirs = FACTS[name].of(host), FACTS[other].of(host)
    values = [(fact, seen.value) for fact, seen in ((name, mine), (other, theirs))]
    if any(value is None or value == () for _, value in values):
        return NO
    unknown = [fact for fact, value in values if value is UNKNOWN]
    if unknown:
        return _unseen(*unknown)
    if isinstance(mine.value, tuple) or isinstance(theirs.value, tuple):
        left, right = _many(mine.value), _many(theirs.value)
        answer = bool(left & right) if operator == "same_as" else not left <= right
    elif operator in ("same_as", "differs_from"):
        answer = _alike(mine.value, theirs.value) is (operator == "same_as")
    else:
        a, b = _version(mine.value), _version(theirs.value)
        answer = a > b if operator == "newer_than" else a < b
    evidence = (*mine.evidence, *theirs.evidence)
    return Verdict(Truth.YES, evidence) if answer else NO


def _alike(one: Any, other: Any) -> bool:
    """`535.261.03` is `535.261.3`; words are alike when they are the same."""
    if str(one)[:1].isdecimal() and str(other)[:1].isdecimal():
        return _version(one) == _version(other)
    return str(one) == str(other)


def _many(value: Any) -> set[str]:
    return set(value) if isinstance(value, tuple) else {str(value)}


def _version(value: Any) -> DottedVersion:
    """Numbers as far as the text has them; what has none compares as 0."""
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", str(value))
    return DottedVersion(numbers[0] if numbers else "0")


def _is(value: Any, wanted: Any) -> bool | None:
    there = value is not None and value != ()
    if wanted == "present":
        return there
    if wanted == "absent":
        return not there
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return there and str(value) == str(wanted)


@lru_cache(maxsize=512)
def _set(text: str) -> Specifier[DottedVersion]:
    return Specifier.parse(text, DottedVersion)


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """Without regard to case; `^` and `$` are of a line.

    So is the blank space behind `^`: if it ran on into the next lines, a text of nothing but blank lines would take
    the square of its length.
    """
    return re.compile(pattern.replace(r"^\s*", r"^[^\S\n]*"), re.IGNORECASE | re.MULTILINE)


def _in_versions(value: Any, wanted: str) -> bool | None:
    if value is None:
        return False
    found = re.match(r"v?([0-9]+(?:\.[0-9]+)*)", str(value))
    return _set(wanted).allows(DottedVersion(found[1])) if found else None


def _matches(value: Any, wanted: str) -> bool | None:
    items = value if isinstance(value, tuple) else (value,)
    return any(item is not None and compiled(wanted).search(str(item)) for item in items)


def _number(value: Any) -> float | None:
    if isinstance(value, tuple):
        return float(len(value))
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _at_least(value: Any, wanted: float) -> bool | None:
    number = _number(value)
    return None if number is None and value is not None else number is not None and number >= wanted


def _below(value: Any, wanted: float) -> bool | None:
    number = _number(value)
    return None if number is None and value is not None else number is not None and number < wanted


_COMPARE: dict[str, Callable[[Any, Any], bool | None]] = {
    "is_": _is,
    "one_of": lambda value, wanted: any(
        str(one) in _many(value) if isinstance(value, tuple) else _is(value, one) for one in wanted
    ),
    "version": _in_versions,
    "matches": _matches,
    "contains": lambda value, wanted: value is not None and str(wanted) in _many(value),
    "lacks": lambda value, wanted: value is not None and str(wanted) not in _many(value),
    "at_least": _at_least,
    "below": _below,
}


# What was said, how it ended, Xids.


def _said(condition: Condition, host: Host) -> Verdict:
    places = _filled(condition.in_, host)
    pattern = _with_facts(str(condition.said), host)
    if pattern is not None:
        found = host.find(compiled(pattern), places)
        if found:
            label = "said"
            return Verdict(Truth.YES, tuple(shown(label, item.text, item.where, item.part) for item in found[:2]))
    heard = host.texts(places)
    asked = [place for place in places if place_look(place).asked]
    silent = bool(asked) and all(host.absent_place(place) for place in asked)
    open_end = any(place in PLACES and PLACES[place].open_end for place in places)
    if pattern is None or open_end or not (heard or silent):
        return Verdict(Truth.UNSEEN, missing=tuple(place_look(place) for place in _first_asked(places)))
    return NO


def _first_asked(places: tuple[str, ...]) -> tuple[str, ...]:
    """One place stands for all: one that doctor itself looks at, if there is any."""
    asked = [place for place in places if place_look(place).asked]
    return tuple(asked[:1]) or places[:1]


@lru_cache(maxsize=512)
def place_look(place: str) -> Look:
    """The look that would show what is said in a place."""
    if place in PLACES:
        return Look(PLACES[place].words, PLACES[place].show, PLACES[place].asked)
    if place.startswith("/"):
        return Look(place, f"cat {place}", any(fnmatchcase(path, place) or path == place for path in DOCTOR.files))
    own = next((line for line in _OWN_LINES if fnmatchcase(line, place)), None)
    line = own or place.replace("*", "…")
    return Look(f"what `{line[:40]}{'…' if len(line) > 40 else ''}` says", line, own is not None)


_FACT_IN_TEXT = re.compile(r"\{([a-z_.-]+)\}")


def _filled(places: tuple[str, ...], host: Host) -> tuple[str, ...]:
    return tuple(_FACT_IN_TEXT.sub(lambda match: fill_one(match[1], host), place) for place in places)


def _with_facts(pattern: str, host: Host) -> str | None:
    """`{kernel.running}` in a pattern stands for that text; None while the fact is not seen."""
    for name in _FACT_IN_TEXT.findall(pattern):
        value = FACTS[name].of(host).value if name in FACTS else UNKNOWN
        if value is UNKNOWN or value is None:
            return None
        pattern = pattern.replace("{" + name + "}", re.escape(str(value)))
    return pattern


def fill_one(name: str, host: Host) -> str:
    """The value of a fact as text; its name in angle brackets while it is not known."""
    value = FACTS[name].of(host).value if name in FACTS else UNKNOWN
    if value is UNKNOWN or value is None or value == ():
        return f"<{FACTS[name].words if name in FACTS else name}>"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def fill(text: str, host: Host) -> str:
    """Text with `{fact}` filled in."""
    return _FACT_IN_TEXT.sub(lambda match: fill_one(match[1], host) if match[1] in FACTS else match[0], text)


_HARMLESS = re.compile(r"[A-Za-z0-9][\w.+~:-]*")


def fill_command(text: str, host: Host) -> str:
    """A command with `{fact}` filled in, of a list the first; a value that a shell could mistake is not put in."""

    def word(match: re.Match[str]) -> str:
        if match[1] not in FACTS:
            return match[0]
        value = FACTS[match[1]].of(host).value
        first = value[0] if isinstance(value, tuple) and value else value
        return first if isinstance(first, str) and _HARMLESS.fullmatch(first) else match[1].upper().replace(".", "_")

    return _FACT_IN_TEXT.sub(word, text)


def _exit(condition: Condition, host: Host) -> Verdict:
    command = str(condition.of)
    if command == "nvidia-smi":
        seen = FACTS["nvidia-smi"].of(host)
        if seen.value is UNKNOWN:
            return _unseen("nvidia-smi")
        return Verdict(Truth.YES, seen.evidence) if seen.value in (condition.exit or ()) else NO
    ended = [(line, answer) for line, answer in host.capture.commands.items() if fnmatchcase(line, command)]
    if not ended:
        return Verdict(Truth.UNSEEN, missing=(place_look(command),))
    evidence: list[Evidence] = []
    for line, answer in ended:
        if answer.rc in (condition.exit or ()):
            text = (answer.stderr or answer.stdout).strip().splitlines()
            evidence.append(shown("exit", f"{answer.rc}: {text[0] if text else ''}", line))
    return Verdict(Truth.YES, tuple(evidence[:2])) if evidence else NO


def _xid(condition: Condition, host: Host) -> Verdict:
    events = xids(host)
    codes = condition.xid or ()
    told = [said for code, said in plugin_xids(host) if code in codes]
    if events is not None:
        per_card: dict[str, list[Evidence]] = {}
        for event in events:
            if event.root in codes:
                per_card.setdefault(event.card, []).append(shown("Xid", event.line, event.where))
        often = [rows for rows in per_card.values() if len(rows) >= condition.times]
        if often:
            return Verdict(Truth.YES, tuple(row for rows in often for row in rows[:2])[:4])
    if told and condition.times == 1:
        return Verdict(Truth.YES, tuple(shown("Xid", said.text, said.where) for said in told[:2]))
    if events is None:
        return Verdict(Truth.UNSEEN, missing=(place_look("kernel-log"),))
    return NO


# The requirement language.


def _situation(host: Host) -> dict[str, Any]:
    facts = {
        "driver": "driver.loaded",
        "modules": "driver.flavour",
        "kernel": "kernel.running",
        "docker": "docker.version",
        "containerd": "containerd.version",
        "toolkit": "toolkit.version",
        "cgroup_driver": "docker.cgroup_driver",
        "os": "os",
        "clock_skew_s": "clock.skew",
        "gpu.count": "cards.on_bus",
    }
    known = {key: FACTS[name].of(host).value for key, name in facts.items()}
    situation = {key: value for key, value in known.items() if value is not UNKNOWN and value is not None}
    if "kernel" in situation:
        situation["kernel"] = str(_version(situation["kernel"]))
    return situation


_SHOWN_BY = {
    "driver": "driver.loaded",
    "modules": "driver.flavour",
    "kernel": "kernel.running",
    "docker": "docker.version",
    "containerd": "containerd.version",
    "toolkit": "toolkit.version",
    "cgroup_driver": "docker.cgroup_driver",
    "os": "os",
    "clock_skew_s": "clock.skew",
    "gpu.count": "cards.on_bus",
}


def _host(condition: Condition, host: Host) -> Verdict:
    key = next(iter(condition.host or {}))
    answer = judge(condition.requirement, _situation(host)).answer
    name = _SHOWN_BY.get(key)
    if answer is Answer.UNKNOWN:
        absent = name is not None and FACTS[name].of(host).value is None
        if absent:
            return NO
        return _unseen(name) if name else Verdict(Truth.UNSEEN, missing=(Look(key, "provision facts", asked=False),))
    if answer is Answer.NO:
        return NO
    return Verdict(Truth.YES, FACTS[name].of(host).evidence if name else ())
