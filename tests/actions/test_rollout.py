"""A rollout takes the canary first, watches it serve, and stops and goes back where one does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.actions.rollout import LOOK_S, SETTLE_S, Fate, batches, roll_out, watched
from provisioner.errors import HostError
from provisioner.model.capture import CommandOutput
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.run import HostResult

SIX = tuple(f"rig-0{number}" for number in range(1, 7))


@pytest.mark.parametrize(
    ("hosts", "canary", "most", "sizes"),
    [
        (SIX, 1, 0, [1, 1, 1, 1, 1, 1]),
        (SIX, 1, 3, [1, 3, 2]),
        (SIX, 2, 2, [2, 2, 2]),
        (SIX * 4, 1, 0, [1, 5, 5, 5, 5, 3]),
        (SIX[:1], 1, 3, [1]),
        ((), 1, 3, []),
    ],
)
def test_batches(hosts: tuple[str, ...], canary: int, most: int, sizes: list[int]) -> None:
    """One worked example per line."""
    assert [len(batch) for batch in batches(hosts, canary=canary, most=most)] == sizes


@given(st.lists(st.integers(), unique=True), st.integers(1, 5), st.integers(0, 5))
def test_every_host_is_in_one_batch_and_in_order(numbers: list[int], canary: int, most: int) -> None:
    """Whatever the sizes."""
    hosts = [str(number) for number in numbers]
    cut = batches(hosts, canary=canary, most=most)
    assert [name for batch in cut for name in batch] == hosts
    assert all(cut)


@dataclass
class World:
    """Hosts that cannot be brought to the new client, that do not serve with it, or that cannot be brought back."""

    breaks: dict[str, HostResult] = field(default_factory=dict)
    unwell: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)

    def bring(self, hosts: Sequence[str]) -> Mapping[str, HostResult]:
        self.log.append(f"bring {' '.join(hosts)}")
        return {name: self.breaks.get(name, HostResult(name, "enrolled")) for name in hosts}

    def watch(self, hosts: Sequence[str]) -> Mapping[str, str]:
        self.log.append(f"watch {' '.join(hosts)}")
        return {name: "no heartbeat" for name in hosts if name in self.unwell}

    def back(self, hosts: Sequence[str]) -> Mapping[str, HostResult]:
        self.log.append(f"back {' '.join(hosts)}")
        return {name: HostResult(name, "failed" if name in self.stuck else "enrolled") for name in hosts}

    def tell(self, line: str) -> None:
        pass


def test_all_go_well() -> None:
    """Each batch is watched before the next is touched."""
    world = World()
    out = roll_out(batches(SIX, most=3), world)
    assert out.named("done") == SIX
    assert world.log == [
        "bring rig-01",
        "watch rig-01",
        "bring rig-02 rig-03 rig-04",
        "watch rig-02 rig-03 rig-04",
        "bring rig-05 rig-06",
        "watch rig-05 rig-06",
    ]


def test_a_canary_that_does_not_serve_goes_back_and_nobody_follows() -> None:
    """Five hosts never hear of the new client."""
    world = World(unwell={"rig-01"})
    out = roll_out(batches(SIX, most=3), world)
    assert out.fates["rig-01"] == Fate("rolled-back", "no heartbeat")
    assert out.named("left") == SIX[1:]
    assert world.log == ["bring rig-01", "watch rig-01", "back rig-01"]


def test_in_a_batch_only_the_unwell_go_back() -> None:
    """Those beside it serve with the new client; the batches behind stay as they are."""
    out = roll_out(batches(SIX, most=3), World(unwell={"rig-03"}))
    assert out.named("done") == ("rig-01", "rig-02", "rig-04")
    assert out.named("rolled-back") == ("rig-03",)
    assert out.named("left") == ("rig-05", "rig-06")


def test_what_apply_took_back_itself_is_not_brought_back_twice() -> None:
    """Its checks did not pass; a host whose change failed is left to its operator."""
    results = {"rig-01": HostResult("rig-01", "rolled-back", reason="no"), "rig-02": HostResult("rig-02", "failed")}
    world = World(breaks=results)
    out = roll_out([("rig-01", "rig-02")], world)
    assert (out.named("rolled-back"), out.named("failed")) == (("rig-01",), ("rig-02",))
    assert world.log == ["bring rig-01 rig-02"]


def test_one_that_cannot_be_brought_back() -> None:
    """Is told as failed, with the reason why it had to go back."""
    out = roll_out([("rig-01",)], World(unwell={"rig-01"}, stuck={"rig-01"}))
    assert out.fates["rig-01"] == Fate("failed", "no heartbeat")


# Watching.


@dataclass
class Shell:
    """Answers by the time: `good` are the seconds from which a host serves, up to those in `bad`."""

    good: float = 0
    bad: float = 10_000
    gone: bool = False
    now: float = 0

    def run(self, host: InventoryHost, script: str, stdin: str = "") -> CommandOutput:
        assert "provision-client@lium.service" in script
        if self.gone:
            raise HostError("ssh-timeout", host.name, "no answer")
        serves = self.good <= self.now < self.bad
        return CommandOutput(rc=0 if serves else 1, stdout="" if serves else "its unit does not run\n")

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def seen(shell: Shell, seconds: float = 60) -> tuple[dict[str, str], float]:
    host = InventoryHost("rig-01", {}, Intent())
    found = watched([host], "lium", seconds, shell=shell, clock=lambda: shell.now, sleep=shell.sleep)
    return found, shell.now


def test_a_client_that_serves_at_once_and_one_that_takes_a_while() -> None:
    """The time begins anew with each gap."""
    assert seen(Shell()) == ({}, 60.0)
    assert seen(Shell(good=30)) == ({}, 25.0 + 60.0)


def test_a_client_that_falls_over_and_one_that_never_comes() -> None:
    """After the time that it may take to settle, the last reason counts."""
    assert seen(Shell(bad=40)) == ({"rig-01": "its unit does not run"}, 60.0 + SETTLE_S)
    assert seen(Shell(gone=True))[0] == {"rig-01": "no answer"}
    assert LOOK_S <= 5
