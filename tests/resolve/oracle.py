"""A second opinion on the solver: plain enumeration, written from the definitions, sharing no code with it.

A world is (domains, rules, always); a rule is (scope, set of forbidden tuples). Everything is tried.
"""

from __future__ import annotations

from itertools import chain, combinations, product

Rule = tuple[tuple[int, ...], frozenset[tuple[int, ...]]]


def holds(assignment: tuple[int, ...], rule: Rule) -> bool:
    scope, forbidden = rule
    return tuple(assignment[variable] for variable in scope) not in forbidden


def solutions(domains: tuple[int, ...], rules: list[Rule]) -> list[tuple[int, ...]]:
    """Every assignment that obeys every rule."""
    return [a for a in product(*map(range, domains)) if all(holds(a, rule) for rule in rules)]


def optimum(domains: tuple[int, ...], rules: list[Rule]) -> tuple[int, ...] | None:
    """Values are numbered best first and earlier variables weigh more, so the least tuple is the best."""
    return min(solutions(domains, rules), default=None)


def minimal_conflicts(domains: tuple[int, ...], rules: list[Rule], always: list[Rule]) -> set[frozenset[int]]:
    """Every set of rules that cannot be obeyed together although each of its proper subsets can."""
    every = range(len(rules))
    found: set[frozenset[int]] = set()
    for members in chain.from_iterable(combinations(every, size) for size in range(len(rules) + 1)):
        if any(known <= set(members) for known in found):
            continue
        if not solutions(domains, [*(rules[m] for m in members), *always]):
            found.add(frozenset(members))
    return found
