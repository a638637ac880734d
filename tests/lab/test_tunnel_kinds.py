"""The other kinds that run here, one after the other on the same two hosts: each takes the place of the one before.

The rig is reached over the tunnel of each kind when its change is confirmed; each kind gets a new key over the tunnel
that the key carries, a rig that was lost gets nowhere, and the last step takes the tunnel away.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
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


def _leave(op: Operator) -> None:
    for host in ("rig", "hub"):
        _wish(op, host, "none")
    op.run("resolve")
    op.run("apply", "--yes")


def _wish(op: Operator, host: str, wish: dict[str, Any] | str, **more: str) -> None:
    path: Path = op.lab.folder / "host_vars" / f"{host}.yml"
    lines = [f"provision_{name}: {json.dumps(value)}\n" for name, value in {"tunnel": wish, **more}.items()]
    path.write_text("".join(lines), encoding="utf-8")


def _tunnel(op: Operator, *words: str) -> str:
    """`provision tunnel` reads the lock alone, so it takes no inventory."""
    argv = [*op.argv("tunnel")[:2], *words]
    done = subprocess.run(argv, cwd=op.folder, env=op.environment, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    return done.stdout


def _locked(op: Operator, host: str) -> dict[str, Any]:
    value = json.loads((op.folder / "provision.lock").read_text(encoding="utf-8"))
    tunnel: dict[str, Any] = value["hosts"][host]["tunnel"]
    return tunnel


def _type_the_steps(op: Operator, said: str) -> None:
    """What `provision tunnel rotate` says to type, line by line."""
    steps = re.findall(r"^ +provision (apply|resolve) --limit (\S+)", said, re.MULTILINE)
    assert len(steps) >= 3, said
    for command, limit in steps:
        op.run(command, *(["--yes"] if command == "apply" else []), "--limit", limit)


def _running(op: Operator, host: str) -> set[str]:
    return {k for k, unit in UNITS.items() if op.lab.host(host).exec(f"systemctl is-active {unit}").rc == 0}


def _came(op: Operator) -> str:
    told = op.lab.host("rig").exec("/usr/local/lib/provision/guard status").stdout
    return str(json.loads(told)["came"])


def test_00_what_cannot_work_is_said_before_anything_is_touched(op: Operator) -> None:
    """Each with its reference and the exit code of bad input, and no lock is written."""
    address = op.lab.host("hub").address
    good = {"kind": "wireguard", "role": "hub", "endpoint": f"{address}:51820", "range": "10.87.0.0/24"}
    lan = str(ipaddress.ip_network(f"{address}/24", strict=False))
    for reference, hub, rig in (
        ("tunnel-range-overlaps", {"range": lan}, {}),
        ("tunnel-range-overlaps", {"range": "172.17.9.0/24"}, {}),
        ("tunnel-range-full", {"range": "10.87.0.1/32"}, {}),
        ("tunnel-address-twice", {"address": "10.87.0.2"}, {"address": "10.87.0.2"}),
        ("tunnel-endpoint-unresolved", {"endpoint": "no.such.host.invalid:51820"}, {}),
        ("tunnel-hub-unknown", {}, {"hub": "nobody"}),
    ):
        _wish(op, "hub", {**good, **hub})
        _wish(op, "rig", {"kind": "wireguard", "hub": "hub", **rig})
        assert f"[{reference}]" in op.run("resolve", code=Exit.BAD_INPUT)
        assert not (op.folder / "provision.lock").exists()


def test_01_wireguard_from_a_host_that_was_reached_directly(op: Operator) -> None:
    tunnel = _join(op, "wireguard")

    assert _came(op) == tunnel["address"]
    assert _running(op, "rig") == {"wireguard"}


def test_02_a_second_secret_for_the_pair(op: Operator) -> None:
    """It goes from the operator's variables to both hosts, and stands in no file of a run."""
    secret = op.lab.host("hub").exec("wg genpsk").stdout.strip()
    wish = {"kind": "wireguard", "hub": "hub", "confirm_s": 60, "preshared": True}
    _wish(op, "rig", wish, tunnel_preshared=secret)
    op.run("resolve")
    op.run("apply", "--yes")

    for host in ("hub", "rig"):
        assert secret in op.lab.host(host).exec("wg show prov0 preshared-keys").stdout
        assert op.lab.host(host).exec("stat -c %a /etc/wireguard/prov0.*.psk.key").stdout.split() == ["600"]
    for path in (p for p in op.folder.rglob("*") if p.is_file()):
        assert secret not in path.read_text(encoding="utf-8", errors="replace"), path
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_03_an_ssh_reverse_tunnel_opens_one_port_and_nothing_else(op: Operator) -> None:
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
    for host in (hub, rig):
        host.exec("systemctl start provision-tunnel.service")  # what its timer does four times a minute
    assert "by ssh" in op.run("status", "hub", "rig")
    assert json.loads(hub.exec("cat /run/provision/tunnel.json").stdout)["peers"][0]["loss_pct"] == 0.0


def test_04_a_key_of_ssh_is_made_anew_over_the_tunnel_that_it_carries(op: Operator) -> None:
    old = _locked(op, "rig")["public_key"]
    _type_the_steps(op, _tunnel(op, "rotate", "rig"))

    assert _locked(op, "rig")["public_key"] != old
    assert _came(op) == "127.0.0.1"
    assert old not in op.lab.host("hub").exec("cat /etc/provision/provision-tunnel.keys").stdout


def test_05_the_connection_that_ends_comes_back(op: Operator) -> None:
    rig, hub = op.lab.host("rig"), op.lab.host("hub")
    port = json.loads((op.folder / "provision.lock").read_text(encoding="utf-8"))["hosts"]["rig"]["tunnel"]["port"]
    hub.reboot()
    look = f"ssh-keyscan -T 2 -p {port} 127.0.0.1 2>/dev/null | grep -q ssh"
    again = f"for i in $(seq 90); do {look} && exit 0; sleep 1; done; exit 1"

    assert hub.exec(again).rc == 0, rig.exec("journalctl -u provision-ssh-tunnel -n 20").stdout


def test_06_nebula_with_certificates_that_the_hub_signs(op: Operator) -> None:
    """The hub signs before the rig can move, so it leaves what it was first: a hub with rigs on it would be refused."""
    _leave(op)
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


def test_07_a_key_of_nebula_is_signed_before_it_is_taken(op: Operator) -> None:
    """Over the tunnel that it carries; whoever still holds the old key is refused."""
    rig, hub = op.lab.host("rig"), op.lab.host("hub")
    old = rig.exec("nebula-cert print -json -path /etc/nebula/provision/prov0.crt").stdout
    print_ = json.loads(old)["fingerprint"]
    _type_the_steps(op, _tunnel(op, "rotate", "rig"))

    assert _locked(op, "rig")["blocked"] == [f"rig {print_}"]
    assert _came(op) == _locked(op, "rig")["address"]
    assert print_ in hub.exec("cat /etc/nebula/provision/config.yml").stdout
    assert "Nothing to change" in op.run("plan")


def test_08_a_rig_that_was_lost_gets_nowhere_and_may_come_back(op: Operator) -> None:
    """Its certificate is good for years, and counts no more; who comes back with a new one is let in."""
    address = _locked(op, "rig")["address"]
    hub = op.lab.host("hub")
    way = f"for i in $(seq 20); do ping -c 1 -W 1 {address} >/dev/null && exit 0; sleep 1; done; exit 1"
    assert hub.exec(way).rc == 0
    assert "provision apply --limit hub" in _tunnel(op, "remove", "rig")
    op.run("apply", "--yes", "--limit", "hub")

    assert _running(op, "rig") == {"nebula"}  # it goes on trying
    assert hub.exec(way).rc != 0
    _join(op, "nebula")
    assert hub.exec(way).rc == 0
    assert len(_locked(op, "rig")["blocked"]) == 2


def test_09_no_tunnel_any_more(op: Operator) -> None:
    _leave(op)

    assert _running(op, "rig") == _running(op, "hub") == set()
    assert op.lab.host("rig").exec("nft list table inet provision").rc != 0
    assert "Nothing to change" in op.run("plan", "--exit-code", code=Exit.OK)
