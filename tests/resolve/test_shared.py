"""The fewest distinct stacks of a fleet: against trying every set, and on whole hosts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resolver import WORLDS, hosts, intents

from provisioner.actions import resolve as action
from provisioner.actions.observe import Seen
from provisioner.cli.views.resolve import resolved_json, resolved_text
from provisioner.model.capture import Capture
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import HostLock
from provisioner.resolve import solve
from provisioner.resolve.lock import lock_text
from provisioner.resolve.shared import Stack, smallest, stack_of_lock, stacks_for, with_stack
from tests.examples import examples

LETTERS = [Stack("debian-12", letter, "open", "docker") for letter in "abcdef"]


def by_trying_all(fleet: Mapping[str, Sequence[Stack]]) -> tuple[int, int]:
    """The fewest stacks, and the fewest hosts that leave their own among all sets of that many."""
    every = sorted({stack for stacks in fleet.values() for stack in stacks})
    for size in range(1, len(every) + 1):
        covers = [
            chosen
            for chosen in itertools.combinations(every, size)
            if all(set(stacks) & set(chosen) for stacks in fleet.values())
        ]
        if covers:
            return size, min(sum(stacks[0] not in chosen for stacks in fleet.values()) for chosen in covers)
    return 0, 0


fleets = st.lists(st.lists(st.sampled_from(LETTERS), min_size=1, max_size=4, unique=True), min_size=1, max_size=8).map(
    lambda rows: {f"rig-{place}": tuple(row) for place, row in enumerate(rows)}
)


@settings(max_examples=examples(500), deadline=None, derandomize=True)
@given(fleets)
def test_it_is_the_fewest_and_moves_the_fewest_hosts(fleet: dict[str, tuple[Stack, ...]]) -> None:
    size, moved = by_trying_all(fleet)

    shared = smallest(fleet)

    assert shared.proven
    assert len(shared.stacks) == size
    assert all(shared.of[name] in stacks for name, stacks in fleet.items())
    assert sum(shared.of[name] != stacks[0] for name, stacks in fleet.items()) == moved


@settings(max_examples=100, deadline=None, derandomize=True)
@given(fleets)
def test_the_order_of_the_hosts_does_not_count(fleet: dict[str, tuple[Stack, ...]]) -> None:
    turned = dict(reversed(fleet.items()))

    assert smallest(fleet).of == {name: smallest(turned).of[name] for name in fleet}


def test_when_the_steps_are_spent_nothing_is_claimed() -> None:
    """Three kinds in a ring need two; with no steps to search, the greedy answer stands and is not called proven."""
    a, b, c, d, e, f = LETTERS
    fleet = {"1": (a, b), "2": (b, c), "3": (c, a), "4": (d, e), "5": (e, f), "6": (f, d)}

    assert smallest(fleet).proven and len(smallest(fleet).stacks) == 4
    spent = smallest(fleet, steps=0)
    assert not spent.proven
    assert all(spent.of[name] in stacks for name, stacks in fleet.items())


def test_releases_share_nothing() -> None:
    other = dataclasses.replace(LETTERS[0], os="debian-13")

    assert len(smallest({"rig-01": (LETTERS[0],), "rig-02": (other,)}).stacks) == 2


@settings(WORLDS, max_examples=examples(60))
@given(hosts(), intents)
def test_every_stack_of_a_host_serves_its_whole_request(facts: HostFacts, intent: Intent) -> None:
    """The first is its own; each other one solves the same request, networks and all."""
    matrix = worlds.matrix()
    own = solve(facts, intent, matrix)

    stacks = stacks_for(facts, intent, matrix)

    if not isinstance(own, HostLock):
        assert stacks == ()
        return
    assert stacks[0] == stack_of_lock(own)
    for stack in stacks:
        entry = with_stack(facts, intent, matrix, stack, own, hosts=2)
        assert stack_of_lock(entry) == stack
        assert list(entry.networks) == list(own.networks)
        assert entry.intent == intent


FRESH = worlds.host("debian-12", "rtx-3090", suites=("", "-backports"), name="rig-01")
OLDER = worlds.host(
    "debian-12",
    "rtx-3090",
    suites=("", "-backports"),
    installed={"nvidia-kernel-dkms": "535.216.03-2~bpo12+1"},
    loaded="535.216.03",
    name="rig-02",
)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> list[InventoryHost]:
    """Two rigs that would each get a driver of their own, and can share either."""
    rigs = [InventoryHost("rig-01", {}, Intent(networks=("lium",))), InventoryHost("rig-02", {}, Intent())]

    def observe(seen: Sequence[InventoryHost], *_: object) -> tuple[dict[str, Seen], dict[str, object]]:
        facts = {"rig-01": FRESH, "rig-02": OLDER}
        empty = {name: Capture(host=name, taken_at=FRESH.taken_at, probe="test") for name in facts}
        return {h.name: Seen(h, empty[h.name], facts[h.name]) for h in seen}, {}

    monkeypatch.setattr(action, "observe", observe)
    return rigs


class Nobody:
    def probe(self, *_: object) -> dict[str, Capture]:
        raise AssertionError("the hosts are seen already")


def test_a_fleet_is_told_that_fewer_would_do(fleet: list[InventoryHost]) -> None:
    resolved = action.resolve(fleet, worlds.matrix(), prober=Nobody(), keys=Nobody())  # type: ignore[arg-type]  # never asked

    text = resolved_text(resolved, explained=False, written="provision.lock", next_command="provision plan")
    assert "2 of 2 hosts resolved, 2 different stacks (1 would do: --unify) · lock provision.lock\n" in text
    assert '"stacks": {\n    "distinct": 2,\n    "smallest": 1,\n    "proven": true\n  }' in resolved_json(resolved)


def test_unify_gives_one_stack_and_says_why(fleet: list[InventoryHost]) -> None:
    resolved = action.resolve(fleet, worlds.matrix(), prober=Nobody(), keys=Nobody(), unify=True)  # type: ignore[arg-type]  # never asked

    assert {name: lock.driver_version.value for name, lock in resolved.stacks.items() if lock.driver_version} == {
        "rig-01": "535.216.03",
        "rig-02": "535.216.03",
    }
    assert list(resolved.stacks["rig-01"].networks) == ["lium"]
    assert resolved.distinct == 1
    choice = resolved.stacks["rig-01"].driver_version
    assert choice is not None
    assert [(reason.text, reason.rests_on) for reason in choice.because] == [
        (
            "535.216.03 is what 2 hosts of the fleet share; by itself this one would get 535.261.03",
            ("request: --unify",),
        )
    ]
    again = action.resolve(list(reversed(fleet)), worlds.matrix(), prober=Nobody(), keys=Nobody(), unify=True)  # type: ignore[arg-type]  # never asked
    assert lock_text(again.lock) == lock_text(resolved.lock)
