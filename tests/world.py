"""A small world for tests: one lock entry, the facts of a host that fits it, and the capture behind them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

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
from provisioner.model.intent import Intent
from provisioner.model.resource import Directory, File, Settings
from provisioner.model.stack import Choice, HostLock, LockedPackage, Reason
from provisioner.resources.wanted import wanted

WHEN = datetime(2026, 11, 24, 3, 7, tzinfo=timezone.utc)
KERNEL = "6.1.0-50-amd64"
DRIVER = "535.261.03"
DRIVER_DEB = "535.261.03-1~deb12u1"
UNITS = ("docker.service", "nvidia-persistenced.service", "provision-clients.target", "provision-watchdog.timer")


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
        packages={
            "python3-apt": Package("python3-apt", "2.6.0", held=False),
            **{p.name: Package(p.name, p.version, held=p.hold) for p in lock.packages},
        },
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
    )


def fitting_capture(lock: HostLock, host: str = "rig-01") -> Capture:
    """Return a capture whose files are exactly as the lock wants them."""
    files: dict[str, str | None] = {}
    commands = {}
    for resource in wanted(lock):
        if isinstance(resource, (Directory, File, Settings)):
            mode = getattr(resource, "mode", "0644")
            commands[f"stat -c '%a %U:%G %F' {resource.path}"] = CommandOutput(
                rc=0, stdout=f"{mode.lstrip('0')} root:root regular file\n"
            )
        if isinstance(resource, File):
            files[resource.path] = resource.content
        if isinstance(resource, Settings):
            files[resource.path] = json.dumps(resource.values)
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
        if not bare:
            self.bring_to(lock)

    def bring_to(self, lock: HostLock) -> None:
        """What a run that succeeds leaves behind."""
        self.packages = {"python3-apt": "2.6.0\tii "}
        self.packages |= {p.name: f"{p.version}\t{'hi ' if p.hold else 'ii '}" for p in lock.packages}
        self.loaded = self.module = lock.driver_version.value if lock.driver_version else None
        self.units = dict.fromkeys(UNITS, ("active", "enabled"))
        capture = fitting_capture(lock, self.name)
        self.files |= {path: text for path, text in capture.files.items() if text is not None}
        self.files |= {resource.path: "" for resource in wanted(lock) if isinstance(resource, Directory)}

    def capture(self) -> Capture:
        """Return what the probe would bring back now."""
        compared = [r for r in wanted(self.lock) if isinstance(r, (Directory, File, Settings))]
        asked = {r.path: getattr(r, "mode", "0644").lstrip("0") for r in compared}
        files: dict[str, str | None] = {r.path: self.files.get(r.path) for r in compared if r.kind != "directory"}
        files["/var/lib/provision/enrolment.json"] = self.files.get("/var/lib/provision/enrolment.json")
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
        commands["uname -r"] = CommandOutput(rc=0, stdout=f"{KERNEL}\n")
        commands["ls /boot"] = CommandOutput(rc=0, stdout=f"initrd.img-{KERNEL}\nvmlinuz-{KERNEL}\n")
        commands[r"dpkg-query -W -f='${Package}\t${Version}\t${db:Status-Abbrev}\n'"] = CommandOutput(
            rc=0, stdout="".join(f"{name}\t{rest}\n" for name, rest in self.packages.items())
        )
        modules = f"/lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko\n" if self.module else ""
        commands["ls -d /lib/modules/*/updates/dkms/nvidia*"] = _listing(modules)
        tree = f"/var/lib/dkms/nvidia-current/{self.module}/{KERNEL}/x86_64\n" if self.module else ""
        commands["readlink -f /var/lib/dkms/*/kernel-*"] = _listing(tree)
        for pattern in ("kernel/nvidia-*/nvidia.ko*", "kernel/drivers/video/nvidia.ko*"):
            commands[f"ls -d /lib/modules/*/{pattern}"] = _listing("")
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
