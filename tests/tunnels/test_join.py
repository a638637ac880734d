"""The door of the hub, run as the program that it is: one host, once, for a while, with its code."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from provisioner.adapters.invitations import make_secrets
from provisioner.model.intent import Intent
from provisioner.tunnels.assign import assign
from provisioner.tunnels.contract import Own
from provisioner.tunnels.invite import Secrets, file_text, record
from tests.tunnel_world import hub, key, spoke

JOIN = Path(__file__).parents[2] / "provisioner/tunnels/programs/join.py"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + base64.b64encode(b"k" * 31).decode().rstrip("=")
STAND_IN = '#!/bin/sh\necho "$(basename "$0") $*" >>"$NOTES"\nexit 0\n'


class Door:
    """A hub in a folder; `wg` and what changes the system only take notes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        self.notes.touch()
        self.conf = folder / "prov0.conf"
        self.conf.write_text("[Interface]\n")
        (folder / "bin").mkdir()
        for name in ("wg", "useradd", "systemctl", "sshd"):
            (folder / "bin" / name).write_text(STAND_IN)
            (folder / "bin" / name).chmod(0o755)

    def run(self, *words: str, given: str = "") -> dict[str, Any]:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "NOTES": str(self.notes),
            "PROVISION_JOIN_ROOT": str(self.folder / "state"),
            "PROVISION_JOIN_SSHD": str(self.folder / "sshd.conf"),
            "PROVISION_JOIN_SUDOERS": str(self.folder / "sudoers"),
            "PROVISION_JOIN_CONFIG": str(self.conf),
            "SSH_CLIENT": "198.51.100.7 40000 22",
        }
        (self.folder / "state").mkdir(exist_ok=True)
        text = JOIN.read_text(encoding="utf-8").replace('"/usr/sbin/sshd"', '"sshd"')
        program = self.folder / "join"
        program.write_text(text)
        done = subprocess.run(
            [sys.executable, str(program), *words],
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def invite(self, name: str = "rig-01", *, hours: float = 1) -> Secrets:
        secrets = make_secrets()
        me = Own(name, spoke(name).wish, assign([hub(), spoke(name)])[name])
        told = record(
            me, Intent(), secrets, expires=int(time.time() + hours * 3600), user="root", keys=("ssh-ed25519 OP",)
        )
        assert self.run("admit", given=told)["id"] == secrets.id
        return secrets

    def come(self, secrets: Secrets, *, code: str | None = None, **more: Any) -> dict[str, Any]:
        said = {"code": code or secrets.code, "public_key": key("rig-01"), "host_keys": [HOST_KEY], "machine": "box"}
        return self.run("serve", secrets.id, given=json.dumps(said | more))

    def joined(self, name: str = "rig-01") -> dict[str, Any] | None:
        path = self.folder / "state" / "joined" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def keys(self) -> str:
        return (self.folder / "state" / "join" / "authorized_keys").read_text()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_who_has_file_and_code_is_let_in_once(door: Door) -> None:
    secrets = door.invite()
    answer = door.come(secrets)

    assert (answer["host"], answer["address"], answer["hub_address"]) == ("rig-01", "10.87.0.2", "10.87.0.1")
    assert "PrivateKey" not in answer["config"]
    assert f"wg set prov0 peer {key('rig-01')} allowed-ips 10.87.0.2/32" in door.notes.read_text()
    seen = door.joined()
    assert seen is not None
    assert (seen["host_keys"], seen["came_from"], seen["machine"]) == ([HOST_KEY], "198.51.100.7", "box")
    assert "was used on" in door.come(secrets)["refused"]
    assert secrets.id not in door.keys


def test_its_door_leads_nowhere_else(door: Door) -> None:
    secrets = door.invite()
    (line,) = door.keys.splitlines()

    assert line.startswith(f'command="sudo -n {door.folder / "join"} serve {secrets.id}",restrict,expiry-time="')
    assert "AllowTcpForwarding no" in (door.folder / "sshd.conf").read_text()


def test_a_wrong_code_is_said_three_times_and_then_never_again(door: Door) -> None:
    secrets = door.invite()
    wrong = "00000000" if secrets.code != "00000000" else "11111111"
    said = [door.come(secrets, code=wrong)["refused"] for _ in range(3)]

    assert [word.endswith(("2 tries are left", "1 tries are left", "has ended")) for word in said] == [True] * 3
    assert "refused" in door.come(secrets)
    assert door.joined() is None
    assert "wg set" not in door.notes.read_text()
    assert secrets.id not in door.keys


def test_an_invitation_that_has_ended_lets_nobody_in(door: Door) -> None:
    secrets = door.invite(hours=-1)

    assert "this invitation ended" in door.come(secrets)["refused"]
    assert door.joined() is None


def test_a_new_invitation_ends_the_one_before_and_another_host_keeps_its_own(door: Door) -> None:
    first, other = door.invite(), door.invite("rig-02")
    second = door.invite()

    assert "taken back" in door.come(first)["refused"]
    assert "config" in door.come(second)
    assert other.id in door.keys


def test_one_that_is_taken_back_is_gone(door: Door) -> None:
    secrets = door.invite()

    assert door.run("revoke", "rig-01") == {"host": "rig-01", "revoked": 1}
    assert "taken back" in door.come(secrets)["refused"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"public_key": "x"}, "its WireGuard key is none"),
        ({"host_keys": []}, "it shows no ssh host key"),
        ({"host_keys": ["ssh-ed25519 AAAA\nroot::0:0"]}, "it shows no ssh host key"),
        ({"host_keys": "all"}, "it shows no ssh host key"),
    ],
)
def test_what_is_no_key_is_refused_and_the_invitation_stays_good(door: Door, more: dict[str, Any], said: str) -> None:
    secrets = door.invite()

    assert door.come(secrets, **more)["refused"] == said
    assert "config" in door.come(secrets)


def test_the_key_of_another_host_is_refused(door: Door) -> None:
    """Else its packets would go to the newcomer."""
    secrets = door.invite()
    door.conf.write_text(f"[Peer]\nPublicKey = {key('rig-01')}\n")

    assert "that of another host" in door.come(secrets)["refused"]


@pytest.mark.parametrize("given", ["", "{", "[]", "null", '"x"', '{"code": 1}'])
def test_nonsense_is_refused_in_words(door: Door, given: str) -> None:
    secrets = door.invite()

    assert "refused" in door.run("serve", secrets.id, given=given)


@pytest.mark.parametrize("id_", ["../../etc/shadow", "x", "0" * 31])
def test_no_id_leads_out_of_the_folder(door: Door, id_: str) -> None:
    assert "refused" in door.run("serve", id_, given="{}")


def test_peers_that_are_in_no_file_yet_come_back_with_the_interface(door: Door) -> None:
    door.come(door.invite())

    assert door.run("restore") == {"restored": ["rig-01"]}
    door.conf.write_text(f"PublicKey = {key('rig-01')}\n")
    assert door.run("restore") == {"restored": []}
    assert door.run("settle") == {"settled": ["rig-01"]}
    assert door.joined() is None


def test_the_hub_keeps_neither_code_nor_the_doors_private_key(door: Door) -> None:
    secrets = door.invite()
    kept = "".join(p.read_text() for p in (door.folder / "state").rglob("*") if p.is_file())

    assert secrets.code not in kept
    assert "PRIVATE KEY" not in kept


def test_the_file_runs_under_the_oldest_python_and_holds_no_code() -> None:
    import ast

    secrets = make_secrets()
    me = Own("rig-01", spoke("rig-01").wish, assign([hub(), spoke("rig-01")])["rig-01"])
    text = file_text(me, secrets, expires=2_000_000_000, hub_keys=(HOST_KEY,), hub_host="hub.example", hub_port=22)

    ast.parse(text, feature_version=(3, 6))
    assert secrets.code not in text
    assert "hub.example" in text and HOST_KEY in text
    assert "@INVITATION@" not in text
