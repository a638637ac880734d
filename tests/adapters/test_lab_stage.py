"""What one case's commands are given, round by round, against a lab that exists only as keys that were made."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.adapters.lab import HostSpec, Result
from provisioner.adapters.rehearsal import LabStage
from provisioner.errors import HostError
from provisioner.model.intent import Intent, SecretSource
from provisioner.model.stack import Lock
from provisioner.model.tunnel import Tunnel, TunnelLock
from tests.world import entry

FLEET = TunnelLock(
    kind="wireguard", role="spoke", host="rig-07", address="10.87.0.9", range="10.87.0.0/24", hub="hub-01",
    hub_address="10.87.0.1", public_key="real",
)  # fmt: skip
SPOKE = entry(
    intent=Intent(
        networks=("akash",),
        tunnel=Tunnel(kind="wireguard", hub="hub-01"),
        secrets=(SecretSource(network="akash", name="key", env="AKASH_KEY"),),
    ),
    tunnel=FLEET,
)


class Host:
    def __init__(self, lab: World, name: str) -> None:
        self.lab = lab
        self.name = name
        self.spec = HostSpec(name, "bookworm")

    def exec(self, command: str) -> Result:
        if command.startswith("cat ") and self.name in self.lab.keys:
            return Result(0, self.lab.keys[self.name] + "\n", "")
        if "ping" in command:
            return Result(0 if self.lab.carries else 1, "", "")
        return Result(1, "", "")


class World:
    """A lab and a theatre in one: each `apply` makes the keys that its lock asks for, and answers."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder / "lab"
        self.folder.mkdir()
        self.inventory = self.folder / "inventory.yml"
        self.names = names
        self.keys: dict[str, str] = {}
        self.carries = True
        self.locks: list[Lock] = []
        self.ran: list[tuple[str, ...]] = []
        self.secrets: list[Mapping[str, str]] = []
        self.state = "enrolled"

    def hosts(self) -> list[Host]:
        return [Host(self, name) for name in self.names]

    def host(self, name: str) -> Host:
        assert name in self.names
        return Host(self, name)

    def run(self, words: Sequence[str], folder: Path, log: Path, secrets: Mapping[str, str]) -> tuple[int, str]:
        lock = Lock.model_validate_json((folder / "provision.lock").read_text(encoding="utf-8"))
        self.locks.append(lock)
        self.ran.append(tuple(words))
        self.secrets.append(secrets)
        for number, name in enumerate(self.names, 1):
            tunnel = lock.hosts[name].tunnel
            if words[0] == "apply" and tunnel is not None and tunnel.kind == "wireguard":
                self.keys[name] = base64.b64encode(bytes([number] * 32)).decode()
        host = {"state": self.state, "reference": "", "reason": "", "context": [], "hint": ""}
        host |= {"seconds": {"verify": 4.0}, "not_serving_s": 30.0}
        value: dict[str, Any] = {
            "run": f"run-{len(self.ran)}",
            "folder": "/runs",
            "hosts": dict.fromkeys(self.names, host),
        }
        return 0, json.dumps(value)


def stage_of(tmp_path: Path, *names: str) -> tuple[World, LabStage]:
    world = World(tmp_path, *names)
    return world, LabStage(world, world, tmp_path, {}, cached=False)  # type: ignore[arg-type]  # stands in for both


def test_one_host_one_command(tmp_path: Path) -> None:
    world, stage = stage_of(tmp_path, "rig")
    assert stage.apply(entry()).state == "good"

    assert [words[0] for words in world.ran] == ["apply"]
    assert world.locks[0].hosts == {"rig": entry()}


def test_the_first_round_makes_keys_and_the_second_joins(tmp_path: Path) -> None:
    """Both rounds count as one step; no key and no secret of the fleet is in what the commands are given."""
    world, stage = stage_of(tmp_path, "rig", "hub")
    done = stage.apply(SPOKE)

    first, second = (lock.hosts["rig"].tunnel for lock in world.locks)
    assert first is not None and not first.complete
    assert second is not None and second.complete
    assert (second.address, second.peers[0].endpoint) == ("10.87.0.9", "hub:51820")
    assert "real" not in world.locks[1].model_dump_json()
    assert (done.state, done.not_serving_s, done.verify_s) == ("good", 60.0, 8.0)
    assert set(world.secrets[0]) == {"AKASH_KEY"}
    asked = yaml.safe_load((world.folder / "host_vars" / "rig.yml").read_text(encoding="utf-8"))
    assert asked["provision_tunnel"]["hub"] == "hub"


def test_an_upgrade_finds_them_joined_and_its_own_run_is_taken_back(tmp_path: Path) -> None:
    world, stage = stage_of(tmp_path, "rig", "hub")
    stage.apply(SPOKE)
    before = world.locks[-1]
    stage.plan(SPOKE)
    stage.apply(SPOKE)
    stage.back()

    assert [words[0] for words in world.ran] == ["apply", "apply", "plan", "apply", "rollback"]
    assert world.ran[-1][:3] == ("rollback", "rig", "run-4")
    assert world.locks[3].hosts == before.hosts


def test_where_the_upgrade_changed_nothing_nothing_is_taken_back(tmp_path: Path) -> None:
    world, stage = stage_of(tmp_path, "rig")
    world.state = "unchanged"
    stage.apply(entry())

    assert stage.back().state == "good"
    assert len(world.ran) == 1


def test_a_tunnel_that_does_not_carry_is_told_before_the_command(tmp_path: Path) -> None:
    """Else the command would wait for a host that it cannot reach, and the upgrade would be blamed."""
    world, stage = stage_of(tmp_path, "rig", "hub")
    stage.apply(SPOKE)
    world.carries = False

    with pytest.raises(HostError, match="its tunnel to the hub was not up"):
        stage.plan(SPOKE)
