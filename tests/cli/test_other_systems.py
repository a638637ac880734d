"""A system whose packages are not read is told so, and nothing is guessed for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.cli.main import main
from provisioner.errors import Exit
from tests.facts.hosts import CAPTURES

OS_RELEASE = 'NAME="openSUSE Leap"\nID="opensuse-leap"\nVERSION_ID="15.6"\nPRETTY_NAME="openSUSE Leap 15.6"\n'


@pytest.fixture
def leap(tmp_path: Path) -> str:
    """A recorded host with its dpkg and apt taken away and another name given to it."""
    capture = json.loads((CAPTURES / "debian-12-bare.json").read_text(encoding="utf-8"))
    for command in capture["commands"]:
        if "dpkg" in command or "apt" in command:
            capture["commands"][command] = {"rc": 127, "stdout": "", "stderr": "not found"}
    for path in capture["files"]:
        if "dpkg" in path or "apt" in path:
            capture["files"][path] = None
    capture["files"]["/etc/os-release"] = OS_RELEASE
    file = tmp_path / "leap.json"
    file.write_text(json.dumps(capture), encoding="utf-8")
    return str(file)


def test_leap_is_not_resolved_and_the_reason_is_its_packages(
    leap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "provision.lock"

    assert main(["resolve", "--capture", leap, "-o", str(lock)]) == Exit.UNRESOLVABLE

    said = (
        "pd-b did not show its packages: those of Debian, Ubuntu, RHEL and Rocky are read, "
        "and opensuse-leap-15.6 is none of them.\n"
    )
    out = capsys.readouterr().out
    assert said in out
    assert "did not show which packages" not in out
    assert not lock.exists()


def test_why_says_the_same(leap: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "--capture", leap, "driver=580"]) == Exit.UNRESOLVABLE
    assert "and opensuse-leap-15.6 is none of them" in capsys.readouterr().out
