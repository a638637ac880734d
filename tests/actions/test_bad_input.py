"""What can't be right is told before anything is changed: clients, images, secrets, wallets, ports, cards."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from provisioner.actions.plan import Planned, make_plan
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.intent import ClientContainer, Intent, SecretSource
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import Choice, HostLock, Lock
from provisioner.plan.order import host_plan
from provisioner.probe.request import Request
from provisioner.resources.difference import difference
from provisioner.resources.wanted import wanted
from tests.actions.test_apply import World
from tests.world import Rig, entry, fitting_capture, fitting_facts

DIGEST = "@sha256:" + "a" * 64
HOTKEY = SecretSource(network="lium", name="hotkey", env="LIUM_HOTKEY")


def client(**more: Any) -> ClientContainer:
    return ClientContainer(**{"network": "lium", "image": f"lium/executor{DIGEST}", **more})


def locked(*clients: ClientContainer, secrets: tuple[SecretSource, ...] = (), **more: Any) -> HostLock:
    intent = Intent(networks=("lium",), clients=clients, secrets=secrets)
    values = {"networks": {"lium": Choice(value="0.0.25")}, "runtime": Choice(value="docker-io"), **more}
    return entry(intent=intent, **{"toolkit": Choice(value="1.19.1"), **values})


def planned(
    lock: HostLock,
    environment: tuple[str, ...] = (),
    rig: Rig | None = None,
) -> Planned:
    rig = rig or Rig("rig-01", lock)
    world = World({"rig-01": rig})
    found = make_plan(
        (InventoryHost("rig-01", {}, lock.intent),),
        Lock(made_by="0.1.0", matrix="m", hosts={"rig-01": lock}),
        prober=world,
        clock=world,
        signatures=world,
        environment=environment,
    )
    assert [line for line in world.log if line not in ("probe", "simulate")] == [], "a plan changes nothing"
    return found


def refused(lock: HostLock) -> tuple[str, tuple[str, ...]]:
    found = planned(lock)
    assert "rig-01" not in found.plan.hosts, "who is refused is not planned for"
    return found.failed["rig-01"].reference, tuple(found.failed["rig-01"].context)


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        (locked(client(image=None, images={"0.0.24": f"lium/executor{DIGEST}"})), "no image for client 0.0.25 (0.0.24"),
        (locked(client(), toolkit=None), "wants GPUs, and the lock has no container toolkit"),
        (locked(client(gpus=["0", "3"])), "wants GPU 3, and the host has 1 (from 0 on)"),
        (locked(client(), runtime=Choice(value="podman 4.3")), "runs in Docker, and the lock has podman"),
        (
            locked(client(environment={"TOKEN": "hf_abcdefghijklmnopqrstuvwxyz012345"})),
            "its environment holds a secret",
        ),
    ],
)
def test_a_client_that_could_not_run(lock: HostLock, words: str) -> None:
    reference, context = refused(lock)
    assert reference == "client-cannot-run"
    assert words in context[0]


def test_an_image_without_a_digest() -> None:
    with pytest.raises(ValidationError, match="has no digest, and a tag is whatever somebody pushed last"):
        locked(client(image="lium/executor:latest"))


def test_a_secret_that_is_not_there() -> None:
    lock = locked(client(secrets=["hotkey"]), secrets=(HOTKEY,))
    assert refused(lock) == ("secret-missing", ("lium hotkey: the environment has no LIUM_HOTKEY",))
    assert "rig-01" in planned(lock, environment=("LIUM_HOTKEY",)).plan.hosts
    with pytest.raises(ValidationError, match="provision_secrets has no hotkey of lium"):
        locked(client(secrets=["hotkey"]))


@pytest.mark.parametrize(
    ("seen", "before", "told"),
    [
        ("644 root:root regular file\n", "0644", True),
        ("640 root:lium regular file\n", "0640 root:lium", True),
        ("600 lium:lium regular file\n", "0600 lium:lium", False),
    ],
)
def test_a_wallet_that_others_can_read(seen: str, before: str, told: bool) -> None:
    """The plan names its mode, and that whoever could read it may have; a wrong owner alone read nothing else."""
    lock = locked(secrets=(HOTKEY,))
    capture = fitting_capture(lock)
    stat = {f"stat -c '%a %U:%G %F' {HOTKEY.file}": CommandOutput(rc=0, stdout=seen)}
    capture = capture.model_copy(update={"commands": {**capture.commands, **stat}})
    [change] = host_plan("rig-01", lock, difference(wanted(lock), fitting_facts(lock), capture), enrolled=False).changes
    assert (change.before, change.after) == (before, "0600")
    assert bool(change.notes) == told
    if told:
        assert "exchange the secret too" in change.notes[0]


TABLE = "  sl  local_address rem_address   st\n   0: 00000000:{port:04X} 00000000:0000 {state} 0\n"


class Listening(Rig):
    """A rig on which somebody listens, as the probe is asked to look where a client has ports."""

    table = ""

    def capture(self, request: Request | None = None) -> Capture:
        seen = super().capture(request)
        if request is None or "/proc/net/tcp" not in request.profile.files:
            return seen
        return seen.model_copy(update={"files": {**seen.files, "/proc/net/tcp": self.table}})


def test_a_port_that_somebody_has() -> None:
    """Only who listens takes it; and our own container that has it already is no stranger."""
    lock = locked(client(ports=["8001:8080"]))

    def blocked(table: str, *, served: bool = False) -> tuple[str, ...]:
        rig = Listening("rig-01", lock)
        rig.table = table
        if not served:
            rig.files.pop("/etc/provision/containers/lium.json")
        return planned(lock, rig=rig).plan.hosts["rig-01"].blocked

    taken = TABLE.format(port=8001, state="0A")
    assert blocked(taken) == ("lium wants port 8001/tcp, and something listens on it already: sudo ss -ltnp",)
    assert blocked(TABLE.format(port=8001, state="01")) == ()
    assert blocked(TABLE.format(port=8002, state="0A")) == ()
    assert blocked(taken, served=True) == ()
