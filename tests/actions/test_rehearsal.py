"""The steps of a rehearsal against hosts that exist only as what a probe would show of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from provisioner.actions.rehearse import rehearse
from provisioner.errors import HostError
from provisioner.model.rehearsal import Case, CaseResult, Outcome, Rehearsal
from provisioner.model.stack import Choice, HostLock, Lock
from tests.world import WHEN, Rig, entry, locked


def upgraded(version: str = "535.274.02", **changes: Any) -> HostLock:
    return entry(driver_version=Choice(value=version), packages=(locked("nvidia-smi", f"{version}-1"),), **changes)


def lock(**hosts: HostLock) -> Lock:
    return Lock(made_by="0.1.0", matrix="0" * 64, hosts=hosts)


@dataclass
class World:
    """A Theatre of fake rigs, a Memory and a Clock. `bad` plants outcomes: (card, command) → state."""

    bad: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    cannot: dict[str, str] = field(default_factory=dict)  # card → why the lab can't
    breaks: set[str] = field(default_factory=set)  # cards whose host does not come up
    images: dict[str, HostLock] = field(default_factory=dict)
    known: dict[str, CaseResult] = field(default_factory=dict)
    up: list[str] = field(default_factory=list)
    most: int = 0
    log: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)
    interrupt_at: str = ""
    stopped: bool = False

    # Theatre
    def lacks(self, case: Case) -> str | None:
        return self.cannot.get(case.after.gpus[0])

    def sweep(self) -> None:
        self.up.clear()

    def raise_up(self, case: Case) -> Stage:
        with self.guard:
            self.up.append(case.id)
            self.most = max(self.most, len(self.up))
        if case.after.gpus[0] in self.breaks:
            raise HostError("lab-host-not-booted", "rig", "rig did not boot within 90 s", context=["init: no"])
        return Stage(self, case)

    def take_down(self, case: Case) -> None:
        with self.guard:
            if case.id in self.up:
                self.up.remove(case.id)

    def stop(self) -> None:
        self.stopped = True

    # Memory
    def passed(self, case: Case) -> CaseResult | None:
        return self.known.get(case.id)

    def note(self, result: CaseResult) -> None:
        if result.verdict == "passed":
            self.known[result.case.id] = result

    # Clock
    def now(self) -> datetime:
        return WHEN


class Stage:
    def __init__(self, world: World, case: Case) -> None:
        self.world = world
        self.case = case
        self.card = case.after.gpus[0]
        self.rig = Rig("rig", case.after, bare=True)
        self.cached = case.before is not None and self.card in world.images
        self.log = f"{case.name}.log"
        self.past: list[HostLock] = []
        if self.cached and case.before is not None:
            self.rig.bring_to(case.before)

    def apply(self, entry: HostLock) -> Outcome:
        command = "present" if entry is self.case.before else "upgrade"
        return self._do(command, entry)

    def plan(self, entry: HostLock) -> str:
        return f"plan to {entry.driver_version.value if entry.driver_version else 'none'}"

    def back(self) -> Outcome:
        assert self.case.before is not None
        return self._do("back", self.case.before)

    def keep(self) -> None:
        assert self.case.before is not None
        self.world.images[self.card] = self.case.before

    def _do(self, command: str, entry: HostLock) -> Outcome:
        with self.world.guard:
            self.world.log.append(f"{self.card} {command}")
        if self.world.interrupt_at == command:
            raise KeyboardInterrupt
        planted = self.world.bad.get((self.card, command))
        if planted is not None:
            return planted
        self.rig.bring_to(entry)
        return Outcome("good", seconds=60.0, verify_s=10.0, not_serving_s=40.0)


def run(world: World, before: Lock, after: Lock, **more: Any) -> Rehearsal:
    return rehearse(before, after, theatre=world, memory=world, clock=world, **{"jobs": 2, **more})


def test_up_and_back() -> None:
    """As it is now, upgraded, verified, brought back, verified: five steps, each with its seconds."""
    world = World()

    done = run(world, lock(a=entry()), lock(a=upgraded()))

    assert world.log == ["rtx-3090 present", "rtx-3090 upgrade", "rtx-3090 back"]
    (result,) = done.cases
    assert result.verdict == "passed"
    assert [(one.step, one.status, one.seconds) for one in result.steps] == [
        ("present", "passed", 60.0),
        ("upgrade", "passed", 50.0),
        ("verify", "passed", 10.0),
        ("back", "passed", 50.0),
        ("verify-back", "passed", 10.0),
    ]
    assert result.not_serving_s == 40.0
    assert result.plan == "plan to 535.274.02"
    assert world.up == []


@pytest.mark.parametrize(
    ("command", "state", "steps", "why"),
    [
        ("upgrade", "failed", ["passed", "failed"], "the upgrade failed: nvidia-smi=9 is not there"),
        ("upgrade", "unverified", ["passed", "passed", "failed"], "the upgraded host does not pass: nvidia-smi=9"),
        ("back", "failed", ["passed", "passed", "passed", "failed"], "the way back failed: nvidia-smi=9"),
        ("back", "unverified", ["passed"] * 4 + ["failed"], "the host that was brought back does not pass"),
    ],
)
def test_what_fails_is_found_and_named(command: str, state: Any, steps: list[str], why: str) -> None:
    """The step, the reason and the stack; the other stack goes on."""
    planted = Outcome(state, seconds=5.0, reference="task-failed", detail=("nvidia-smi=9 is not there",))
    world = World(bad={("rtx-4090", command): planted})
    before = lock(a=entry(), b=entry(gpus=("rtx-4090",)))
    after = lock(a=upgraded(), b=upgraded(gpus=("rtx-4090",)))

    done = run(world, before, after)

    failed, passed = sorted(done.cases, key=lambda one: one.verdict)
    assert (failed.verdict, passed.verdict) == ("failed", "passed")
    assert failed.case.hosts == ("b",)
    assert [one.status for one in failed.steps] == steps
    assert failed.why.startswith(why)
    assert failed.steps[-1].reference == "task-failed"


def test_a_host_that_was_brought_back_by_itself() -> None:
    """An upgrade that does not pass is taken back by apply: the case has failed all the same."""
    planted = Outcome("unverified", seconds=90.0, verify_s=5.0, taken_back=True, detail=("no container sees the GPU",))
    done = run(World(bad={("rtx-3090", "upgrade"): planted}), lock(a=entry()), lock(a=upgraded()))

    assert [(one.step, one.status) for one in done.cases[0].steps[1:]] == [
        ("upgrade", "passed"),
        ("verify", "failed"),
        ("back", "passed"),
    ]
    assert done.cases[0].verdict == "failed"


@pytest.mark.parametrize("how", ["cannot", "breaks", "present"])
def test_what_cannot_be_rebuilt_is_not_rehearsed_and_never_passes(how: str) -> None:
    """No such release in the lab, a host that does not boot, a package that is gone: nothing is known."""
    world = World()
    if how == "cannot":
        world.cannot["rtx-3090"] = "the lab has no ubuntu-22.04"
    elif how == "breaks":
        world.breaks.add("rtx-3090")
    else:
        world.bad["rtx-3090", "present"] = Outcome("failed", detail=("nvidia-smi=1 is no longer offered",))

    done = run(world, lock(a=entry()), lock(a=upgraded()))

    (result,) = done.cases
    assert result.verdict == "not-rehearsed"
    assert [(one.step, one.status) for one in result.steps] == [("present", "not-made")]
    assert "rtx-3090 upgrade" not in world.log
    assert done.named("passed") == ()
    assert world.up == []
    assert result.why


def test_the_present_state_is_kept_once_and_used_again() -> None:
    world = World()
    run(world, lock(a=entry()), lock(a=upgraded()))
    assert list(world.images) == ["rtx-3090"]

    again = run(world, lock(a=entry()), lock(a=upgraded("550.163.01")))

    assert again.cases[0].cached
    assert again.cases[0].verdict == "passed"


def test_one_present_state_is_built_once_in_a_rehearsal() -> None:
    """Of three stacks two begin alike: the second of them is last, and begins from the image."""
    before = lock(a=entry(), b=entry(), c=entry(gpus=("rtx-4090",)))
    after = lock(a=upgraded(), b=upgraded("550.163.01"), c=upgraded(gpus=("rtx-4090",)))
    world = World()

    done = run(world, before, after, jobs=1)

    assert [one.cached for one in done.cases].count(True) == 1
    assert [line.partition(" ")[0] for line in world.log if line.endswith("present")][1] == "rtx-4090"


def test_what_passed_is_not_tried_again_unless_asked() -> None:
    world = World()
    first = run(world, lock(a=entry()), lock(a=upgraded()))
    world.log.clear()

    second = run(world, lock(a=entry(), b=entry()), lock(a=upgraded(), b=upgraded()))
    assert world.log == []
    assert second.cases[0].earlier
    assert second.cases[0].case.hosts == ("a", "b")
    assert second.cases[0].steps == first.cases[0].steps

    run(world, lock(a=entry()), lock(a=upgraded()), fresh=True)
    assert len(world.log) == 3


def test_what_failed_is_tried_again() -> None:
    world = World(bad={("rtx-3090", "upgrade"): Outcome("failed", detail=("no",))})
    run(world, lock(a=entry()), lock(a=upgraded()))
    world.bad.clear()

    assert run(world, lock(a=entry()), lock(a=upgraded())).cases[0].verdict == "passed"


def test_interrupted_it_takes_hosts_down_and_goes_on_from_what_passed() -> None:
    """The first stack passes, the second is interrupted: no host is left, and the next run does the second alone."""
    cards = ("rtx-3090", "rtx-4090")
    before = lock(**{f"rig-{n}": entry(gpus=(card,)) for n, card in enumerate(cards)})
    after = lock(**{f"rig-{n}": upgraded(gpus=(card,)) for n, card in enumerate(cards)})
    world = World()

    class Interrupted(World):
        def raise_up(self, case: Case) -> Stage:
            if case.after.gpus[0] == "rtx-4090":
                self.up.append(case.id)
                raise KeyboardInterrupt
            return super().raise_up(case)

    first = Interrupted(known=world.known)
    with pytest.raises(KeyboardInterrupt):
        run(first, before, after, jobs=1)
    assert first.up == []
    assert first.stopped
    assert len(world.known) == 1

    done = run(world, before, after)
    assert {one.case.after.gpus[0]: one.earlier for one in done.cases} == {"rtx-3090": True, "rtx-4090": False}
    assert all("rtx-3090" not in line for line in world.log)


def test_what_a_killed_rehearsal_left_is_removed_first() -> None:
    """Also of stacks that nobody rehearses any more; where nothing is to rehearse, no lab is asked."""
    world = World(up=["of-another-candidate"])
    run(world, lock(a=entry()), lock(a=entry()))
    assert world.up == ["of-another-candidate"]

    run(world, lock(a=entry()), lock(a=upgraded()))
    assert world.up == []


def test_no_more_hosts_at_once_than_asked() -> None:
    cards = [f"card-{n}" for n in range(6)]
    before = lock(**{card: entry(gpus=(card,)) for card in cards})
    after = lock(**{card: upgraded(gpus=(card,)) for card in cards})
    world = World()

    done = run(world, before, after, jobs=3)

    assert 1 <= world.most <= 3
    assert len(done.named("passed")) == 6


def test_a_new_host_is_set_up_and_verified() -> None:
    """It has no present state, and so no way back to rehearse."""
    world = World()

    done = run(world, lock(), lock(new=upgraded()))

    assert world.log == ["rtx-3090 upgrade"]
    assert [one.step for one in done.cases[0].steps] == ["upgrade", "verify"]
    assert done.cases[0].verdict == "passed"


def test_nothing_changes_nothing_is_started() -> None:
    world = World()

    done = run(world, lock(a=entry()), lock(a=entry()))

    assert (done.cases, done.unchanged, world.log) == ((), ("a",), [])
