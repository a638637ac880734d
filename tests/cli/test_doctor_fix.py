"""`provision doctor --fix` as a command, with and without --json, on hosts that exist only as what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provisioner.adapters import inventory
from provisioner.cli import wiring
from provisioner.cli.main import main
from provisioner.errors import Exit
from provisioner.matrix.files import digest_in_use
from provisioner.model.stack import Lock
from provisioner.resolve.lock import lock_text
from tests.actions.test_apply import World, hosts, ports_of, world_of

UNIT = "nvidia-persistenced.service"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """One host as locked, whose persistence daemon died; a lock; every effect in memory."""
    made = world_of(rig_01=False)
    made.rigs["rig-01"].units[UNIT] = ("failed", "enabled")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inventory, "read", lambda _sources, _limit=None: tuple(hosts(made)))
    monkeypatch.setattr(wiring, "SshProber", lambda **_settings: made)
    monkeypatch.setattr(wiring, "apply_ports", lambda **_settings: ports_of(made))
    entries = {name: rig.lock for name, rig in made.rigs.items()}
    Path("provision.lock").write_text(lock_text(Lock(made_by="0.1.0", matrix=digest_in_use(), hosts=entries)))
    return made


def fix(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """Exit code, the JSON on standard output, the text on the other stream."""
    code = main(["doctor", "rig-01", "--fix", "--json", *words])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else None, captured.err


def test_json_tells_what_was_mended_and_what_was_applied(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """One document on standard output (docs/reference/doctor.md); what a person reads is on the other stream."""
    code, told, text = fix(capsys, "--yes")
    (host,) = told["hosts"]

    assert (told["format"], told["failures"]) == (1, [])
    assert [finding["mechanism"] for finding in host["findings"]] == ["persistence-daemon-failed"]
    assert host["fix"] == {
        "mends": [{"mechanism": "persistence-daemon-failed", "changes": [f"service {UNIT}"], "why_not": None}],
        "blocked": [],
        "problem": None,
        "mended": ["persistence-daemon-failed"],
        "left": [],
        "new": [],
    }
    assert told["applied"]["hosts"]["rig-01"]["state"] == "enrolled"
    assert "✓ mended" in text
    assert "run rig-01" in world.log
    assert code == Exit.OK


def test_json_without_a_lock_says_why_there_is_no_plan(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is applied, the finding is told all the same, and the exit code says that it is left."""
    Path("provision.lock").unlink()
    code, told, _ = fix(capsys, "--yes")
    (host,) = told["hosts"]

    assert host["fix"]["mends"] == [{"mechanism": "persistence-daemon-failed", "changes": [], "why_not": "no plan"}]
    assert "provision.lock" in host["fix"]["problem"]
    assert (host["fix"]["mended"], host["fix"]["left"], told["applied"]) == ([], None, None)
    assert "run rig-01" not in world.log
    assert code == Exit.FAILED


def test_json_of_a_run_that_mends_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The playbook ends well and the host is as it was: what is left is named, and nothing is called mended."""
    world.does_nothing.add("rig-01")
    code, told, _ = fix(capsys, "--yes")

    assert told["hosts"][0]["fix"]["mended"] == []
    assert told["hosts"][0]["fix"]["left"] == ["persistence-daemon-failed"]
    assert told["applied"]["hosts"]["rig-01"]["state"] == "failed"
    assert code == Exit.FAILED


def test_json_is_no_yes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is there to be asked: nothing is applied, and the error says how to go on."""
    code, told, text = fix(capsys)

    assert (code, told) == (Exit.BAD_INPUT, None)
    assert "provision doctor --fix --yes" in text
    assert "run rig-01" not in world.log


def test_a_host_that_cannot_be_seen_is_a_failure_in_the_document(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no findings, for nothing is known of it."""
    world.unreachable.add("rig-01")
    code, told, _ = fix(capsys, "--yes")

    assert told["hosts"] == []
    assert [failure["reference"] for failure in told["failures"]] == ["ssh-timeout"]
    assert code == Exit.FAILED
