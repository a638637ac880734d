"""Killed at any point: the next command finishes or undoes, and what is there then equals what a clean run leaves.

A host of Debian 12 is installed (535.216.03), upgraded (535.261.03) and rolled back, each time with another fault: at
the first step of each phase, and at 20 random moments of the change in each of the three. In turn: the controller is
killed; the host's power is cut; the ssh connections are cut; dpkg is killed. Besides: the disk is full; another process
holds dpkg's lock; the package source goes away after the staging.

PROVISION_SEED chooses the moments and which kind of fault meets which; three seeds in a row bring every kind to every
boundary. The short form is a story of an upgrade and its way back on one host.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from provisioner.adapters.lab import Lab
from tests.lab import faults
from tests.lab.faults import (
    JOURNEYS,
    ROLLBACK,
    UPGRADE,
    Fault,
    Journey,
    Moment,
    NeverCame,
    Outcomes,
    Rig,
    Running,
    Story,
    arrived,
    meet,
    recovered,
)
from tests.lab.operator import LONG, Operator

pytestmark = pytest.mark.lab

SEED = int(os.environ.get("PROVISION_SEED", "4"))
MOMENTS, IN_A_ROW = 20, 4
INSTALLING = r"  change  (Install|Remove) "
AT_THE_CHANGE = r"  change  |  stage   wait for the apt"
# The first step of each phase, and the first ones after what takes long in stage and change.
BOUNDARIES = {
    "stage": r"  stage   Keep",
    "staged": r"  stage   Compare",
    "drain": r"  drain   Stop",
    "change": INSTALLING,
    "changed": r"  change  Hold",
    "reboot": r"  reboot  Reboot",
    "ready": r"  reboot  Enable",
    "verify": r"  verify  run",
    "enrol": r"  enrol   write",
}


def met_and_given_again(journey: Journey, fault: Fault, moment: Callable[[Rig], Moment]) -> Story:
    """The second time that the command is given it comes to the end of a clean run."""

    def story(rig: Rig) -> None:
        rig.begin(journey)
        meet(rig, journey, fault, moment(rig))
        recovered(rig, journey)

    return story


def met_in_a_row(journey: Journey, shocks: Sequence[tuple[Fault, float, float]]) -> Story:
    """One fault after the other on one journey, each while the command that was given again is at the change.

    A journey that comes to its end first is begun anew, until every fault has been met.
    """

    def story(rig: Rig) -> None:
        rig.begin(journey)
        began = rig.dpkg_lines()
        fresh = True
        for fault, part, after_s in shocks:
            moment = Moment(
                INSTALLING if fresh else AT_THE_CHANGE,
                max(1, round(part * rig.clean.dpkg_lines[journey.name])),
                after_s,
                BOUNDARIES["reboot"],
            )
            try:
                meet(rig, journey, fault, moment, began)
            except NeverCame as end:
                if fresh or end.code != 0:
                    raise
                arrived(rig, journey)
                rig.begin(journey)
                began = rig.dpkg_lines()
                meet(rig, journey, fault, replace(moment, line=INSTALLING), began)
            fresh = False
            rig.host.wait()
        recovered(rig, journey)

    return story


def undone_instead(rig: Rig) -> None:
    """After an upgrade that died half way, rollback goes to the stack of before, not to the half of it."""
    rig.begin(UPGRADE)
    meet(rig, UPGRADE, faults.power_cut, Moment(INSTALLING, rig.clean.dpkg_lines["upgrade"] // 2))
    rig.operator.run(*ROLLBACK.words)

    arrived(rig, ROLLBACK)


def apt_lock_held_by_another(rig: Rig) -> None:
    """Somebody's apt is at work: the run waits for it and then does its own."""
    rig.begin(UPGRADE)
    hold = (
        "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "g=open('/var/lib/dpkg/lock','w'); fcntl.lockf(g, fcntl.LOCK_EX); time.sleep(45)"
    )
    rig.host.exec(f'setsid python3 -c "{hold}" >/dev/null 2>&1 </dev/null &')
    rig.operator.run(*UPGRADE.words)

    arrived(rig, UPGRADE)


def package_source_gone_in_the_middle(rig: Rig) -> None:
    """After the staging nothing is fetched any more: the change goes through with what lies there."""
    rig.begin(UPGRADE)

    def gone(rig: Rig, running: Running) -> None:
        # What apt knows of the source stays; nothing answers there any more.
        nowhere = "\n".join(f'Acquire::{kind}::Proxy "http://127.0.0.1:9/";' for kind in ("http", "https"))
        rig.host.exec(f"printf '%s\n' '{nowhere}' >/etc/apt/apt.conf.d/zz-gone; rm -f /var/cache/apt/*.bin")
        running.end()

    meet(rig, UPGRADE, gone, Moment(BOUNDARIES["drain"]))

    arrived(rig, UPGRADE)


def disk_full_while_staging(rig: Rig) -> None:
    """No room for the archives: the run ends before the drain, the host serves on, and goes on when there is room."""
    rig.begin(UPGRADE)
    rig.host.exec("rm -f /var/cache/apt/archives/*.deb; mount -t tmpfs -o size=20m none /var/cache/apt/archives")
    output = rig.operator.run(*UPGRADE.words, code=1)
    assert "drain" not in output.split("stage")[-1]
    assert rig.enrolled()
    rig.host.exec("umount /var/cache/apt/archives")
    rig.operator.run(*UPGRADE.words)

    arrived(rig, UPGRADE)


def disk_full_in_the_change(rig: Rig) -> None:
    """dpkg can't write its module folder: the task fails with apt's words; with room again the next apply finishes."""
    rig.begin(UPGRADE)
    place = "/usr/lib/x86_64-linux-gnu/nvidia/current"
    rig.host.exec(f"cp -a {place} /root/kept && mount -t tmpfs -o size=12m none {place} && cp -a /root/kept/. {place}")
    output = rig.operator.run(*UPGRADE.words, code=1)
    assert "No space left on device" in output
    rig.host.exec(f"cp -a {place}/. /root/kept; umount {place}; cp -a /root/kept/. {place}; rm -rf /root/kept")
    rig.operator.run(*UPGRADE.words)

    arrived(rig, UPGRADE)


def at_boundaries() -> Iterator[tuple[str, Story]]:
    """Every boundary of every journey, with the kinds of fault in turn."""
    for shift, journey in enumerate(JOURNEYS):
        for number, (name, line) in enumerate(BOUNDARIES.items()):
            fault = faults.ANYWHERE[(SEED + shift + number) % len(faults.ANYWHERE)]
            if name == "reboot" and fault is faults.power_cut:
                # The host reboots there by itself: to cut the same power once more is the boundary before it.
                fault = faults.controller_killed
            yield f"{journey.name}-{name}-{fault.__name__}", met_and_given_again(journey, fault, at_line(line))


def at_line(line: str) -> Callable[[Rig], Moment]:
    return lambda rig: Moment(line)


def at_random_moments() -> Iterator[tuple[str, Story]]:
    """Moments of the transaction that nobody chose, with faults that nobody chose.

    Each is a part of what dpkg logs in a clean run, then some time: what runs long, as a build does, logs nothing.
    """
    for journey in JOURNEYS:
        for number in range(MOMENTS // IN_A_ROW):
            chance = random.Random(f"{SEED} {journey.name} {number}")
            parts = sorted(chance.random() for _ in range(IN_A_ROW))
            later = [chance.choice((0.0, chance.uniform(0.0, 4.0))) for _ in parts]
            shocks = [(chance.choice(faults.IN_DPKG), *when) for when in zip(parts, later, strict=True)]
            told = [f"{part:.0%}+{after:.1f}s-{fault.__name__}" for fault, part, after in shocks]
            yield f"{journey.name}-{'-'.join(told)}", met_in_a_row(journey, shocks)


OTHERS: tuple[Story, ...] = (
    undone_instead,
    apt_lock_held_by_another,
    package_source_gone_in_the_middle,
    disk_full_while_staging,
    disk_full_in_the_change,
)
STORIES: dict[str, Story] = dict(
    (*((story.__name__, story) for story in OTHERS), *at_boundaries(), *at_random_moments())
)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    """The stories that were asked for, under way."""
    chosen = [item.callspec.params["name"] for item in request.session.items if _is_story(item)]
    first = Rig(Operator(lab_factory(faults.SPEC), tmp_path_factory.mktemp("operator")), faults.Clean())
    faults.go_clean(first, keep=True)
    others = [
        faults.another(first, lab_factory(faults.SPEC), tmp_path_factory.mktemp("operator"))
        for _ in range(min(faults.AT_ONCE, len(chosen)) - 1)
    ]
    try:
        with faults.outcomes([(name, STORIES[name]) for name in chosen], [first, *others]) as found:
            yield found
    finally:
        faults.drop_images(first.clean)


def _is_story(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.originalname == "test_story"


@pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
@pytest.mark.parametrize("name", STORIES)
def test_story(outcomes: Outcomes, name: str) -> None:
    """However it was met, the host is what a clean run leaves."""
    outcomes.wait(name)


@pytest.mark.skipif(LONG, reason="the long form tells it in parts")
def test_killed_there_and_back(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The controller dies in the middle of an upgrade, the power goes in the middle of the way back."""
    rig = Rig(Operator(lab_factory(faults.SPEC), tmp_path_factory.mktemp("operator")), faults.Clean())
    faults.go_clean(rig, keep=False)
    rig.want("new")
    meet(rig, UPGRADE, faults.controller_killed, Moment(INSTALLING, 40))
    rig.operator.run(*UPGRADE.words)
    assert "Nothing to change" in rig.operator.run("plan", "--exit-code")
    assert faults.NEW in rig.now().partition("# running")[2]
    assert rig.enrolled()

    meet(rig, ROLLBACK, faults.power_cut, Moment(INSTALLING, 40))
    recovered(rig, ROLLBACK)
