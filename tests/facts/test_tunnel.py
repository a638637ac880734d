"""The tunnel of a host as a capture shows it; what was not looked for is unknown, not absent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from provisioner.facts import tunnel
from provisioner.model.capture import UNKNOWN, Capture, CommandOutput
from provisioner.model.facts import PeerHealth, Route
from tests.world import KERNEL, WHEN

NOTES = {
    "at": 1000,
    "interface": "prov0",
    "mtu": 1420,
    "peers": [{"host": "hub", "handshake": 980, "loss_pct": 0.0, "rtt_ms": 3.25, "endpoint": "203.0.113.1:51820"}],
}


def capture(files: dict[str, str | None] | None = None, **commands: CommandOutput) -> Capture:
    made = {"date +%s.%N": CommandOutput(rc=0, stdout="1010.5\n"), **commands}
    return Capture(host="rig-01", taken_at=WHEN, probe="0.1.0", files=files or {}, commands=made)


def listing(text: str) -> CommandOutput:
    return CommandOutput(rc=0, stdout=text) if text else CommandOutput(rc=2, stderr="No such file or directory")


def test_peers_with_the_age_of_their_handshake() -> None:
    found = tunnel.read(capture({tunnel.NOTES: json.dumps(NOTES)}), KERNEL)

    assert found.peers == (PeerHealth("hub", 30.5, 0.0, 3.25, "203.0.113.1:51820", None),)
    assert (found.interface_mtu, found.seen_age_s) == (1420, 10.5)


def test_what_the_tunnel_adds_to_the_way() -> None:
    """The way through it less the way outside; a far end that answers no ping outside leaves it open."""
    peer = {**NOTES["peers"][0], "path_ms": 2.75}  # type: ignore[index]
    (health,) = tunnel.read(capture({tunnel.NOTES: json.dumps(NOTES | {"peers": [peer]})}), KERNEL).peers  # type: ignore[misc]

    assert health.added_ms == 0.5


def test_no_keeper_is_no_tunnel_and_no_look_is_unknown() -> None:
    none, unknown = tunnel.read(capture({tunnel.NOTES: None}), KERNEL), tunnel.read(capture(), KERNEL)

    assert (none.interface_mtu, none.peers) == (None, ())
    assert (unknown.interface_mtu, unknown.peers) == (UNKNOWN, UNKNOWN)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"peers": [1]}', '{"peers": 4, "mtu": "x"}'])
def test_notes_that_are_none_make_nothing_up(text: str) -> None:
    found = tunnel.read(capture({tunnel.NOTES: text}), KERNEL)

    assert found.peers in (UNKNOWN, ()) or isinstance(found.peers, tuple)
    assert not isinstance(found.interface_mtu, int)


def test_routes_without_the_default_and_the_tunnel_itself() -> None:
    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "prov0\t0100570A\t00000000\t0001\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    found = tunnel.read(capture({"/proc/net/route": text}), KERNEL)

    assert found.routes == (Route("192.168.1.0/24", "eth0"), Route("172.17.0.0/16", "docker0"))


def test_routes_of_version_6_without_those_of_every_link() -> None:
    """As Linux 6.1 writes them: a LAN, link-local, multicast, what is refused, the tunnel itself, the default."""
    word, none = "20010db8000100000000000000000000", "0" * 32
    rows = [
        (word, "40", "00000001", "eth0"),
        ("fe80" + "0" * 28, "40", "00000001", "eth0"),
        ("ff00" + "0" * 28, "08", "00000001", "eth0"),
        ("fd00" + "0" * 28, "08", "00000200", "eth1"),
        ("fd87" + "0" * 28, "40", "00000001", "prov0"),
        (none, "00", "00000003", "eth0"),
    ]
    text = "".join(
        f"{to} {size} {none} 00 {none} 00000100 00000001 00000000 {flags}     {by}\n" for to, size, flags, by in rows
    )
    files: dict[str, str | None] = {"/proc/net/route": "Iface\n", "/proc/net/ipv6_route": text}

    assert tunnel.read(capture(files), KERNEL).routes == (Route("2001:db8:1::/64", "eth0"),)


@pytest.mark.parametrize("text", ["\n", "x y\n", "00 zz 0 0 0 0 0 0 00000001 eth0\n"])
def test_a_routing_table_that_is_none_makes_nothing_up(text: str) -> None:
    files: dict[str, str | None] = {"/proc/net/route": text, "/proc/net/ipv6_route": text}

    assert tunnel.read(capture(files), KERNEL).routes == ()


def test_networks_that_docker_is_told_to_take() -> None:
    """They may have no route yet, and will get one with the next container."""
    daemon = (
        '{"bip": "10.200.0.1/24", "default-address-pools": [{"base": "10.87.0.0/16", "size": 24}, {"base": "x"}, 4]}'
    )
    found = tunnel.read(capture({"/proc/net/route": "Iface\n", "/etc/docker/daemon.json": daemon}), KERNEL)

    assert isinstance(found.routes, tuple)
    assert [route.network for route in found.routes] == ["10.200.0.0/24", "10.87.0.0/16"]


@pytest.mark.parametrize(
    ("loaded", "on_disk", "inside", "answer"),
    [
        ("/sys/module/wireguard\n", "", "none\n", True),
        ("", f"/lib/modules/{KERNEL}/kernel/drivers/net/wireguard/wireguard.ko\n", "none\n", True),
        ("", "/lib/modules/5.4.0-1-amd64/kernel/drivers/net/wireguard/wireguard.ko\n", "none\n", False),
        ("", f"/lib/modules/{KERNEL}/kernel/drivers/net/wireguard/wireguard.ko\n", "docker\n", False),
        ("", "", "kvm\n", False),
    ],
)
def test_whether_the_kernel_has_wireguard(loaded: str, on_disk: str, inside: str, answer: bool) -> None:
    seen = capture(
        None,
        **{
            "ls -d /sys/module/wireguard": listing(loaded),
            "ls -d /lib/modules/*/kernel/drivers/net/wireguard/wireguard.ko*": listing(on_disk),
            "systemd-detect-virt": CommandOutput(rc=0, stdout=inside),
        },
    )

    assert tunnel.read(seen, KERNEL).kernel_module is answer


@pytest.mark.parametrize(
    ("ufw", "nft", "rules", "answer"),
    [
        ("ENABLED=yes\n", "/usr/sbin/nft\n", "", "ufw"),
        ("ENABLED=no\n", "/usr/sbin/nft\n", "", "nftables"),
        (None, "", "/etc/iptables/rules.v4\n", "iptables"),
        (None, "/usr/sbin/nft\n", "/etc/iptables/rules.v4\n", "iptables"),  # nft is there, and not what it lives by
        (None, "", "", None),
    ],
)
def test_which_firewall_the_host_has(ufw: str | None, nft: str, rules: str, answer: Any) -> None:
    seen = capture(
        {"/etc/ufw/ufw.conf": ufw},
        **{"ls -d /usr/sbin/nft": listing(nft), "ls -d /etc/iptables/rules.v4": listing(rules)},
    )

    assert tunnel.read(seen, KERNEL).firewall == answer


@pytest.mark.parametrize(("said", "answer"), [("path-mtu 1380\n", 1380), ("path-mtu none\n", None), ("", UNKNOWN)])
def test_the_path_as_it_was_measured(said: str, answer: Any) -> None:
    assert tunnel.read(capture(None, **{"… echo path-mtu …": CommandOutput(rc=0, stdout=said)}), KERNEL).path_mtu == (
        answer
    )


def test_the_last_guarded_change() -> None:
    text = json.dumps({"state": "reverted", "why": "nobody confirmed it within 60 s"})
    found = tunnel.read(capture({tunnel.CHANGE: text}), KERNEL)

    assert (found.change, found.change_why) == ("reverted", "nobody confirmed it within 60 s")
