"""WireGuard of the kernel itself: two virtual machines with Debian's kernel, and beside them a host with wireguard-go.

A container shares this machine's kernel, which has no such module; a virtual machine has its own. The hub and one rig
are such machines, on the lab's network; the other rig is an ordinary lab host, so that both kinds of end meet.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab, access
from provisioner.errors import Exit
from tests.lab import vm
from tests.lab.members import Members
from tests.lab.operator import LONG

# Half an hour, for the processors are emulated; the short form of tunnels is test_tunnel_story.py.
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not LONG, reason="long form: scripts/test --all"),
    pytest.mark.skipif(
        bool(vm.missing_tools()), reason=f"needs {', '.join(vm.missing_tools())}: PROVISION_LONG=1 scripts/setup --dev"
    ),
]

MACHINES = ("hub", "rig-a")
CONFIRM_S = 90  # what takes a second elsewhere takes ten here
PACKAGES = ("wireguard-tools", "nftables")


class Machines(Members):
    """An operator of machines and of hosts."""

    confirm_s = CONFIRM_S

    def comes(self, host: str, seconds: int) -> None:
        """Wait until a host lets its operator in."""
        ends = time.monotonic() + seconds
        while True:
            with contextlib.suppress(AssertionError):
                self.on(host, "true")
                return
            assert time.monotonic() < ends, f"{host} did not come within {seconds} s"
            time.sleep(2)


@pytest.fixture(scope="module")
def op(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    lab = lab_factory("rig-b=bookworm")
    rig = lab.host("rig-b")
    net = ipaddress.ip_network(f"{rig.address}/24", strict=False)
    network = lab._client.networks.get(f"provision-lab-{lab.name}")
    bridge, folder = f"br-{str(network.id)[:12]}", tmp_path_factory.mktemp("machines")
    root = vm.host_tree(folder, access.ensure_key(lab.folder, lab.name), also=PACKAGES)
    entries = [access.Entry(rig.name, rig.address, rig.host_keys(), "bookworm")]
    with contextlib.ExitStack() as running:
        for number, name in enumerate(MACHINES, start=201):
            machine = vm.Machine(name, f"{net[number]}/{net.prefixlen}", str(net[1]), bridge, folder)
            entries.append(machine.make(root))
            running.enter_context(machine)
        access.write(lab.folder, entries)
        operator = Machines(lab, tmp_path_factory.mktemp("operator"))
        for name in MACHINES:
            operator.comes(name, vm.BOOT_S)
        operator.wish("hub", role="hub", endpoint=f"{net[201]}:51820", range="10.87.0.0/24")
        for name in ("rig-a", "rig-b"):
            operator.wish(name, hub="hub")
        yield operator


def test_01_the_kernel_s_own_where_it_has_it(op: Machines) -> None:
    """The lock says who has the module; nothing is installed beside it there."""
    op.settle()

    assert {name: op.tunnel(name).get("userspace", False) for name in ("hub", "rig-a", "rig-b")} == {
        "hub": False,
        "rig-a": False,
        "rig-b": True,
    }
    for name in MACHINES:
        assert re.search(r"^wireguard ", op.on(name, "cat /proc/modules"), re.MULTILINE)
        assert " wireguard " in op.on(name, "ip -d link show dev prov0")
        # Docker of Debian 12 starts no container without it where the kernel has AppArmor on, as these have.
        assert op.on(name, "dpkg-query -W -f '${Package} ' wireguard-go apparmor 2>/dev/null || true") == "apparmor "
        assert op.guard(name)["state"] == "confirmed"
    assert "wireguard-go" in op.on("rig-b", "ps -eo args")


def test_02_it_carries_and_the_change_was_confirmed_over_it(op: Machines) -> None:
    for name in ("rig-a", "rig-b"):
        address = op.tunnel(name)["address"]
        assert op.guard(name)["came"] == address
        op.carries("hub", address, 120)
        whole = op.tunnel(name).get("mtu", 1280) - 28
        op.on("hub", f"ping -n -q -c 2 -W 5 -M do -s {whole} {address}")
    assert "Every required check passed" in op.run("verify", "hub", "rig-a", "rig-b")


def test_03_another_size_reaches_the_interface_as_it_stands(op: Machines) -> None:
    """Neither the interface nor its session is made anew: number and handshakes stay."""
    ask = "cat /sys/class/net/prov0/ifindex; sudo wg show prov0 latest-handshakes"
    before = op.on("rig-a", ask)
    op.wish("rig-a", hub="hub", mtu=1380)
    op.settle()
    after = op.on("rig-a", ask)

    assert op.on("rig-a", "cat /sys/class/net/prov0/mtu").strip() == "1380"
    assert after.splitlines()[0] == before.splitlines()[0]
    assert int(after.split()[-1]) >= int(before.split()[-1]) > 0


def test_04_a_wrong_change_goes_back_by_itself(op: Machines) -> None:
    """A firewall that shuts ssh out, on a host with the kernel's nftables and WireGuard."""
    ask = "nft -s list table inet provision; wg show prov0 peers"  # Docker's own rules count packets
    before = op.root("rig-a", ask)
    good = op.lock_text()
    value = json.loads(good)
    value["hosts"]["rig-a"]["tunnel"]["admit"] = ["tcp/4"]
    (op.folder / "provision.lock").write_text(json.dumps(value), encoding="utf-8")
    said = op.run("apply", "--yes", "--limit", "rig-a", code=Exit.FAILED)
    (op.folder / "provision.lock").write_text(good, encoding="utf-8")

    assert "[change-reverted]" in said
    assert op.guard("rig-a")["state"] == "reverted"
    assert op.root("rig-a", ask) == before
    op.run("apply", "--yes", "--limit", "rig-a")


@pytest.mark.parametrize("name", MACHINES)
def test_05_a_reboot_brings_the_module_and_the_tunnel_back(op: Machines, name: str) -> None:
    """Nobody loads the module by hand: wg-quick's request for the interface does."""
    boot = op.on(name, "cat /proc/sys/kernel/random/boot_id")
    op.on(name, "sudo systemctl reboot --no-block")
    time.sleep(20)
    op.comes(name, vm.BOOT_S)

    assert op.on(name, "cat /proc/sys/kernel/random/boot_id") != boot
    for rig in ("rig-a", "rig-b"):
        op.carries("hub", op.tunnel(rig)["address"], 240)
    assert " wireguard " in op.on(name, "ip -d link show dev prov0")
    assert "Nothing to change" in op.run("plan")


def test_06_no_tunnel_any_more(op: Machines) -> None:
    for name in ("hub", "rig-a", "rig-b"):
        op.wish(name, kind="none")
    op.run("resolve")
    op.run("apply", "--yes")

    for name in MACHINES:
        assert "prov0" not in op.on(name, "ip link; sudo nft list ruleset")
    assert "Nothing to change" in op.run("plan")
