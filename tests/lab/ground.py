"""One host with an older driver, enrolled, and what the stories of the way back do to it."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field
from typing import Any

from provisioner.actions.settle import UP
from provisioner.errors import HostError
from provisioner.host.trial import ENDS, UNIT_PATH
from tests.lab.operator import Operator, kill_tree
from tests.lab.state import difference, state

PATIENCE_S = 420


@dataclass
class Ground:
    """The operator, the newer driver to go to, and what the host is with the older one: `before`."""

    operator: Operator
    host: str
    newer: str
    policy: dict[str, Any] = field(default_factory=dict)
    before: str = ""

    def begin(self, older: str) -> None:
        """Enrol the host with the older driver, and remember what it is then."""
        self.operator.want(self.host, networks=["golem"], driver=older, policy=self.policy)
        self.operator.run("apply", "--yes")
        self.before = self.now()

    def now(self) -> str:
        return state(self.operator, self.host)

    def changed(self) -> str:
        """In which lines the host is not what it was before; nothing when it is."""
        return difference(self.before, self.now())

    def on(self, command: str) -> str:
        """What a command gives, as root, whatever its exit code is."""
        return self.operator.lab.host(self.host).exec(command).stdout

    def root(self, command: str) -> None:
        """Run a command as root; it must end well."""
        done = self.operator.lab.host(self.host).exec(command)
        assert done.rc == 0, f"{command}: {done.stdout}{done.stderr}"

    def wish(self, minutes: int) -> None:
        """The newer driver is wanted, on trial for so many minutes."""
        policy = {**self.policy, "trial_min": minutes}
        self.operator.want(self.host, networks=["golem"], driver=self.newer, policy=policy)

    def died_during_the_reboot(self) -> None:
        """An apply whose controller is killed while the host restarts."""
        boot = self.boot()
        run = self.operator.start("apply", "--yes")
        assert run.stdout is not None
        said = []
        for line in run.stdout:
            said.append(line)
            if re.search(r"\breboot\b.*Reboot", line):
                break
        else:
            raise AssertionError(f"apply ended before a reboot:\n{''.join(said)}")
        # The line comes before the order to reboot: killed too early, the host would not reboot at all.
        until = time.monotonic() + PATIENCE_S
        while self.boot() == boot:
            assert time.monotonic() < until, "the reboot did not come"
            time.sleep(0.2)
        kill_tree(run)

    def boot(self) -> str:
        """Which boot the host is in; '' between two, and from the order to reboot on."""
        from docker.errors import APIError

        try:
            return self.operator.lab.host(self.host).told(f"{UP} && cut -d' ' -f22 /proc/1/stat")
        except (APIError, HostError):
            return ""

    def came_to(self, *states: str) -> str:
        """Wait until the trial on the host is in one of these states; '' for none.

        One that has ended takes its own unit away last, after it has said so.
        """
        from docker.errors import APIError

        until = time.monotonic() + PATIENCE_S
        seen = "none"
        while time.monotonic() < until:
            with contextlib.suppress(APIError, HostError):  # it goes back by itself, through a reboot of its own
                said = self.on("cat /var/lib/provision/trial/state.json 2>/dev/null")
                found = re.search(r'"state": "([a-z-]+)"', said)
                seen = found[1] if found else ""
                if seen in states and (
                    seen not in ENDS or self.operator.lab.host(self.host).told(f"ls {UNIT_PATH} 2>/dev/null") == ""
                ):
                    return seen
            time.sleep(3)
        raise AssertionError(f"the trial is {seen!r}, not {states}: {self.on('journalctl -u provision-trial')}")
