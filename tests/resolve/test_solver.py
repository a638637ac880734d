"""The solver against the oracle: same satisfiability, same optimum, exactly the minimal conflicts and corrections."""

from __future__ import annotations

import itertools

import oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioner.resolve.solver import Problem, Rule, best, refute
from tests.examples import examples

WORLDS = settings(
    max_examples=examples(2000, at_length=20_000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
LARGE = settings(WORLDS, max_examples=examples(300, at_length=2000))
LARGE_CONFLICTS = settings(WORLDS, max_examples=examples(100, at_length=1000))


@st.composite
def problems(draw: st.DrawFn, variables: int = 4, values: int = 4, rules: int = 7, widest: int = 2) -> Problem:
    """Variables of a few values, and rules dense enough to conflict often.

    A rule is drawn as one number whose bits say which tuples it forbids: thousands of worlds then cost seconds.
    """
    domains = tuple(draw(st.lists(st.integers(1, values), min_size=1, max_size=variables)))

    def rule(sparse: int) -> Rule:
        size = draw(st.integers(1, min(widest, len(domains))))
        one = draw(st.integers(0, len(domains) - 1))
        scope = (one,)
        if size == 2:  # in either order: a rule may name the later variable first
            scope = (one, (one + draw(st.integers(1, len(domains) - 1))) % len(domains))
        elif size > 2:
            scope = tuple(draw(st.permutations(range(len(domains)))))[:size]
        tuples = list(itertools.product(*(range(domains[variable]) for variable in scope)))
        forbidden = -1
        for _ in range(sparse):
            forbidden &= draw(st.integers(0, 2 ** len(tuples) - 1))
        return Rule(scope, frozenset(t for bit, t in enumerate(tuples) if forbidden >> bit & 1))

    chosen = tuple(rule(1) for _ in range(draw(st.integers(0, rules))))
    always = tuple(rule(3) for _ in range(draw(st.integers(0, 2))))
    return Problem(domains, chosen, always)


def _plain(rules: tuple[Rule, ...]) -> list[oracle.Rule]:
    return [(rule.scope, rule.forbids) for rule in rules]


@WORLDS
@given(problems())
def test_a_world_gets_the_answers_that_trying_everything_gives(problem: Problem) -> None:
    """The least assignment that obeys every rule, or exactly the minimal conflicts, and corrections that correct."""
    optimum = oracle.optimum(problem.domains, _plain((*problem.rules, *problem.always)))
    expected = oracle.minimal_conflicts(problem.domains, _plain(problem.rules), _plain(problem.always))

    assert best(problem) == optimum
    refutation = refute(problem)

    assert (optimum is None) is bool(expected)
    assert set(refutation.conflicts) == expected
    assert refutation.complete
    assert len(refutation.conflicts) == len(set(refutation.conflicts))
    for correction in refutation.corrections:
        assert all(not correction.isdisjoint(k) for k in expected if _part(k, problem) == _part(correction, problem))
        for member in correction:  # minimal: without any one of its rules some conflict is left whole
            assert any(k & correction == {member} for k in expected)


def _part(members: frozenset[int], problem: Problem) -> int:
    """The connected part that rules stand in, by its least variable."""
    reached = {problem.rules[min(members)].scope[0]}
    scopes = [set(rule.scope) for rule in (*problem.rules, *problem.always) if rule.forbids]
    while any(reached & scope and not scope <= reached for scope in scopes):
        reached |= {variable for scope in scopes if reached & scope for variable in scope}
    return min(reached)


@pytest.mark.tools
@LARGE
@given(problems(variables=10, values=12, rules=30, widest=3))
def test_a_large_world_gets_the_optimum_of_a_second_solver(problem: Problem) -> None:
    """Too many assignments to try: clingo says whether there is one, and which is the least."""
    pytest.importorskip("clingo")
    import second_solver

    world = second_solver.World(problem.domains, _plain(problem.rules), _plain(problem.always))

    assert best(problem) == world.optimum()


@pytest.mark.tools
@LARGE_CONFLICTS
@given(problems(variables=6, values=6, rules=14, widest=3))
def test_the_conflicts_of_a_large_world_are_those_of_a_second_solver(problem: Problem) -> None:
    """Each conflicts, each loses that with any member left out, and none is missing.

    None is missing when leaving out any minimal hitting set of those that were told leaves rules that hold together:
    rules without a told conflict among them are part of such a rest.
    """
    pytest.importorskip("clingo")
    import second_solver

    world = second_solver.World(problem.domains, _plain(problem.rules), _plain(problem.always))
    every = set(range(len(problem.rules)))

    refutation = refute(problem, bound=500)

    if not refutation.complete or frozenset() in refutation.conflicts:  # too many to tell, or no rule is at fault
        assert world.optimum() is None
        return
    for conflict in refutation.conflicts:
        assert not world.holds_together(conflict)
        assert all(world.holds_together(conflict - {member}) for member in conflict)
    for hitting in _hitting(refutation.conflicts):
        assert world.holds_together(every - hitting)


def _hitting(conflicts: tuple[frozenset[int], ...]) -> set[frozenset[int]]:
    """Sets that meet every conflict, the minimal ones among them."""
    found = {frozenset[int]()}
    for conflict in conflicts:
        grown = {h if h & conflict else h | {m} for h in found for m in (conflict if not h & conflict else (0,))}
        found = {h for h in grown if not any(other < h for other in grown)}
    return found


def test_a_bound_keeps_the_smallest_conflicts_and_says_so() -> None:
    """Five rules that each forbid everything are five conflicts; a bound of two gives two of them."""
    everything = Rule((0,), frozenset({(0,)}))

    refutation = refute(Problem((1,), (everything,) * 5), bound=2)

    assert refutation.conflicts == (frozenset({0}), frozenset({1}))
    assert not refutation.complete


def test_always_alone_in_conflict_is_the_empty_conflict() -> None:
    """When the meaning of the words leaves nothing, no rule is at fault."""
    assert refute(Problem((1,), (), (Rule((0,), frozenset({(0,)})),))).conflicts == (frozenset(),)
