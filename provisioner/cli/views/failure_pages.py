"""Markdown of the mechanisms of failure and of their language: docs/failures/ and a reference page are these texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from provisioner.doctor.facts import FACTS
from provisioner.doctor.host import PLACES
from provisioner.doctor.mechanism import Condition, Mechanism
from provisioner.doctor.parts import PARTS

_AREAS = {
    "driver": "The driver",
    "kernel": "Kernels and their modules",
    "packages": "Packages",
    "container": "Containers",
    "cdi": "CDI",
    "kubernetes": "Clusters",
    "gpu": "The cards",
    "pcie": "The bus",
    "fabric": "Links between cards",
    "network": "The network",
    "machine": "The machine",
    "client": "Networks and their clients",
}
_HEAD = """\
# What can be wrong with a host

Written by `provision matrix failures --pages docs/failures` from `matrix/failures/`; don't edit it by hand.

`provision doctor` holds each of these mechanisms against a host. A *symptom* is shown only while no cause of it
is found.
"""
_REPAIR = {
    "host": "on the host",
    "console": "at the console, with somebody there",
    "hardware": "at the machine",
    "firmware": "in the settings of the board's firmware",
    "network": "in the network",
    "container": "with the containers",
}


def pages(mechanisms: Mapping[str, Mechanism]) -> dict[str, str]:
    """A page for each mechanism by its file name, and README.md that lists them."""
    found = {f"{name}.md": page(mechanism, mechanisms) for name, mechanism in sorted(mechanisms.items())}
    return {"README.md": _index(mechanisms), **found}


def _index(mechanisms: Mapping[str, Mechanism]) -> str:
    lines = [_HEAD]
    for area, title in _AREAS.items():
        mine = [(name, item) for name, item in sorted(mechanisms.items()) if item.area == area]
        if mine:
            lines += [f"## {title}\n", "| | costs while it lasts | |", "| --- | --- | --- |"]
            lines += [f"| [{item.title}]({name}.md) | {item.costs.words} | {item.kind} |" for name, item in mine]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def page(mechanism: Mechanism, mechanisms: Mapping[str, Mechanism]) -> str:
    """What it looks like, why it happens, what to do."""
    return "\n".join(_page(mechanism, mechanisms)).rstrip() + "\n"


def _page(mechanism: Mechanism, mechanisms: Mapping[str, Mechanism]) -> Iterator[str]:
    repair = mechanism.repair
    yield f"# {mechanism.title}\n"
    costs = f"{mechanism.costs.level}: {mechanism.costs.words}"
    yield f"`{mechanism.id}` · {mechanism.kind} · {mechanism.certainty} when it shows · {costs}\n"
    yield "## What it looks like\n"
    yield from _condition(mechanism.when, 0)
    if mechanism.unless:
        yield "\nUnless\n"
        for part in mechanism.unless:
            yield from _condition(part, 0)
    if mechanism.supports:
        yield "\nIt is the surer, and part of its evidence\n"
        for part in mechanism.supports:
            yield from _condition(part, 0)
    if mechanism.looks_like:
        yield "\nWhat looks like it:\n"
        yield from (f"- {text}" for text in mechanism.looks_like)
    yield "\n## Why\n"
    yield _placeholders(mechanism.cause) + "\n"
    for title, names in (("What follows from it", mechanism.explains), ("It is a closer look at", mechanism.covers)):
        if names:
            yield f"{title}: " + ", ".join(f"[{mechanisms[name].title}]({name}.md)" for name in names) + ".\n"
    yield "## What to do\n"
    for number, step in enumerate(repair.steps, 1):
        yield f"{number}. {_placeholders(step.do)}"
        if step.run:
            yield f"   ```sh\n   {_placeholders(step.run)}\n   ```"
    yield ""
    yield f"{_costs(mechanism)}\n"
    yield "## So that it does not come back\n"
    yield from (f"- {text}" for text in mechanism.prevention)
    yield "\n## Sources\n"
    yield from (f"- {source}" for source in mechanism.sources)
    yield f"\nRead {mechanism.seen}; confidence {mechanism.confidence}."


def _costs(mechanism: Mechanism) -> str:
    repair = mechanism.repair
    drain = {"yes": "Drain first", "no": "No drain", "that card": "Drain that card", "containers": "Containers stop"}
    boot = {"yes": "reboot", "no": "no reboot", "maybe": "perhaps a reboot", "cold": "power off and on"}
    time = f"about {repair.minutes} minutes not serving" if repair.minutes else "serving all along"
    plan = f" `provision doctor --fix` mends it by a plan (`{repair.plan}`)." if repair.plan else ""
    ahead = {None: "", "warn": " A plan warns of it.", "stop": " A plan that would end in it is refused."}
    return (
        f"{drain[repair.drain]}, {boot[repair.reboot]}, {time}; {_REPAIR[repair.where]}.{plan}{ahead[mechanism.ahead]}"
    )


def _placeholders(text: str) -> str:
    """`{driver.loaded}` reads as what the fact is."""
    for name, fact in FACTS.items():
        text = text.replace("{" + name + "}", f"<{fact.words}>")
    return text


def _condition(condition: Condition, depth: int) -> Iterator[str]:
    indent = "  " * depth
    groups = {"all": "all of", "any": "one of", "none": "none of"}
    for head, words in groups.items():
        parts = getattr(condition, head)
        if parts is not None:
            yield f"{indent}- {words}"
            for part in parts:
                yield from _condition(part, depth + 1)
            return
    yield f"{indent}- {_sentence(condition)}"


_WORDS = {
    "same_as": "is of the same version as",
    "differs_from": "differs from",
    "older_than": "is older than",
    "newer_than": "is newer than",
    "fewer_than": "is less than",
    "version": "is in",
    "matches": "matches",
    "contains": "has",
    "lacks": "lacks",
    "at_least": "is at least",
    "below": "is below",
    "one_of": "is one of",
    "is_": "is",
}


def _sentence(condition: Condition) -> str:
    if condition.fact is not None:
        fact = FACTS[condition.fact]
        operator = condition.operators[0]
        value = getattr(condition, operator)
        if fact.kind == "truth" and isinstance(value, bool):
            return f"{fact.words.removeprefix('whether ')}: {'yes' if value else 'no'}"
        if operator in ("same_as", "differs_from", "older_than", "newer_than", "fewer_than"):
            value = FACTS[str(value)].words
        elif operator == "one_of":
            value = ", ".join(_value(item) for item in value)
        else:
            value = _value(value)
        return f"{fact.words} {_WORDS[operator]} {value}"
    if condition.said is not None:
        places = ", ".join(PLACES[place].words if place in PLACES else f"`{place}`" for place in condition.in_)
        return f"said in {places}: `{condition.said}`".replace("|", "\\|")
    if condition.exit is not None:
        return f"`{condition.of}` ends with {' or '.join(map(str, condition.exit))}"
    if condition.xid is not None:
        often = f", at least {condition.times} times on one card" if condition.times > 1 else ""
        return f"Xid {', '.join(map(str, condition.xid))}{often}"
    key, value = next(iter((condition.host or {}).items()))
    return f"`{key}: {value}`"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value in ("present", "absent"):
        return "there" if value == "present" else "not there"
    if isinstance(value, float):
        return f"{value:g}"
    return f"`{value}`"


_LANGUAGE = """\
# The language of failures

Written by `provision matrix failures --language` (`provisioner/cli/views/failure_pages.py`); don't edit it by hand.

A file of `matrix/failures/` says how one mechanism of failure shows, why it happens and what mends it. It recognises
*evidence*: a loaded module that differs from the library, a CDI spec that names files that are gone, a default runtime
that vanished from `daemon.json`. A sentence of some program is evidence too, but written as an expression that other
versions and wordings meet as well.

```yaml
id: module-and-library-differ            # the name of the file
title: The driver in the kernel and its libraries are of different versions
area: driver
kind: cause                              # or symptom: shown only while no cause of it is found
certainty: certain                       # certain, likely, possible: how sure the cause is when `when` holds
costs: {level: down, words: every new GPU process fails}
when:                                    # must hold
  all:
    - {fact: driver.loaded, differs_from: driver.library}
unless: []                               # exceptions: one that is seen rules it out, one not seen makes it less sure
supports: []                             # strengthens it and belongs to its evidence
covers: []                               # more general mechanisms that it states more exactly
explains: [smi-version-mismatch]         # what follows from it
ahead: warn                              # or stop: what a plan does when it would hold once the plan is done
looks_like: []                           # what else looks like it, and what tells them apart
cause: Two sentences. {driver.loaded} is filled in from the host.
prevention: []
repair: {where: host, plan: driver, steps: [{do: …, run: …}], drain: "yes", reboot: maybe, minutes: 3}
sources: []
seen: "2026-11-24"
confidence: high
proof: {match: [{title: …, files: {}, commands: {}}], no_match: [{title: …}]}
```

`provision matrix lint` runs every proof.

## Three answers

A condition is **yes**, **no** or **not seen**. All of several: one *no* decides, else one *not seen*. One of several:
one *yes* decides, else one *not seen*. What is not seen is never taken for absent, and a mechanism that is open is no
finding: it is named as what may be, with the command that would settle it.

`unless` is the one place where not seen counts as *no*; the finding is then called likely instead of certain.

## Conditions

| Key | Holds when |
| --- | --- |
| `all`, `any`, `none` | all, at least one, none of the conditions below it hold |
| `fact` with `is` | the fact is this value; `present` and `absent` are words of the language, as in requirements |
| … `one_of`, `contains`, `lacks` | it is one of these; the list has it or lacks it |
| … `version` | it is in this set of versions, written as in the [requirement language](requirement-language.md) |
| … `matches` | the text, or an item of the list, matches the expression |
| … `at_least`, `below` | the number (of a list: how many) is |
| … `same_as`, `differs_from`, `older_than`, `newer_than`, `fewer_than` | so it compares with another fact |
| `said` with `in` | a line in one of these places matches the expression, without regard to case |
| `exit` with `of` | the command ended with one of these codes; of `nvidia-smi`, NVML's own error counts as its code |
| `xid` with `times` | the kernel's log has one of these Xids, by root event, so often on one card |
| `host` | one item of the requirement language holds, such as `{toolkit: "<1.18.2"}` |

`in` takes places from the table below, paths and command lines; both may have stars. `{kernel.running}` in an
expression stands for that text.

## Findings

What holds is folded: what a more exact mechanism `covers` is not shown beside it, what it `explains` becomes its
consequence, through others too. What is left is ordered by how sure it is times what it costs.

## Mending and looking ahead

`repair.plan` names the part of a plan that mends it (table below). `provision doctor --fix` goes that way when the
host's plan has such a change and the mechanism would not hold once the plan is done; else it explains the steps.

Every plan that changes something is held against all mechanisms, on the state that it leads to. What would be new is
told. `ahead: warn` has it told even when it is so already, `ahead: stop` has the plan refused.
"""


def language_page() -> str:
    """The reference: the words of the language, every fact, every place."""
    parts = [f"| `{name}` | `{'`, `'.join(patterns)}` |" for name, patterns in PARTS.items()]
    lines = [_LANGUAGE, "| Part | Changes of a plan |", "| --- | --- |", *parts, ""]
    lines += ["## Facts\n", "| Fact | Kind | What it is | Shown by |", "| --- | --- | --- | --- |"]
    for name, fact in sorted(FACTS.items()):
        shown = fact.show.replace("|", "\\|")
        lines.append(f"| `{name}` | {fact.kind} | {fact.words}{'' if fact.asked else ' ¹'} | `{shown}` |")
    lines += ["\n¹ Doctor does not look there itself; a capture may have it.\n"]
    lines += ["## Places\n", "| Place | What is said there | Shown by |", "| --- | --- | --- |"]
    for name, place in PLACES.items():
        lines.append(f"| `{name}` | {place.words} | `{place.show}` |")
    return "\n".join(lines) + "\n"
