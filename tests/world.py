"""A small world for tests: one lock entry, the facts of a host that fits it, and the capture behind them."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from provisioner.facts.history import read as read_history
from provisioner.facts.trial import STATE as TRIAL
from provisioner.model.capture import UNKNOWN, Capture, CommandOutput
from provisioner.model.facts import (
    DriverFacts,
    HostFacts,
    KernelFacts,
    ModuleBuild,
    OsRelease,
    Package,
    PciGpu,
    RuntimeFacts,
    UnitState,
)
from provisioner.model.history import HISTORY, NOW, Entry
from provisioner.model.intent import Intent
from provisioner.model.resource import CdiSpec, Directory, File, PackageSource, SecretFile, Settings
from provisioner.model.source import LockedSource
from provisioner.model.stack import Choice, HostLock, LockedPackage, Reason
from provisioner.model.transaction import ASK_AT_WORK, AT_WORK
from provisioner.probe.request import KUBERNETES, Request
from provisioner.resources.wanted import wanted

WHEN = datetime(2026, 11, 24, 3, 7, tzinfo=timezone.utc)
KERNEL = "6.1.0-50-amd64"
DRIVER = "535.261.03"
DRIVER_DEB = "535.261.03-1~deb12u1"
UNITS = ("docker.service", "nvidia-persistenced.service", "provision-clients.target", "provision-watchdog.timer")


SOURCE = LockedSource(
    id="docker",
    uri="https://docker.example/linux/debian",
    suite="bookworm",
    components=("stable",),
    fingerprint="98D1F7E8DAA19B46D3FF0615D1EA9165F2BD78B2",
    key="-----BEGIN PGP PUBLIC KEY BLOCK-----\n…\n-----END PGP PUBLIC KEY BLOCK-----\n",
)


def locked(name: str, version: str = DRIVER_DEB, unit: Any = "driver", **more: Any) -> LockedPackage:
    return LockedPackage(name=name, version=version, sha256="a" * 64, size=1_000_000, unit=unit, **more)


def entry(**changes: Any) -> HostLock:
    """Return a lock entry: bookworm, RTX 3090, driver 535.261.03, docker.io, serving akash."""
    values: dict[str, Any] = {
        "os": "debian-12",
        "gpus": ("rtx-3090",),
        "intent": Intent(networks=("akash",)),
        "driver_branch": Choice(value="535"),
        "driver_version": Choice(value=DRIVER, because=(Reason(text="535.261.03 is the newest that bookworm offers"),)),
        "modules": Choice(value="proprietary"),
        "cuda": Choice(value="12.2"),
        "runtime": Choice(value="docker-io"),
        "networks": {"akash": Choice(value="0.16.2")},
        "kernels": (KERNEL,),
        "packages": (
            locked("nvidia-kernel-dkms"),
            locked("nvidia-smi"),
            locked("nvidia-persistenced", "535.171.04-1~deb12u1"),
            locked("docker.io", "20.10.24+dfsg1-1+deb12u1", "runtime"),
            locked("linux-headers-6.1.0-50-amd64", "6.1.175-1", "kernel", hold=False),
        ),
    }
    return HostLock(**(values | changes))


def fitting_facts(lock: HostLock, host: str = "rig-01") -> HostFacts:
    """Return the facts of a host that is exactly as the lock says."""
    return HostFacts(
        host=host,
        taken_at=WHEN,
        os=OsRelease("debian-12", "Debian GNU/Linux 12 (bookworm)", "bookworm"),
        kernel=KernelFacts(KERNEL, (KERNEL,), KERNEL, (KERNEL,)),
        gpus=(PciGpu("0000:01:00.0", "10de", "2204"),),
        driver=DriverFacts(
            loaded=DRIVER,
            loaded_flavour="proprietary",
            modules=(ModuleBuild(KERNEL, DRIVER, "proprietary"),),
            library=DRIVER,
            nouveau_loaded=False,
            nouveau_blacklisted=True,
            secure_boot=False,
        ),
        packages={p.name: Package(p.name, p.version, held=p.hold) for p in lock.packages},
        offers=UNKNOWN,
        runtime=RuntimeFacts(docker_active=True, docker_daemon_json=None),
        nvml=UNKNOWN,
        units={name: UnitState(name, "loaded", "active", "enabled") for name in UNITS},
        failed_units=(),
        disk_free_mib={"/": 100_000},
        memory_mib=64_000,
        swap_mib=0,
        clock_skew_s=0.0,
        boot_identity="x",
        dpkg_interrupted=False,
    )


def fitting_capture(lock: HostLock, host: str = "rig-01") -> Capture:
    """Return a capture whose files are exactly as the lock wants them."""
    files: dict[str, str | None] = {}
    commands = {}
    for resource in wanted(lock):
        if isinstance(resource, (Directory, File, SecretFile, Settings)):
            mode = getattr(resource, "mode", "0644").partition(" ")[0]
            commands[f"stat -c '%a %U:%G %F' {resource.path}"] = CommandOutput(
                rc=0, stdout=f"{mode.lstrip('0')} root:root regular file\n"
            )
        if isinstance(resource, File):
            files[resource.path] = resource.content
        if isinstance(resource, Settings):
            files[resource.path] = json.dumps(resource.values)
        if isinstance(resource, CdiSpec):
            files |= {"/etc/cdi/nvidia.yaml": None, "/var/run/cdi/nvidia.yaml": f"/lib/libcuda.so.{resource.version}\n"}
        if isinstance(resource, PackageSource):
            files |= {resource.source.path: resource.source.text, resource.source.key_path: resource.source.key}
    return Capture(host=host, taken_at=WHEN, probe="0.1.0", files=files, commands=commands)


def bare_facts(host: str = "rig-01") -> HostFacts:
    """Return the facts of a host with nothing of ours on it, nouveau in the kernel."""
    facts = fitting_facts(entry(packages=()), host)
    driver = replace(
        facts.driver,
        loaded=None,
        loaded_flavour=None,
        modules=(),
        library=None,
        nouveau_loaded=True,
        nouveau_blacklisted=False,
    )
    units = {name: UnitState(name, "not-found", "inactive", "") for name in UNITS}
    return replace(facts, driver=driver, packages={}, units=units)


def bare_capture(lock: HostLock, host: str = "rig-01") -> Capture:
    """Return a capture in which every wanted file was looked for and is absent."""
    fitting = fitting_capture(lock, host)
    return fitting.model_copy(
        update={
            "files": dict.fromkeys(fitting.files),
            "commands": {line: CommandOutput(rc=1) for line in fitting.commands},
        }
    )


def _listing(text: str) -> CommandOutput:
    """Return what ls and readlink give for a pattern: paths, or that nothing matches."""
    return CommandOutput(rc=0, stdout=text) if text else CommandOutput(rc=1, stderr="No such file or directory\n")


class Rig:
    """A host that exists only as what a probe would show of it; tests change its state and look again."""

    def __init__(self, name: str, lock: HostLock, *, bare: bool = False) -> None:
        self.name = name
        self.lock = lock
        self.packages: dict[str, str] = {}  # name -> "VERSION\tSTATUS"
        self.loaded: str | None = None
        self.module: str | None = None
        self.files: dict[str, str] = {}
        self.units: dict[str, tuple[str, str]] = {}  # name -> (active, enabled)
        self.also: list[str] = []  # what apt would do besides, as it prints it
        self.kept: dict[tuple[str, str], str | None] = {}  # run and path -> text before it
        self.taken_back: set[str] = set()
        self.interrupted = False  # dpkg died and left its journal
        self.at_work = False  # somebody's apt changes packages
        self.shutdown = ""  # what logind noted of a scheduled one
        self.kernel = KERNEL
        self.boot = "b1:7"
        self.boot_begins: list[str] = []  # what comes of the next tries to reach it: "stopping", "gone"
        if not bare:
            self.bring_to(lock)

    def bring_to(self, lock: HostLock) -> None:
        """What a run that succeeds leaves behind."""
        self.packages = {p.name: f"{p.version}\t{'hi ' if p.hold else 'ii '}" for p in lock.packages}
        self.loaded = self.module = lock.driver_version.value if lock.driver_version else None
        self.units = dict.fromkeys(UNITS, ("active", "enabled"))
        capture = fitting_capture(lock, self.name)
        self.files |= {path: text for path, text in capture.files.items() if text is not None}
        self.files |= {resource.path: "" for resource in wanted(lock) if isinstance(resource, Directory)}

    def keep(self, spec: dict[str, Any]) -> None:
        """What keep.py leaves behind: a record of what is there now, or of what an unfinished one found."""
        open_ones = [e for e in self.history() if not e.done]
        record: dict[str, Any] = {"packages": {}, "files": {}, "units": {}, "to": {}}
        if open_ones:
            old = open_ones[-1].record
            record = old.model_dump(mode="json", by_alias=True)
            del self.files[f"{old.folder}/record.json"]
        else:
            record |= {"format": 1, "began": spec["run"], "at": "2026-11-24T03:07:00Z"}
            record["from"] = json.loads(self.files.get(NOW, "null"))
            record["driver"] = {"version": self.loaded, "flavour": "proprietary"} if self.loaded else None
        record["run"] = spec["run"]
        record["to"] |= spec["to"]
        for name, unit in spec["packages"].items():
            version, _, status = self.packages.get(name, "").partition("\t")
            kept: dict[str, Any] = {"version": version or None, "unit": unit, "held": status.startswith("h")}
            if version and name in spec["replaced"]:
                kept["sha256"] = "b" * 64
            record["packages"].setdefault(name, kept)
        for path, traits in spec["files"].items():
            text = self.files.get(path)
            digest = hashlib.sha256(text.encode()).hexdigest() if text is not None else None
            if path not in record["files"]:
                record["files"][path] = {**traits, "sha256": digest}
                self.kept[spec["run"], path] = text
        for name, traits in spec["units"].items():
            active, enabled = self.units.get(name, ("", ""))
            there = name in self.units
            state = {"there": there, "active": active == "active", "enabled": enabled == "enabled"}
            record["units"].setdefault(name, {**traits, **state})
        self.files[f"{HISTORY}/{spec['run']}/record.json"] = json.dumps(record)

    def history(self) -> tuple[Entry, ...]:
        files = {path: text for path, text in self.files.items() if path.startswith(HISTORY)}
        return read_history(Capture(host=self.name, taken_at=WHEN, probe="0.1.0", files=dict(files)))

    def go_back(self) -> None:
        """What a rollback of the newest change that is not taken back yet leaves behind."""
        record = [e.record for e in self.history() if e.record.run not in self.taken_back][-1]
        self.taken_back.add(record.run)
        self.files.pop(f"{record.folder}/done", None)
        for name, kept in record.packages.items():
            self.packages.pop(name, None)
            if kept.version is not None:
                self.packages[name] = f"{kept.version}\t{'hi ' if kept.held else 'ii '}"
        for path in record.files:
            self.files.pop(path, None)
            text = self.kept.get((record.run, path), self.kept.get((record.began, path)))
            if text is not None:
                self.files[path] = text
        for name, unit in record.units.items():
            self.units.pop(name, None)
            if unit.there:
                self.units[name] = ("active" if unit.active else "inactive", "enabled" if unit.enabled else "disabled")
        self.loaded = self.module = record.driver.version if record.driver is not None else None

    def simulate(self, line: str) -> CommandOutput:
        """What apt-get would say to `… install a=1 /kept/b_2_all.deb c-`: each named package, and nothing else."""
        if line == ASK_AT_WORK:
            return CommandOutput(rc=0, stdout=f"{AT_WORK}\n" if self.at_work else "")
        told = []
        for word in shlex.split(line.partition("); code=$?")[0].rpartition(" install ")[2]):
            name, _, version = (word.rpartition("/")[2] if word.startswith("/") else word).partition(
                "_" if word.startswith("/") else "="
            )
            version = version.partition("_")[0] if word.startswith("/") else version
            before = self.packages.get(name.rstrip("-"), "").partition("\t")[0]
            if word.endswith("-"):
                told += [f"Purg {name.rstrip('-')} [{before}]"] if before else []
            elif before != version:
                told.append(f"Inst {name}{f' [{before}]' if before else ''} ({version} Debian:12.12/stable [amd64])")
        told += self.also
        return CommandOutput(rc=0, stdout="".join(f"{line}\n" for line in told))

    def capture(self, request: Request | None = None) -> Capture:
        """Return what the probe would bring back now."""
        if request is not None and not request.profile.files:
            lines = [command.line for command in request.commands]
            return Capture(
                host=self.name, taken_at=WHEN, probe="0.1.0", commands={line: self.simulate(line) for line in lines}
            )
        compared = [r for r in wanted(self.lock) if isinstance(r, (Directory, File, Settings))]
        asked = {r.path: getattr(r, "mode", "0644").lstrip("0") for r in compared}
        if request is not None:
            asked = {**dict.fromkeys((path for path in request.files if "*" not in path), "644"), **asked}
        folders = {r.path for r in compared if isinstance(r, Directory)}
        files: dict[str, str | None] = {path: self.files.get(path) for path in asked if path not in folders}
        files["/var/lib/provision/enrolment.json"] = self.files.get("/var/lib/provision/enrolment.json")
        files[TRIAL] = self.files.get(TRIAL)
        files["/etc/os-release"] = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian 12"\n'
        files["/sys/module/nvidia/version"] = f"{self.loaded}\n" if self.loaded else None
        files["/proc/driver/nvidia/version"] = (
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {self.loaded}  Thu Feb 20\n" if self.loaded else None
        )
        commands = {
            f"stat -c '%a %U:%G %F' {path}": CommandOutput(rc=0, stdout=f"{mode} root:root file\n")
            if path in self.files
            else CommandOutput(rc=1)
            for path, mode in asked.items()
        }
        commands[f"ls -d {NOW}"] = (
            CommandOutput(rc=0, stdout=f"{NOW}\n")
            if NOW in self.files
            else CommandOutput(rc=2, stderr="No such file or directory")
        )
        for path in request.sums if request is not None else ():
            digest = hashlib.sha256(self.files.get(path, "").encode()).hexdigest()
            commands[f"sha256sum {path}"] = CommandOutput(rc=0, stdout=f"{digest}  {path}\n")
        if request is not None and "*/record.json" in "".join(request.files):
            files |= {path: text for path, text in self.files.items() if path.startswith(HISTORY)}
        commands["ls /var/lib/dpkg/updates"] = CommandOutput(rc=0, stdout="0001\ntmp.i\n" if self.interrupted else "")
        boot, _, first = self.boot.partition(":")
        files["/proc/sys/kernel/random/boot_id"] = f"{boot}\n"
        files["/proc/1/stat"] = f"1 (systemd) S {'0 ' * 18}{first} 0\n"
        commands["uname -r"] = CommandOutput(rc=0, stdout=f"{self.kernel}\n")
        commands["ls /boot"] = CommandOutput(rc=0, stdout=f"initrd.img-{self.kernel}\nvmlinuz-{self.kernel}\n")
        commands[r"dpkg-query -W -f='${Package}\t${Version}\t${db:Status-Abbrev}\n'"] = CommandOutput(
            rc=0, stdout="".join(f"{name}\t{rest}\n" for name, rest in self.packages.items())
        )
        modules = f"/lib/modules/{self.kernel}/updates/dkms/nvidia-current.ko\n" if self.module else ""
        commands["ls -d /lib/modules/*/updates/dkms/nvidia*"] = _listing(modules)
        tree = f"/var/lib/dkms/nvidia-current/{self.module}/{self.kernel}/x86_64\n" if self.module else ""
        commands["readlink -f /var/lib/dkms/*/kernel-*"] = _listing(tree)
        for pattern in ("kernel/nvidia-*/nvidia.ko*", "kernel/drivers/video/nvidia.ko*"):
            commands[f"ls -d /lib/modules/*/{pattern}"] = _listing("")
        for path in KUBERNETES:
            commands[f"ls -d {path}"] = _listing(f"{path}\n" if path in self.files else "")
        blocks = []
        for unit in UNITS:
            active, enabled = self.units.get(unit, ("inactive", ""))
            load = "loaded" if unit in self.units else "not-found"
            blocks.append(f"Id={unit}\nLoadState={load}\nActiveState={active}\nSubState=x\nUnitFileState={enabled}\n")
        named = " ".join(UNITS)
        commands[f"systemctl show -p Id,LoadState,ActiveState,SubState,UnitFileState --state=failed '*' {named}"] = (
            CommandOutput(rc=0, stdout="\n".join(blocks))
        )
        return Capture(host=self.name, taken_at=WHEN, probe="0.1.0", files=files, commands=commands)
