"""The capture that a host would give once its plan is done: what the plan sets is filled in, the unknown left out.

Left out means not seen, so a mechanism that needs it is open and never falsely well. That is the answer of logs, which
tell of the past, and of whatever only the new driver, the engine or the boot can say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from provisioner.facts import kernel
from provisioner.model.capture import UNKNOWN, Capture, CommandOutput
from provisioner.model.plan import HostPlan
from provisioner.model.resource import (
    AbsentFile,
    AbsentPackage,
    CdiSpec,
    File,
    Hold,
    KernelModule,
    NoRunFile,
    Package,
    PackageSource,
    ReplacedSource,
    RunningDriver,
    Service,
    Settings,
    WholePackages,
)
from provisioner.probe.request import BOOT_MODULES, CDI_GONE, DPKG, HANDED_OUT, IN_CONTAINERS

UNPACKED = 4
"""An archive of packages takes about four times its size once unpacked; dpkg has old and new files side by side."""

UNTOLD_MIB = (("*nvidia*", 60.0), ("libcuda*", 30.0), ("linux-*", 60.0), ("*", 2.0))
"""What an archive counts whose size nobody told: the larger ones of its kind, and what most others stay below."""

_TREE = "readlink -f /var/lib/dkms/*/kernel-*"
_BUILT = "ls -d /lib/modules/*/updates/dkms/nvidia*"
_LIBRARY = ("libnvidia-ml1", "libnvidia-compute*")
_DRIVER_SAYS = (
    "nvidia-smi*",
    "modinfo *nvidia",
    "dkms status*",
    "lsinitramfs *",
    "for *initrd*",
    "grep *make.log*",
    "grep */proc/*/maps*",
    "ls /lib/firmware/nvidia",
    BOOT_MODULES.line,
    IN_CONTAINERS.line,
    CDI_GONE.line,
)
_PROGRAMS = ("ls -d /usr/lib/*/lib*", "ls -d /usr/bin/nvidia-?*", "stat /usr/*", "ls /usr/bin*")
_ENGINE_SAYS = ("docker *", "podman *", "journalctl *-u docker*", "containerd *", "crictl *", "nvidia-ctk *")
_APT_SAYS = ("apt*", "journalctl *-u apt-daily*", "set -- *", "dpkg --*", "dpkg -*", "sudo apt*")
_BOOT_SAYS = (
    "dmesg*",
    "lsmod",
    "ps *",
    "journalctl *--since=-1h*",
    "ls -d /sys/module/*",
    "ls -d /dev/nvidia*",
    "ls -d /dev/char/*",
    "grep */proc/locks",
    "modprobe *",
    "ip *",
    "ls -d /proc/driver/*",
    HANDED_OUT.line,
    IN_CONTAINERS.line,
)
_BOOT_FILES = ("/proc/driver/nvidia/version", "/sys/module/nvidia/version", "/proc/modules", "/run/*")


class _Later:
    """The capture in the making."""

    def __init__(self, capture: Capture) -> None:
        self.files = dict(capture.files)
        self.commands = dict(capture.commands)
        self.nvml = capture.nvml

    def forget(self, lines: Iterable[str] = (), files: Iterable[str] = ()) -> None:
        """Take away what can't be known beforehand."""
        lines, files = tuple(lines), tuple(files)
        self.commands = {
            # A line may itself hold signs that a pattern has a meaning for.
            line: answer
            for line, answer in self.commands.items()
            if line not in lines and not any(fnmatchcase(line, p) for p in lines)
        }
        self.files = {path: text for path, text in self.files.items() if not any(fnmatchcase(path, p) for p in files)}

    def say(self, line: str, change: Callable[[str], str]) -> None:
        """Change what a command said, where it was asked."""
        answer = self.commands.get(line)
        if answer is not None:
            self.commands[line] = CommandOutput(rc=0, stdout=change(answer.stdout if answer.rc == 0 else ""))

    def write(self, path: str, text: str | None) -> None:
        """Put a file in place or take it away, and in the listings that show it."""
        self.files[path] = text
        for line in [line for line in self.commands if line.startswith("ls -d ") and fnmatchcase(path, line[6:])]:
            self.say(line, lambda said: _listed(said, path, there=text is not None))


def _listed(said: str, path: str, *, there: bool) -> str:
    rows = [row for row in said.splitlines() if row != path]
    return "".join(f"{row}\n" for row in sorted([*rows, path] if there else rows))


def after(capture: Capture, plan: HostPlan) -> Capture:
    """What the host would show when every change of the plan is made."""
    if not plan.changes:
        return capture
    later = _Later(capture)
    moved = _moves(plan)
    driver = any(
        isinstance(c.wanted, (KernelModule, RunningDriver, NoRunFile)) or getattr(c.moves, "unit", "") == "driver"
        for c in plan.changes
    )
    if moved:
        later.forget(
            (*_APT_SAYS, *_PROGRAMS), ("/var/log/apt/*", "/var/log/dpkg.log", "/var/log/unattended-upgrades/*")
        )
        _take_room(later, plan, moved)
    _packages(later, plan, moved)
    for change in plan.changes:
        _put(later, change.wanted, change.content)
    if driver:
        later.forget(_DRIVER_SAYS)
        later.nvml = None
        _driver(later, plan, moved)
    if driver or any(isinstance(c.wanted, Settings) or getattr(c.moves, "unit", "") == "runtime" for c in plan.changes):
        later.forget(_ENGINE_SAYS)
    if plan.reboot:
        _boot(later, capture)
    return capture.model_copy(
        update={"files": later.files, "commands": later.commands, "nvml": later.nvml},
    )


def _moves(plan: HostPlan) -> dict[str, str | None]:
    """Package → its version after the change, None when it goes: what apt says, else what the plan wants."""
    if plan.transaction is not None:
        return {move.name: move.after for move in plan.transaction}
    return {one.name: None if isinstance(one, AbsentPackage) else one.version for one in plan.moving}


# Packages.


def _packages(later: _Later, plan: HostPlan, moved: dict[str, str | None]) -> None:
    held = {c.wanted.name: c.wanted.held for c in plan.changes if isinstance(c.wanted, Package)}
    held |= {c.wanted.name: True for c in plan.changes if isinstance(c.wanted, Hold)}
    whole = any(isinstance(c.wanted, WholePackages) for c in plan.changes)

    def change(said: str) -> str:
        rows, seen = [], set()
        for line in said.splitlines():
            name, _, rest = line.partition("\t")
            version, _, status = rest.partition("\t")
            seen.add(name)
            if name in moved:
                after_ = moved[name]
                if after_ is None:
                    continue
                version, status = after_, status[:1] + "i "
            if whole and status[1:2] not in ("c", "n"):
                status = status[:1] + "i "
            if name in held:
                status = ("h" if held[name] else "i") + status[1:]
            rows.append(f"{name}\t{version}\t{status}\n")
        rows += [
            f"{name}\t{version}\t{'h' if held.get(name) else 'i'}i \n"
            for name, version in moved.items()
            if version is not None and name not in seen
        ]
        return "".join(rows)

    later.say(DPKG, change)
    # A narrower listing may not name what comes: it is left out rather than half true.
    later.forget([line for line in later.commands if line.startswith("dpkg-query -W") and line != DPKG and moved])
    if whole:
        later.commands.pop("ls -d /var/lib/dpkg/updates/*", None)
        later.say("ls /var/lib/dpkg/updates", lambda _: "")


def _room(plan: HostPlan, moved: Mapping[str, str | None]) -> tuple[float, float]:
    """MiB of the archives that are fetched, and of all that are unpacked; what goes gives nothing back before that."""
    stated = {c.moves.name: c.moves for c in plan.changes if isinstance(c.moves, Package)}
    kept = {name: one.size / (1 << 20) for name, one in stated.items() if one.archive is not None}
    told = {name for name, one in stated.items() if one.size or (plan.download_bytes and one.archive is None)}
    untold = [name for name, version in moved.items() if version is not None and name not in told]
    guessed = sum(next(mib for pattern, mib in UNTOLD_MIB if fnmatchcase(name, pattern)) for name in untold)
    fetched = plan.download_bytes / (1 << 20) + guessed
    return fetched, fetched + sum(kept.values())


def _take_room(later: _Later, plan: HostPlan, moved: Mapping[str, str | None]) -> None:
    """Archives land on /var, their files mostly on /usr; paths with the same room left are one file system."""
    fetched, unpacked = _room(plan, moved)
    need = {"/var": fetched, "/usr": unpacked * UNPACKED, "/": unpacked * UNPACKED}
    both = fetched + unpacked * UNPACKED
    for line, answer in list(later.commands.items()):
        if not line.startswith("df -B1M --output=file,avail") or answer.rc not in (0, 1):
            continue
        rows = [row.rsplit(None, 1) for row in answer.stdout.splitlines()]
        free = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
        left = {
            path: max(0, round(mib - (both if mib == free.get("/") else need.get(path, 0))))
            for path, mib in free.items()
            if path != "/boot"
        }
        text = "".join(f"{row[0]} {left.get(row[0], row[-1])}\n" for row in rows if row)
        later.commands[line] = CommandOutput(rc=0, stdout=text)


# Files, services, specs.


def _put(later: _Later, wanted: object, content: str | None) -> None:
    if isinstance(wanted, File):
        later.write(wanted.path, wanted.content)
    elif isinstance(wanted, AbsentFile):
        later.write(wanted.path, None)
    elif isinstance(wanted, Settings):
        later.write(wanted.path, content if content is not None else json.dumps(wanted.values))
        # The copies that were made of it before have been merged with, or are nobody's news any more.
        later.forget([f"ls -d {wanted.path}*"], [f"{wanted.path}?*"])
    elif isinstance(wanted, PackageSource):
        later.write(wanted.source.path, wanted.source.text)
        later.write(wanted.source.key_path, wanted.source.key)
        later.forget(_APT_SAYS)
    elif isinstance(wanted, ReplacedSource):
        later.write(wanted.path, None)
    elif isinstance(wanted, CdiSpec):
        later.forget(["ls -d /etc/cdi/*", "ls -d /var/run/cdi/*", CDI_GONE.line], ["/etc/cdi/*", "/var/run/cdi/*"])
    elif isinstance(wanted, NoRunFile):
        later.say("ls -d /usr/bin/nvidia-uninstall", lambda _: "")
    elif isinstance(wanted, Service):
        _service(later, wanted)


def _service(later: _Later, wanted: Service) -> None:
    later.forget([f"systemctl {word} {wanted.name}*" for word in ("status", "is-active", "is-failed")])
    fields = {
        "LoadState": "loaded",
        "ActiveState": "active" if wanted.active else "inactive",
        "SubState": "running" if wanted.active else "dead",
        "UnitFileState": "enabled" if wanted.enabled else "disabled",
    }
    for line in [line for line in later.commands if line.startswith("systemctl show -p Id,")]:
        later.say(line, lambda said: "\n\n".join(_state(block, wanted.name, fields) for block in said.split("\n\n")))


def _state(block: str, name: str, fields: dict[str, str]) -> str:
    if f"Id={name}" not in block.splitlines():
        return block
    return "\n".join(
        f"{key}={fields.get(key, value)}" for key, _, value in (row.partition("=") for row in block.splitlines() if row)
    )


# The driver.


def _driver(later: _Later, plan: HostPlan, moved: dict[str, str | None]) -> None:
    """Libraries and modules as they lie on disk; the module of a kernel that the plan builds for is the new one."""
    libraries = [version for name, version in moved.items() if any(fnmatchcase(name, p) for p in _LIBRARY)]
    new = next((_upstream(version) for version in libraries if version), None)
    if libraries:
        for line in [line for line in later.commands if re.search(r"/(libnvidia-ml|libcuda)\.so\.1$", line)]:
            if new is None:
                later.forget([line])
            elif later.commands[line].stdout.strip():
                later.say(line, lambda said: re.sub(r"\.so\.[\d.]+\s*$", f".so.{new}\n", said))
    built = {c.wanted.kernel: c.wanted for c in plan.changes if isinstance(c.wanted, KernelModule)}
    gone = {name for name, version in moved.items() if "dkms" in name and "nvidia" in name}

    def tree(said: str) -> str:
        kept = []
        for row in said.splitlines():
            parts = row.split("/")
            ours = len(parts) == 8 and parts[4].startswith("nvidia")
            # The package's own script takes the modules of the version that it replaces away, for every kernel.
            if ours and (parts[6] in built or (gone and new is not None and parts[5] != new)):
                continue
            kept.append(row)
        kept += [
            f"/var/lib/dkms/nvidia{'-open' if one.flavour == 'open' else ''}/{one.version}/{kernel}/x86_64"
            for kernel, one in built.items()
        ]
        return "".join(f"{row}\n" for row in kept)

    later.say(_TREE, tree)
    answer = later.commands.get(_TREE)
    if answer is None:
        return
    kernels = {row.split("/")[6] for row in answer.stdout.splitlines() if len(row.split("/")) == 8 and "nvidia" in row}

    def modules(said: str) -> str:
        kept = [row for row in said.splitlines() if row.split("/")[3] in kernels]
        have = {row.split("/")[3] for row in kept}
        return "".join(
            f"{row}\n" for row in [*kept, *(f"/lib/modules/{k}/updates/dkms/nvidia.ko" for k in sorted(kernels - have))]
        )

    later.say(_BUILT, modules)


def _upstream(version: str) -> str | None:
    match = re.match(r"(?:\d+:)?(\d{3,4}\.\d+(?:\.\d+)?)", version)
    return match[1] if match else None


def _boot(later: _Later, before: Capture) -> None:
    """What the next kernel loads is not foretold: whether something keeps the module out is what the mechanisms ask."""
    there = kernel.installed(before)
    following = kernel.next_boot(before, there)
    later.forget(_BOOT_SAYS, _BOOT_FILES)
    for path in ("/proc/sys/kernel/osrelease",):
        later.files.pop(path, None)
        if following is not UNKNOWN:
            later.files[path] = f"{following}\n"
    later.forget(["uname -r"])
    for line, answer in list(later.commands.items()):
        # A card that vfio-pci was told to take is taken again; nouveau and nvidia are what the boot decides between.
        if re.fullmatch(r"readlink -f /sys/bus/pci/devices/\S+/driver", line) and "vfio" not in answer.stdout:
            del later.commands[line]
