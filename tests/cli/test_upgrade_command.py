"""`provision upgrade` on a recorded host: it starts from the lock that is there and writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.adapters import inventory
from provisioner.cli.main import main
from provisioner.errors import Exit
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from tests.facts.hosts import CAPTURES

BARE = str(CAPTURES / "debian-12-bare.json")


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A lock of one host that serves akash with its newest client."""
    host = InventoryHost("pd-b", {}, Intent(networks=("akash",)))
    monkeypatch.setattr(inventory, "read", lambda *_: (host,))
    path = tmp_path / "provision.lock"
    assert main(["resolve", "--capture", BARE, "-o", str(path)]) == Exit.OK
    capsys.readouterr()
    return path


def test_pins_that_are_not_applied_wait_and_the_lock_stays(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = lock.read_bytes()

    assert main(["upgrade", "akash", "--to", "0.16.2", "--capture", BARE, "-o", str(lock)]) == Exit.OK

    out = capsys.readouterr().out
    assert "pd-b  waits   the lock pins driver 535.309.01" in out
    assert f"lock {lock} (unchanged)" in out
    assert lock.read_bytes() == before


def test_a_client_that_nobody_knows(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["upgrade", "akash", "--to", "9.9", "--capture", BARE, "-o", str(lock), "--json"])

    assert code == Exit.UNRESOLVABLE
    host = json.loads(capsys.readouterr().out)["hosts"]["pd-b"]
    assert host["state"] == "cannot"
    assert [[claim["rule"] for claim in conflict] for conflict in host["conflicts"]] == [["client-unknown"]]


def test_without_a_lock_there_is_nothing_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none.lock")

    assert main(["upgrade", "akash", "--to", "0.16.2", "--capture", BARE, "-o", missing]) == Exit.BAD_INPUT
    assert "[lock-not-found]" in capsys.readouterr().err
