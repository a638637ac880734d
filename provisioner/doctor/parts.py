"""What a plan can mend, by the word that a mechanism uses for it: which lines of a plan belong to it.

A plan names each change (`package nvidia-smi`, `running driver`); the patterns below are of these names. Whether the
plan of a host has such a change, and whether the mechanism is gone after it, is seen host by host, never assumed.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from provisioner.model.plan import Change

PARTS: dict[str, tuple[str, ...]] = {
    "driver": (
        "package *nvidia*",
        "package libcuda*",
        "package cuda-*",
        "package linux-headers-*",
        "module nvidia for *",
        "running driver",
        "driver of NVIDIA's installer*",
        "dpkg state",
    ),
    "kernel-headers": ("package linux-headers-*", "module nvidia for *"),
    "nouveau": ("file /etc/modprobe.d/provision-nouveau.conf", "running driver"),
    "packages": ("dpkg state", "package *", "hold *", "file /etc/apt/*"),
    "package-source": ("package source *", "file /etc/apt/sources.list*"),
    "runtime": (
        "settings *",
        "package docker*",
        "package containerd*",
        "package runc",
        "package *nvidia-container*",
        "containerd's nvidia runtime",
        "service docker.service",
        "service containerd.service",
        "CDI spec",
        "file /etc/udev/rules.d/*-provision-nvidia-dev-char.rules",
    ),
    "cdi": ("CDI spec", "file /etc/cdi/*", "file /var/run/cdi/*", "file /etc/systemd/system/nvidia-cdi-refresh.*"),
    "service": ("service *",),
    "tunnel": ("tunnel *",),
}


def in_part(part: str, changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes that belong to a part."""
    return tuple(c for c in changes if any(fnmatchcase(c.what, pattern) for pattern in PARTS[part]))
