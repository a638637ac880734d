"""Confirm or revert, run as the program that it is, with a systemctl and a systemd-run that only take notes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GUARD = Path(__file__).parents[2] / "provisioner/tunnels/programs/guard.py"

SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$NOTES"
case "$1" in
    is-active) [ -e "$UNITS/$2.active" ] && echo active || { echo inactive; exit 3; } ;;
    is-enabled) [ -e "$UNITS/$2.enabled" ] && echo enabled || { echo disabled; exit 1; } ;;
    enable) shift; [ "$1" = --now ] && shift; touch "$UNITS/$1.enabled" ;;
    disable) shift; [ "$1" = --now ] && { shift; rm -f "$UNITS/$1.active"; }; rm -f "$UNITS/$1.enabled" ;;
    reload-or-restart|restart|start) [ -e "$UNITS/$2.broken" ] && exit 1; touch "$UNITS/$2.active" ;;
    stop) for word; do rm -f "$UNITS/$word.active"; done ;;
esac
exit 0
"""
SYSTEMD_RUN = """#!/bin/sh
echo "systemd-run $*" >>"$NOTES"
[ ! -e "$UNITS/no-timers" ]
"""


class Host:
    """A folder that stands for a host: its files, its units, and the guard's own state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.units = folder / "units"
        self.notes = folder / "notes"
        (folder / "bin").mkdir()
        self.units.mkdir()
        (folder / "etc").mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)

    def guard(self, *words: str, session: str | None = "10.0.0.9 5000 10.87.0.2 22", code: int = 0) -> Any:
        environment = {k: v for k, v in os.environ.items() if k != "SSH_CONNECTION"}
        environment |= {
            "PATH": f"{self.folder / 'bin'}:{environment['PATH']}",
            "NOTES": str(self.notes),
            "UNITS": str(self.units),
            "PROVISION_GUARD_ROOT": str(self.folder / "state" / "guard"),
        }
        if session is not None:
            environment["SSH_CONNECTION"] = session
        done = subprocess.run(
            [sys.executable, str(GUARD), *words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr

    def arm(self, id_: str = "c1", *, code: int = 0, **plan: Any) -> Any:
        value = {
            "id": id_,
            "what": "tunnel",
            "confirm_s": 60,
            "path": "10.87.0.2",
            "files": [{"path": str(self.file("a.conf")), "content": "new\n", "mode": "0600"}],
            "units": ["wg.service"],
        }
        path = self.folder / "incoming.json"
        path.write_text(json.dumps(value | plan))
        return self.guard("arm", str(path), code=code)

    def file(self, name: str) -> Path:
        return self.folder / "etc" / name

    def up(self, unit: str) -> bool:
        return (self.units / f"{unit}.active").exists()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_arming_changes_nothing_yet_and_starts_the_way_back_first(host: Host) -> None:
    host.arm()

    runs = [line for line in host.notes.read_text().splitlines() if line.startswith("systemd-run")]
    assert not host.file("a.conf").exists()
    assert "provision-revert-c1" in runs[0] and "--on-active=62" in runs[0]
    assert "provision-switch-c1" in runs[1]


def test_what_is_confirmed_stays(host: Host) -> None:
    host.arm()
    assert host.guard("switch", "c1")["state"] == "applied"
    assert host.guard("confirm", "c1")["state"] == "confirmed"
    host.guard("revert", "c1")  # the timer that came too late

    assert host.file("a.conf").read_text() == "new\n"
    assert host.file("a.conf").stat().st_mode & 0o777 == 0o600
    assert host.up("wg.service")
    assert json.loads((host.folder / "state" / "guard.json").read_text())["state"] == "confirmed"


def test_what_nobody_confirms_goes(host: Host) -> None:
    """A file that was not there is gone again, one that was has its text, mode and owner; the unit is down again."""
    host.file("old.conf").write_text("old\n")
    host.file("old.conf").chmod(0o640)
    files = [{"path": str(host.file(n)), "content": "new\n", "mode": "0600"} for n in ("a.conf", "old.conf")]
    host.arm(files=files)
    host.guard("switch", "c1")

    assert host.guard("revert", "c1")["why"] == "nobody confirmed it within 60 s"
    assert not host.file("a.conf").exists()
    assert (host.file("old.conf").read_text(), host.file("old.conf").stat().st_mode & 0o777) == ("old\n", 0o640)
    assert not host.up("wg.service")
    assert not (host.units / "wg.service.enabled").exists()


def test_a_unit_that_ran_before_runs_again_with_the_old_file(host: Host) -> None:
    for word in ("active", "enabled"):
        (host.units / f"wg.service.{word}").touch()
    host.arm()
    host.guard("switch", "c1")
    host.guard("revert", "c1")

    assert host.up("wg.service")
    assert host.notes.read_text().splitlines()[-1] == "reload-or-restart wg.service"


def test_a_reboot_in_between_reverts_before_the_network_is_up(host: Host) -> None:
    host.arm()
    host.guard("switch", "c1")
    state = host.folder / "state" / "guard" / "c1" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"boot": "another boot"}))

    assert host.guard("boot")["state"] == "reverted"
    assert not host.file("a.conf").exists()
    assert "--no-block wg.service" in host.notes.read_text()
    assert host.guard("boot") == {"state": "nothing waits"}


def test_its_boot_unit_started_by_hand_reverts_nothing(host: Host) -> None:
    host.arm()
    host.guard("switch", "c1")

    assert host.guard("boot")["state"] == "applied"
    assert host.file("a.conf").exists()


def test_a_power_cut_between_arming_and_switching_leaves_the_old_state(host: Host) -> None:
    host.arm()
    state = host.folder / "state" / "guard" / "c1" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"boot": "another boot"}))

    assert host.guard("boot")["state"] == "reverted"
    assert host.guard("switch", "c1")["state"] == "reverted"
    assert not host.file("a.conf").exists()


def test_only_the_new_path_confirms(host: Host) -> None:
    host.arm()
    host.guard("switch", "c1")

    said = host.guard("confirm", "c1", session="10.0.0.9 5000 192.168.1.5 22", code=1)
    assert "must be confirmed over 10.87.0.2, and this session came to 192.168.1.5" in said
    assert host.guard("confirm", "c1")["state"] == "confirmed"


def test_a_change_without_a_path_is_confirmed_from_any_session(host: Host) -> None:
    host.arm(path="")
    host.guard("switch", "c1")

    assert host.guard("confirm", "c1", session="10.0.0.9 5000 192.168.1.5 22")["state"] == "confirmed"


def test_a_change_that_cannot_be_put_in_force_is_taken_back_at_once(host: Host) -> None:
    (host.units / "wg.service.broken").touch()
    host.arm()

    state = host.guard("switch", "c1")
    assert state["state"] == "reverted"
    assert "reload-or-restart wg.service: exit 1" in state["why"]
    assert not host.file("a.conf").exists()


def test_a_command_that_fails_stops_before_the_units(host: Host) -> None:
    host.arm(run=[["/bin/false"]])

    assert host.guard("switch", "c1")["state"] == "reverted"
    assert not host.up("wg.service")


def test_one_change_waits_at_a_time(host: Host) -> None:
    host.arm()

    assert "the change c1 still waits to be confirmed" in host.arm("c2", code=75)
    host.guard("switch", "c1")
    host.guard("confirm", "c1")
    host.arm("c2")


def test_without_a_timer_nothing_is_changed(host: Host) -> None:
    (host.units / "no-timers").touch()

    assert "nothing was changed" in host.arm(code=1)
    (host.units / "no-timers").unlink()
    host.arm("c2")
    assert host.guard("switch", "c1")["state"] == "refused"


def test_files_and_units_that_are_to_go_come_back(host: Host) -> None:
    host.file("gone.conf").write_text("keep me\n")
    (host.units / "gone.service.active").touch()
    (host.units / "gone.service.enabled").touch()
    host.arm(files=[], units=[], absent=[str(host.file("gone.conf"))], stop=["gone.service"])
    host.guard("switch", "c1")
    assert not host.file("gone.conf").exists() and not host.up("gone.service")
    host.guard("revert", "c1")

    assert host.file("gone.conf").read_text() == "keep me\n"
    assert host.up("gone.service")


def test_a_link_comes_back_as_a_link_and_a_folder_is_refused(host: Host) -> None:
    host.file("real").write_text("x")
    host.file("link").symlink_to("real")
    host.file("folder").mkdir()
    files = [{"path": str(host.file("link")), "content": "new", "mode": "0644"}]
    host.arm(files=files)
    host.guard("switch", "c1")
    host.guard("revert", "c1")

    assert host.file("link").readlink() == Path("real")
    assert "no plain file" in host.arm("c2", files=[{"path": str(host.file("folder")), "content": ""}], code=1)


def test_it_starts_under_the_oldest_python_that_hosts_have(host: Host) -> None:
    """Nothing in it is newer than Python 3.6, as far as its syntax shows."""
    import ast

    for path in GUARD.parent.glob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
