"""Not-serving seconds of 535 → 550 on Debian 13: provision apply against the same upgrade as a plain role does it.

Two lab hosts alike, brought to 535 by provision. One is upgraded with `provision apply`, whose own figure counts from
the drain to the enrolment, so that every check is in it. The other one, freed of pins and holds, gets what a plain role
does: update the index, remove the packages of the old branch, install those of the new one, reboot, wait until
nvidia-smi answers. Its clients stop before the role begins, as an operator does it by hand; the same without the
update, as if somebody had stopped them as late as possible, is printed too.

The lab's cache of module builds is hidden from both hosts, so each compiles its module once, as a rig does; they are
upgraded one after the other, since they share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

from provisioner.adapters.lab import Lab

BIN = Path(sys.executable).parent
NAME = "bench-downtime"
ROOT = Path(".provision/bench-downtime").resolve()
INVENTORY = ROOT / "inventory.yml"
LOCK = ROOT / "provision.lock"
OURS, PLAIN = "rig-ours", "rig-plain"
GOAL = 0.5


def main() -> int:
    """Measure in rounds, print Markdown; 1 when the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="each needs both hosts brought back to 535 (default 1)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts up, for another run")
    parser.add_argument("--prepare", action="store_true", help="only bring the hosts to 535 and leave them up")
    args = parser.parse_args()
    provision("lab", "up", "--name", NAME, "--dir", str(ROOT), f"{OURS}=trixie:rtx-4090", f"{PLAIN}=trixie:rtx-4090")
    if args.prepare:
        at_535()
        return 0
    figures: dict[str, list[float]] = {}
    try:
        for _ in range(args.rounds):
            for name, seconds in measure().items():
                figures.setdefault(name, []).append(seconds)
    finally:
        if not args.keep:
            provision("lab", "down", "--name", NAME)
    return report(figures)


def provision(*words: str) -> str:
    """Run a command and return what it printed to stdout; what it says goes on to the terminal."""
    done = subprocess.run([BIN / "provision", *words], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def resolved(branch: str) -> None:
    folder = ROOT / "group_vars"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.yml").write_text(f'provision_networks: [golem]\nprovision_driver: "{branch}"\n', encoding="utf-8")
    provision("resolve", "-i", str(INVENTORY), "-o", str(LOCK))


def at_535() -> None:
    resolved("535")
    provision("apply", "-i", str(INVENTORY), "--lock", str(LOCK), "--yes", "--json")


def measure() -> dict[str, float]:
    """Bring both hosts to 535, then each to 550 in its way."""
    at_535()
    resolved("550")
    for host in (OURS, PLAIN):
        # python3-apt is what Ansible's apt module needs; the role must not pay for its installation.
        on(host, "apt-get install -y --no-install-recommends python3-apt && rm -f /var/cache/apt/archives/*.deb")
        on(host, "mount -t tmpfs none /var/cache/provision-lab")
    ours = by_provision()
    plain = by_role()
    figures = {
        "provision apply: staged": ours["staged_s"],
        "provision apply: not serving": ours["not_serving_s"],
        "provision apply: of which the reboot": ours["rebooting_s"],
        "plain role: not serving": sum(plain.values()),
        "plain role: not serving, clients stopped after the update": sum(plain.values()) - plain["update"],
        "plain role: of which the reboot": plain["reboot"],
    }
    for name, seconds in figures.items():
        print(f"{time.strftime('%H:%M:%S')}  {name.ljust(60)} {seconds:8.1f} s", flush=True)
    return figures


def by_provision() -> dict[str, float]:
    answer = provision("apply", "-i", str(INVENTORY), "--lock", str(LOCK), "--limit", OURS, "--yes", "--json")
    host: dict[str, float] = json.loads(answer)["hosts"][OURS]
    return host


def by_role() -> dict[str, float]:
    """Seconds of each step of the role. Names as the lock has them; versions as apt offers them."""
    entries = json.loads(LOCK.read_text(encoding="utf-8"))["hosts"]
    entry = entries[entries[PLAIN].get("same_as", PLAIN)]
    names = [package["name"] for package in entry["packages"] if package["unit"] == "driver"]
    installed = on(PLAIN, "dpkg-query -W -f '${Package} ${db:Status-Status}\\n'").splitlines()
    old = [line.split()[0] for line in installed if "tesla-535" in line and line.endswith(" installed")]
    on(PLAIN, "rm -f /etc/apt/preferences.d/provision.pref; apt-mark unhold $(apt-mark showhold)")
    steps = {
        "update": {"ansible.builtin.apt": {"update_cache": True}},
        "remove": {"ansible.builtin.apt": {"name": old, "state": "absent", "purge": True}},
        "install": {"ansible.builtin.apt": {"name": names, "state": "present", "install_recommends": False}},
        "reboot": {
            "ansible.builtin.reboot": {
                # A system container shares its machine's boot id; process 1 starts anew all the same.
                "boot_time_command": "cat /proc/sys/kernel/random/boot_id && cut -d ' ' -f 22 /proc/1/stat"
            }
        },
        "answers": {
            "ansible.builtin.command": {"argv": ["nvidia-smi"]},
            "register": "answer",
            "until": "answer.rc == 0",
            "retries": 60,
            "delay": 1,
        },
    }
    play = {
        "name": "A plain role",
        "hosts": PLAIN,
        "become": True,
        "gather_facts": False,
        "tasks": [{"name": name, **step} for name, step in steps.items()],
    }
    path = ROOT / "plain.yml"
    path.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_PIPELINING": "1"}
    seconds: dict[str, float] = {}
    process = subprocess.Popen(
        [str(BIN / "ansible-playbook"), "-i", str(INVENTORY), str(path)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    current, began = "", time.monotonic()
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(("TASK [", "PLAY RECAP")):
            if current:
                seconds[current] = time.monotonic() - began
            current, began = line.partition("[")[2].partition("]")[0], time.monotonic()
    if process.wait() != 0:
        raise SystemExit("the plain role failed")
    return {name: seconds[name] for name in steps}


def on(host: str, command: str) -> str:
    answer = Lab.find(NAME).host(host).exec(command)
    if answer.rc != 0:
        raise SystemExit(f"{host}: {command}: {answer.stderr}")
    return answer.stdout


def report(figures: dict[str, list[float]]) -> int:
    print(
        f"\n{os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}; GPUs simulated\n"
    )
    print("| 535.274.02 → 550.163.01 on Debian 13 | min | median | max |\n| --- | --- | --- | --- |")
    for name, values in figures.items():
        print(f"| {name}, s | {min(values):.0f} | {statistics.median(values):.0f} | {max(values):.0f} |")
    ratio = statistics.median(figures["provision apply: not serving"]) / statistics.median(
        figures["plain role: not serving"]
    )
    print(f"\nNot serving for {ratio:.2f} of the plain role's time (goal: at most {GOAL}).")
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
