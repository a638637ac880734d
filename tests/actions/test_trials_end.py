"""What runs do about a trial that is going on: end it before they change anything, confirm it when they enrol."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from provisioner.actions.enrol import CLOSE, SETTLE
from provisioner.actions.trial import CANCEL, CONFIRM
from provisioner.facts.trial import STATE
from provisioner.model.capture import CommandOutput
from provisioner.model.inventory import InventoryHost
from provisioner.render.project import Project, project
from tests.actions.test_apply import World, do, planned, states
from tests.actions.test_rollback import NEW, OLD, upgraded
from tests.world import Rig

GOING_ON = {"state": "trying", "what": "driver 1 → 2", "at": "2026", "why": "", "problem": "", "limit_s": 900}


@dataclass
class Trying(World):
    """Hosts whose trial answers as the test says."""

    answer: int = 0
    cancelled: list[str] = field(default_factory=list)

    def run(self, host: InventoryHost, script: str, stdin: str = "") -> CommandOutput:
        if script == CANCEL:
            self.cancelled.append(host.name)
            self.log.append("cancel")
            return CommandOutput(rc=self.answer, stderr="the host is going back by itself: x" if self.answer else "")
        return super().run(host, script, stdin)


def trying(*, answer: int = 0, lock: object = NEW) -> Trying:
    world = Trying({"rig-01": Rig("rig-01", OLD, bare=True)}, answer=answer)
    do(world)
    world.rigs["rig-01"].lock = lock  # type: ignore[assignment]
    world.rigs["rig-01"].files[STATE] = json.dumps(GOING_ON)
    world.log.clear()
    return world


def test_a_run_that_changes_the_host_ends_the_trial_first() -> None:
    """From then on the run is the one that changes it."""
    world = trying()
    applied = do(world)

    assert world.cancelled == ["rig-01"]
    assert world.log.index("cancel") < world.log.index("run rig-01")
    assert states(applied) == {"rig-01": "enrolled"}


def test_a_host_that_is_going_back_is_left_alone() -> None:
    """The two never meet."""
    world = trying(answer=75)
    applied = do(world)

    assert applied.results["rig-01"].reference == "trial-ended"
    assert "run rig-01" not in world.log


def test_where_nothing_differs_the_trial_goes_on_until_the_host_is_enrolled() -> None:
    """The enrolment confirms it."""
    world = trying(lock=OLD)
    world.rigs["rig-01"].files.pop("/var/lib/provision/enrolment.json")
    applied = do(world)

    assert world.cancelled == []
    assert states(applied) == {"rig-01": "enrolled"}
    assert SETTLE.index(CONFIRM) < SETTLE.index("now.json")
    assert CLOSE.strip().startswith(CANCEL)


def test_a_change_that_is_taken_back_ends_its_trial_first() -> None:
    """The rollback of the controller and the host's own never meet."""
    world = Trying({"rig-01": Rig("rig-01", OLD, bare=True)})
    do(world)
    world.rigs["rig-01"].lock = NEW
    world.driver_fails = {("rig-01", "535.261.03")}
    applied = do(world)

    assert states(applied) == {"rig-01": "rolled-back"}
    assert world.cancelled == ["rig-01"]


def rendered() -> Project:
    world, _ = upgraded()
    world.rigs["rig-01"].lock = OLD
    plan = planned(world).plan.hosts["rig-01"]
    assert plan.trial is not None
    return project([plan], {"rig-01": {}}, run="r9", made_by="x", made_at="y")


def test_the_trial_begins_right_before_the_reboot() -> None:
    """Its program comes while the host serves."""
    text = rendered().files["group_1.yml"]

    brought, boot = text.index("Bring the program that takes"), text.index("Check that the kernel that boots next")
    assert brought < boot < text.index("Begin the trial of") < text.index("Reboot into the new driver")
    assert json.loads(rendered().files["files/group_1/trial/wish.json"])["limit_s"] == 900


@pytest.mark.parametrize(
    "path", ["run", "provisioner/host/trial.py", "provisioner/host/fallback.py", "provisioner/host/grub.py"]
)
def test_what_travels_compiles(path: str) -> None:
    """The run's folder holds the program whole."""
    compile(rendered().files[f"files/group_1/trial/{path}"], path, "exec")
