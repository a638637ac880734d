"""Covering arrays are complete: every tuple that some valid row holds, found by brute force, stands in the array."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.resolve.covering import Row, Space, covering_array


def tuples_of(rows: list[Row], strength: int) -> set[tuple[tuple[int, int], ...]]:
    return {items for row in rows for items in itertools.combinations(enumerate(row), strength)}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[int], list[Row]]:
    """Two to five parameters and rules over two or three of them; the rows that no rule forbids, by brute force."""
    domains = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    every = list(itertools.product(*(range(size) for size in domains)))
    rules = []
    for _ in range(draw(st.integers(0, 6))):
        scope = draw(st.lists(st.integers(0, len(domains) - 1), min_size=1, max_size=min(3, len(domains)), unique=True))
        rules.append({variable: draw(st.integers(0, domains[variable] - 1)) for variable in scope})
    return domains, [row for row in every if not any(all(row[v] == x for v, x in rule.items()) for rule in rules)]


@settings(max_examples=300, deadline=None)
@given(worlds(), st.sampled_from([2, 3]))
def test_every_possible_tuple_stands_in_a_valid_row(world: tuple[list[int], list[Row]], strength: int) -> None:
    """A value that no valid row has at all is left out: the parameter keeps the values that are left."""
    domains, valid = world
    used = [sorted({row[v] for row in valid}) for v in range(len(domains))]
    rows = [tuple(used[v].index(x) for v, x in enumerate(row)) for row in valid]
    array = covering_array(Space.of_rows([len(values) for values in used], rows), strength)

    strength = min(strength, len(domains))
    assert set(array) <= set(rows)
    assert tuples_of(list(array), strength) == tuples_of(rows, strength)
    assert len(set(array)) == len(array)


@settings(max_examples=100, deadline=None)
@given(worlds(), st.data())
def test_a_partial_row_is_possible_exactly_when_a_valid_row_has_it(
    world: tuple[list[int], list[Row]], data: st.DataObject
) -> None:
    """Also where two rules only together leave nothing: forward checking sees through them."""
    domains, valid = world
    chosen = data.draw(st.lists(st.integers(0, len(domains) - 1), unique=True))
    partial = [(v, data.draw(st.integers(0, domains[v] - 1))) for v in chosen]
    masks = Space.of_rows(domains, valid)

    assert masks.possible(partial) == any(all(row[v] == x for v, x in partial) for row in valid)


def test_rules_that_only_together_forbid_a_pair() -> None:
    """a=0 needs b=0, b=0 forbids c=0: the pair a=0, c=0 is in no row although no rule names it."""
    rows = [r for r in itertools.product(range(2), repeat=3) if not (r[0] == 0 and r[1]) and r[1:] != (0, 0)]
    array = covering_array(Space.of_rows([2, 2, 2], rows), 2)

    assert all(not (row[0] == 0 and row[2] == 0) for row in array)
    assert tuples_of(list(array), 2) == tuples_of(rows, 2)


@pytest.mark.parametrize(
    ("domains", "pict"),
    [
        pytest.param([3] * 4, 9, id="3^4"),
        pytest.param([3] * 13, 18, id="3^13"),
        pytest.param([4] * 15 + [3] * 17 + [2] * 29, 37, id="4^15 3^17 2^29"),
        pytest.param([4] + [3] * 39 + [2] * 35, 27, id="4^1 3^39 2^35"),
        pytest.param([2] * 100, 15, id="2^100"),
        pytest.param([10] * 20, 210, id="10^20"),
    ],
)
def test_arrays_without_rules_are_at_most_15_percent_longer_than_those_of_pict(domains: list[int], pict: int) -> None:
    """The six sizes are those of PICT in the comparison of generators at pairwise.org."""
    array = covering_array(Space.free(domains), 2)

    assert len(tuples_of(list(array), 2)) == sum(a * b for a, b in itertools.combinations(domains, 2))
    assert len(array) <= pict * 1.15


def test_nothing_that_fits_gives_no_rows() -> None:
    assert covering_array(Space.of_rows([2, 2], []), 2) == ()
    assert covering_array(Space.of_rows([], []), 2) == ()


def test_the_same_space_gives_the_same_rows() -> None:
    space = Space.free([3, 3, 2, 4, 2])
    assert covering_array(space, 3) == covering_array(space, 3)
