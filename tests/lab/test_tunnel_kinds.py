"""The other kinds that run here, one after the other on the same two hosts: each takes the place of the one before.

The rig is reached over the tunnel of each kind when its change is confirmed; the last step takes the tunnel away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.operator import LONG, Operator

# Ten minutes, most of it packages; the short form is test_tunnel_story.py.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

UNITS = {"ssh-reverse": "provision-ssh-tunnel", "nebula": "provision-nebula", "wireguard": "wg-quick@prov0"}


@pytest.fixture(scope="module")
def op(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    lab = lab_factory("hub=bookworm", "rig=bookworm")
    (lab.folder / "host_vars").mkdir()
    yield Operator(lab, tmp_path_factory.mktemp("operator"))


def _join(op: Operator, kind: str) -> dict[str, Any]:
    """Say what is wanted, then resolve and apply until nothing is left: keys, certificates, then the tunnel."""
    address = op.lab.host("hub").address
    port = {"ssh-reverse": 22, "nebula": 4242, "wireguard": 51820}[kind]
    hub: dict[str, Any] = {"kind": kind, "role": "hub", "endpoint": f"{address}:{port}", "confirm_s": 60}
    if kind != "ssh-reverse":
        hub["range"] = "10.87.0.0/24"
    _wish(op, "hub", hub)
    _wish(op, "rig", {"kind": kind, "hub": "hub", "confirm_s": 60})
    for _ in range(4):
        op.run("resolve")
        op.run("apply", "--yes")
        before = (op.folder / "provision.lock").read_text(encoding="utf-8")
        op.run("resolve")
        if (op.folder / "provision.lock").read_text(encoding="utf-8") == before:
            break
    hosts = json.loads((op.folder / "provision.lock").read_text(encoding="utf-8"))["hosts"]
    assert "Nothing to change" in op.run("plan")
    tunnel: dict[str, Any] = hosts["rig"]["tunnel"]
    return tunnel


def _wish(op: Operator, host: str, wish: dict[str, Any] | str) -> None:
    path: Path = op.lab.folder / "host_vars" / f"{host}.yml"
    path.write_text(f"provision_tunnel: {json.dumps(wish)}\n", encoding="utf-8")


def _running(op: Operator, host: str) -> set[str]:
    return {k for k, unit in UNITS.items() if op.lab.host(host).exec(f"systemctl is-active {unit}").rc == 0}


def _came(op: Operator) -> str:
    told = op.lab.host("rig").exec("/usr/local/lib/provision/guard status").stdout
    return str(json.loads(told)["came"])


def test_01_wireguard_from_a_host_that_was_reached_directly(op: Operator) -> None:
    tunnel = _join(op, "wireguard")

    assert _came(op) == tunnel["address"]
    assert _running(op, "rig") == {"wireguard"}


def test_02_an_ssh_reverse_tunnel_opens_one_port_and_nothing_else(op: Operator) -> None:
    tunnel = _join(op, "ssh-reverse")
    rig, hub = op.lab.host("rig"), op.lab.host("hub")
    ssh = (
        "ssh -i /etc/provision/prov0/prov0.key -o UserKnownHostsFile=/etc/provision/ssh_known_hosts -o BatchMode=yes "
        f"-o ExitOnForwardFailure=yes provision-tunnel@{hub.address}"
    )

    assert _running(op, "rig") == {"ssh-reverse"}
    assert "ssh-ed25519" in hub.exec(f"ssh-keyscan -t ed25519 -p {tunnel['port']} 127.0.0.1").stdout
    assert rig.exec(f"timeout 10 {ssh} id").rc != 0
    assert rig.exec(f"timeout 10 {ssh} -N -R 127.0.0.1:22099:127.0.0.1:22").rc not in (0, 124)
    assert rig.exec(f"timeout 10 {ssh} -N -L 2299:127.0.0.1:22 -f; timeout 3 bash -c '</dev/tcp/127.0.0.1/2299' && "
                    "ssh-keyscan -T 3 -p 2299 127.0.0.1 | grep -c ssh").stdout.strip() in ("", "0")  # fmt: skip
    assert "Every required check passed" in op.run("verify", "rig")


def test_03_the_connection_that_ends_comes_back(op: Operator) -> None:
    rig, hub = op.lab.host("rig"), op.lab.host("hub")
    port = json.loads((op.folder / "provision.lock").read_text(encoding="utf-8"))["hosts"]["rig"]["tunnel"]["port"]
    hub.reboot()
    look = f"ssh-keyscan -T 2 -p {port} 127.0.0.1 2>/dev/null | grep -q ssh"
    again = f"for i in $(seq 90); do {look} && exit 0; sleep 1; done; exit 1"

    assert hub.exec(again).rc == 0, rig.exec("journalctl -u provision-ssh-tunnel -n 20").stdout


def test_04_nebula_with_certificates_that_the_hub_signs(op: Operator) -> None:
    tunnel = _join(op, "nebula")
    key = op.lab.host("rig").exec("cat /etc/nebula/provision/prov0.key").stdout

    assert _running(op, "rig") == {"nebula"}
    assert _came(op) == tunnel["address"]
    assert op.lab.host("hub").exec(f"ping -c 2 -W 2 {tunnel['address']}").rc == 0
    assert "PRIVATE KEY" in key
    assert op.lab.host("rig").exec("ls /etc/nebula/provision/ca.key").rc != 0
    op.lab.host("rig").exec("systemctl start provision-tunnel.service")  # what its timer does four times a minute
    assert "MTU 1300" in op.run("status", "rig")
    assert "hub" in op.run("status", "rig")
    assert "Every required check passed" in op.run("verify", "rig")


def test_05_no_tunnel_any_more(op: Operator) -> None:
    for host in ("rig", "hub"):
        _wish(op, host, "none")
    op.run("resolve")
    op.run("apply", "--yes")

    assert _running(op, "rig") == _running(op, "hub") == set()
    assert op.lab.host("rig").exec("nft list table inet provision").rc != 0
    assert "Nothing to change" in op.run("plan", "--exit-code", code=Exit.OK)
