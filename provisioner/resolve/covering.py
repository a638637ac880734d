"""Covering arrays: few rows such that every pair (or triple) of values that can stand together does so in some row.

A `Space` answers whether a partial row can be completed, exactly: it holds for each value the set of whole rows that
have it, as a bit mask, and a partial row is possible when the masks of its values have a row in common. So no pair is
lost because a rule over other parameters was looked at too late, and none is asked for that no row can hold.

The array is built greedily, row by row: a row starts from an uncovered tuple around the value that misses most, and
takes for each further parameter the value that covers most. Of several such rows the best is kept (AETG, Cohen and
others 1997). Order and ties are fixed, so the same space gives the same rows.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Row = tuple[int, ...]
CANDIDATES = 24
"""Rows that are tried for each row that is kept: more make arrays a little shorter and building them slower."""
SEEDS = 6
"""Different tuples that these candidates start from."""
WORK = 200_000
"""Bounds how often a small array is made anew."""


@dataclass(frozen=True)
class Space:
    """`masks[v][x]`: the whole rows in which parameter v has its value x, one bit each."""

    masks: tuple[tuple[int, ...], ...]

    @staticmethod
    def of_rows(domains: Sequence[int], rows: Iterable[Row]) -> Space:
        """The space in which exactly these rows are valid."""
        masks = [[0] * size for size in domains]
        for number, row in enumerate(dict.fromkeys(rows)):
            for variable, value in enumerate(row):
                masks[variable][value] |= 1 << number
        return Space(tuple(tuple(values) for values in masks))

    @staticmethod
    def free(domains: Sequence[int]) -> Space:
        """The space without any rule: one bit stands for "every row"."""
        return Space(tuple((1,) * size for size in domains))

    def possible(self, partial: Iterable[tuple[int, int]]) -> bool:
        """Whether some valid row has all these (parameter, value)."""
        state = -1
        for variable, value in partial:
            state &= self.masks[variable][value]
        return state != 0 and all(any(values) for values in self.masks)


def covering_array(space: Space, strength: int) -> tuple[Row, ...]:
    """Return valid rows that hold every possible tuple of `strength` values of different parameters."""
    width = len(space.masks)
    strength = min(strength, width)
    if strength == 0 or not all(any(values) for values in space.masks):
        return ()
    missing = _Missing(space, strength)
    # A small array is made several times with other ties, for there luck matters most and time least.
    tries = max(1, min(40, WORK // (missing.count * width * width)))
    shortest: list[Row] = []
    for number in range(tries):
        rows = _array(space, missing if number == 0 else _Missing(space, strength), number)
        rows = _without_spare(rows, strength)
        if not shortest or len(rows) < len(shortest):
            shortest = rows
        if len(shortest) == missing.fewest:
            break
    return tuple(shortest)


def _array(space: Space, missing: _Missing, salt: int) -> list[Row]:
    rows: list[Row] = []
    while missing.count:
        seeds = missing.seeds()
        candidates = [
            _row(space, missing, seeds[(number + salt) % len(seeds)], number, salt) for number in range(CANDIDATES)
        ]
        row = max(candidates, key=missing.gained)  # of equal ones the first
        missing.cover(row)
        rows.append(row)
    return rows


class _Missing:
    """Tuples that no row holds yet. `left[others][v]`: the values of v, one bit each, that miss beside `others`."""

    def __init__(self, space: Space, strength: int) -> None:
        self.width, self.strength = len(space.masks), strength
        self.count = 0
        self.fewest = 0  # no array is shorter: the tuples of one choice of parameters stand in different rows
        self.left: dict[Row, list[int]] = {}
        self.start = [0, *itertools.accumulate(len(values) for values in space.masks)]
        self.owed = [0] * self.start[-1]
        for chosen in itertools.combinations(range(self.width), strength):
            before = self.count
            self._open(space, chosen, (), -1)
            self.fewest = max(self.fewest, self.count - before)

    def _open(self, space: Space, chosen: Row, items: Row, state: int) -> None:
        place = len(items)
        if place == len(chosen):
            self.count += 1
            for item in items:
                self.owed[item] += 1
            for index, variable in enumerate(chosen):
                others = items[:index] + items[index + 1 :]
                row = self.left.setdefault(others, [0] * self.width)
                row[variable] |= 1 << (items[index] - self.start[variable])
            return
        variable = chosen[place]
        for value, mask in enumerate(space.masks[variable]):
            if state & mask:
                self._open(space, chosen, (*items, self.start[variable] + value), state & mask)

    def beside(self, fixed: Sequence[int], variable: int) -> list[int]:
        """For each value of `variable` how many tuples it would cover together with the items that are fixed."""
        gains = [0] * (self.start[variable + 1] - self.start[variable])
        for others in itertools.combinations(fixed, self.strength - 1):
            row = self.left.get(others)
            bits = row[variable] if row is not None else 0
            while bits:
                low = bits & -bits
                gains[low.bit_length() - 1] += 1
                bits ^= low
        return gains

    def gained(self, row: Row) -> int:
        """How many tuples the row would cover."""
        return sum(1 for items in self._tuples(row) if self._misses(items))

    def _tuples(self, row: Row) -> Iterable[Row]:
        items = [self.start[variable] + value for variable, value in enumerate(row)]
        return itertools.combinations(items, self.strength)

    def _misses(self, items: Row) -> bool:
        row = self.left.get(items[1:])
        variable = self.variable(items[0])
        return row is not None and bool(row[variable] >> (items[0] - self.start[variable]) & 1)

    def variable(self, item: int) -> int:
        low, high = 0, self.width
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.start[middle] <= item else (low, middle)
        return low

    def cover(self, row: Row) -> None:
        for items in self._tuples(row):
            if not self._misses(items):
                continue
            self.count -= 1
            for index, item in enumerate(items):
                self.owed[item] -= 1
                variable = self.variable(item)
                self.left[items[:index] + items[index + 1 :]][variable] &= ~(1 << (item - self.start[variable]))

    def seeds(self) -> list[Row]:
        """Some uncovered tuples around the value that misses most, the neediest first."""
        most = max(range(len(self.owed)), key=lambda item: (self.owed[item], -item))
        variable = self.variable(most)
        bit = 1 << (most - self.start[variable])
        found = (
            (-sum(self.owed[i] for i in others), others) for others, row in self.left.items() if row[variable] & bit
        )
        return [tuple(sorted((most, *others))) for _, others in heapq.nsmallest(SEEDS, found)]


def _row(space: Space, missing: _Missing, seed: Row, number: int, salt: int) -> Row:
    """One candidate: never leaves what can be completed, so it always ends as a valid row."""
    chance = _Chance((number * 7919 + salt * 104729 + missing.count * 31) % (1 << 32))
    row = [-1] * missing.width
    fixed = list(seed)
    state = -1
    for item in fixed:
        variable = missing.variable(item)
        row[variable] = item - missing.start[variable]
        state &= space.masks[variable][row[variable]]
    for variable in _order(missing, [v for v, value in enumerate(row) if value < 0], number, chance):
        gains = missing.beside(fixed, variable)
        start = missing.start[variable]
        fits = [x for x, mask in enumerate(space.masks[variable]) if state & mask]
        scores = [(gains[x], missing.owed[start + x] if number % 2 else 0, chance.below(1 << 16)) for x in fits]
        value = fits[scores.index(max(scores))]
        row[variable] = value
        state &= space.masks[variable][value]
        fixed.append(start + value)
        fixed.sort()
    return tuple(row)


def _order(missing: _Missing, variables: list[int], number: int, chance: _Chance) -> list[int]:
    """First by what the parameters still miss; for other candidates shuffled."""
    if number < 2:
        owed = {v: sum(missing.owed[missing.start[v] : missing.start[v + 1]]) for v in variables}
        return sorted(variables, key=lambda v: (-owed[v], v))
    return sorted(variables, key=lambda v: chance.below(1 << 16))


class _Chance:
    """The same numbers on every Python: a linear congruential generator (Numerical Recipes)."""

    def __init__(self, seed: int) -> None:
        self.state = (seed * 2654435761 + 1) % (1 << 32)

    def below(self, bound: int) -> int:
        self.state = (self.state * 1664525 + 1013904223) % (1 << 32)
        return (self.state >> 8) % bound


def _without_spare(rows: list[Row], strength: int) -> list[Row]:
    """Leave out rows all of whose tuples stand in others too; early rows were the richest, so look from the end."""
    held: dict[tuple[tuple[int, int], ...], int] = {}
    for row in rows:
        for items in itertools.combinations(enumerate(row), strength):
            held[items] = held.get(items, 0) + 1
    kept = []
    for row in reversed(rows):
        tuples = list(itertools.combinations(enumerate(row), strength))
        if all(held[items] > 1 for items in tuples):
            for items in tuples:
                held[items] -= 1
        else:
            kept.append(row)
    return kept[::-1]
