"""A public segment, two home routers and what stands behind them: the lab's own network, bent into a small internet.

`hub` and the routers `gate-a` and `gate-b` stand in public (the lab's network). Behind each router is a home network
with one rig, which has no other way out: a rig's default route is its router, set again at each boot. gate-a is a
full-cone router: whatever comes to a port that the rig has used is handed to it. gate-b is symmetric: every other end
gets another port, only answers come in, and what is idle for 20 s is forgotten. The kernel here has no netem: loss is
made by the routers' own rules, at random, packet by packet.

A machine whose bridges ask iptables (br_netfilter) would put its own address in the place of the hub's in what a router
hands to its rig, because Docker masquerades the lab's network wherever it goes: one rule for each home keeps it out.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from typing import Any

from provisioner.adapters.lab import Host, Lab
from provisioner.adapters.lab.hosts import FOLDER_LABEL, LABEL, _taken_subnets, free_subnet

HOMES = {"rig-a": "gate-a", "rig-b": "gate-b"}
HUB_NAME = "hub.lab"

CONE = """table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "eth0" masquerade persistent
    }
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "eth0" udp dport 1024-65535 dnat to RIG
    }
}
"""
SYMMETRIC = """table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "eth0" masquerade fully-random
    }
}
table inet filter {
    chain forward {
        type filter hook forward priority 0;
        ct state established,related accept
        iifname "eth0" drop
    }
}
"""
TIMEOUTS = "net.netfilter.nf_conntrack_udp_timeout=15 net.netfilter.nf_conntrack_udp_timeout_stream=20"

ROUTER_UNIT = """[Unit]
Description=A home router: forwarding, and its rules
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'mount -o remount,rw /proc/sys; sysctl -qw net.ipv4.ip_forward=1 SYSCTLS; nft -f /etc/lab.nft'
[Install]
WantedBy=multi-user.target
"""
RIG_UNIT = """[Unit]
Description=The only way out is the home router; names as the owner's provider would know them
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip route replace default via GATE; cat /etc/lab-hosts >>/etc/hosts'
[Install]
WantedBy=multi-user.target
"""


class NatLab:
    """The lab with its homes; methods make the faults that rigs behind routers live with."""

    def __init__(self, lab: Lab, homes: Mapping[str, str] = HOMES) -> None:
        """`homes`: rig → its router, of those in HOMES."""
        self.lab, self.homes = lab, homes
        self._client: Any = lab._client
        self._rules: list[list[str]] = []

    def build(self) -> None:
        """Put each rig behind its router. Run once, on a lab with hub, rigs and routers."""
        for rig, gate in self.homes.items():
            self._install(gate, "nftables conntrack")
            self._install(rig, "iperf3")
            self._home(rig, gate)
        self._install("hub", "iperf3")

    def _install(self, host: str, packages: str) -> None:
        done = self.lab.host(host).exec(
            f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends {packages}"
        )
        assert done.rc == 0, done.stdout[-1000:] + done.stderr[-1000:]

    def _home(self, rig: str, gate: str) -> None:
        from docker.types import IPAMConfig, IPAMPool

        subnet = free_subnet(_taken_subnets(self._client))
        network = self._client.networks.create(
            f"provision-lab-{self.lab.name}-{rig}",
            driver="bridge",
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))]),
            options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
            labels={LABEL: self.lab.name, FOLDER_LABEL: str(self.lab.folder)},
        )
        public = self._client.networks.get(f"provision-lab-{self.lab.name}")
        self._leave_alone(str(subnet))
        network.connect(self.lab.host(gate)._container.id, ipv4_address=str(subnet[2]))
        network.connect(self.lab.host(rig)._container.id, ipv4_address=str(subnet[10]))
        rules = (CONE if gate == "gate-a" else SYMMETRIC).replace("RIG", str(subnet[10]))
        self._write(gate, "/etc/lab.nft", rules)
        sysctls = TIMEOUTS if gate == "gate-b" else ""
        self._unit(gate, "lab-router", ROUTER_UNIT.replace("SYSCTLS", sysctls))
        self._write(rig, "/etc/lab-hosts", f"{self.lab.host('hub').address} {HUB_NAME}\n")
        self._unit(rig, "lab-home", RIG_UNIT.replace("GATE", str(subnet[2])))
        public.disconnect(self.lab.host(rig)._container.id)
        self.lab.host(rig).exec("systemctl restart lab-home")

    def _leave_alone(self, subnet: str) -> None:
        rule = ["POSTROUTING", "-d", subnet, "-j", "ACCEPT"]
        subprocess.run(["iptables", "-w", "-t", "nat", "-D", *rule], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["iptables", "-w", "-t", "nat", "-I", *rule], check=True)
        self._rules.append(rule)

    def close(self) -> None:
        """Take this machine's own rules away; hosts and networks go with the lab."""
        for rule in self._rules:
            subprocess.run(["iptables", "-w", "-t", "nat", "-D", *rule], check=False)
        self._rules = []

    def _write(self, host: str, path: str, text: str) -> None:
        done = self.lab.host(host).exec(["sh", "-c", f"cat >{path} <<'END'\n{text}END"])
        assert done.rc == 0, done.stderr

    def _unit(self, host: str, name: str, text: str) -> None:
        self._write(host, f"/etc/systemd/system/{name}.service", text)
        done = self.lab.host(host).exec(f"systemctl daemon-reload && systemctl enable --now {name}")
        assert done.rc == 0, done.stdout + done.stderr

    # Faults.

    def move_hub(self, address: str | None = None) -> str:
        """Give the hub another public address; rigs' resolvers know it at once, nobody tells the tunnel."""
        hub = self.lab.host("hub")
        public = self._client.networks.get(f"provision-lab-{self.lab.name}")
        subnet = public.attrs["IPAM"]["Config"][0]["Subnet"].rsplit(".", 1)[0]
        new = address or f"{subnet}.{200 + int(time.time()) % 40}"
        public.disconnect(hub._container.id)
        public.connect(hub._container.id, ipv4_address=new, aliases=["hub"])
        for rig in self.homes:
            self._write(rig, "/etc/lab-hosts", f"{new} {HUB_NAME}\n")
            self.lab.host(rig).exec(f"sed '/ {HUB_NAME}$/d' /etc/hosts >/tmp/h; cat /tmp/h /etc/lab-hosts >/etc/hosts")
        return new

    def loss(self, gate: str, percent: int) -> None:
        """Drop so many of a hundred packets that the router forwards, in each direction; 0 ends it."""
        router = self.lab.host(gate)
        router.exec("nft delete table inet loss")
        if percent:
            rules = f"type filter hook forward priority -200;\nnumgen random mod 100 < {percent} drop"
            done = router.exec(["nft", f"table inet loss {{\nchain forward {{\n{rules}\n}}\n}}\n"])
            assert done.rc == 0, done.stderr

    def narrow(self, gate: str, mtu: int) -> None:
        """Make the way between router and public segment narrower, as a DSL line or another tunnel does."""
        for device in ("eth0",):
            assert self.lab.host(gate).exec(f"ip link set dev {device} mtu {mtu}").rc == 0

    def silent(self, gate: str, on: bool) -> None:
        """A router that drops packets which are too large and says nothing (no ICMP), as many firewalls do."""
        router = self.lab.host(gate)
        router.exec("nft delete table inet silent")
        if on:
            rules = "type filter hook output priority 0;\nicmp type destination-unreachable drop"
            done = router.exec(["nft", f"table inet silent {{\nchain output {{\n{rules}\n}}\n}}\n"])
            assert done.rc == 0, done.stderr

    def flush(self, gate: str) -> None:
        """Forget every mapping, as a router does that was switched off and on."""
        self.lab.host(gate).exec("conntrack -F")

    def rig(self, name: str) -> Host:
        return self.lab.host(name)

    def carries(self, rig_address: str, *, within: float) -> float:
        """Seconds until the hub reaches an address through the tunnel. Fails the test after `within`."""
        began = time.monotonic()
        hub = self.lab.host("hub")
        while time.monotonic() - began < within:
            if hub.exec(f"ping -n -q -c 1 -W 1 {rig_address}").rc == 0:
                return time.monotonic() - began
            time.sleep(0.2)
        raise AssertionError(f"{rig_address} did not answer within {within:g} s")
