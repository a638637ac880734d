"""The schema of `matrix/failures/`: one mechanism of failure, how it shows, why it happens, what mends it, and proof.

docs/reference/failure-language.md describes the language; every field is validated here.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from provisioner.doctor.facts import FACTS
from provisioner.doctor.host import PLACES
from provisioner.doctor.parts import PARTS
from provisioner.matrix.specifier import KEYS, Claim, Confidence, Day, Frozen, Id, Requirement, Text
from provisioner.model.version import DottedVersion, Specifier

Certainty = Literal["certain", "likely", "possible"]
Level = Literal["down", "degraded", "risk", "notice"]

_OPERATORS = (
    "is_",
    "one_of",
    "version",
    "matches",
    "contains",
    "lacks",
    "at_least",
    "below",
    "same_as",
    "differs_from",
    "older_than",
    "newer_than",
    "fewer_than",
)
_PROGRAMS = ("nvidia-smi",)  # command lines of one word
_HEADS = ("all", "any", "none", "fact", "said", "exit", "xid", "host")


def _regex(value: Any) -> Any:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"'{value}' is no regular expression: {error}") from error
    return value


Regex = Annotated[str, BeforeValidator(_regex)]


def _part(value: Any) -> Any:
    if value not in PARTS:
        raise ValueError(f"a plan has no part '{value}'; it has {', '.join(PARTS)}")
    return value


Part = Annotated[str, BeforeValidator(_part)]


class Condition(Frozen):
    """One question to a capture. Exactly one head: a group of conditions, or one look with what it must show."""

    all: tuple[Condition, ...] | None = None
    any: tuple[Condition, ...] | None = None
    none: tuple[Condition, ...] | None = None
    fact: str | None = None
    """The name of a fact (docs/reference/failure-language.md lists them); needs one comparison."""
    is_: JsonValue = Field(None, alias="is")
    """`present`, `absent`, true, false, or a value."""
    one_of: tuple[JsonValue, ...] | None = None
    version: str | None = None
    """A set of versions, written as in the requirement language."""
    matches: Regex | None = None
    """A regular expression that the text, or one item of the list, matches."""
    contains: JsonValue = None
    lacks: JsonValue = None
    at_least: float | None = None
    below: float | None = None
    same_as: str | None = None
    differs_from: str | None = None
    older_than: str | None = None
    newer_than: str | None = None
    fewer_than: str | None = None
    said: Regex | None = None
    """A regular expression for one line, without regard to case."""
    in_: tuple[str, ...] = Field((), alias="in")
    """Where it is said: names of places (`kernel-log`), paths or command lines with stars."""
    exit: tuple[int, ...] | None = None
    """Exit codes of the command `of`."""
    of: str | None = None
    xid: tuple[int, ...] | None = None
    """Xid numbers, by root event."""
    times: int = 1
    """At least this many such events on one card, at different times."""
    host: dict[str, JsonValue] | None = None
    """One key of the requirement language with its value."""
    telling: bool | None = None
    """Whether this alone is a sign of trouble; by default what is said, exits, Xids and disagreements are."""

    @model_validator(mode="after")
    def _one_head(self) -> Condition:
        heads = [name for name in _HEADS if getattr(self, name) is not None]
        if len(heads) != 1:
            raise ValueError(f"a condition has exactly one of {', '.join(_HEADS)}; here: {', '.join(heads) or 'none'}")
        given = self.operators
        if heads[0] == "fact" and len(given) != 1:
            raise ValueError("a fact needs exactly one comparison, such as is, version or differs_from")
        if heads[0] != "fact" and given:
            raise ValueError(f"'{given[0].rstrip('_')}' stands beside a fact only")
        if heads[0] == "said" and not self.in_:
            raise ValueError("said needs `in`: where it is said")
        if heads[0] == "exit" and not self.of:
            raise ValueError("exit needs `of`: the command line it belongs to")
        for name in (self.fact, self.same_as, self.differs_from, self.older_than, self.newer_than, self.fewer_than):
            if name is not None and name not in FACTS:
                raise ValueError(f"there is no fact '{name}'")
        for place in self.in_:
            if place not in PLACES and place not in _PROGRAMS and not any(sign in place for sign in "* /"):
                raise ValueError(f"'{place}' is no place, path or command line")
        if self.version is not None and Specifier.parse(self.version, DottedVersion).is_empty():
            raise ValueError("version: no version satisfies this specifier")
        if self.host is not None:
            if len(self.host) != 1 or next(iter(self.host)) not in KEYS:
                raise ValueError("host takes exactly one key of the requirement language")
            _ = self.requirement
        return self

    @cached_property
    def operators(self) -> tuple[str, ...]:
        return tuple(name for name in _OPERATORS if name in self.model_fields_set)

    @cached_property
    def requirement(self) -> Requirement:
        """The item of the requirement language that `host` is."""
        return Requirement.model_validate({**(self.host or {}), "because": "a mechanism asks for it"})

    @property
    def parts(self) -> tuple[Condition, ...]:
        return self.all or self.any or self.none or ()


class Cost(Frozen):
    """What the fault costs while it lasts."""

    level: Level
    """down: nothing is earned; degraded: part of it; risk: the next boot or change will cost; notice: nothing yet."""
    words: Text


class Step(Frozen):
    """One step of a repair; `{fact}` in it is filled in from the host."""

    do: Text
    run: Text | None = None
    """The command to type, where there is one."""


class Repair(Frozen):
    """What mends it, and what that costs."""

    where: Literal["host", "console", "hardware", "firmware", "network", "container"]
    plan: Part | None = None
    """The part of a plan that mends it: `provision doctor --fix` then goes through plan and apply."""
    steps: tuple[Step, ...] = Field(min_length=1)
    drain: Literal["yes", "no", "that card", "containers"]
    reboot: Literal["yes", "no", "maybe", "cold"]
    minutes: int = Field(ge=0, le=1440)
    """Minutes not serving, as a rule of thumb."""


class Output(Frozen):
    """What a command gave, in a proof."""

    rc: int = 0
    stdout: str = ""
    stderr: str = ""


class Proof(Frozen):
    """A small capture; a text in place of an output is standard output of a command that ended with 0."""

    title: Text
    files: dict[str, str | None] = Field(default_factory=dict)
    commands: dict[str, str | Output] = Field(default_factory=dict)
    nvml: dict[str, JsonValue] | None = None


class Proofs(Frozen):
    """Captures on which the mechanism must hold, and near ones on which it must not."""

    match: tuple[Proof, ...] = Field(min_length=1)
    no_match: tuple[Proof, ...] = Field(min_length=1)


class Mechanism(Claim):
    """One mechanism of failure (`failures/module-and-library-differ.yaml`)."""

    id: Id
    title: Text
    short: Text | None = None
    """How it reads among the consequences of another finding."""
    area: Literal[
        "driver",
        "kernel",
        "packages",
        "container",
        "cdi",
        "kubernetes",
        "gpu",
        "pcie",
        "fabric",
        "network",
        "machine",
        "client",
    ]
    kind: Literal["cause", "symptom"] = "cause"
    """A symptom is shown as a finding only while no cause that explains it was found."""
    certainty: Certainty
    """How sure the cause is when the conditions hold."""
    costs: Cost
    when: Condition
    unless: tuple[Condition, ...] = ()
    """Exceptions. One that is seen rules the mechanism out; one that could not be seen makes it less sure."""
    supports: tuple[Condition, ...] = ()
    """What strengthens the finding and belongs to its evidence, but is not needed."""
    covers: tuple[Id, ...] = ()
    """More general mechanisms that this one states more exactly: they are not shown beside it."""
    explains: tuple[Id, ...] = ()
    """What follows from it: shown as consequences, not as findings."""
    ahead: Literal["stop", "warn"] | None = None
    """What a plan does when it would hold once the plan is done: refuse the change, or say so even if it holds now."""
    looks_like: tuple[Text, ...] = ()
    """What else looks like it, and what tells them apart."""
    cause: Text
    prevention: tuple[Text, ...] = Field(min_length=1)
    repair: Repair
    seen: Day
    confidence: Confidence
    proof: Proofs
