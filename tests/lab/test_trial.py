"""A change on trial: nobody comes back after the reboot, and the host takes it back by itself and serves again.

One host of Debian 12, 535.216.03 of the backports to 535.261.03, as in test_wayback. Real packages, a real dpkg; the
boot loader's part is in test_trial_kernel, since a container has none. The short form is in test_back_story.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.ground import Ground
from tests.lab.operator import LONG, Operator
from tests.lab.state import record
from tests.lab.test_wayback import SABOTAGE

# In short: test_back_story.py.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

HOST = "rig-01"
OLD, NEW = "535.216.03", "535.261.03"
LEFT = "ls -d /var/lib/provision/trial /etc/systemd/system/provision-trial.service 2>/dev/null; true"
# A card that does not answer with the newer driver: the host's own checks see it.
DEAF = """#!/bin/sh
grep -q {version} /sys/module/nvidia/version && {{ echo "Unable to determine the device handle"; exit 255; }}
exec /usr/bin/nvidia-smi "$@"
"""


@pytest.fixture(scope="module")
def ground(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    operator = Operator(lab_factory(f"{HOST}=bookworm:rtx-3090"), tmp_path_factory.mktemp("operator"))
    found = Ground(operator, HOST, NEW)
    found.begin(OLD)
    assert found.on(LEFT) == ""  # a first installation has no trial
    yield found


def test_01_nobody_comes_back(ground: Ground) -> None:
    """The controller dies during the reboot; within the limit the host is what it was, and its gate is open."""
    ground.wish(1)
    assert "back by itself unless sound and confirmed within 1 min" in ground.operator.run("plan")
    ground.died_during_the_reboot()
    assert ground.came_to("back") == "back"

    assert not ground.changed()
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
    assert not ground.changed()


def test_04_the_hosts_own_checks(ground: Ground) -> None:
    """The card does not answer with the newer driver: the host does not wait for anybody."""
    ground.wish(15)
    path = "/usr/local/bin/nvidia-smi"
    ground.on(f"cat >{path} <<'EOF'\n{DEAF.format(version=NEW)}\nEOF\nchmod 755 {path}")
    ground.died_during_the_reboot()
    assert ground.came_to("back") == "back"
    ground.on(f"rm {path}")

    assert not ground.changed()
    assert record(ground.operator, HOST)
    assert "nvidia-smi: Unable to determine the device handle" in ground.operator.run("status")


def test_05_a_run_without_a_fault(ground: Ground) -> None:
    """Confirmed by the run itself; a controller that takes the change back ends the trial first."""
    ground.wish(15)
    ground.operator.run("apply", "--yes")
    assert ground.on(LEFT) == ""
    ground.operator.run("rollback", HOST, "--yes")
    assert not ground.changed()
    path = "/etc/systemd/system/sabotage.service"
    ground.on(f"cat >{path} <<'EOF'\n{SABOTAGE.format(version=NEW)}\nEOF\nsystemctl enable sabotage.service")
    output = ground.operator.run("apply", "--yes", code=Exit.FAILED)
    ground.on(f"systemctl disable sabotage.service; rm {path}; systemctl daemon-reload")

    assert "rolled back" in output, output
    assert ground.on(LEFT) == ""
    assert not ground.changed()
