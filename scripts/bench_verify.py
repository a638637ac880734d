"""The same checks on 16 lab hosts: `provision verify` against testinfra's own ssh backend with ControlPersist.

Both run the very same test files, `provisioner/checks`, against the same lock. The peer gets what its documentation
offers: one shared connection per host that stays open (ControlMaster, ControlPersist). It runs once more with each
command run only once per host, which is what somebody gets who caches by hand. Everybody is measured from the start of
the process, with no connection open before it (cold) and with all of them open (warm); cold is compared with cold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import bench_noop
from bench_noop import Peak

from provisioner.adapters import inventory, ssh
from provisioner.checks.table import CHECKS
from provisioner.model.inventory import InventoryHost

CHECKS_FOLDER = Path(sys.modules["provisioner.checks"].__path__[0])
GOAL = 8
PEERS = {
    "pytest, testinfra's ssh backend": (),
    "the same, and each command once per host": ("-p", "bench_shared_looks"),
}


def main() -> int:
    """Measure in rounds, compare what both found, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-i", "--inventory", type=Path, help="hosts that are already there; none: 16 of a lab of its own"
    )
    parser.add_argument("--lock", type=Path, help="their lock")
    parser.add_argument("--rounds", type=int, default=5, help="of provision verify (default 5)")
    parser.add_argument("--peer-rounds", type=int, default=1, help="of testinfra's own backend (default 1)")
    parser.add_argument("--keep", action="store_true", help="leave the lab up, for another run")
    args = parser.parse_args()
    if args.inventory is not None:
        return measure(args.inventory, args.lock or Path("provision.lock"), args)
    bench_noop.prepare()
    try:
        return measure(bench_noop.INVENTORY, bench_noop.LOCK, args)
    finally:
        if not args.keep:
            bench_noop.provision("lab", "down", "--name", bench_noop.NAME)


def measure(source: Path, lock: Path, args: argparse.Namespace) -> int:
    hosts = inventory.read((str(source),))
    figures: dict[str, list[float]] = {}
    found: dict[str, tuple[int, int, int]] = {}

    def note(name: str, seconds: float) -> None:
        figures.setdefault(name, []).append(seconds)
        print(f"{time.strftime('%H:%M:%S')}  {name.ljust(52)} {seconds:8.2f} s", flush=True)

    peaks = []
    for _ in range(args.rounds):
        for name in ("provision verify, cold", "provision verify, warm"):
            if name.endswith("cold"):
                close(hosts)
            seconds, peak, counts = ours(source, lock)
            note(name, seconds)
            peaks.append(peak)
            found["ours"] = counts
    config = peer_config(source)
    for name, plugins in PEERS.items():
        for _ in range(args.peer_rounds):
            for state in ("cold", "warm"):
                if state == "cold":
                    close_peer(hosts, config)
                seconds, counts = peer(hosts, lock, config, plugins)
                note(f"{name}, {state}", seconds)
                found[name] = counts
    close_peer(hosts, config)
    return report(figures, found, peaks, len(hosts))


def close(hosts: tuple[InventoryHost, ...]) -> None:
    for host in hosts:
        target = ssh.Target.from_variables(host.name, host.variables)
        subprocess.run([*ssh.ssh_argv(target), "-O", "exit"], capture_output=True, check=False)


def close_peer(hosts: tuple[InventoryHost, ...], config: Path) -> None:
    for host in hosts:
        subprocess.run(["ssh", "-F", str(config), "-O", "exit", host.name], capture_output=True, check=False)


def ours(source: Path, lock: Path) -> tuple[float, float, tuple[int, int, int]]:
    """Seconds, peak MiB, and how many checks passed, failed or were set aside."""
    command = [sys.executable, "-m", "provisioner.cli", "verify", "-i", str(source), "--lock", str(lock), "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = Peak(process.pid)
    peak.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - began
    peak.stop()
    if process.returncode not in (0, 1):
        raise SystemExit(f"provision verify ended with {process.returncode}")
    checks = [check for host in json.loads(output)["hosts"].values() for check in host["checks"]]
    blocking = sum(check["required"] and check["status"] in ("failed", "unknown") for check in checks)
    passed = sum(check["status"] == "passed" for check in checks)
    return seconds, peak.own, (passed, blocking, len(checks) - passed - blocking)


def peer_config(source: Path) -> Path:
    """An ssh configuration with the lab's hosts, and the shared connection that testinfra's options leave to it."""
    config = source.parent / "peer_ssh_config"
    sockets = Path(f"/tmp/provision-bench-{os.getuid()}")
    sockets.mkdir(mode=0o700, exist_ok=True)
    config.write_text(
        f"Host *\n  ControlMaster auto\n  ControlPersist 600\n  ControlPath {sockets}/%C\n"
        f"Include {(source.parent / 'ssh' / 'config').resolve()}\n",
        encoding="utf-8",
    )
    return config.resolve()


def peer(
    hosts: tuple[InventoryHost, ...], lock: Path, config: Path, plugins: tuple[str, ...]
) -> tuple[float, tuple[int, int, int]]:
    """Run the same files under the stock backend; sudo as the inventory says."""
    become = "&sudo=true" if any(host.variables.get("ansible_become") for host in hosts) else ""
    names = ",".join(f"ssh://{host.name}?ssh_config={config}&controlpersist=600{become}" for host in hosts)
    words = ["-q", "--tb=no", "-rN", "-p", "no:cacheprovider", f"--hosts={names}", f"--provision-lock={lock.resolve()}"]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *words, str(CHECKS_FOLDER)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    if done.returncode not in (0, 1) or counts.get("error"):
        raise SystemExit(f"the peer did not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return seconds, (counts.get("passed", 0), counts.get("failed", 0), counts.get("skipped", 0))


def report(
    figures: dict[str, list[float]], found: dict[str, tuple[int, int, int]], peaks: list[float], hosts: int
) -> int:
    """Print the table; 1 when both did not find the same, or the goal was missed."""
    print(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("pytest", "pytest-testinfra")) + "; GPUs simulated\n")
    print(f"| {len(CHECKS)} checks on each of {hosts} hosts | min | median | max |\n| --- | --- | --- | --- |")
    for name, values in figures.items():
        print(f"| {name}, s | {min(values):.2f} | {statistics.median(values):.2f} | {max(values):.2f} |")
    print(f"| peak MiB of provision verify | {min(peaks):.0f} | {statistics.median(peaks):.0f} | {max(peaks):.0f} |")
    ratios = {}
    for name in PEERS:
        for state in ("cold", "warm"):
            theirs = statistics.median(figures[f"{name}, {state}"])
            ratios[name, state] = theirs / statistics.median(figures[f"provision verify, {state}"])
            print(f"\n{state}: provision verify is {ratios[name, state]:.1f} times as fast as {name}.")
    same = len(set(found.values())) == 1
    print(f"\npassed, failed, set aside: {found}{'' if same else ' NOT THE SAME'}")
    return 0 if same and min(ratios[next(iter(PEERS)), state] for state in ("cold", "warm")) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
