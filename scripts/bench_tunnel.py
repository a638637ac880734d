"""What each kind of tunnel that runs here costs: latency and throughput against the bare path, in one run on two hosts.

One lab, `hub` and `rig`, on one bridge. Each kind is set up by provision itself, one after the other on the same hosts,
so every run also changes a host from one kind to the next. Then, from the hub to the rig: 100 pings, iperf3 for some
seconds where the kind carries any port, and what every kind carries: 50 connections to sshd until its first line is
there, and a stream through ssh.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

from provisioner.adapters.lab import SUITES, Host, Lab, gpu_models, parse_all, take_down

NAME = "bench-tunnel"
ROOT = Path(".provision/bench-tunnel").resolve()
BIN = Path(sys.executable).parent
NEBULA = "/etc/nebula/provision/config.yml"
PING = "ping -n -c 100 -i 0.02"
# What every kind carries, a port that only forwards too: a connection to sshd, until its first line is there.
BANNER = """
import socket, sys, time
for _ in range(50):
    began = time.monotonic()
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as line:
        line.recv(64)
    print((time.monotonic() - began) * 1000)
"""


def main() -> int:
    """Set up each kind, measure it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each stream (default 5)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts up")
    args = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    lab = Lab.up(NAME, ROOT, parse_all(["hub=bookworm", "rig=bookworm"], SUITES, gpu_models()))
    try:
        hub, rig = lab.host("hub"), lab.host("rig")
        prepare(hub, rig)
        rows = {"bare path": measured(hub, rig.address, 22, args.seconds)}
        for kind in ("wireguard", "nebula", "ssh-reverse"):
            set_up(lab, kind)
            tunnel = json.loads((ROOT / "provision.lock").read_text())["hosts"]["rig"]["tunnel"]
            if kind == "ssh-reverse":
                rows[kind] = measured(hub, "127.0.0.1", tunnel["port"], args.seconds, only_ssh=True)
            else:
                # The rules admit ssh alone; for the measurement, and for it alone, iperf3 too.
                must(rig, "nft insert rule inet provision input tcp dport 5201 accept")
                if kind == "nebula":  # which has rules of its own
                    must(rig, f"sed -i 's/^  inbound:$/&\\n    - {{port: 5201, proto: tcp, host: any}}/' {NEBULA}")
                    must(rig, "systemctl restart provision-nebula")
                must(hub, f"for i in $(seq 30); do ping -c 1 -W 1 {tunnel['address']} && exit 0; done; exit 1")
                rows[kind] = measured(hub, tunnel["address"], 22, args.seconds)
                if kind == "wireguard":
                    print(
                        f"wireguard: MTU {tunnel['mtu']}, in the kernel: {not tunnel.get('userspace')}", file=sys.stderr
                    )
        versions = installed(hub)
    finally:
        if not args.keep:
            take_down(NAME)
    machine = f"{os.cpu_count()} cores, kernel {platform.release()}, load {os.getloadavg()[0]:.1f}"
    print(f"\n{date.today()}, {machine}; hub and rig share them")
    print(f"{versions}; {args.seconds} s each stream, 100 pings\n")
    print("| median (min to max) | ping, ms | connect and hear sshd, ms | iperf3, Mbit/s | ssh stream, Mbit/s |")
    print("| --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        print(f"| {name} | {row['ping']} | {row['banner']} | {row['iperf3']} | {row['ssh']} |")
    return 0


def prepare(hub: Host, rig: Host) -> None:
    for host in (hub, rig):
        must(host, "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends iperf3")
    key = must(hub, "[ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; "
               "cat /root/.ssh/id_ed25519.pub").strip()  # fmt: skip
    there = "/root/.ssh/authorized_keys"
    must(rig, f"mkdir -p -m 700 /root/.ssh; grep -qF {shlex.quote(key)} {there} || echo {shlex.quote(key)} >>{there}")


def installed(host: Host) -> str:
    """Versions of what was measured and of what measured it."""
    names = "iperf3 wireguard-tools wireguard-go nebula openssh-server"
    rows = must(host, f"dpkg-query -W -f '${{Package}} ${{Version}}\\n' {names} 2>/dev/null; :").splitlines()
    return ", ".join(row for row in rows if row.count(" ") == 1 and not row.endswith(" "))


def set_up(lab: Lab, kind: str) -> None:
    """Wishes, then resolve and apply until nothing is left: keys first, then what rests on them."""
    variables = ROOT / "host_vars"
    variables.mkdir(exist_ok=True)
    end = {"wireguard": 51820, "nebula": 4242, "ssh-reverse": 22}[kind]
    hub: dict[str, object] = {"kind": kind, "role": "hub", "endpoint": f"{lab.host('hub').address}:{end}"}
    if kind != "ssh-reverse":
        hub["range"] = "10.87.0.0/24"
    (variables / "hub.yml").write_text(f"provision_tunnel: {json.dumps(hub)}\n")
    (variables / "rig.yml").write_text(
        f"provision_tunnel: {json.dumps({'kind': kind, 'hub': 'hub', 'reach': 'direct'})}\n"
    )
    for _ in range(4):
        provision("resolve")
        print(f"{kind}: apply", file=sys.stderr, flush=True)
        provision("apply", "--yes")
        provision("resolve")
        if provision("plan", "--exit-code", may_differ=True) == 0 and complete():
            return
    raise SystemExit(f"{kind} could not be set up")


def complete() -> bool:
    hosts = json.loads((ROOT / "provision.lock").read_text())["hosts"]
    return all(h["tunnel"].get("peers") and not h["tunnel"].get("waits_for") for h in hosts.values())


def provision(*words: str, may_differ: bool = False) -> int:
    environment = {**os.environ, "PROVISION_CONFIG_DIR": str(ROOT / "config"), "NO_COLOR": "1"}
    argv = [str(BIN / "provision"), *words, "-i", str(ROOT / "inventory.yml")]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in ((0, 2) if may_differ else (0,)):
        raise SystemExit(done.stdout + done.stderr)
    return done.returncode


def measured(hub: Host, address: str, port: int, seconds: int, *, only_ssh: bool = False) -> dict[str, str]:
    ssh = f"ssh -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/tmp/known-{port} -p {port} root@{address}"
    must(hub, f"{ssh} true")
    stream = must(hub, f"{ssh} 'timeout {seconds} cat /dev/zero' | wc -c")
    waits = [float(text) for text in must(hub, f"python3 -c {shlex.quote(BANNER)} {address} {port}").split()]
    row = {"ssh": f"{int(stream) * 8 / seconds / 1e6:.0f}", "banner": spread(waits), "ping": "-", "iperf3": "-"}
    if only_ssh:
        return row
    row["ping"] = spread([float(t) for t in re.findall(r"time=([0-9.]+)", must(hub, f"{PING} {address}"))])
    must(hub, f"{ssh} 'iperf3 -s -D -1'")
    answer = json.loads(must(hub, f"sleep 1; iperf3 -J -t {seconds} -c {address}"))
    row["iperf3"] = f"{answer['end']['sum_received']['bits_per_second'] / 1e6:.0f}"
    return row


def spread(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"


def must(host: Host, command: str) -> str:
    done = host.exec(command)
    if done.rc != 0:
        raise SystemExit(f"{host.name}: {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
