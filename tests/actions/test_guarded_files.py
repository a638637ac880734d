"""`provision guard`: the host gets the guard, then the change, and is confirmed over a session of its own."""

from __future__ import annotations

import json
from dataclasses import replace

from provisioner.actions import hostlock
from provisioner.actions.guard import guarded
from provisioner.errors import HostError
from provisioner.model.capture import CommandOutput
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.resource import Guarded, GuardedFile
from provisioner.model.run import RunEvent
from provisioner.model.stack import HostLock

CHANGE = Guarded(
    name="/etc/ssh/sshd_config.d/own.conf",
    files=(GuardedFile(path="/etc/ssh/sshd_config.d/own.conf", content="MaxAuthTries 3\n"),),
    units=("ssh.service",),
    confirm_s=20,
)


class World:
    """A host that notes what it is told; after a bad change only the session that was open goes on."""

    def __init__(self, *, shuts_out: bool = False, refuses: str = "", busy: bool = False) -> None:
        self.shuts_out, self.refuses, self.busy = shuts_out, refuses, busy
        self.armed: dict[str, object] = {}
        self.log: list[str] = []

    def new(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        raise AssertionError("a change of one's own moves no way")

    def fresh(self, host: InventoryHost) -> InventoryHost:
        return replace(host, variables={"fresh": True})

    def keep(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        raise AssertionError("a change of one's own moves no way")

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        if host.variables.get("fresh") and self.shuts_out:
            raise HostError("ssh-timeout", host.name, f"{host.name} did not answer")
        if "apply.lock" in script:
            return CommandOutput(rc=75 if self.busy else 0, stdout="run=x\n")
        if "guard arm" in script:
            if self.refuses:
                return CommandOutput(rc=75, stderr=self.refuses)
            self.armed = json.loads(stdin)
            return CommandOutput(rc=0, stdout="{}")
        if " status " in script:
            return CommandOutput(rc=0, stdout='{"state": "%s"}' % ("reverted" if self.shuts_out else "applied"))
        self.log.append(script.split()[-2] if "confirm" in script else stdin[:2] or script.split()[0])
        return CommandOutput(rc=0, stdout='{"state": "confirmed"}')


def do(world: World, **host: object) -> dict[str, str]:
    events: list[RunEvent] = []
    failed = guarded(
        [replace(InventoryHost("rig-01", {}, Intent()), **host)],  # type: ignore[arg-type]
        CHANGE,
        "r1",
        hostlock.Lease("r1", "anna", "console", 1),
        shell=world,
        paths=world,
        alive=lambda pid: True,
        on_event=events.append,
        sleep=lambda _s: None,
    )
    return {name: result.reference for name, result in failed.items()}


def test_the_guard_comes_first_and_a_new_session_confirms() -> None:
    world = World()

    assert do(world) == {}
    assert world.log[:2] == ["#!", "# "]  # its program and its unit
    assert world.log[-1] == "confirm"
    assert world.armed["units"] == ["ssh.service"]


def test_what_shuts_new_sessions_out_goes_back() -> None:
    world = World(shuts_out=True)

    assert do(world) == {"rig-01": "change-reverted"}
    assert "confirm" not in world.log


def test_a_host_behind_a_tunnel_must_be_reached_through_it() -> None:
    world = World()
    do(world, path={"address": "10.87.0.2"})

    assert world.armed["path"] == "10.87.0.2"


def test_a_change_that_still_waits_is_said() -> None:
    world = World(refuses="guard: the change r0-1 still waits to be confirmed")

    assert do(world) == {"rig-01": "guard-refused"}


def test_a_host_that_another_run_holds_is_left_alone() -> None:
    world = World(busy=True)

    assert do(world) == {"rig-01": "host-busy"}
    assert world.armed == {}
