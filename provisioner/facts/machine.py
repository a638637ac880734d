"""Disk, memory, clock, boot and virtualization: what a change needs to know of the machine around the driver."""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timezone

from provisioner.facts.listing import commands_like
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.shutdown import NOTED, Shutdown, scheduled


def disk_free_mib(capture: Capture) -> dict[str, int] | Unknown:
    """MiB free by the path that was asked for, from `df -B1M`, with or without `--output=file,avail`."""
    free: dict[str, int] = {}
    for line in commands_like(capture, "df -B1M"):
        answer = capture.commands[line]
        rows = answer.stdout.splitlines()
        if answer.rc not in (0, 1) or not rows:
            continue
        if "--output=file,avail" in line:
            pairs = [row.rsplit(None, 1) for row in rows[1:]]
            free.update({pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()})
            continue
        asked = [word for word in shlex.split(line)[2:] if not word.startswith("-")]
        columns = [row.split() for row in rows[1:]]
        for place, row in enumerate(columns):
            if len(row) == 6 and row[3].isdecimal():
                name = asked[place] if len(asked) == len(columns) else row[5]
                free.setdefault(name, int(row[3]))
    return free or UNKNOWN


def memory_mib(capture: Capture) -> int | Unknown:
    return _meminfo(capture, "MemTotal")


def swap_mib(capture: Capture) -> int | Unknown:
    return _meminfo(capture, "SwapTotal")


def _meminfo(capture: Capture, name: str) -> int | Unknown:
    text = capture.file("/proc/meminfo")
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) if isinstance(text, str) else None
    return int(match[1]) // 1024 if match else UNKNOWN


def clock_skew_s(capture: Capture, now: datetime) -> float | Unknown:
    """Host's clock minus the controller's, good to about the time that the answer took to come."""
    answer = capture.command("date +%s.%N")
    if answer is UNKNOWN or not re.fullmatch(r"\d+\.\d+\s*", answer.stdout):
        return UNKNOWN
    at = now if now.tzinfo else now.replace(tzinfo=timezone.utc)
    return round(float(answer.stdout) - at.timestamp(), 3)


def boot_identity(capture: Capture) -> str | Unknown:
    """The kernel's boot id and the start of PID 1: a system container keeps its machine's boot id over a reboot."""
    boot, first = capture.file("/proc/sys/kernel/random/boot_id"), capture.file("/proc/1/stat")
    if not isinstance(boot, str) or not isinstance(first, str) or not boot.strip():
        return UNKNOWN
    # The second field is a name in brackets that may hold spaces; the start time is the 22nd.
    fields = first.rpartition(")")[2].split()
    return f"{boot.strip()}:{fields[19]}" if len(fields) > 19 else UNKNOWN


def shutdown(capture: Capture) -> Shutdown | Unknown | None:
    """A shutdown that somebody gave a time; None when nobody did."""
    note = capture.file(NOTED)
    return scheduled(note) if isinstance(note, str) else note


def virtualization(capture: Capture) -> str | Unknown | None:
    """`kvm`, `docker`, …; None for bare metal."""
    answer = capture.command("systemd-detect-virt")
    if answer is UNKNOWN or answer.rc not in (0, 1) or not answer.stdout.strip():
        return UNKNOWN
    kind = answer.stdout.strip()
    return None if kind == "none" else kind
