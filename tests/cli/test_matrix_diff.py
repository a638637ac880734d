"""`provision matrix diff`: which hosts a new matrix moves, and because of which entries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from provisioner.cli.main import main
from provisioner.errors import Exit
from provisioner.model.paths import data_dir
from tests.facts.hosts import CAPTURES

FILES = {"pd-a": "debian-11-bare.json", "pd-b": "debian-12-bare.json", "pd-c": "debian-13-bare.json"}
NETWORKS = {"pd-a": "akash", "pd-b": "lium", "pd-c": "ionet"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet's folder with an inventory, and `new`: a matrix in which Lium's list has lost 535.261.03."""
    new = tmp_path / "new"
    shutil.copytree(data_dir("matrix"), new, ignore=shutil.ignore_patterns("cases"))
    file = new / "networks/lium.yaml"
    text = file.read_text(encoding="utf-8")
    assert '"535.261.03", ' in text
    file.write_text(text.replace('"535.261.03", ', ""), encoding="utf-8")
    hosts = {name: {"provision_networks": [network]} for name, network in NETWORKS.items()}
    (tmp_path / "rigs.yml").write_text(json.dumps({"rigs": {"hosts": hosts}}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def captures(*names: str) -> list[str]:
    return ["-i", "rigs.yml", *(word for name in names for word in ("--capture", str(CAPTURES / FILES[name])))]


def test_a_host_that_would_move_is_named_with_value_reason_and_entry(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["matrix", "diff", "shipped", "new", *captures(*FILES), "--exit-code"]) == Exit.DIFFERS

    out = capsys.readouterr().out
    assert out.startswith("1 entry changed · matrix ")
    assert "  - 535.261.03" in out
    assert "1 of 3 hosts would move\n\npd-b  driver 535.261.03 → 535.216.03    reboot\n" in out
    assert "(networks/lium changed)" in out


def test_hosts_that_do_not_serve_what_changed_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "diff", "shipped", "new", *captures("pd-a", "pd-c"), "--exit-code", "--json"]) == Exit.OK

    found = json.loads(capsys.readouterr().out)
    assert {name: move["state"] for name, move in found["hosts"].items()} == {"pd-a": "same", "pd-c": "same"}
    assert [entry["name"] for entry in found["entries"]] == ["networks/lium"]


def test_a_network_that_is_gone_leaves_its_hosts_without_a_stack(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "new/networks/ionet.yaml").unlink()

    assert main(["matrix", "diff", "shipped", "new", *captures("pd-c"), "--exit-code"]) == Exit.DIFFERS

    assert "pd-c  no stack any more\n  there is no network 'ionet' in the matrix\n" in capsys.readouterr().out


def test_a_lock_alone_says_who_rests_on_what_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its facts a host can't be resolved: its entry's reasons tell whether it can be moved at all."""
    assert main(["resolve", *captures(*FILES)]) == Exit.OK
    capsys.readouterr()

    assert main(["matrix", "diff", "shipped", "new", "--lock", "provision.lock", "--exit-code"]) == Exit.DIFFERS

    out = capsys.readouterr().out
    assert "1 host not looked at, and may move" in out
    assert "  pd-b: networks/lium\n" in out
    assert "2 not looked at, and nothing that they rest on changed" in out


def test_without_hosts_only_entries_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No inventory here means no host, and not this machine."""
    assert main(["matrix", "diff", "shipped", "new"]) == Exit.OK
    assert capsys.readouterr().out.endswith(
        "Which hosts would move: -i INVENTORY, --capture FILE, or --lock provision.lock\n"
    )
    assert main(["matrix", "diff", "shipped", "shipped", "--exit-code"]) == Exit.OK
    assert main(["matrix", "diff", "shipped", "nowhere"]) == Exit.BAD_INPUT
