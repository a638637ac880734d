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
from tests.lab.members import INSTALL, RULES, Members
from tests.lab.operator import LONG

# Eight minutes; the short form of tunnels is test_tunnel_story.py.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

CONFIRM_S = 40
SIX = "mount -o remount,rw /proc/sys; sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0"
OUTSIDE = {"hub": "fd01::1", "rig": "fd01::2"}
LANS = {"hub": "192.168.71.0/24", "rig": "192.168.72.0/24"}


class AtConsoles(Members):
    """Asks hosts at their consoles: some of their rules let nobody's ssh in."""

    confirm_s = CONFIRM_S

    def root(self, host: str, command: str) -> str:
        done = self.lab.host(host).exec(["sh", "-c", command])
        assert done.rc == 0, f"{host}: {command}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
        return done.stdout

    def hub(self, range_: str, endpoint: str | None = None) -> None:
        end = endpoint or f"{self.lab.host('hub').address}:51820"
        self.wish("hub", role="hub", endpoint=end, range=range_)
        self.wish("rig", hub="hub")

    def join(self) -> dict[str, dict[str, Any]]:
        """Resolve and apply until nothing is left; returns each host's tunnel."""
        self.settle()
        return {name: self.tunnel(name) for name in ("hub", "rig")}


@pytest.fixture(scope="module")
def op(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AtConsoles]:
    yield AtConsoles(lab_factory("hub=bookworm", "rig=bookworm"), tmp_path_factory.mktemp("operator"))


def test_01_rules_of_iptables_and_of_ufw_are_told_of_the_tunnel(op: AtConsoles) -> None:
    """And neither is left: the host lives by what it lived by."""
    op.root("hub", f"{INSTALL} iptables iptables-persistent iperf3")
    op.root("hub", f"cat >/etc/iptables/rules.v4 <<'END'\n{RULES}END\nsystemctl restart netfilter-persistent")
    op.root("rig", f"{INSTALL} ufw iperf3 && ufw allow 22/tcp && ufw --force enable")
    op.hub("10.87.0.0/24")
    found = op.join()

    assert (found["hub"]["firewall"], found["rig"]["firewall"]) == ("iptables", "ufw")
    assert op.guard("rig")["came"] == found["rig"]["address"]
    assert "-A INPUT -p udp -m udp --dport 51820 -j ACCEPT" in op.root("hub", "iptables -S INPUT")
    assert "Anywhere on prov0" in op.root("rig", "ufw status")
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_02_ufw_lets_the_tunnel_in_and_our_rules_narrow_it(op: AtConsoles) -> None:
    address = op.tunnel("rig")["address"]
    op.root("rig", "iperf3 -s -D -1")

    assert op.lab.host("hub").exec(f"timeout 3 bash -c '</dev/tcp/{address}/22'").rc == 0
    assert op.lab.host("hub").exec(f"timeout 3 bash -c '</dev/tcp/{address}/5201'").rc != 0
    assert op.lab.host("rig").exec("timeout 3 bash -c '</dev/tcp/10.87.0.1/22'").rc != 0


def test_03_a_wrong_change_leaves_ufw_as_it_was(op: AtConsoles) -> None:
    """A firewall that shuts ssh out: files of ufw come back with the rest, and ufw reads them."""
    before = op.root("rig", "ufw status numbered; cat /etc/ufw/user.rules")
    good = op.lock_text()
    value = json.loads(good)
    value["hosts"]["rig"]["tunnel"]["admit"] = ["tcp/4"]
    (op.folder / "provision.lock").write_text(json.dumps(value), encoding="utf-8")
    assert "[change-reverted]" in op.run("apply", "--yes", "--limit", "rig", code=Exit.FAILED)
    (op.folder / "provision.lock").write_text(good, encoding="utf-8")

    assert op.guard("rig")["state"] == "reverted"
    assert op.root("rig", "ufw status numbered; cat /etc/ufw/user.rules") == before
    op.run("apply", "--yes", "--limit", "rig")
    assert "Nothing to change" in op.run("plan")


def test_04_our_rules_outlive_a_restart_of_the_hosts_own(op: AtConsoles) -> None:
    """netfilter-persistent begins with empty tables, by hand as at boot."""
    # systemctl waits for the unit that it was told and not for ours, which comes after it by PartOf=; iptables calls a
    # chain that is not there incompatible.
    op.root("hub", "systemctl restart netfilter-persistent")
    own = "for i in $(seq 15); do iptables -S PROVISION-IN 2>/dev/null && exit 0; sleep 1; done; exit 1"
    assert "-A PROVISION-IN -j DROP" in op.root("hub", own)

    op.lab.host("hub").reboot()
    op.carries("hub", op.tunnel("rig")["address"])
    for rule in ("-A INPUT -i prov0 -j PROVISION-IN", "-A INPUT -p udp -m udp --dport 51820 -j ACCEPT"):
        assert op.root("hub", "iptables -S INPUT").count(rule) == 1
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_05_ipv6_inside_and_outside(op: AtConsoles) -> None:
    """Every address moves, over the tunnel that they carry; the path was measured with headers of IPv6."""
    for host, address in OUTSIDE.items():
        op.root(host, f"{SIX}; ip address add {address}/64 dev eth0 nodad")
    op.hub("fd87:1::/64", "[fd01::1]:51820")
    found = op.join()

    assert [found[host]["address"] for host in ("hub", "rig")] == ["fd87:1::1", "fd87:1::2"]
    assert (found["rig"]["path_mtu"], found["rig"]["mtu"]) == (1500, 1420)
    assert op.guard("rig")["came"] == "fd87:1::2"
    assert "[fd01::1]:51820" in op.root("rig", "wg show prov0 endpoints")
    assert "-A PROVISION-IN -j DROP" in op.root("hub", "ip6tables -S PROVISION-IN")
    assert "10.87.0." not in op.root("rig", "ip address show dev prov0; ip route")
    verified = op.run("verify", "hub", "rig")
    assert "Every required check passed" in verified
    assert op.lab.host("hub").exec("ping -n -q -c 2 -M do -s 1372 fd87:1::2").rc == 0  # 1420 less 48


def test_06_sites_carry_what_is_behind_them(op: AtConsoles) -> None:
    """From a machine in one LAN to a machine in the other, by two hosts whose own rules refuse to hand anything on."""
    for host, lan in LANS.items():
        net = ipaddress.ip_network(lan)
        op.root(
            host,
            "mount -o remount,rw /proc/sys; ip netns add lan && ip link add lan0 type veth peer name eth0 netns lan && "
            f"ip address add {net[1]}/24 dev lan0 && ip link set lan0 up && "
            f"ip -n lan address add {net[10]}/24 dev eth0 && ip -n lan link set eth0 up && "
            f"ip -n lan route add default via {net[1]}",
        )
        end = f"{op.lab.host(host).address}:51820"
        op.wish(host, role="site", mesh="office", range="10.88.0.0/24", endpoint=end, lans=[lan])
    found = op.join()

    assert {name: tunnel["role"] for name, tunnel in found.items()} == {"hub": "site", "rig": "site"}
    far = ipaddress.ip_network(LANS["hub"])[10]
    assert op.root("rig", f"ip netns exec lan ping -n -q -c 3 -W 2 {far}")
    back = ipaddress.ip_network(LANS["rig"])[10]
    assert op.root("hub", f"ip netns exec lan ping -n -q -c 3 -W 2 {back}")
    for port, opened in ((22, True), (5201, False)):
        reach = op.lab.host("hub").exec(f"timeout 3 bash -c '</dev/tcp/{found['rig']['address']}/{port}'")
        assert (reach.rc == 0) is opened, port
    assert "Every required check passed" in op.run("verify", "hub", "rig")


def test_07_a_lan_that_both_have_is_refused(op: AtConsoles) -> None:
    end = f"{op.lab.host('rig').address}:51820"
    op.wish("rig", role="site", mesh="office", range="10.88.0.0/24", endpoint=end, lans=["192.168.71.128/25"])

    assert "[tunnel-range-overlaps]" in op.run("resolve", code=Exit.BAD_INPUT)
    op.wish("rig", role="site", mesh="office", range="10.88.0.0/24", endpoint=end, lans=[LANS["rig"]])


def test_08_an_interface_that_changes_goes_back(op: AtConsoles) -> None:
    """systemd-networkd takes the interface over; an address that nobody can reach goes back by itself."""
    where = "/etc/systemd/network/10-own.network"
    line = op.root("rig", "ip -4 -o address show dev eth0 | head -1").split()[3]
    gate = op.root("rig", "ip route show default").split()[2]
    words = ("guard", "rig", f"own.network={where}", "--unit", "systemd-networkd.service", "--seconds", "20", "-y")
    text = "[Match]\nName=eth0\n\n[Network]\nIPv6AcceptRA=no\nAddress={}\nGateway={}\n"
    own = op.folder / "own.network"

    own.write_text(text.format(line, gate), encoding="utf-8")
    assert "rig  confirmed: it stays" in op.run(*words)
    own.write_text(text.format("192.0.2.7/24", "192.0.2.1"), encoding="utf-8")
    said = op.run(*words, code=Exit.FAILED)

    assert "rig  went back" in said
    assert "[change-reverted]" in said
    assert op.root("rig", f"cat {where}") == text.format(line, gate)
    assert "192.0.2.7" not in op.root("rig", "ip -4 address show dev eth0")
    op.run("facts", "rig")


def test_09_no_tunnel_any_more_and_ufw_knows_nothing_of_it(op: AtConsoles) -> None:
    for host in ("hub", "rig"):
        op.wish(host, kind="none")
    op.run("resolve")
    op.run("apply", "--yes")

    assert "prov0" not in op.root("rig", "ufw status")
    assert "PROVISION" not in op.root("hub", "iptables -S INPUT; iptables -S FORWARD")
    assert "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT" in op.root("hub", "iptables -S INPUT")
    assert "Nothing to change" in op.run("plan", "--exit-code", code=Exit.OK)
