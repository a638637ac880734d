"""Search over finite domains: the best assignment, every minimal conflict, every minimal correction.

Theory. A problem has variables, each with its values in order of preference, and rules; a rule is the set of
value tuples over its scope that it forbids. The best assignment is the lexicographically first one that no
rule forbids, so depth-first search in the order of preference finds it first.

When there is none, every assignment `a` is forbidden by a non-empty set of rules `broken(a)`. Leaving out the
rules of `broken(a)` makes `a` possible, so the *minimal corrections* are the minimal sets among all
`broken(a)`. A set of rules is a conflict exactly when it meets every `broken(a)`, so the *minimal conflicts*
are the minimal hitting sets of the corrections (Reiter 1987; Liffiton and Sakallah 2008). Both are found
exactly, not sampled: the domains of a host are small, and search keeps only an antichain of corrections.

Rules in `always` state what words mean (a driver carries exactly one CUDA level): they are never at fault
and never left out. Two parts that share no rule can each be at fault alone, so each connected part is
searched by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """`forbids` holds tuples of value indices over the variables in `scope`, in the same order."""

    scope: tuple[int, ...]
    forbids: frozenset[tuple[int, ...]]


@dataclass(frozen=True)
class Problem:
    """`domains[i]` is how many values variable i has, best first; `always` rules are never at fault."""

    domains: tuple[int, ...]
    rules: tuple[Rule, ...]
    always: tuple[Rule, ...] = ()


def best(problem: Problem) -> tuple[int, ...] | None:
    """Return the lexicographically first assignment that no rule forbids; None when there is none.

    Parts that share no rule are searched apart. In a part every choice strikes at once what it forbids of the
    variables to come, so a choice that leaves one of them nothing is given up before anything is built on it.
    """
    rules = [rule for rule in (*problem.always, *problem.rules) if rule.forbids]
    left = [(1 << size) - 1 for size in problem.domains]  # bit v of left[x]: x may still be v
    for rule in rules:
        if len(rule.scope) == 1:
            for (value,) in rule.forbids:
                left[rule.scope[0]] &= ~(1 << value)
    if not all(left):
        return None
    chosen = [0] * len(left)
    for part in _parts(problem):
        inside = [rule for rule in rules if len(rule.scope) > 1 and rule.scope[0] in part]
        if not _first(part, inside, left, chosen):
            return None
    return tuple(chosen)


def _first(part: list[int], rules: list[Rule], left: list[int], chosen: list[int]) -> bool:
    """Give `chosen` the first values of this part that go together; False when none do."""
    ahead: dict[int, list[tuple[Rule, int, int, dict[int, int]]]] = {variable: [] for variable in part}
    wider: dict[int, list[Rule]] = {variable: [] for variable in part}
    for rule in rules:
        if len(rule.scope) == 2:
            later = max(rule.scope)
            ahead[min(rule.scope)].append((rule, later, left[later].bit_length(), {}))
        else:
            wider[max(rule.scope)].append(rule)

    def extend(place: int) -> bool:
        if place == len(part):
            return True
        variable = part[place]
        values = left[variable]
        while values:
            bit = values & -values
            values ^= bit
            value = chosen[variable] = bit.bit_length() - 1
            struck: list[tuple[int, int]] = []
            possible = not any(_breaks(rule, chosen) for rule in wider[variable])
            for rule, later, size, known in ahead[variable] if possible else ():
                gone = known.get(value)
                if gone is None:
                    gone = known[value] = _gone(rule, variable, value, size)
                if left[later] & gone:
                    struck.append((later, left[later]))
                    left[later] &= ~gone
                    if not left[later]:
                        possible = False
                        break
            if possible and extend(place + 1):
                return True
            for later, was in reversed(struck):
                left[later] = was
        return False

    return extend(0)


def _gone(rule: Rule, variable: int, value: int, size: int) -> int:
    """The values of the other variable that the rule forbids beside this one, as bits."""
    forbids = rule.forbids
    if rule.scope[0] == variable:
        return sum(1 << other for other in range(size) if (value, other) in forbids)
    return sum(1 << other for other in range(size) if (other, value) in forbids)


@dataclass(frozen=True)
class Refutation:
    """Why there is no assignment, as sets of indices into `rules`; `complete` is false when a bound cut it."""

    conflicts: tuple[frozenset[int], ...]
    corrections: tuple[frozenset[int], ...]
    complete: bool = True


def refute(problem: Problem, *, bound: int = 64) -> Refutation:
    """Return all minimal conflicts of a problem without an assignment, smallest first, at most `bound`.

    `corrections` are those of each connected part; mending the whole takes one of every part that has any.
    """
    conflicts: list[frozenset[int]] = []
    corrections: list[frozenset[int]] = []
    complete = True
    for part in _parts(problem):
        broken = _minimal_broken(part, problem)
        if broken == [0]:
            continue
        if not broken:  # the meaning of the words leaves nothing: no rule is at fault, and no other matters
            return Refutation((frozenset(),), ())
        hitting, whole = _hitting_sets(broken, bound)
        complete = complete and whole
        conflicts += [_members(mask) for mask in hitting]
        corrections += [_members(mask) for mask in broken]
    order = sorted(conflicts, key=lambda members: (len(members), sorted(members)))
    return Refutation(
        tuple(order[:bound]),
        tuple(sorted(corrections, key=lambda members: (len(members), sorted(members)))),
        complete and len(order) <= bound,
    )


def _breaks(rule: Rule, chosen: Sequence[int]) -> bool:
    return tuple(chosen[variable] for variable in rule.scope) in rule.forbids


def _parts(problem: Problem) -> list[list[int]]:
    """Variables that rules tie together, in order: scopes (0,1) and (2,) give [[0, 1], [2]]."""
    leader = list(range(len(problem.domains)))

    def find(variable: int) -> int:
        while leader[variable] != variable:
            variable = leader[variable]
        return variable

    for rule in (*problem.always, *problem.rules):
        if not rule.forbids:
            continue
        for variable in rule.scope[1:]:
            one, other = find(rule.scope[0]), find(variable)
            leader[max(one, other)] = min(one, other)
    parts: dict[int, list[int]] = {}
    for variable in range(len(leader)):
        parts.setdefault(find(variable), []).append(variable)
    return list(parts.values())


def _minimal_broken(part: list[int], problem: Problem) -> list[int]:
    """The minimal sets of rules (bit masks) that an assignment of this part breaks; [0]: none need break."""
    inside = set(part)
    fatal = 1 << len(problem.rules)  # the bit of every rule that is never at fault
    alone: dict[int, list[int]] = {variable: [0] * problem.domains[variable] for variable in part}
    beside: dict[int, dict[int, dict[tuple[int, int], int]]] = {variable: {} for variable in part}
    wider: dict[int, list[tuple[int, Rule]]] = {variable: [] for variable in part}
    numbered = [(1 << number, rule) for number, rule in enumerate(problem.rules)]
    for bit, rule in (*((fatal, rule) for rule in problem.always), *numbered):
        if not rule.forbids or rule.scope[0] not in inside:
            continue
        last = max(rule.scope)
        if len(rule.scope) == 1:
            for (value,) in rule.forbids:
                alone[last][value] |= bit
        elif len(rule.scope) == 2:
            table = beside[last].setdefault(min(rule.scope), {})
            turned = rule.scope[0] == last
            for one, other in rule.forbids:
                pair = (other, one) if turned else (one, other)
                table[pair] = table.get(pair, 0) | bit
        else:
            wider[last].append((bit, rule))
    told_apart = _told_apart(part, alone, beside, wider)
    steps = [(variable, told_apart[variable], list(beside[variable].items()), wider[variable]) for variable in part]
    minimal: list[int] = []
    chosen = [0] * len(problem.domains)

    def extend(index: int, mask: int) -> None:
        if any(known & mask == known for known in minimal):
            return  # whatever follows breaks at least what a known one breaks
        if index == len(steps):
            minimal[:] = [known for known in minimal if known & mask != mask]
            minimal.append(mask)
            return
        variable, by_itself, tables, rules = steps[index]
        for value, broken in by_itself:
            broken |= mask
            chosen[variable] = value
            for earlier, table in tables:
                broken |= table.get((chosen[earlier], value), 0)
            for bit, rule in rules:
                if not broken & bit and _breaks(rule, chosen):
                    broken |= bit
            if not broken & fatal:
                extend(index + 1, broken)

    extend(0, 0)
    return minimal


def _told_apart(
    part: list[int],
    alone: dict[int, list[int]],
    beside: dict[int, dict[int, dict[tuple[int, int], int]]],
    wider: dict[int, list[tuple[int, Rule]]],
) -> dict[int, list[tuple[int, int]]]:
    """Of the values of a variable that break the same rules beside whatever else is chosen, the first.

    With each its own broken rules. A variable in a rule over three keeps all its values.
    """
    kept = {variable for rules in wider.values() for _, rule in rules for variable in rule.scope}
    seen: dict[int, list[list[tuple[int, int, int]]]] = {variable: [[] for _ in alone[variable]] for variable in part}
    for last, tables in beside.items():
        for earlier, table in tables.items():
            for (one, other), mask in table.items():
                seen[earlier][one].append((last, other, mask))
                seen[last][other].append((earlier, one, mask))
    found: dict[int, list[tuple[int, int]]] = {}
    for variable in part:
        first: dict[object, tuple[int, int]] = {}
        for value, broken in enumerate(alone[variable]):
            kind = value if variable in kept else (broken, frozenset(seen[variable][value]))
            first.setdefault(kind, (value, broken))
        found[variable] = list(first.values())
    return found


def _hitting_sets(families: list[int], bound: int) -> tuple[list[int], bool]:
    """All minimal sets that meet every family (Berge): families {a,b},{b,c} give {b},{a,c}."""
    partial = [0]
    whole = True
    for family in sorted(families, key=lambda mask: (mask.bit_count(), mask)):
        met = [mask for mask in partial if mask & family]
        grown = []
        for mask in partial:
            if mask & family:
                continue
            rest = family
            while rest:
                bit = rest & -rest
                rest ^= bit
                candidate = mask | bit
                if not any(other & candidate == other for other in met):
                    grown.append(candidate)
        partial = met + [
            mask
            for index, mask in enumerate(grown)
            if not any(
                other & mask == other and (other != mask or place < index)
                for place, other in enumerate(grown)
                if place != index
            )
        ]
        if len(partial) > 64 * bound:
            # Cutting here could let a set through that misses a later family, so only the tail is dropped.
            partial, whole = sorted(partial, key=lambda mask: (mask.bit_count(), mask))[: 64 * bound], False
    return partial, whole


def _members(mask: int) -> frozenset[int]:
    return frozenset(number for number in range(mask.bit_length()) if mask >> number & 1)
