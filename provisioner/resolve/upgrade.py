"""A network's new client on one host: what must move first, what holds, what cannot follow.

A host holds when driver and runtime of its lock entry stand with the new client and are what it runs: then only the
client changes. When they do not stand, the entry gets the driver and runtime that do while the client stays; the
client follows when the host runs them. So no host ever meets a client that its driver cannot serve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock, LockedPackage
from provisioner.resolve import reasons
from provisioner.resolve.conflict import Claim, Conflict, Falls, entry, from_host
from provisioner.resolve.host import Driver, Host, prepare
from provisioner.resolve.options import comes_with, named_parts, versioned_client
from provisioner.resolve.problem import Model, build
from provisioner.resolve.question import Question
from provisioner.resolve.resolver import MOST_CONFLICTS, lock_of
from provisioner.resolve.rules import COMPAT, TOOLKIT
from provisioner.resolve.shared import Stack, fixed, places_of, stack_of_lock
from provisioner.resolve.solver import best, refute
from provisioner.resolve.why import Answer, why

State = Literal["done", "holds", "moves", "waits", "cannot"]


@dataclass(frozen=True)
class Step:
    """What an upgrade means for one host; `entry` is what its lock entry becomes.

    `why` says why driver and runtime can't stay (moves), `answer` why no stack serves it (cannot), `runs` what the host
    runs instead of what the lock pins (waits). `together`: the former client can't run on the new driver either.
    `brings` is what is known to break or change with the new client and was not so with the former.
    """

    state: State
    before: HostLock
    entry: HostLock
    client: str  # of the lock as it was; '' when it had none
    why: tuple[Conflict, ...] = ()
    answer: Answer | None = None
    runs: str = ""
    together: bool = False
    brings: tuple[Claim, ...] = ()


def upgraded(facts: HostFacts, intent: Intent, before: HostLock, network: str, to: str, matrix: Matrix) -> Step:
    """Return the step of one host that serves `network`."""
    client = before.networks[network].value if network in before.networks else ""
    step = _step(facts, intent, before, network, client, to, matrix)
    return (
        step
        if step.state in ("done", "cannot")
        else dataclasses.replace(step, brings=_brings(network, client, to, matrix))
    )


def _brings(network: str, client: str, to: str, matrix: Matrix) -> tuple[Claim, ...]:
    """What the entry tells of versions like the new one and not like the former."""
    known = matrix.networks[network]
    program = versioned_client(known)
    found = []
    for told in known.breakages:
        versions = told.with_client
        if versions is None or not comes_with(versions, to) or (client and comes_with(versions, client)):
            continue
        words = (("program", program.name if program is not None else ""), ("client", to), ("text", told.text))
        found.append(Claim("client-brings", known.name, words, (entry("networks", told, known.id, known),)))
    return tuple(found)


def _step(
    facts: HostFacts, intent: Intent, before: HostLock, network: str, client: str, to: str, matrix: Matrix
) -> Step:
    new = _pinned(intent, network, to)
    answer = why(facts, intent, matrix, Question(network, to))
    if answer.stack is None:
        return Step("cannot", before, before, client, answer=answer)
    host = prepare(facts, matrix)
    here = stack_of_lock(before)
    stays = _entry(host, intent, new, here, matrix, before.packages)
    if stays is None:
        old = (
            _entry(host, intent, _pinned(intent, network, client), stack_of_lock(answer.stack), matrix)
            if client
            else None
        )
        entry = old or answer.stack.model_copy(update={"intent": intent})
        return Step(
            "moves", before, entry, client, why=_why_not(host, new, here, matrix, before.packages), together=old is None
        )
    runs = _runs_instead(facts, before)
    same = before if before.intent == intent else before.model_copy(update={"intent": intent})
    if runs:
        return Step("waits", before, same, client, runs=runs)
    return Step("done" if client == to else "holds", before, same if client == to else stays, client)


def _pinned(intent: Intent, network: str, client: str) -> Intent:
    pin = f"@{client}" if client else ""
    names = tuple(n.partition("@")[0] + pin if named_parts(n)[0] == network else n for n in intent.networks)
    return intent.model_copy(update={"networks": names})


def same_request(one: Intent, other: Intent, network: str) -> bool:
    """Whether they differ in nothing but the client of this network that they pin: that is what an upgrade changes."""
    return _pinned(one, network, "") == _pinned(other, network, "")


def _entry(
    host: Host,
    intent: Intent,
    pinned: Intent,
    stack: Stack,
    matrix: Matrix,
    packages: Collection[LockedPackage] | None = None,
) -> HostLock | None:
    """The entry with exactly this driver and runtime; None when they don't stand. It keeps the inventory's request."""
    model = build(host, pinned, matrix)
    drivers, runtimes = _places(model, stack, packages)
    solution = best(fixed(model, drivers, runtimes, _kept(model, packages))) if drivers else None
    return None if solution is None else lock_of(model, solution, matrix).model_copy(update={"intent": intent})


def _places(model: Model, stack: Stack, packages: Collection[LockedPackage] | None) -> tuple[set[int], set[int]]:
    """What stays is the very packages: Debian's tesla-535 line may have the same version under other names."""
    drivers, runtimes = places_of(model, stack)
    if packages is None:
        return drivers, runtimes
    pinned = {(package.name, package.version) for package in packages}
    return {d for d in drivers if (driver := model.drivers[d]) is None or _key(driver) in pinned}, runtimes


def _kept(model: Model, packages: Collection[LockedPackage] | None) -> dict[int, set[int]]:
    """Toolkit and forward compatibility stay what they are as well: the values whose packages the entry pins."""
    if packages is None:
        return {}
    pinned = {(package.name, package.version) for package in packages}
    toolkits = {
        t
        for t, toolkit in enumerate(model.toolkits)
        if toolkit is not None and all((one.name, one.version) in pinned for one in toolkit.packages)
    }
    compats = {
        c
        for c, compat in enumerate(model.compats)
        if compat is not None and compat.package is not None and (compat.name, compat.package.version) in pinned
    }
    none = {TOOLKIT: model.toolkits.index(None), COMPAT: model.compats.index(None)}
    return {variable: found or {none[variable]} for variable, found in ((TOOLKIT, toolkits), (COMPAT, compats))}


def _key(driver: Driver) -> tuple[str, str]:
    return (driver.package.name, driver.package.version) if driver.package is not None else ("", "")


def _why_not(
    host: Host, pinned: Intent, stack: Stack, matrix: Matrix, packages: Collection[LockedPackage]
) -> tuple[Conflict, ...]:
    """Every minimal reason why driver and runtime can't stay."""
    model = build(host, pinned, matrix)
    drivers, runtimes = _places(model, stack, packages)
    if not drivers:
        gone = Claim("stack-gone", f"driver {stack.driver} with {stack.runtime}", (), (from_host("package sources"),))
        return (Conflict((gone,), Falls("stack", (), (gone,))),)
    refutation = refute(fixed(model, drivers, runtimes, _kept(model, packages)))
    return tuple(reasons.conflict(model, numbers) for numbers in refutation.conflicts[:MOST_CONFLICTS])


def _runs_instead(facts: HostFacts, entry: HostLock) -> str:
    """What the host runs when it is not what its entry pins; what was not seen is not taken for right."""
    if entry.driver_version is not None:
        loaded = facts.driver.loaded
        if loaded is UNKNOWN:
            return "a driver that could not be seen"
        if loaded != entry.driver_version.value:
            return f"driver {loaded}" if loaded is not None else "no driver"
    assert facts.packages is not UNKNOWN
    for package in entry.packages:
        have = facts.packages.get(package.name)
        if package.unit in ("runtime", "toolkit", "compat") and (have is None or have.version != package.version):
            return f"{package.name} {have.version}" if have is not None else f"no {package.name}"
    return ""
