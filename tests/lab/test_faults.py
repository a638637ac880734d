"""Killed at any point: the next command finishes or undoes, and what is there then equals what a clean run leaves.

A host of Debian 12 is installed (535.216.03), upgraded (535.261.03) and rolled back, each time with another fault: at
the first step of each phase, and at 20 random moments of the change in each of the three. In turn: the controller is
killed; the host's power is cut; the ssh connections are cut; dpkg is killed. Besides: the disk is full; another process
holds dpkg's lock; the package source goes away after the staging.

PROVISION_SEED chooses the moments and which kind of fault meets which; three seeds in a row bring every kind to every
boundary. The short form is one installation that is killed twice.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from provisioner.adapters.lab import Lab
from tests.lab import faults
from tests.lab.faults import (
    INSTALL,
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
    ended,
    meet,
    recovered,
)
from tests.lab.operator import LONG, Operator

pytestmark = pytest.mark.lab

SEED = int(os.environ.get("PROVISION_SEED", "4"))
MOMENTS, IN_A_ROW = 20, 5
INSTALLING = r"  change  (Install|Remove) "
AT_THE_CHANGE = r"  change  |  stage   wait for the apt"
# The first step of each phase, and the first ones after what takes long in stage and change.
BOUNDARIES = {
    "stage": r"  stage   (?!wait)",
    "staged": r"  stage   Compare",
    "drain": r"  drain   Stop",
    "change": INSTALLING,
    "changed": r"  change  Hold",
    "reboot": r"  reboot  Reboot",
    "ready": r"  reboot  Enable",
    "verify": r"  verify  run",
    "enrol": r"  enrol   write",
}


@dataclass(frozen=True)
class Shock:
    """A fault, and when it comes: at a line, another one when the command is given again, and later in the change."""

    name: str
    fault: Fault
    line: str
    again: str
    part: float = 0.0  # of what dpkg logs in a clean run
    after_s: float = 0.0

    def moment(self, rig: Rig, journey: Journey, *, fresh: bool) -> Moment:
        lines = max(1, round(self.part * rig.clean.dpkg_lines[journey.name])) if self.part else 0
        return Moment(self.line if fresh else self.again, lines, self.after_s, BOUNDARIES["reboot"])


def met_in_a_row(journey: Journey, shocks: Sequence[Shock]) -> Story:
    """One fault after the other on one journey; each time the command is given again, and meets the next one.

    A journey that comes to its end before is begun anew, until every fault has been met.
    """

    def story(rig: Rig) -> None:
        rig.begin(journey)
        began = rig.dpkg_lines()
        fresh = True
        for shock in shocks:
            try:
                if not fresh and ended(rig, journey):
                    raise NeverCame("a fault did not stop it", 0)
                meet(rig, journey, shock.fault, shock.moment(rig, journey, fresh=fresh), began)
            except NeverCame as end:
                if fresh or end.code != 0:
                    raise
                arrived(rig, journey)
                rig.begin(journey)
                began = rig.dpkg_lines()
                meet(rig, journey, shock.fault, shock.moment(rig, journey, fresh=True), began)
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


def module_half_put_away(rig: Rig) -> None:
    """DKMS was killed while it put modules into its tree: no build to it, and yet the version stays added."""
    rig.begin(UPGRADE)
    meet(rig, UPGRADE, faults.power_cut, Moment(INSTALLING, rig.clean.dpkg_lines["upgrade"] // 2))
    rig.host.wait()
    tree = f"/var/lib/dkms/nvidia-current/{faults.NEW}"
    spoilt = rig.host.exec(
        f'set -e; k={tree}/$(uname -r)/x86_64; mkdir -p "$k/module"; rm -f "$k"/module/nvidia-current-uvm.ko*; '
        f"ln -sfn /usr/src/nvidia-current-{faults.NEW} {tree}/source"
    )
    assert spoilt.rc == 0, spoilt.stderr
    rig.operator.run(*UPGRADE.words)

    arrived(rig, UPGRADE)


def module_not_yet_noted(rig: Rig) -> None:
    """DKMS was killed between the module and the link that tells its version: nothing could see which one it is."""
    rig.begin(ROLLBACK)  # from where the upgrade ends
    spoilt = rig.host.exec(
        "set -e; rm /var/lib/dkms/nvidia-current/kernel-*; ls /lib/modules/*/updates/dkms/nvidia-current.ko*; "
        "sed -i '/^Package: nvidia-kernel-dkms$/,/^$/s/ installed$/ half-configured/' /var/lib/dpkg/status"
    )
    assert spoilt.rc == 0, spoilt.stderr
    rig.operator.run(*UPGRADE.words)
    arrived(rig, UPGRADE)

    assert rig.host.exec("rm /var/lib/dkms/nvidia-current/kernel-*").rc == 0
    rig.operator.run(*UPGRADE.words)
    arrived(rig, UPGRADE)


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
    """dpkg can't write the firmware: the task fails with apt's words; with room again the next apply finishes."""
    rig.begin(UPGRADE)
    place = "/lib/firmware/nvidia"  # not where the lab has mounts of its own
    full = (
        f"cp -a {place} /root/kept && mount -t tmpfs -o size=$(($(du -sm {place} | cut -f 1) + 8))m none {place} "
        f"&& cp -a /root/kept/. {place}"
    )
    assert rig.host.exec(full).rc == 0
    output = rig.operator.run(*UPGRADE.words, code=1)
    assert "No space left on device" in output
    rig.host.exec(f"rm -rf /root/kept && cp -a {place} /root/kept && umount {place}")
    rig.host.exec(f"rm -rf {place} && mv /root/kept {place}")
    rig.operator.run(*UPGRADE.words)

    arrived(rig, UPGRADE)


def at_boundaries() -> Iterator[tuple[str, Story]]:
    """Every boundary of every journey, with the kinds of fault in turn; three in a row."""
    for shift, journey in enumerate(JOURNEYS):
        names = [name for name in BOUNDARIES if name != "ready" or journey is INSTALL]
        shocks = []
        for number, name in enumerate(names):
            fault = faults.ANYWHERE[(SEED + shift + number + number // 3) % len(faults.ANYWHERE)]
            if name == "reboot" and fault is faults.power_cut:
                # The host reboots there by itself: to cut the same power once more is the boundary before it.
                fault = faults.controller_killed
            shocks.append(Shock(f"{name}-{fault.__name__}", fault, BOUNDARIES[name], BOUNDARIES[name]))
        for row in (shocks[0::3], shocks[1::3], shocks[2::3]):
            yield told(journey, row), met_in_a_row(journey, row)


def at_random_moments() -> Iterator[tuple[str, Story]]:
    """Moments of the transaction that nobody chose, with faults that nobody chose.

    Each is a part of what dpkg logs in a clean run, then some time: what runs long, as a build does, logs nothing.
    """
    for journey in JOURNEYS:
        for number in range(MOMENTS // IN_A_ROW):
            chance = random.Random(f"{SEED} {journey.name} {number}")
            row = []
            for part in sorted(chance.random() for _ in range(IN_A_ROW)):
                after_s, fault = chance.choice((0.0, chance.uniform(0.0, 4.0))), chance.choice(faults.IN_DPKG)
                name = f"{part:.0%}+{after_s:.1f}s-{fault.__name__.partition('_')[0]}"
                row.append(Shock(name, fault, INSTALLING, AT_THE_CHANGE, part, after_s))
            yield told(journey, row), met_in_a_row(journey, row)


def told(journey: Journey, shocks: Sequence[Shock]) -> str:
    return " ".join((journey.name, *(shock.name for shock in shocks)))


OTHERS: tuple[Story, ...] = (
    undone_instead,
    module_half_put_away,
    module_not_yet_noted,
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
    faults.go_clean(first)
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
def test_install_killed_twice(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The controller dies in the change, the power goes while the next run is at it; the third one enrols the host."""
    rig = Rig(Operator(lab_factory(faults.SPEC), tmp_path_factory.mktemp("operator")), faults.Clean())
    rig.operator.want(faults.HOST, networks=["golem"], driver=faults.NEW)
    began = rig.dpkg_lines()
    meet(rig, INSTALL, faults.controller_killed, Moment(INSTALLING, 100), began)
    meet(rig, INSTALL, faults.power_cut, Moment(AT_THE_CHANGE, 250), began)
    rig.host.wait()
    rig.operator.run(*INSTALL.words)

    assert "Nothing to change" in rig.operator.run("plan", "--exit-code")
    assert rig.enrolled()
    now = rig.now()
    assert faults.NEW in now.partition("# running")[2]
    assert now.endswith("# dpkg\n# left over\n")
