"""`provision facts`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.adapters import inventory, ssh
from provisioner.cli.main import main
from provisioner.errors import HostError
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from tests.facts.hosts import CAPTURES, recorded

UBUNTU = str(CAPTURES / "ubuntu-24.04-open-dkms-after-upgrade.yaml")


def test_recorded_host_reads_at_a_glance(capsys: pytest.CaptureFixture[str]) -> None:
    """The three places of the driver in one line, trouble and what was not seen named."""
    code = main(["facts", "--capture", UBUNTU])

    out = capsys.readouterr().out
    assert code == 0
    assert "loaded 570.133.20 (open) · on disk 570.195.03 · library 570.195.03" in out
    assert "6.8.0-9-generic runs, 6.8.0-88-generic boots next" in out
    assert "NVML: NVML_ERROR_LIB_RM_VERSION_MISMATCH" in out
    assert "not seen" in out


def test_json_tells_unknown_from_absent(capsys: pytest.CaptureFixture[str]) -> None:
    """`null` is absent, "unknown" was not seen."""
    main(["facts", "--json", "--capture", UBUNTU, "--capture", str(CAPTURES / "debian-12-bare.json")])

    hosts = json.loads(capsys.readouterr().out)["hosts"]
    assert hosts["rig-24"]["offers"] == "unknown"
    assert hosts["pd-b"]["driver"]["loaded"] is None
    assert hosts["pd-b"]["offers"][0].keys() >= {"name", "version", "sha256", "origin"}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts: one answers, one refuses."""
    hosts = tuple(InventoryHost(name, {"ansible_host": "192.0.2.1"}, Intent()) for name in ("rig-24", "rig-05"))

    def read(_sources: tuple[str, ...], limit: str | None = None) -> tuple[InventoryHost, ...]:
        return tuple(host for host in hosts if limit is None or host.name in limit.split(","))

    def probe(targets: list[ssh.Target], *_args: object, **_more: object) -> dict[str, object]:
        answers = {
            "rig-24": recorded("ubuntu-24.04-open-dkms-after-upgrade.yaml"),
            "rig-05": HostError("ssh-timeout", "rig-05", "rig-05 did not answer in time"),
        }
        return {target.name: answers[target.name] for target in targets}

    monkeypatch.setattr(inventory, "read", read)
    monkeypatch.setattr(ssh, "probe", probe)


@pytest.mark.usefixtures("fleet")
def test_host_that_fails_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer of one, the error of the other, and an exit code that says so."""
    code = main(["facts", "-i", "x"])

    seen = capsys.readouterr()
    assert code == 1
    assert "rig-24" in seen.out
    assert "rig-05 did not answer in time" in seen.err


@pytest.mark.usefixtures("fleet")
def test_saved_host_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--save writes what --capture reads."""
    path = tmp_path / "rig.json"

    assert main(["facts", "rig-24", "-i", "x", "--save", str(path)]) == 0
    assert main(["facts", "--capture", str(path)]) == 0
    assert "rig-24" in capsys.readouterr().out


@pytest.mark.usefixtures("fleet")
def test_several_hosts_are_saved_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file cannot hold two hosts."""
    assert main(["facts", "-i", "x", "--save", str(tmp_path / "one.json")]) == 3
    assert "mkdir -p" in capsys.readouterr().err

    assert main(["facts", "-i", "x", "--save", str(tmp_path)]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rig-24.json"]


def test_host_and_capture_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Either a host or its record."""
    assert main(["facts", "rig-24", "--capture", UBUNTU]) == 3
    assert "host-and-capture" in capsys.readouterr().err


def test_a_recording_for_a_plan_has_the_files_and_units_that_the_lock_wants(tmp_path: Path) -> None:
    """Without them a plan from the capture would be blocked: what was not looked at is unknown."""
    from provisioner.actions.plan import goal_of, request_for
    from provisioner.cli.facts import _asked
    from provisioner.model.stack import Lock
    from provisioner.probe.request import FULL
    from tests.world import entry

    lock = Lock(made_by="0.1.0", matrix="0" * 64, hosts={"rig-01": entry()})
    plan = request_for(goal_of(entry(), lock.matrix))

    asked = _asked("rig-01", lock)
    assert (asked.profile, asked.files, asked.units) == (FULL, plan.files, plan.units)
    assert asked.files
    assert _asked("rig-02", lock).files == ()


def test_a_lock_without_a_recording_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["facts", "--capture", str(CAPTURES / "debian-12-bare.json"), "--lock", "provision.lock"]) == 3
    assert "[lock-and-no-save]" in capsys.readouterr().err
