"""`why`: the answer for one value on one host. Chosen, or it would fit, or every minimal reason why it can't be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from provisioner.matrix.entries import Network
from provisioner.matrix.reader import Matrix
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import Choice, HostLock
from provisioner.model.version import CudaVersion, DottedVersion, DriverVersion
from provisioner.resolve import reasons
from provisioner.resolve.conflict import Claim, Conflict, Falls, Reason, Repair, Source, entry, from_host
from provisioner.resolve.container_reasons import engine_first
from provisioner.resolve.containers import TOOLKIT_ID
from provisioner.resolve.host import (
    Driver,
    Host,
    below_floor,
    is_backport,
    past_end_of_life,
    prepare,
    today,
    unseen,
    upstream,
)
from provisioner.resolve.options import versioned_client
from provisioner.resolve.problem import Model, build
from provisioner.resolve.question import Question, posed, subject
from provisioner.resolve.repairs import repairs
from provisioner.resolve.resolver import MOST_CONFLICTS, lock_of, stack_of
from provisioner.resolve.rules import DRIVER, FIRST_NETWORK, RUNTIME, TOOLKIT
from provisioner.resolve.solver import best, refute

Verdict = Literal["chosen", "possible", "impossible", "not-seen"]


@dataclass(frozen=True)
class Answer:
    """What is true of one value.

    `now` is the stack that the host gets by itself (None: it has none), `stack` the one with the value. `choices` say
    why a chosen value is chosen, `because` why a possible one is not, `conflicts` why an impossible one can't be.
    `background` are claims about the value itself that every reason rests on.
    """

    host: str
    question: Question
    subject: str
    verdict: Verdict
    now: HostLock | None = None
    choices: tuple[tuple[str, Choice], ...] = ()
    because: tuple[Claim, ...] = ()
    stack: HostLock | None = None
    background: tuple[Claim, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    complete: bool = True
    repairs: tuple[Repair, ...] = ()
    unseen: tuple[str, ...] = ()


def why(facts: HostFacts, intent: Intent, matrix: Matrix, question: Question) -> Answer:
    """Return the answer for one value. Pure, as `solve` is."""
    about = subject(question, matrix)
    missing = unseen(facts)
    if missing:
        return Answer(facts.host, question, about, "not-seen", unseen=missing)
    host = prepare(facts, matrix)
    model = build(host, intent, matrix)
    solution = best(model.problem)
    now = None if solution is None else lock_of(model, solution, matrix)
    wanted = posed(intent, question)
    if now is not None and wanted == intent and _holds(now, question):
        return Answer(facts.host, question, about, "chosen", now, choices=_choices(now, question), stack=now)
    with_it = build(host, wanted, matrix, asked=question)
    found = best(with_it.problem)
    if found is not None:
        # Of another request it can't be said that what is chosen for this one comes first: it might not.
        because = (
            _preferred(model, solution, with_it, found, question, matrix)
            if wanted == intent
            else _request(intent, wanted, question, matrix)
        )
        stack = lock_of(with_it, found, matrix)
        return Answer(facts.host, question, about, "possible", now, because=because, stack=stack)
    with_it = build(host, wanted, matrix, beside="telling", asked=question)
    refutation = refute(with_it.problem)
    conflicts = tuple(reasons.conflict(with_it, numbers) for numbers in refutation.conflicts[:MOST_CONFLICTS])
    return Answer(
        facts.host,
        question,
        about,
        "impossible",
        now,
        because=_request(intent, wanted, question, matrix),
        background=_background(question, matrix, conflicts),
        conflicts=tuple(_without_the_question(conflict) for conflict in conflicts),
        complete=refutation.complete and len(refutation.conflicts) <= MOST_CONFLICTS,
        repairs=repairs(host, wanted, matrix, conflicts, lambda h, i: _attempt(h, i, matrix, question)),
    )


def _attempt(host: Host, intent: Intent, matrix: Matrix, question: Question) -> HostLock | None:
    """What a repair is tried with: it must keep what was asked about."""
    return stack_of(host, intent, matrix, question) if posed(intent, question) == intent else None


def _holds(lock: HostLock, question: Question) -> bool:
    if (drivers := question.drivers) is not None:
        return lock.driver_version is not None and drivers.allows(DriverVersion(lock.driver_version.value))
    if (level := question.level) is not None:
        return lock.cuda is not None and CudaVersion(lock.cuda.value) >= level
    if question.variable == "modules":
        return lock.modules is not None and lock.modules.value == question.value
    if question.variable == "runtime":
        return lock.engine == question.value
    if (toolkits := question.toolkits) is not None:
        version = upstream(lock.toolkit.value.partition(" ")[2]) if lock.toolkit is not None else ""
        return bool(version) and toolkits.allows(DottedVersion(version))
    if question.variable == "cdi":
        return (lock.cdi.value if lock.cdi is not None else "absent") == question.value
    return question.variable in lock.networks and lock.networks[question.variable].value == question.value


def _choices(lock: HostLock, question: Question) -> tuple[tuple[str, Choice], ...]:
    """The choices of the stack that the question is about."""
    about = {
        "driver": (("driver branch", lock.driver_branch), ("driver", lock.driver_version)),
        "cuda": (("CUDA", lock.cuda), ("forward compatibility", lock.compat), ("driver", lock.driver_version)),
        "modules": (("modules", lock.modules), ("driver", lock.driver_version)),
        "runtime": (("runtime", lock.runtime),),
        "toolkit": (("toolkit", lock.toolkit),),
        "cdi": (("CDI", lock.cdi), ("toolkit", lock.toolkit)),
    }.get(question.variable, ((question.variable, lock.networks.get(question.variable)),))
    return tuple((label, choice) for label, choice in about if choice is not None)


def _request(intent: Intent, wanted: Intent, question: Question, matrix: Matrix) -> tuple[Claim, ...]:
    """What of the request stands against the value: it names another runtime, or not this network."""
    if wanted == intent:
        return ()
    if question.variable in ("runtime", "toolkit", "cdi"):
        now = getattr(intent, question.variable)
        about = {"toolkit": "no container toolkit", "cdi": f"CDI specs {now}"}.get(question.variable, now)
        return (Claim("asked-for", about, (), (Source(f"request: provision_{question.variable}"),)),)
    name = matrix.networks[question.variable].name
    return (Claim("not-served", name, (), (Source("request: provision_networks"),)),)


def _preferred(
    model: Model,
    solution: tuple[int, ...] | None,
    with_it: Model,
    found: tuple[int, ...],
    question: Question,
    matrix: Matrix,
) -> tuple[Claim, ...]:
    """Why what is chosen comes before what would fit as well."""
    if solution is None:
        return ()
    chosen, other = model.drivers[solution[DRIVER]], with_it.drivers[found[DRIVER]]
    claims: list[Claim] = []
    if chosen is not None and other is not None and chosen.key != other.key:
        claims.append(_comes_first(chosen, other, model))
    claims += _other_containers(model, solution, with_it, found, question, matrix)
    network = _network(with_it, question)
    if network is not None and (client := versioned_client(network)) is not None:
        now = {
            options[0].network.id: options[v]
            for options, v in zip(model.options, solution[FIRST_NETWORK:], strict=True)
        }
        if network.id in now:
            words = (("program", client.name), ("chosen", now[network.id].client))
            claims.append(Claim("newer-client", question.value, words, (entry("networks", network, network.id),)))
    return tuple(claims)


def _other_containers(
    model: Model,
    solution: tuple[int, ...],
    with_it: Model,
    found: tuple[int, ...],
    question: Question,
    matrix: Matrix,
) -> list[Claim]:
    """Why another engine, toolkit or CDI is chosen than the one that is asked about."""
    if question.variable == "runtime":
        now, then = model.runtimes[solution[RUNTIME]], with_it.runtimes[found[RUNTIME]]
        if now is None or then is None or now == then:
            return []
        words = (("chosen", f"{now.package.name} {now.package.version}"), ("why", engine_first(now, then, matrix)))
        return [
            Claim("comes-first", f"{then.package.name} {then.package.version}", words, (from_host("package sources"),))
        ]
    if question.variable == "toolkit":
        has, would = model.toolkits[solution[TOOLKIT]], with_it.toolkits[found[TOOLKIT]]
        if has is None or would is None or has == would:
            return []
        words = (("chosen", has.shown), ("why", "installed" if has.installed else "newer"))
        return [Claim("comes-first", would.shown, words, (from_host("package sources"),))]
    if question.variable == "cdi":
        return [Claim("cdi-by-default", "", (), (Source(f"runtimes/{TOOLKIT_ID}"),))]
    return []


def _network(model: Model, question: Question) -> Network | None:
    """The network that a question is about, when it is among those that the request names."""
    found = (options[0].network for options in model.options)
    return next((network for network in found if network.id == question.network), None)


def _comes_first(chosen: Driver, other: Driver, model: Model) -> Claim:
    """The first rung of the order of preference on which the two differ."""
    day = today(model.host.facts)
    keep = model.intent.policy.past_end_of_life == "keep"

    def stays(driver: Driver) -> bool:
        return driver.installed and keep

    def default(driver: Driver) -> bool:
        return driver.flavour == (driver.branch.modules.default or "proprietary")

    def backport(driver: Driver) -> bool:
        return driver.package is not None and is_backport(driver.package)

    rungs = (
        ("not-ended", past_end_of_life(chosen, day) and not stays(chosen), past_end_of_life(other, day)),
        ("security", below_floor(chosen, day) and not stays(chosen), below_floor(other, day)),
        ("installed", not chosen.installed, not other.installed),
        ("support", chosen.branch == other.branch or past_end_of_life(chosen, day), chosen.branch != other.branch),
        ("line", chosen.rank >= 100, other.rank >= 100),
        ("flavour", not default(chosen), not default(other)),
        ("release", backport(chosen), backport(other)),
        ("newest", False, True),
    )
    rung = next(name for name, worse, than in rungs if not worse and than)
    rests = (entry("drivers", other.branch, other.branch.id), from_host("package sources"))
    words = (("chosen", _named(chosen, other)), ("why", rung))
    return Claim("comes-first", f"driver {_named(other, chosen)}", words, rests)


def _named(driver: Driver, beside: Driver) -> str:
    """The version, and what else tells it from the other: `535.261.03 (open)`."""
    if driver.version.text != beside.version.text:
        return driver.version.text
    if driver.flavour != beside.flavour:
        return f"{driver.version.text} ({driver.flavour})"
    return driver.package.version if driver.package is not None else driver.version.text


def _background(question: Question, matrix: Matrix, conflicts: tuple[Conflict, ...]) -> tuple[Claim, ...]:
    """For a CUDA level: which branches carry it at all."""
    level = question.level
    if level is None or any(c.kind.startswith("asked-") for conflict in conflicts for c in conflict.claims):
        return ()
    carrying = [b for b in matrix.drivers.values() if b.native_cuda.level >= level]
    first = min(carrying, key=lambda branch: int(branch.branch))
    return (Claim("first-carrier", level.text, (("branch", first.branch),), (entry("drivers", first, first.id),)),)


def _without_the_question(conflict: Conflict) -> Conflict:
    """What was asked is said once, at the top."""

    def pruned(node: Falls) -> Falls:
        kept: list[Reason] = []
        for reason in node.because:
            if isinstance(reason, Falls):
                inner = pruned(reason)
                kept += [inner] if inner.because else []
            elif reason.kind not in ("asked", "carries"):
                kept.append(reason)
        return Falls(node.variable, node.values, tuple(kept))

    claims = tuple(claim for claim in conflict.claims if claim.kind != "asked")
    return Conflict(claims, pruned(conflict.tree))
