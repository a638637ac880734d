"""A second solver as a second opinion on worlds too large to try everything: clingo, from the definitions alone.

A world is (domains, rules, always) as in oracle.py; a rule is (scope, set of forbidden tuples) over one to three
variables. Nothing here is shared with the solver that is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import clingo

Rule = tuple[tuple[int, ...], frozenset[tuple[int, ...]]]

MEANING = """
1 { is(X,V) : value(X,V) } 1 :- variable(X).
:- is(X,V), no(R,X,V), not left_out(R).
:- is(X,V), is(Y,W), no(R,X,V,Y,W), not left_out(R).
:- is(X,V), is(Y,W), is(Z,U), no(R,X,V,Y,W,Z,U), not left_out(R).
#external left_out(R) : rule(R).
#show is/2.
"""


class World:
    """One world, grounded once; rules can be left out."""

    def __init__(self, domains: Sequence[int], rules: Sequence[Rule], always: Sequence[Rule] = ()) -> None:
        lines = [MEANING, "#minimize { V@-X,X : is(X,V) }."]
        lines += [f"variable({x}). value({x},0..{size - 1})." for x, size in enumerate(domains)]
        lines += [f"rule({number})." for number in range(len(rules))]
        for number, (scope, forbidden) in (
            *enumerate(rules),
            *((f"always({n})", rule) for n, rule in enumerate(always)),
        ):
            for values in forbidden:
                words = ",".join(f"{x},{v}" for x, v in zip(scope, values, strict=True))
                lines.append(f"no({number},{words}).")
        self._size, self._rules = len(domains), len(rules)
        self._control = clingo.Control(["--warn=none", "--opt-mode=opt"])
        self._control.add("base", [], "\n".join(lines))
        self._control.ground([("base", [])])

    def optimum(self, without: Iterable[int] = ()) -> tuple[int, ...] | None:
        """The least assignment, earlier variables weighing more, that obeys all rules but those left out; or None."""
        gone = set(without)
        for number in range(self._rules):
            external = clingo.Function("left_out", [clingo.Number(number)])
            self._control.assign_external(external, number in gone)
        best: tuple[int, ...] | None = None
        with self._control.solve(yield_=True) as models:
            for model in models:
                shown = {s.arguments[0].number: s.arguments[1].number for s in model.symbols(shown=True)}
                best = tuple(shown[x] for x in range(self._size))
        return best

    def holds_together(self, members: Iterable[int]) -> bool:
        """Whether these rules, and what always holds, can be obeyed together."""
        return self.optimum(without=set(range(self._rules)) - set(members)) is not None
