"""A change on trial: nobody comes back after the reboot, and the host takes it back by itself and serves again.

One host of Debian 12, 535.216.03 of the backports to 535.261.03, as in test_wayback. Real packages, a real dpkg; the
boot loader's part is in test_trial_kernel, since a container has none.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.operator import LONG, Operator, kill_tree
from tests.lab.state import record, state
from tests.lab.test_wayback import SABOTAGE

# Not in the short form before it was seen to pass as a whole on an idle machine.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

HOST = "rig-01"
OLD, NEW = "535.216.03", "535.261.03"
PATIENCE_S = 420
LEFT = "ls -d /var/lib/provision/trial /etc/systemd/system/provision-trial.service 2>/dev/null; true"
# A card that does not answer with the newer driver: the host's own checks see it.
DEAF = """#!/bin/sh
grep -q {version} /sys/module/nvidia/version && {{ echo "Unable to determine the device handle"; exit 255; }}
exec /usr/bin/nvidia-smi "$@"
"""


@dataclass
class Ground:
    """The operator, and what the host is with the older driver, enrolled."""

    operator: Operator
    before: str

    def now(self) -> str:
        return state(self.operator, HOST)

    def on(self, command: str) -> str:
        """What a command gives, as root."""
        return self.operator.lab.host(HOST).exec(command).stdout

    def wish(self, minutes: int) -> None:
        policy = {"trial_min": minutes}
        self.operator.want(HOST, networks=["golem"], driver=NEW, policy=policy)

    def died_during_the_reboot(self) -> None:
        """An apply whose controller is killed while the host restarts."""
        run = self.operator.start("apply", "--yes")
        assert run.stdout is not None
        for line in run.stdout:
            if re.search(r"\breboot\b.*Reboot", line):
                break
        time.sleep(2)
        kill_tree(run)

    def came_to(self, *states: str) -> str:
        """Wait until the trial on the host is in one of these states; '' for none."""
        until = time.monotonic() + PATIENCE_S
        seen = "none"
        while time.monotonic() < until:
            found = re.search(r'"state": "([a-z-]+)"', self.on("cat /var/lib/provision/trial/state.json 2>/dev/null"))
            seen = found[1] if found else ""
            if seen in states:
                return seen
            time.sleep(3)
        raise AssertionError(f"the trial is {seen!r}, not {states}: {self.on('journalctl -u provision-trial')}")


@pytest.fixture(scope="module")
def ground(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    operator = Operator(lab_factory(f"{HOST}=bookworm:rtx-3090"), tmp_path_factory.mktemp("operator"))
    operator.want(HOST, networks=["golem"], driver=OLD)
    operator.run("apply", "--yes")
    assert operator.lab.host(HOST).exec(LEFT).stdout == ""  # a first installation has no trial
    yield Ground(operator, state(operator, HOST))


def test_01_nobody_comes_back(ground: Ground) -> None:
    """The controller dies during the reboot; within the limit the host is what it was, and its gate is open."""
    ground.wish(1)
    assert "back by itself unless sound and confirmed within 1 min" in ground.operator.run("plan")
    ground.died_during_the_reboot()
    assert ground.came_to("back") == "back"

    assert ground.now() == ground.before
    assert record(ground.operator, HOST)
    assert ground.operator.lab.host(HOST).exec("/usr/local/sbin/provision-gate check golem").rc == 0
    assert "the host is as it was before" in ground.on("journalctl -u provision-trial")


def test_02_the_next_command_tells(ground: Ground) -> None:
    """status, history and plan say that it went back, and why; nothing of the change is kept any more."""
    said = "the host went back by itself, driver 535.216.03 → 535.261.03 did not stay"
    for words in (("status",), ("history", HOST), ("plan",)):
        output = ground.operator.run(*words)
        assert said in output and "nobody confirmed within 1 min of the boot" in output, output


def test_03_a_controller_that_comes_back_confirms(ground: Ground) -> None:
    """Killed again; the same command given again finds nothing to change, verifies, enrols: nothing of it is left."""
    ground.wish(15)
    ground.died_during_the_reboot()
    assert ground.came_to("sound") == "sound"
    assert "is on trial" in ground.operator.run("plan")
    ground.operator.run("apply", "--yes")

    assert NEW in ground.on("cat /sys/module/nvidia/version")
    assert ground.on(LEFT) == ""
    kept = json.loads(ground.operator.run("history", HOST, "--json"))["hosts"][HOST]
    assert [entry["done"] for entry in kept] == [True, True], ground.on("ls -laR /var/lib/provision/history")
    ground.operator.run("rollback", HOST, "--yes")
    assert ground.now() == ground.before


def test_04_the_hosts_own_checks(ground: Ground) -> None:
    """The card does not answer with the newer driver: the host does not wait for anybody."""
    ground.wish(15)
    path = "/usr/local/bin/nvidia-smi"
    ground.on(f"cat >{path} <<'EOF'\n{DEAF.format(version=NEW)}\nEOF\nchmod 755 {path}")
    ground.died_during_the_reboot()
    assert ground.came_to("back") == "back"
    ground.on(f"rm {path}")

    assert ground.now() == ground.before
    assert record(ground.operator, HOST)
    assert "nvidia-smi: Unable to determine the device handle" in ground.operator.run("status")


def test_05_a_run_without_a_fault(ground: Ground) -> None:
    """Confirmed by the run itself; a controller that takes the change back ends the trial first."""
    ground.wish(15)
    ground.operator.run("apply", "--yes")
    assert ground.on(LEFT) == ""
    ground.operator.run("rollback", HOST, "--yes")
    assert ground.now() == ground.before
    path = "/etc/systemd/system/sabotage.service"
    ground.on(f"cat >{path} <<'EOF'\n{SABOTAGE.format(version=NEW)}\nEOF\nsystemctl enable sabotage.service")
    output = ground.operator.run("apply", "--yes", code=Exit.FAILED)
    ground.on(f"systemctl disable sabotage.service; rm {path}; systemctl daemon-reload")

    assert "rolled back" in output, output
    assert ground.on(LEFT) == ""
    assert ground.now() == ground.before
