"""Mechanisms held against one host: findings with their consequences, suspicions, and what was not seen.

Theory: every mechanism gets a three-valued answer. Those that hold are folded: what a more exact one covers is not
shown beside it, what it explains becomes its consequence, transitively, also through mechanisms that could not be
seen. What is left are the findings, ordered by expected cost: how sure the cause is times what it costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from provisioner.doctor.agreement import Chain, agreement, count_chain
from provisioner.doctor.facts import FACTS
from provisioner.doctor.host import PLACES, Host
from provisioner.doctor.judge import fill, fill_command, look_for, of_mechanism, place_look, verdict
from provisioner.doctor.mechanism import Certainty, Mechanism
from provisioner.doctor.truth import Evidence, Look, Truth, Verdict
from provisioner.model.capture import UNKNOWN, Capture

if TYPE_CHECKING:
    from provisioner.matrix.reader import Matrix

_SURE = {"certain": 1.0, "likely": 0.75, "possible": 0.35}
_COST = {"down": 100.0, "degraded": 45.0, "risk": 15.0, "notice": 3.0}
_SYMPTOM = 0.4  # a cause is worth more than what it shows as
_SUPPORT = 0.04

BASELINE = "baseline.day"

# What a diagnosis should have seen before it calls a host healthy.
_CORE = (
    "kernel.running",
    "cards.on_bus",
    "driver.loaded",
    "driver.library",
    "driver.on_disk",
    "nvidia-smi",
    "driver.packaged",
    "packages.broken",
    "disk.free",
    "units.failed",
)


@dataclass(frozen=True)
class Step:
    """One step of a repair, with this host's values filled in."""

    do: str
    run: str | None


@dataclass(frozen=True)
class Consequence:
    """What follows from a finding."""

    id: str
    words: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Finding:
    """A mechanism that holds on this host, with the evidence as seen here."""

    mechanism: Mechanism
    certainty: Certainty
    score: float
    evidence: tuple[Evidence, ...]
    cause: str
    steps: tuple[Step, ...]
    follows: tuple[Consequence, ...]
    covers: tuple[str, ...]
    may_come_from: tuple[Suspicion, ...] = ()


@dataclass(frozen=True)
class Suspicion:
    """A mechanism that may hold: what was seen of it, and what would settle it."""

    mechanism: Mechanism
    evidence: tuple[Evidence, ...]
    missing: tuple[Look, ...]


State = Literal["found", "incomplete", "clean"]


@dataclass(frozen=True)
class Diagnosis:
    """All that doctor has to say of one host."""

    host: str
    findings: tuple[Finding, ...]
    suspicions: tuple[Suspicion, ...]
    not_seen: tuple[Look, ...]
    agreement: Chain
    counts: Chain
    baseline: str | None = None
    """The day on which the cards were noted for later looks; None: never, or not seen."""

    @property
    def state(self) -> State:
        """`clean` needs everything that matters to have been seen."""
        if self.findings:
            return "found"
        return "incomplete" if self.suspicions or any(look.asked for look in self.not_seen) else "clean"

    @property
    def serious(self) -> bool:
        """Whether anything costs now or at the next change."""
        return any(finding.mechanism.costs.level != "notice" for finding in self.findings)


class Catalogue:
    """The mechanisms with what each reaches, worked out once for all hosts."""

    def __init__(self, mechanisms: Mapping[str, Mechanism], matrix: Matrix | None = None) -> None:
        self.mechanisms = mechanisms
        self.matrix = matrix
        self.reach = {name: _closure(name, mechanisms, ("covers", "explains")) for name in mechanisms}
        self.covered = {name: _closure(name, mechanisms, ("covers",)) for name in mechanisms}


def diagnose(capture: Capture, catalogue: Catalogue) -> Diagnosis:
    """Hold every mechanism against the capture."""
    mechanisms, reach = catalogue.mechanisms, catalogue.reach
    host = Host(capture, catalogue.matrix)
    judged = {name: of_mechanism(mechanism, host) for name, mechanism in mechanisms.items()}
    answers = {name: answer for name, (answer, _) in judged.items()}
    unsure = {name for name, (_, sure) in judged.items() if not sure}
    holding = [name for name, answer in answers.items() if answer.truth is Truth.YES]
    roots = [name for name in holding if not any(name in reach[other] for other in holding if other != name)]
    open_ones = {
        name: answer
        for name, answer in answers.items()
        if answer.truth is Truth.UNSEEN and not _reached(name, roots, reach)
    }
    findings = [_finding(name, catalogue, answers, holding, open_ones, unsure, host) for name in roots]
    findings.sort(key=lambda finding: (-finding.score, finding.mechanism.id))
    # What a cause that was found explains already needs no second one.
    explained = {one for finding in findings for one in (*finding.covers, *(item.id for item in finding.follows))}
    told = {item.mechanism.id for finding in findings for item in finding.may_come_from}
    suspicions = [
        Suspicion(mechanisms[name], answer.evidence, answer.missing)
        for name, answer in open_ones.items()
        if answer.telling and name not in told and mechanisms[name].kind == "cause" and not (reach[name] & explained)
    ]
    suspicions.sort(key=lambda item: (-score(item.mechanism), item.mechanism.id))
    return Diagnosis(
        host=capture.host,
        findings=tuple(findings),
        suspicions=tuple(suspicions),
        not_seen=tuple(dict.fromkeys(_not_seen(host, open_ones))),
        agreement=agreement(host),
        counts=count_chain(host),
        baseline=_text(FACTS[BASELINE].of(host).value),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def score(mechanism: Mechanism) -> float:
    """How sure times how dear; a symptom counts less than a cause."""
    return _SURE[mechanism.certainty] * _weight(mechanism)


def _weight(mechanism: Mechanism) -> float:
    return _COST[mechanism.costs.level] * (_SYMPTOM if mechanism.kind == "symptom" else 1.0)


def _closure(name: str, mechanisms: Mapping[str, Mechanism], fields: tuple[str, ...]) -> frozenset[str]:
    """Everything that `name` covers (or explains), through others too; never itself."""
    found: set[str] = set()
    todo = [name]
    while todo:
        here = mechanisms[todo.pop()]
        for other in (other for field in fields for other in getattr(here, field)):
            if other not in found and other in mechanisms:
                found.add(other)
                todo.append(other)
    return frozenset(found - {name})


def _reached(name: str, roots: Iterable[str], reach: Mapping[str, frozenset[str]]) -> bool:
    return any(name in reach[root] for root in roots)


def _finding(
    name: str,
    catalogue: Catalogue,
    answers: Mapping[str, Verdict],
    holding: list[str],
    open_ones: Mapping[str, Verdict],
    unsure: set[str],
    host: Host,
) -> Finding:
    mechanisms = catalogue.mechanisms
    mechanism = mechanisms[name]
    certainty: Certainty = "likely" if name in unsure and mechanism.certainty == "certain" else mechanism.certainty
    below = [other for other in holding if other in catalogue.reach[name]]
    covered = catalogue.covered[name]
    supports = [answer for answer in (verdict(part, host) for part in mechanism.supports) if answer.truth is Truth.YES]
    evidence = dict.fromkeys(
        item
        for answer in (answers[name], *supports, *(answers[other] for other in below if other in covered))
        for item in answer.evidence
    )
    follows = [other for other in below if other not in covered]
    causes = sorted(
        (
            other
            for other, answer in open_ones.items()
            if name in catalogue.reach[other] and mechanisms[other].kind == "cause"
        ),
        key=lambda other: (-open_ones[other].telling, -score(mechanisms[other]), other),
    )
    return Finding(
        mechanism=mechanism,
        certainty=certainty,
        score=_SURE[certainty] * _weight(mechanism) * (1 + _SUPPORT * len(supports)),
        evidence=tuple(evidence),
        cause=fill(mechanism.cause, host),
        steps=tuple(
            Step(fill(step.do, host), fill_command(step.run, host) if step.run else None)
            for step in mechanism.repair.steps
        ),
        follows=tuple(
            Consequence(other, mechanisms[other].short or mechanisms[other].title, answers[other].evidence)
            for other in follows
        ),
        covers=tuple(other for other in below if other in covered),
        may_come_from=tuple(
            Suspicion(mechanisms[other], open_ones[other].evidence, open_ones[other].missing) for other in causes
        ),
    )


def _not_seen(host: Host, open_ones: Mapping[str, Verdict]) -> Iterable[Look]:
    """Looks that a clean bill needs: what every look should have, and what would settle a mechanism that is open."""
    for name in _CORE:
        if FACTS[name].of(host).value is UNKNOWN:
            yield look_for(name)
    for place in ("kernel-log", "past-xids"):
        if not host.texts((place,)):
            yield place_look(place)
    silent = host.nvml is not UNKNOWN and host.nvml.error is not None  # then what NVML would tell is no secret of ours
    for answer in open_ones.values():
        yield from (
            look for look in answer.missing if look.asked and not (silent and look.show.startswith("nvidia-smi"))
        )
    if FACTS["kubernetes"].of(host).value is True and FACTS["cards.advertised"].of(host).value is UNKNOWN:
        yield look_for("cards.advertised")
    tried = ["apt", "anywhere"]
    if FACTS["docker.version"].of(host).value is not None:
        tried.insert(0, "containers")
    for name in tried:
        if PLACES[name].open_end or not any(not line.startswith("journalctl") for line, _ in host.texts((name,))):
            yield place_look(name)
