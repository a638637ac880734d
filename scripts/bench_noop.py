"""Nothing to change on 16 lab hosts: provision plan against ansible-playbook, mitogen, pyinfra and bare ssh.

Every contender runs from cold connections (the shared ssh connections are closed before each run), one after the other
in rounds, so that all meet the same machine. The playbook is provision's own rendering of everything that the lock
wants, without what only a change needs (index and downloads, drain, restarts, reboot): that favours the peers. Like
the playbook, pyinfra runs commands where it has no operation: dpkg's and DKMS's own "bring to this state", and holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import yaml

from provisioner.adapters import inventory, ssh
from provisioner.model.plan import Change, HostPlan
from provisioner.model.resource import (
    Directory,
    File,
    KernelModule,
    Package,
    Resource,
    RunningDriver,
    Service,
    Settings,
)
from provisioner.model.stack import HostLock
from provisioner.plan.order import describe
from provisioner.render.project import TITLES, project
from provisioner.resolve.lock import read_lock
from provisioner.resources.wanted import wanted

BIN = Path(sys.executable).parent
NAME = "bench"
ROOT = Path(".provision/bench").resolve()
HOSTS = [f"rig-{n:02d}" for n in range(1, 17)]
INVENTORY = ROOT / "inventory.yml"
LOCK = ROOT / "provision.lock"


def main() -> int:
    """Bring the hosts up, apply once, then measure in rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of ansible-playbook, minutes each")
    parser.add_argument("--fast-rounds", type=int, default=9, help="rounds of provision, bare ssh and pyinfra")
    parser.add_argument("--keep", action="store_true", help="leave the hosts up, for another run")
    args = parser.parse_args()
    prepare()
    try:
        figures = measure(args.rounds, args.fast_rounds)
    finally:
        if not args.keep:
            provision("lab", "down", "--name", NAME, "--dir", str(ROOT))
    report(figures)
    return 0


def provision(*words: str) -> None:
    subprocess.run([BIN / "provision", *words], check=True)


def prepare() -> None:
    """Sixteen enrolled hosts of one suite; building their modules is most of the time."""
    provision("lab", "up", "--name", NAME, "--dir", str(ROOT), *(f"{host}=bookworm:rtx-3090" for host in HOSTS))
    folder = ROOT / "group_vars"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.yml").write_text("provision_networks: [lium]\n", encoding="utf-8")
    provision("resolve", "-i", str(INVENTORY), "-o", str(LOCK))
    provision("apply", "-i", str(INVENTORY), "--lock", str(LOCK), "--yes")


def stating(resource: Resource) -> bool:
    """Whether a playbook can hold a resource at no risk: all but the loaded driver, whose task is a reboot."""
    return not isinstance(resource, RunningDriver)


def full_plan(host: str, lock: HostLock) -> HostPlan:
    """Return a plan that names everything the lock wants, as if it all had to be put in place."""
    changes = [
        Change(
            phase="change",
            what=resource.key,
            before=None,
            after=describe(resource),
            wanted=resource.model_copy(update={"restarts": ()}) if isinstance(resource, Settings) else resource,
            content=json.dumps(resource.values, indent=4, sort_keys=True) + "\n"
            if isinstance(resource, Settings)
            else None,
        )
        for resource in wanted(lock)
        if stating(resource)
    ]
    return HostPlan(host=host, changes=tuple(changes))


def peers(folder: Path) -> None:
    """Write the playbook and the pyinfra deploy with the same resources."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    locks = read_lock(LOCK).hosts
    hosts = inventory.read((str(INVENTORY),))
    rendered = project(
        [full_plan(host.name, locks[host.name]) for host in hosts],
        {host.name: host.variables for host in hosts},
        run="bench",
        made_by="bench",
        made_at="",
    )
    for name, text in rendered.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # Only what holds the resources: the index, downloads and module builds of the staging are for a change.
    (play,) = [p for p in yaml.safe_load(rendered.files["group_1.yml"]) if p["name"] == TITLES["change"]]
    play["tasks"] = [task for task in play["tasks"] if not task["name"].startswith("Clear away")]
    (folder / "group_1.yml").write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
    (folder / "ansible.cfg").write_text(
        "[defaults]\ninventory = inventory.yml\nforks = 16\nhost_key_checking = true\n"
        "[ssh_connection]\npipelining = true\nssh_args = -o ControlMaster=auto -o ControlPersist=60s\n",
        encoding="utf-8",
    )
    shutil.copy(Path(__file__).parent / "bench_pyinfra.py", folder / "deploy.py")
    described = {}
    for host in hosts:
        resources = [r for r in wanted(locks[host.name]) if stating(r)]
        described[host.name] = {
            "directories": [r.path for r in resources if isinstance(r, Directory)],
            "files": {
                r.path: (f"files/group_1{r.path}", r.mode.lstrip("0") if isinstance(r, File) else "644")
                for r in resources
                if isinstance(r, (File, Settings))
            },
            "packages": {r.name: r.version for r in resources if isinstance(r, Package)},
            "kernels": [r.kernel for r in resources if isinstance(r, KernelModule)],
            "held": [r.name for r in resources if isinstance(r, Package) and r.held],
            "services": [r.name for r in resources if isinstance(r, Service)],
        }
    (folder / "wanted.json").write_text(json.dumps(described), encoding="utf-8")
    known_hosts = ROOT / "ssh" / "known_hosts"
    rows = []
    for host in hosts:
        data = {
            "ssh_hostname": host.variables["ansible_host"],
            "ssh_user": host.variables["ansible_user"],
            "ssh_key": host.variables["ansible_ssh_private_key_file"],
            "ssh_known_hosts_file": str(known_hosts),
            "ssh_strict_host_key_checking": "yes",
        }
        rows.append((host.name, data))
    (folder / "pyinfra_inventory.py").write_text(f"rigs = {rows!r}\n", encoding="utf-8")


def cold() -> None:
    """Close every shared connection, ours and Ansible's."""
    for host in inventory.read((str(INVENTORY),)):
        target = ssh.Target.from_variables(host.name, host.variables)
        subprocess.run([*ssh.ssh_argv(target), "-O", "exit"], capture_output=True, check=False)
    for socket in Path("~/.ansible/cp").expanduser().glob("*"):
        subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "x"], capture_output=True, check=False)


class Peak(threading.Thread):
    """Samples the resident memory (proportional set size, MiB) of a process, and of it with all its children."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._end = threading.Event()
        self.own = 0.0
        self.tree = 0.0

    def run(self) -> None:
        while not self._end.wait(0.02):
            own, rest = pss(self._pid), sum(pss(pid) for pid in descendants(self._pid))
            self.own, self.tree = max(self.own, own), max(self.tree, own + rest)

    def stop(self) -> None:
        self._end.set()
        self.join()


def pss(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        pass
    return 0.0


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    found = [int(child) for child in children]
    return found + [deeper for child in found for deeper in descendants(child)]


def timed(
    command: list[str], *, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> tuple[float, Peak]:
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = Peak(process.pid)
    peak.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - began
    peak.stop()
    if process.returncode != 0:
        raise SystemExit(f"{command} failed:\n{output[-3000:]}")
    return seconds, peak


def every_host_true() -> float:
    """Bare `ssh host true` on all hosts at once."""
    argvs = []
    for host in inventory.read((str(INVENTORY),)):
        argvs.append([*ssh.ssh_argv(ssh.Target.from_variables(host.name, host.variables)), "true"])
    began = time.perf_counter()
    running = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for argv in argvs]
    codes = [process.wait() for process in running]
    seconds = time.perf_counter() - began
    if any(codes):
        raise SystemExit(f"ssh host true failed: {codes}")
    return seconds


def measure(rounds: int, fast_rounds: int) -> dict[str, list[float]]:
    """Return seconds per contender; provision and bare ssh alternate, so that both meet the same moments."""
    folder = ROOT / "peers"
    peers(folder)
    mitogen = subprocess.run(
        [sys.executable, "-c", "import ansible_mitogen, pathlib; print(pathlib.Path(ansible_mitogen.__file__).parent)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    plan = [str(BIN / "provision"), "plan", "-i", str(INVENTORY), "--lock", str(LOCK), "--exit-code"]
    playbook = [str(BIN / "ansible-playbook"), "group_1.yml"]
    pyinfra = [str(BIN / "pyinfra"), "-y", "pyinfra_inventory.py", "deploy.py"]
    figures: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        figures.setdefault(name, []).append(seconds)
        print(f"{time.strftime('%H:%M:%S')}  {name.ljust(38)} {seconds:8.2f} s", flush=True)

    timed(plan)  # the caches of matrix and probe are warm, as they are on a controller that is in use
    for _ in range(fast_rounds):
        cold()
        note("ssh host true, 16 at once, cold", every_host_true())
        cold()
        seconds, peak = timed(plan)
        note("provision plan, cold connections", seconds)
        figures.setdefault("peak MiB of provision", []).append(peak.own)
        figures.setdefault("peak MiB with its ssh processes", []).append(peak.tree)
        seconds, _ = timed(plan)
        note("provision plan, warm connections", seconds)
        note("ssh host true, 16 at once, warm", every_host_true())
        cold()
        note("pyinfra", timed(pyinfra, cwd=folder)[0])
    for _ in range(rounds):
        cold()
        note("ansible-playbook", timed(playbook, cwd=folder)[0])
        cold()
        environment = {"ANSIBLE_STRATEGY_PLUGINS": f"{mitogen}/plugins/strategy", "ANSIBLE_STRATEGY": "mitogen_linear"}
        note("ansible-playbook with mitogen", timed(playbook, cwd=folder, environment=environment)[0])
    return figures


def report(figures: dict[str, list[float]]) -> None:
    """Print the table and the ratios as Markdown."""
    packages = ("ansible-core", "mitogen", "pyinfra", "pydantic")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, {versions}, {time.strftime('%Y-%m-%d')}\n")
    print("| 16 hosts, nothing to change | min | median | max | provision is |\n| --- | --- | --- | --- | --- |")
    ours = statistics.median(figures["provision plan, cold connections"])
    for name, values in figures.items():
        median = statistics.median(values)
        if name.startswith("peak"):
            print(f"| {name} | {min(values):.0f} | {median:.0f} | {max(values):.0f} | |")
            continue
        ratio = "" if name.startswith("provision") or name.endswith("warm") else f"{median / ours:.1f} times as fast"
        print(f"| {name}, s | {min(values):.2f} | {median:.2f} | {max(values):.2f} | {ratio} |")
    bare = statistics.median(figures["ssh host true, 16 at once, cold"])
    print(f"\nprovision plan costs {ours / bare:.2f} times bare ssh.")


if __name__ == "__main__":
    sys.exit(main())
