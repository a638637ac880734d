"""Hosts that have rules of their own, IPv6 inside and outside, sites with LANs, an interface that changes under guard.

Two hosts: the hub lives by iptables-persistent and lets nothing in but ssh, the rig by ufw with its default of deny.
WireGuard is wireguard-go's here. What is behind a site is a network namespace on it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.operator import LONG, Operator

# Eight minutes; the short form of tunnels is test_tunnel_story.py.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

CONFIRM_S = 40
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends"
# As an owner writes them: everything comes in by name, and what is no answer and no ssh is dropped.
RULES = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
COMMIT
"""
SIX = "mount -o remount,rw /proc/sys; sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0"
OUTSIDE = {"hub": "fd01::1", "rig": "fd01::2"}
LANS = {"hub": "192.168.71.0/24", "rig": "192.168.72.0/24"}


@pytest.fixture(scope="module")
def op(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    lab = lab_factory("hub=bookworm", "rig=bookworm")
    (lab.folder / "host_vars").mkdir()
    yield Operator(lab, tmp_path_factory.mktemp("operator"))


def _must(op: Operator, host: str, command: str) -> str:
    done = op.lab.host(host).exec(["sh", "-c", command])
    assert done.rc == 0, f"{host}: {command}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
    return done.stdout


def _wish(op: Operator, host: str, **wish: Any) -> None:
    value = {"kind": "wireguard", "confirm_s": CONFIRM_S, **wish}
    path = op.lab.folder / "host_vars" / f"{host}.yml"
    path.write_text(f"provision_tunnel: {json.dumps(value)}\n", encoding="utf-8")


def _hub(op: Operator, range_: str, endpoint: str | None = None) -> None:
    end = endpoint or f"{op.lab.host('hub').address}:51820"
    _wish(op, "hub", role="hub", endpoint=end, range=range_)
    _wish(op, "rig", hub="hub")


def _join(op: Operator) -> dict[str, dict[str, Any]]:
    """Resolve and apply until nothing is left; returns each host's tunnel."""
    for _ in range(3):
        op.run("resolve")
        op.run("apply", "--yes")
        before = (op.folder / "provision.lock").read_text(encoding="utf-8")
        op.run("resolve")
        if (op.folder / "provision.lock").read_text(encoding="utf-8") == before:
            break
    assert "Nothing to change" in op.run("plan")
    return {name: _tunnel(op, name) for name in ("hub", "rig")}


def _tunnel(op: Operator, host: str) -> dict[str, Any]:
    tunnel: dict[str, Any] = json.loads((op.folder / "provision.lock").read_text(encoding="utf-8"))["hosts"][host][
        "tunnel"
    ]
    return tunnel


def _guard(op: Operator, host: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_must(op, host, "/usr/local/lib/provision/guard status"))
    return value


def _carries(op: Operator, host: str, address: str, seconds: int = 40) -> bool:
    way = f"for i in $(seq {seconds}); do ping -n -q -c 1 -W 1 {address} >/dev/null && exit 0; sleep 1; done; exit 1"
    return op.lab.host(host).exec(["sh", "-c", way]).rc == 0


def test_01_rules_of_iptables_and_of_ufw_are_told_of_the_tunnel(op: Operator) -> None:
    """And neither is left: the host lives by what it lived by."""
    _must(op, "hub", f"{INSTALL} iptables iptables-persistent iperf3")
    _must(op, "hub", f"cat >/etc/iptables/rules.v4 <<'END'\n{RULES}END\nsystemctl restart netfilter-persistent")
    _must(op, "rig", f"{INSTALL} ufw iperf3 && ufw allow 22/tcp && ufw --force enable")
    _hub(op, "10.87.0.0/24")
    found = _join(op)

    assert (found["hub"]["firewall"], found["rig"]["firewall"]) == ("iptables", "ufw")
    assert _guard(op, "rig")["came"] == found["rig"]["address"]
    assert "-A INPUT -p udp -m udp --dport 51820 -j ACCEPT" in _must(op, "hub", "iptables -S INPUT")
    assert "Anywhere on prov0" in _must(op, "rig", "ufw status")
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_02_ufw_lets_the_tunnel_in_and_our_rules_narrow_it(op: Operator) -> None:
    address = _tunnel(op, "rig")["address"]
    _must(op, "rig", "iperf3 -s -D -1")

    assert op.lab.host("hub").exec(f"timeout 3 bash -c '</dev/tcp/{address}/22'").rc == 0
    assert op.lab.host("hub").exec(f"timeout 3 bash -c '</dev/tcp/{address}/5201'").rc != 0
    assert op.lab.host("rig").exec("timeout 3 bash -c '</dev/tcp/10.87.0.1/22'").rc != 0


def test_03_a_wrong_change_leaves_ufw_as_it_was(op: Operator) -> None:
    """A firewall that shuts ssh out: files of ufw come back with the rest, and ufw reads them."""
    before = _must(op, "rig", "ufw status numbered; cat /etc/ufw/user.rules")
    good = (op.folder / "provision.lock").read_text(encoding="utf-8")
    value = json.loads(good)
    value["hosts"]["rig"]["tunnel"]["admit"] = ["tcp/4"]
    (op.folder / "provision.lock").write_text(json.dumps(value), encoding="utf-8")
    assert "[change-reverted]" in op.run("apply", "--yes", "--limit", "rig", code=Exit.FAILED)
    (op.folder / "provision.lock").write_text(good, encoding="utf-8")

    assert _guard(op, "rig")["state"] == "reverted"
    assert _must(op, "rig", "ufw status numbered; cat /etc/ufw/user.rules") == before
    op.run("apply", "--yes", "--limit", "rig")
    assert "Nothing to change" in op.run("plan")


def test_04_our_rules_outlive_a_restart_of_the_hosts_own(op: Operator) -> None:
    """netfilter-persistent begins with empty tables, by hand as at boot."""
    # systemctl waits for the unit that it was told and not for ours, which comes after it by PartOf=; iptables calls a
    # chain that is not there incompatible.
    _must(op, "hub", "systemctl restart netfilter-persistent")
    own = "for i in $(seq 15); do iptables -S PROVISION-IN 2>/dev/null && exit 0; sleep 1; done; exit 1"
    assert "-A PROVISION-IN -j DROP" in _must(op, "hub", own)

    op.lab.host("hub").reboot()
    assert _carries(op, "hub", _tunnel(op, "rig")["address"])
    for rule in ("-A INPUT -i prov0 -j PROVISION-IN", "-A INPUT -p udp -m udp --dport 51820 -j ACCEPT"):
        assert _must(op, "hub", "iptables -S INPUT").count(rule) == 1
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_05_ipv6_inside_and_outside(op: Operator) -> None:
    """Every address moves, over the tunnel that they carry; the path was measured with headers of IPv6."""
    for host, address in OUTSIDE.items():
        _must(op, host, f"{SIX}; ip address add {address}/64 dev eth0 nodad")
    _hub(op, "fd87:1::/64", "[fd01::1]:51820")
    found = _join(op)

    assert [found[host]["address"] for host in ("hub", "rig")] == ["fd87:1::1", "fd87:1::2"]
    assert (found["rig"]["path_mtu"], found["rig"]["mtu"]) == (1500, 1420)
    assert _guard(op, "rig")["came"] == "fd87:1::2"
    assert "[fd01::1]:51820" in _must(op, "rig", "wg show prov0 endpoints")
    assert "-A PROVISION-IN -j DROP" in _must(op, "hub", "ip6tables -S PROVISION-IN")
    assert "10.87.0." not in _must(op, "rig", "ip address show dev prov0; ip route")
    verified = op.run("verify", "hub", "rig")
    assert "Every required check passed" in verified
    assert op.lab.host("hub").exec("ping -n -q -c 2 -M do -s 1372 fd87:1::2").rc == 0  # 1420 less 48


def test_06_sites_carry_what_is_behind_them(op: Operator) -> None:
    """From a machine in one LAN to a machine in the other, by two hosts whose own rules refuse to hand anything on."""
    for host, lan in LANS.items():
        net = ipaddress.ip_network(lan)
        _must(
            op,
            host,
            "mount -o remount,rw /proc/sys; ip netns add lan && ip link add lan0 type veth peer name eth0 netns lan && "
            f"ip address add {net[1]}/24 dev lan0 && ip link set lan0 up && "
            f"ip -n lan address add {net[10]}/24 dev eth0 && ip -n lan link set eth0 up && "
            f"ip -n lan route add default via {net[1]}",
        )
        end = f"{op.lab.host(host).address}:51820"
        _wish(op, host, role="site", mesh="office", range="10.88.0.0/24", endpoint=end, lans=[lan])
    found = _join(op)

    assert {name: tunnel["role"] for name, tunnel in found.items()} == {"hub": "site", "rig": "site"}
    far = ipaddress.ip_network(LANS["hub"])[10]
    assert _must(op, "rig", f"ip netns exec lan ping -n -q -c 3 -W 2 {far}")
    back = ipaddress.ip_network(LANS["rig"])[10]
    assert _must(op, "hub", f"ip netns exec lan ping -n -q -c 3 -W 2 {back}")
    for port, opened in ((22, True), (5201, False)):
        reach = op.lab.host("hub").exec(f"timeout 3 bash -c '</dev/tcp/{found['rig']['address']}/{port}'")
        assert (reach.rc == 0) is opened, port
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_07_a_lan_that_both_have_is_refused(op: Operator) -> None:
    end = f"{op.lab.host('rig').address}:51820"
    _wish(op, "rig", role="site", mesh="office", range="10.88.0.0/24", endpoint=end, lans=["192.168.71.128/25"])

    assert "[tunnel-range-overlaps]" in op.run("resolve", code=Exit.BAD_INPUT)
    _wish(op, "rig", role="site", mesh="office", range="10.88.0.0/24", endpoint=end, lans=[LANS["rig"]])


def test_08_an_interface_that_changes_goes_back(op: Operator) -> None:
    """systemd-networkd takes the interface over; an address that nobody can reach goes back by itself."""
    where = "/etc/systemd/network/10-own.network"
    line = _must(op, "rig", "ip -4 -o address show dev eth0 | head -1").split()[3]
    gate = _must(op, "rig", "ip route show default").split()[2]
    words = ("guard", "rig", f"own.network={where}", "--unit", "systemd-networkd.service", "--seconds", "20", "-y")
    text = "[Match]\nName=eth0\n\n[Network]\nIPv6AcceptRA=no\nAddress={}\nGateway={}\n"
    own = op.folder / "own.network"

    own.write_text(text.format(line, gate), encoding="utf-8")
    assert "rig  confirmed: it stays" in op.run(*words)
    own.write_text(text.format("192.0.2.7/24", "192.0.2.1"), encoding="utf-8")
    said = op.run(*words, code=Exit.FAILED)

    assert "rig  went back" in said
    assert "[change-reverted]" in said
    assert _must(op, "rig", f"cat {where}") == text.format(line, gate)
    assert "192.0.2.7" not in _must(op, "rig", "ip -4 address show dev eth0")
    op.run("facts", "rig")


def test_09_no_tunnel_any_more_and_ufw_knows_nothing_of_it(op: Operator) -> None:
    for host in ("hub", "rig"):
        _wish(op, host, kind="none")
    op.run("resolve")
    op.run("apply", "--yes")

    assert "prov0" not in _must(op, "rig", "ufw status")
    assert "PROVISION" not in _must(op, "hub", "iptables -S INPUT; iptables -S FORWARD")
    assert "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT" in _must(op, "hub", "iptables -S INPUT")
    assert "Nothing to change" in op.run("plan", "--exit-code", code=Exit.OK)
