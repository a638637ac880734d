"""The watchdog's ladder: documented steps, limits that no sequence of events can exceed, and no job ended by it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.host.ladder import CLEAR_S, DAY_S, ENDS_JOBS, LADDERS, REBOOT_GAP_S, REBOOTS_A_DAY, decide

NAMES = st.sampled_from([*LADDERS, "client-down/lium", "heartbeat-stale/lium"])
MOMENTS = st.lists(st.tuples(st.integers(1, 4000), st.sets(NAMES, max_size=4), st.booleans()), min_size=1, max_size=60)


def live(moments: list[tuple[int, set[str], bool]]) -> list[tuple[float, str, str, bool]]:
    """Live through moments of (seconds since the last, causes, busy); return (time, action, cause, busy)."""
    memory: dict[str, Any] = {}
    now, taken = 1_000_000.0, []
    for passed, causes, busy in moments:
        now += passed
        decision = decide(dict.fromkeys(causes, "w"), memory, now, busy)
        memory = json.loads(json.dumps(decision.memory))  # it lives in a file between two runs
        taken += [(now, action, cause, busy) for action, cause, _ in decision.actions]
    return taken


def steady(cause: str, minutes: int, *, busy: bool = False, reboots: bool = True) -> list[tuple[int, str]]:
    """One cause for so long, looked at every minute: (minute, action)."""
    memory: dict[str, Any] = {}
    taken = []
    for minute in range(minutes):
        decision = decide({cause: "w"}, memory, minute * 60.0, busy, reboots)
        memory = decision.memory
        taken += [(minute, action) for action, _, _ in decision.actions]
    return taken


@pytest.mark.parametrize(
    ("cause", "actions"),
    [
        ("client-down/lium", [(0, "start-client"), (1, "start-client"), (3, "start-client"), (7, "tell")]),
        ("heartbeat-stale/lium", [(0, "restart-client"), (2, "restart-client"), (6, "restart-client"), (14, "tell")]),
        ("tunnel-stale", [(0, "restart-tunnel"), (1, "restart-tunnel"), (3, "restart-tunnel"), (7, "tell")]),
        ("gate-closed", [(0, "drain"), (1, "stop-client"), (11, "tell")]),
        ("disk-full", [(0, "drain"), (10, "tell")]),
        (
            "hot",
            [(0, "cap-power"), (2, "cap-power"), (6, "cap-power"), (14, "drain"), (15, "stop-client"), (25, "tell")],
        ),
        ("throttling", [(0, "cap-power"), (5, "cap-power"), (15, "cap-power"), (35, "tell")]),
        ("xid-hardware", [(0, "drain"), (1, "reboot"), (11, "tell")]),
        ("gpu-gone", [(0, "drain"), (1, "reboot"), (61, "reboot"), (81, "tell")]),
        ("xid-application", [(0, "tell")]),
    ],
)
def test_the_ladder_of_each_cause(cause: str, actions: list[tuple[int, str]]) -> None:
    """Rung by rung, each further wait twice as long, and told once at the end."""
    assert steady(cause, 24 * 60) == actions


def test_every_cause_stands_in_the_table_above() -> None:
    """A new cause needs its documented ladder."""
    mark = next(mark for mark in test_the_ladder_of_each_cause.pytestmark)  # type: ignore[attr-defined]
    assert {cause.partition("/")[0] for cause, _ in mark.args[1]} == set(LADDERS)


def test_a_job_is_not_ended() -> None:
    """What would end it waits, for ever if need be; what does not is done."""
    assert steady("gpu-gone", 24 * 60, busy=True) == [(0, "drain")]
    assert steady("heartbeat-stale/lium", 60, busy=True) == []
    assert [action for _, action in steady("hot", 60, busy=True)] == ["cap-power"] * 3 + ["drain"]


def test_a_host_that_must_not_reboot() -> None:
    """The operator's word stands; the watchdog only tells."""
    assert steady("gpu-gone", 600, reboots=False) == [(0, "drain"), (1, "tell")]


def test_a_cause_that_went_begins_anew() -> None:
    """Gone for five minutes: forgotten. Gone for less: the same trouble."""
    first = decide({"tunnel-stale": "w"}, {}, 0.0, False)
    again = decide({"tunnel-stale": "w"}, decide({}, first.memory, 100.0, False).memory, 200.0, False)
    assert again.memory["causes"]["tunnel-stale"]["tried"] == 2
    anew = decide({"tunnel-stale": "w"}, decide({}, first.memory, CLEAR_S + 1.0, False).memory, CLEAR_S + 2.0, False)
    assert anew.memory["causes"]["tunnel-stale"]["tried"] == 1


@settings(max_examples=300, deadline=None)
@given(MOMENTS)
def test_reboots_have_limits(moments: list[tuple[int, set[str], bool]]) -> None:
    """At most so many within any day, never within an hour of each other, and never as one of several actions after."""
    at = [time for time, action, _, _ in live(moments) if action == "reboot"]
    for time in at:
        assert sum(time - DAY_S < other <= time for other in at) <= REBOOTS_A_DAY
    assert all(later - earlier >= REBOOT_GAP_S for earlier, later in pairwise(at))


@settings(max_examples=300, deadline=None)
@given(MOMENTS)
def test_no_action_ends_a_job(moments: list[tuple[int, set[str], bool]]) -> None:
    """Whatever happens in whatever order."""
    assert not [taken for taken in live(moments) if taken[3] and taken[1] in ENDS_JOBS]


@settings(max_examples=300, deadline=None)
@given(MOMENTS)
def test_nothing_but_the_ladder_and_one_tell(moments: list[tuple[int, set[str], bool]]) -> None:
    """Each action is a rung of its cause; after it was told, a cause that stays causes nothing more."""
    for _, action, cause, _ in live(moments):
        assert action == "tell" or action in {rung[0] for rung in LADDERS[cause.partition("/")[0]]}


@settings(max_examples=200, deadline=None)
@given(NAMES, st.lists(st.integers(1, CLEAR_S - 1), min_size=1, max_size=80))
def test_a_cause_that_stays_is_told_once(cause: str, gaps: list[int]) -> None:
    """However irregularly it is looked at; nothing follows."""
    taken = [action for _, action, _, _ in live([(gap, {cause}, False) for gap in gaps])]
    assert taken.count("tell") <= 1
    assert "tell" not in taken[:-1]


@settings(max_examples=200, deadline=None)
@given(MOMENTS)
def test_a_reboot_ends_the_round(moments: list[tuple[int, set[str], bool]]) -> None:
    """What would come after it is not begun: the host is going down."""
    taken = live(moments)
    for time in {moment for moment, action, _, _ in taken if action == "reboot"}:
        assert [action for at, action, _, _ in taken if at == time][-1] == "reboot"
