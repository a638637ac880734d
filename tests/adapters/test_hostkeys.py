"""Fetching and recording host keys, with the real `ssh -G` and `ssh-keygen` and a scan that answers from here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from provisioner.adapters import hostkeys, ssh
from provisioner.adapters.hostkeys import HostKey, fetch, record
from provisioner.adapters.ssh import Target
from provisioner.errors import BadInput, HostError

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH client")

ED25519 = "AAAAC3NzaC1lZDI1NTE5AAAAIMiy0q8nY9DWVMXsR0oXgyH7jJV5qde6sMAVnl68t4SG"
OLD = "AAAAC3NzaC1lZDI1NTE5AAAAIHhbXzkcEVSbwQY9G1uMP0YqRL0PpmfV8GKcwtTMtVpk"
SHOWN = HostKey("ssh-ed25519", "SHA256:CSta9ff6XOuj2i/ri3Av4CHopWu8pgbbj5qtMcMmWLs", f"192.0.2.7 ssh-ed25519 {ED25519}")


@pytest.fixture
def known_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ssh, "control_dir", lambda: tmp_path)
    return tmp_path / "ssh" / "known_hosts"


def target(known_hosts: Path, **variables: object) -> Target:
    arguments = f"-F none -o 'UserKnownHostsFile={known_hosts}' {variables.pop('args', '')}"
    return Target.from_variables(
        "rig-07", {"ansible_host": "192.0.2.7", "ansible_ssh_common_args": arguments, **variables}
    )


def scan(monkeypatch: pytest.MonkeyPatch, folder: Path, lines: str, errors: str = "") -> Path:
    """Put an `ssh-keyscan` on the path that prints these lines and notes its arguments."""
    folder.mkdir(exist_ok=True)
    program = folder / "ssh-keyscan"
    program.write_text(f"#!/bin/sh\necho \"$@\" > {folder}/asked\ncat <<'X'\n{lines}\nX\necho '{errors}' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "asked"


def test_strongest_key_is_shown(known_hosts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several keys the one that ssh asks for first, under the name and port that ssh would look up."""
    lines = f"# 192.0.2.7:2222 SSH-2.0\n[192.0.2.7]:2222 ssh-rsa AAAAB3\n[192.0.2.7]:2222 ssh-ed25519 {ED25519}"
    asked = scan(monkeypatch, tmp_path / "bin", lines)

    key = fetch(target(known_hosts, ansible_port=2222))

    assert key == HostKey("ssh-ed25519", SHOWN.fingerprint, f"[192.0.2.7]:2222 ssh-ed25519 {ED25519}")
    assert "-p 2222" in asked.read_text()


def test_silent_host_shows_no_key(known_hosts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words as when a login fails."""
    scan(monkeypatch, tmp_path / "bin", "", "ssh: connect to host 192.0.2.7 port 22: Connection refused")

    with pytest.raises(HostError) as caught:
        fetch(target(known_hosts))

    assert caught.value.reference == "ssh-unreachable"


def test_new_key_replaces_the_old_one(known_hosts: Path) -> None:
    """Other hosts' keys stay, the file is made with its folder, and saying it twice changes nothing."""
    known_hosts.parent.mkdir()
    known_hosts.write_text(f"192.0.2.8 ssh-ed25519 {OLD}\n192.0.2.7 ssh-ed25519 {OLD}")

    record(target(known_hosts), SHOWN)
    path = record(target(known_hosts), SHOWN)

    assert path == known_hosts
    assert known_hosts.read_text() == f"192.0.2.8 ssh-ed25519 {OLD}\n192.0.2.7 ssh-ed25519 {ED25519}\n"


def test_first_key_makes_the_file(known_hosts: Path) -> None:
    """A fresh controller has no known_hosts yet."""
    record(target(known_hosts), SHOWN)

    assert known_hosts.read_text() == SHOWN.line + "\n"
    assert known_hosts.stat().st_mode & 0o777 == 0o600


def test_jump_host_scans_in_our_place(known_hosts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a ProxyJump the host cannot be scanned from here; the jump host's own key is checked."""
    seen: list[list[str]] = []
    real = hostkeys._run

    def run(aim: Target, argv: list[str]) -> object:
        seen.append(list(argv))
        if "-G" in argv:
            return real(aim, argv)
        return real(aim, ["echo", f"192.0.2.7 ssh-ed25519 {ED25519}"])

    monkeypatch.setattr(hostkeys, "_run", run)

    key = fetch(target(known_hosts, args="-J first,op@bastion"))

    assert key == SHOWN
    assert seen[-1][:6] == ["ssh", "-J", "first", "-o", "StrictHostKeyChecking=yes", "op@bastion"]
    assert seen[-1][6] == "ssh-keyscan"


def test_file_that_cannot_be_written_is_said(known_hosts: Path) -> None:
    """With the file and what to set instead."""
    known_hosts.parent.mkdir()
    known_hosts.mkdir()

    with pytest.raises(BadInput, match="could not be recorded"):
        record(target(known_hosts), SHOWN)


def test_this_machine_has_no_host_key() -> None:
    """Nothing to trust without ssh."""
    with pytest.raises(BadInput, match="this machine itself"):
        fetch(Target("rig-01", "rig-01", local=True))
