"""The verifier runs the real checks, on this machine's own shell, and keeps hosts that give none apart."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from provisioner.adapters import verify
from provisioner.adapters.shell import Connection
from provisioner.adapters.verify import TestinfraVerifier
from provisioner.checks.table import CHECKS
from provisioner.model.enrolment import lock_digest
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from tests.world import entry

# No driver and no Docker: the looks are made all the same, the verdicts are about other things.
PLAIN = entry(driver_version=None, modules=None, cuda=None, runtime=None, packages=(), kernels=(), gpus=())


def here(name: str) -> InventoryHost:
    return InventoryHost(name, {"ansible_connection": "local"}, Intent())


def shell_with(folder: Path, **tools: str) -> Connection:
    """A shell that finds these scripts before the real commands."""
    folder.mkdir()
    for name, script in tools.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return Connection(("env", f"PATH={folder}:{os.environ['PATH']}", "sh"))


@pytest.fixture
def quick_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell in which `timeout` fails at once, so that neither apt nor Docker is asked."""
    quick = shell_with(tmp_path / "quick", timeout="exit 124")
    dark = Connection(("sh", "-c", "echo 'No route to host' >&2; exit 255"))
    monkeypatch.setattr(verify, "connection", lambda host: dark if host.name == "dark" else quick)


def test_every_check_is_made_on_every_host(quick_shell: None) -> None:
    """One result per check, in the order of the table, for the run and lock entry that were given."""
    hosts = [here("rig-01"), here("rig-02")]
    found = TestinfraVerifier().verify(hosts, {"rig-01": PLAIN, "rig-02": PLAIN}, run="r1")

    assert list(found) == ["rig-01", "rig-02"]
    for name, one in found.items():
        assert [result.id for result in one.results] == [check.id for check in CHECKS]
        assert {result.host for result in one.results} == {name}
        assert (one.run, one.lock_digest, one.fault) == ("r1", lock_digest(PLAIN), None)
    by_id = {result.id: result for result in found["rig-01"].results}
    assert by_id["clock-offset"].status == "passed"
    assert by_id["packages-whole"].status in ("passed", "failed")
    assert by_id["driver-loaded"].status == "not-applicable"


def test_a_host_that_gives_no_shell_has_a_fault(quick_shell: None) -> None:
    """It is no pass, it says why, and the other host has its results."""
    found = TestinfraVerifier().verify([here("dark"), here("rig-01")], {"dark": PLAIN, "rig-01": PLAIN}, run="r1")
    fault = found["dark"].fault

    assert fault is not None
    assert fault.context == ("No route to host",)
    assert not found["dark"].passed
    assert len(found["rig-01"].results) == len(CHECKS)


def test_the_users_pytest_settings_do_not_count(
    quick_shell: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither PYTEST_ADDOPTS nor a pytest.ini or conftest.py where provision is run decides which checks are made."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x -k nothing")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -k nothing\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit('loaded')\n")
    found = TestinfraVerifier().verify([here("rig-01")], {"rig-01": PLAIN}, run="r1")

    assert len(found["rig-01"].results) == len(CHECKS)
    assert os.environ["PYTEST_ADDOPTS"] == "-x -k nothing"


def test_looks_are_read_anew_in_each_run(quick_shell: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What one run saw must not answer for the next, in one process."""
    first = TestinfraVerifier().verify([here("rig-01")], {"rig-01": PLAIN}, run="r1")
    blind = shell_with(tmp_path / "blind", timeout="exit 124", cat="exit 9")
    monkeypatch.setattr(verify, "connection", lambda host: blind)
    second = TestinfraVerifier().verify([here("rig-01")], {"rig-01": PLAIN}, run="r2")
    status = [{r.id: r.status for r in found["rig-01"].results}["root-writable"] for found in (first, second)]

    assert status == ["passed", "unknown"]


def test_no_hosts_no_checks() -> None:
    """Nothing to do is done at once."""
    assert TestinfraVerifier().verify([], {}, run="r1") == {}


def test_an_interrupt_ends_the_looks_and_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C while a host is slow to answer: no waiting, and the caller hears of it."""
    slow = shell_with(tmp_path / "slow", timeout="exec sleep 60")
    monkeypatch.setattr(verify, "connection", lambda host: slow)
    began = time.monotonic()
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        TestinfraVerifier().verify([here("rig-01")], {"rig-01": PLAIN}, run="r1")

    assert time.monotonic() - began < 10
