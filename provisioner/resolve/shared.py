"""A fleet: the smallest number of distinct stacks that serves all hosts, and each host's entry with the shared one.

A host can take any stack that serves all networks of its request and is no worse than its own in what must not be
given up silently: end of life and security floor. The smallest set of stacks that holds one for every host is a
minimum hitting set; hosts of different releases share nothing, so each release is searched by itself. The search is
exact: the count first, then among the sets of that count the one that moves the hosts least. Past STEPS it stops
and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from provisioner.matrix.reader import Matrix
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import Choice, HostLock, Reason
from provisioner.resolve import explain
from provisioner.resolve.conflict import Claim, Source
from provisioner.resolve.host import below_floor, past_end_of_life, prepare, today
from provisioner.resolve.problem import Model, build
from provisioner.resolve.resolver import lock_of
from provisioner.resolve.rules import DRIVER, RUNTIME
from provisioner.resolve.solver import Problem, Rule, best

STEPS = 200_000
"""Choices tried for one release before the search gives up proving; a fleet of dozens of kinds needs hundreds."""


@dataclass(frozen=True, order=True)
class Stack:
    """What hosts can have in common; '' for none."""

    os: str
    driver: str
    modules: str
    runtime: str


@dataclass(frozen=True)
class Shared:
    """The smallest set of stacks, the one of each host, and whether it is proven that none smaller is enough."""

    stacks: tuple[Stack, ...]
    of: Mapping[str, Stack]
    proven: bool = True


def stack_of_lock(lock: HostLock) -> Stack:
    chosen = (lock.driver_version, lock.modules, lock.runtime)
    return Stack(lock.os, *(choice.value if choice is not None else "" for choice in chosen))


# --- which stacks a host can take ---------------------------------------------------------------------------------


def stacks_for(facts: HostFacts, intent: Intent, matrix: Matrix) -> tuple[Stack, ...]:
    """Every stack that the host can take, its own first; () when it has none."""
    model = build(prepare(facts, matrix), intent, matrix, beside="none")
    own = best(model.problem)
    if own is None:
        return ()
    grade = _grade(model, own[DRIVER])
    found = {stack_at(model, own[DRIVER], own[RUNTIME]): None}
    for driver in range(len(model.drivers)):
        if any(worse and not had for worse, had in zip(_grade(model, driver), grade, strict=True)):
            continue
        for runtime in range(len(model.runtimes)):
            if _engine(model, runtime) != _engine(model, own[RUNTIME]):
                continue  # another engine is no mere version: who wants one says so
            stack = stack_at(model, driver, runtime)
            if stack not in found and best(fixed(model, {driver}, {runtime})) is not None:
                found[stack] = None
    return tuple(found)


def _engine(model: Model, place: int) -> str:
    runtime = model.runtimes[place]
    return runtime.id if runtime is not None else ""


def _grade(model: Model, place: int) -> tuple[bool, bool]:
    """Past its end of life, below its security floor."""
    driver, day = model.drivers[place], today(model.host.facts)
    return (False, False) if driver is None else (past_end_of_life(driver, day), below_floor(driver, day))


def places_of(model: Model, stack: Stack) -> tuple[set[int], set[int]]:
    """The drivers and runtimes of the problem that are those of a stack and that the host is offered."""
    pairs = [
        (d, r)
        for d, driver in enumerate(model.drivers)
        for r in range(len(model.runtimes))
        if (driver is None or driver.package is not None) and stack_at(model, d, r) == stack
    ]
    return {d for d, _ in pairs}, {r for _, r in pairs}


def stack_at(model: Model, driver_place: int, runtime_place: int) -> Stack:
    """The stack of two indices of the problem."""
    driver, runtime = model.drivers[driver_place], model.runtimes[runtime_place]
    return Stack(
        model.host.os,
        driver.version.text if driver is not None else "",
        driver.flavour if driver is not None else "",
        f"{runtime.package.name} {runtime.package.version}" if runtime is not None else "",
    )


def fixed(model: Model, drivers: set[int], runtimes: set[int], others: Mapping[int, set[int]] | None = None) -> Problem:
    """The problem of the host with driver and runtime given, and of `others` each variable that it names."""
    problem = model.problem
    values = {DRIVER: drivers, RUNTIME: runtimes, **(others or {})}
    given = tuple(
        Rule((variable,), frozenset((v,) for v in range(problem.domains[variable]) if v not in allowed))
        for variable, allowed in values.items()
    )
    return Problem(problem.domains, problem.rules, (*problem.always, *given))


def with_stack(facts: HostFacts, intent: Intent, matrix: Matrix, stack: Stack, own: HostLock, hosts: int) -> HostLock:
    """The entry of a host with a stack of `stacks_for`; where it differs from its own, the reason is the fleet."""
    if stack_of_lock(own) == stack:
        return own
    model = build(prepare(facts, matrix), intent, matrix)
    solution = best(fixed(model, *places_of(model, stack)))
    assert solution is not None, "a stack of stacks_for has a solution"
    lock = lock_of(model, solution, matrix)
    return lock.model_copy(
        update={
            "driver_branch": _because_of_the_fleet(lock.driver_branch, own.driver_branch, hosts),
            "driver_version": _because_of_the_fleet(lock.driver_version, own.driver_version, hosts),
            "modules": _because_of_the_fleet(lock.modules, own.modules, hosts),
            "runtime": _because_of_the_fleet(lock.runtime, own.runtime, hosts),
        }
    )


def _because_of_the_fleet(choice: Choice | None, own: Choice | None, hosts: int) -> Choice | None:
    if choice is None or (own is not None and own.value == choice.value):
        return choice
    words = (("hosts", str(hosts)), ("own", own.value if own is not None else "none"))
    claim = Claim("shared", choice.value, words, (Source("request: --unify"),))
    reason = Reason(text=explain.sentence(claim), rests_on=explain.sources(claim))
    return choice.model_copy(update={"because": (reason,), "not_newer": ()})


# --- the smallest set ---------------------------------------------------------------------------------------------


def smallest(hosts: Mapping[str, Sequence[Stack]], *, steps: int = STEPS) -> Shared:
    """The fewest stacks that hold one of each host's; of those the ones that move the hosts least, then by name."""
    rows: dict[str, dict[tuple[Stack, ...], int]] = {}
    for stacks in hosts.values():
        if stacks:
            kinds = rows.setdefault(stacks[0].os, {})
            kinds[tuple(stacks)] = kinds.get(tuple(stacks), 0) + 1
    chosen: list[Stack] = []
    proven = True
    for os in sorted(rows):
        cover, sure = _cover(rows[os], steps)
        chosen += cover
        proven = proven and sure
    of = {
        name: next(stack for stack in stacks if stack in chosen)  # the one that this host likes best
        for name, stacks in hosts.items()
        if stacks
    }
    return Shared(tuple(sorted(set(of.values()))), of, proven)


class _Spent(Exception):
    """The search has used up its steps."""


def _cover(rows: Mapping[tuple[Stack, ...], int], steps: int) -> tuple[tuple[Stack, ...], bool]:
    """One release: rows are the kinds of hosts with how many there are of each."""
    kinds = sorted(rows, key=lambda row: (len(row), row))
    budget = [steps]
    greedy = _greedy(rows)
    best_cover, best_cost = greedy, _cost(greedy, rows)
    size = _apart(kinds)  # what is smaller is refuted, here and whenever the next size is reached
    try:
        while True:
            for cover in _covers(kinds, (), size, budget):
                cost = _cost(cover, rows)
                if len(cover) < len(best_cover) or cost < best_cost or (cost == best_cost and cover < best_cover):
                    best_cover, best_cost = cover, cost
            if len(best_cover) <= size:
                return best_cover, True
            size += 1
    except _Spent:
        return best_cover, len(best_cover) <= size


def _covers(
    kinds: Sequence[tuple[Stack, ...]], taken: tuple[Stack, ...], size: int, budget: list[int]
) -> Iterator[tuple[Stack, ...]]:
    """Every cover of at most `size` stacks: the first kind that has none yet must get one of its own."""
    budget[0] -= 1
    if budget[0] < 0:
        raise _Spent
    open_kinds = [kind for kind in kinds if not any(stack in taken for stack in kind)]
    if not open_kinds:
        yield tuple(sorted(taken))
        return
    if len(taken) + _apart(open_kinds) > size:
        return
    for stack in open_kinds[0]:
        yield from _covers(open_kinds, (*taken, stack), size, budget)


def _apart(kinds: Sequence[tuple[Stack, ...]]) -> int:
    """A bound from below: kinds that share no stack need one each."""
    used: set[Stack] = set()
    count = 0
    for kind in kinds:
        if used.isdisjoint(kind):
            used.update(kind)
            count += 1
    return count


def _greedy(rows: Mapping[tuple[Stack, ...], int]) -> tuple[Stack, ...]:
    """Take the stack that serves most kinds, again and again: a bound from above."""
    left = list(rows)
    taken: list[Stack] = []
    while left:
        count: dict[Stack, int] = {}
        for kind in left:
            for stack in kind:
                count[stack] = count.get(stack, 0) + 1
        first = min(count, key=lambda stack: (-count[stack], stack))
        taken.append(first)
        left = [kind for kind in left if first not in kind]
    return tuple(sorted(taken))


def _cost(cover: Sequence[Stack], rows: Mapping[tuple[Stack, ...], int]) -> tuple[int, int]:
    """How many hosts leave the stack of their own, then how far down their order they go."""
    places = [(min(kind.index(stack) for stack in cover if stack in kind), count) for kind, count in rows.items()]
    return sum(count for place, count in places if place), sum(place * count for place, count in places)
