"""The lease on a host, taken by the very script that travels there: run here by sh in a folder of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provisioner.actions import hostlock
from provisioner.actions.hostlock import Lease
from provisioner.errors import Exit, HostError
from provisioner.model.capture import CommandOutput
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost

HOST = InventoryHost("rig-01", {}, Intent())
MINE = Lease("run-2", "anna", "console", 200)
OTHER = Lease("run-1", "ben", "laptop", 100)


class LocalShell:
    """Runs the scripts with /var/lib/provision moved into a test's own folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        moved = script.replace("/var/lib/provision", str(self._folder))
        done = subprocess.run(["/bin/sh", "-c", moved], input=stdin, capture_output=True, text=True, check=False)
        return CommandOutput(rc=done.returncode, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    return LocalShell(tmp_path / "state")


def take(shell: LocalShell, lease: Lease, *, alive: bool = True, force: bool = False) -> None:
    hostlock.take(HOST, lease, shell, lambda _pid: alive, force=force)


def test_take_and_give_back(shell: LocalShell) -> None:
    """A free host can be taken, and again by another once it was given back."""
    take(shell, OTHER)
    hostlock.give_back(HOST, OTHER, shell)

    take(shell, MINE)


def test_second_run_is_told_who_holds_it(shell: LocalShell) -> None:
    """The error names run, person and machine, and has an exit code of its own."""
    take(shell, OTHER)

    with pytest.raises(HostError) as caught:
        take(shell, MINE)

    assert (caught.value.reference, caught.value.exit_code) == ("host-busy", Exit.BUSY)
    assert caught.value.context == ("run run-1 by ben on laptop, process 100",)


def test_dead_process_of_this_controller_is_taken_over(shell: LocalShell) -> None:
    """A run that was killed here does not block the next one here."""
    take(shell, Lease("run-1", "anna", "console", 100))

    take(shell, MINE, alive=False)


def test_living_process_of_this_controller_is_respected(shell: LocalShell) -> None:
    """Two runs from one console: the second waits."""
    take(shell, Lease("run-1", "anna", "console", 100))

    with pytest.raises(HostError):
        take(shell, MINE, alive=True)


def test_process_ids_of_other_machines_say_nothing(shell: LocalShell) -> None:
    """That no process 100 runs here does not mean that the laptop's has ended."""
    take(shell, OTHER)

    with pytest.raises(HostError):
        take(shell, MINE, alive=False)


def test_force(shell: LocalShell) -> None:
    """--break-lock takes over whatever is there, and the old run's giving back then changes nothing."""
    take(shell, OTHER)
    take(shell, MINE, force=True)
    hostlock.give_back(HOST, OTHER, shell)

    with pytest.raises(HostError):
        take(shell, Lease("run-3", "eve", "desk", 1))


def test_lease_ends(shell: LocalShell, tmp_path: Path) -> None:
    """A lease whose time is up blocks nobody."""
    take(shell, OTHER)
    lock = tmp_path / "state" / "apply.lock"
    lock.write_text(OTHER.text + "\nuntil=1\n", encoding="utf-8")

    take(shell, MINE)

    assert "run=run-2" in lock.read_text(encoding="utf-8")


def test_quotes_in_a_name_are_only_text(shell: LocalShell, tmp_path: Path) -> None:
    """A user or machine name cannot run anything on the host."""
    take(shell, Lease("run-1", "o'brien; touch " + str(tmp_path / "owned"), "$(touch x)", 1))

    assert not (tmp_path / "owned").exists()
    with pytest.raises(HostError) as caught:
        take(shell, MINE)
    assert "o'brien" in caught.value.context[0]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A host whose disk refuses is told so, with what the shell said."""
    (tmp_path / "state").write_text("a file where the folder should be", encoding="utf-8")

    with pytest.raises(HostError) as caught:
        take(LocalShell(tmp_path / "state"), MINE)

    assert caught.value.reference == "host-lock-failed"
    assert "mkdir" in caught.value.context[0]
