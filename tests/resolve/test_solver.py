"""The solver against the oracle: same satisfiability, same optimum, exactly the minimal conflicts and corrections."""

from __future__ import annotations

import os

import oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioner.resolve.solver import Problem, Rule, best, refute

WORLDS = settings(
    max_examples=2000 if os.environ.get("PROVISION_LONG") else 200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to four variables of up to four values, and up to seven rules that are dense enough to conflict often."""
    domains = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))

    def rule(density: int) -> Rule:
        size = draw(st.integers(1, min(2, len(domains))))
        scope = tuple(
            sorted(draw(st.lists(st.integers(0, len(domains) - 1), min_size=size, max_size=size, unique=True)))
        )
        tuples = [()]
        for variable in scope:
            tuples = [(*head, value) for head in tuples for value in range(domains[variable])]
        chosen = [t for t in tuples if draw(st.integers(0, 9)) < density]
        return Rule(scope, frozenset(chosen))

    rules = tuple(rule(6) for _ in range(draw(st.integers(0, 7))))
    always = tuple(rule(1) for _ in range(draw(st.integers(0, 2))))
    return Problem(domains, rules, always)


def _plain(rules: tuple[Rule, ...]) -> list[oracle.Rule]:
    return [(rule.scope, rule.forbids) for rule in rules]


@WORLDS
@given(problems())
def test_best_is_the_optimum_or_there_is_none(problem: Problem) -> None:
    """The first assignment found is the least of all that obey every rule."""
    assert best(problem) == oracle.optimum(problem.domains, _plain((*problem.rules, *problem.always)))


@WORLDS
@given(problems())
def test_refute_gives_exactly_the_minimal_conflicts(problem: Problem) -> None:
    """Each reported set conflicts, loses that when any member is left out, and none is missing."""
    expected = oracle.minimal_conflicts(problem.domains, _plain(problem.rules), _plain(problem.always))

    refutation = refute(problem)

    assert set(refutation.conflicts) == expected
    assert refutation.complete
    assert len(refutation.conflicts) == len(set(refutation.conflicts))


@WORLDS
@given(problems())
def test_each_correction_corrects_its_part_and_no_less_does(problem: Problem) -> None:
    """Without the rules of one correction of every part there is an assignment; a correction is minimal."""
    refutation = refute(problem)
    conflicts = set(refutation.conflicts)
    if not conflicts or frozenset() in conflicts:
        return
    for correction in refutation.corrections:
        meets = {conflict for conflict in conflicts if conflict & correction}
        assert meets
        for member in correction:
            less = correction - {member}
            assert any(not conflict & less for conflict in meets)


def test_a_bound_keeps_the_smallest_conflicts_and_says_so() -> None:
    """Five rules that each forbid everything are five conflicts; a bound of two gives two of them."""
    everything = Rule((0,), frozenset({(0,)}))

    refutation = refute(Problem((1,), (everything,) * 5), bound=2)

    assert refutation.conflicts == (frozenset({0}), frozenset({1}))
    assert not refutation.complete


def test_always_alone_in_conflict_is_the_empty_conflict() -> None:
    """When the meaning of the words leaves nothing, no rule is at fault."""
    assert refute(Problem((1,), (), (Rule((0,), frozenset({(0,)})),))).conflicts == (frozenset(),)
