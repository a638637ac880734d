"""Failures as they occur elsewhere: other systems, versions and wordings than those the mechanisms were written from.

Each file of variants/ is a whole healthy host (hosts.py) with one thing broken the way it breaks in life, so that a
wrong finding shows as well as a missed one. `@units` and its like stand for the long lines of doctor's own look.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from provisioner.model.capture import Capture, CommandOutput
from provisioner.probe.request import (
    ALLOCATABLE,
    BOOT_MODULES,
    CDI_GONE,
    DPKG,
    HANDED_OUT,
    IN_CONTAINERS,
    INITRAMFS,
    KEYRINGS,
    PROVIDER,
)
from tests.doctor import hosts
from tests.doctor.hosts import Rig

FOLDER = Path(__file__).parent / "variants"
_LINES = {
    "@units": hosts.UNITS_LINE,
    "@packages": DPKG,
    "@disks": hosts.DF_LINE,
    "@xids": hosts.XIDS_LINE,
    "@engines": hosts.ENGINES_LINE,
    "@apt": hosts.APT_LINE,
    "@initramfs": hosts.INITRAMFS_LINE,
    "@make-log": hosts.MAKE_LOG_LINE,
    "@lock": hosts.LOCK_LINE,
    "@maps": hosts.MAPS_LINE,
    "@keyrings": KEYRINGS.line,
    "@images": INITRAMFS.line,
    "@boot-modules": BOOT_MODULES.line,
    "@cdi-gone": CDI_GONE.line,
    "@in-containers": IN_CONTAINERS.line,
    "@handed-out": HANDED_OUT.line,
    "@allocatable": ALLOCATABLE.line,
    "@provider": PROVIDER.line,
}


@dataclass(frozen=True)
class Variant:
    """A broken host, the mechanism that is to come first, and what may stand beside it."""

    title: str
    first: str
    others: tuple[str, ...]
    capture: Capture


def read(path: Path) -> Variant:
    """One file; packages are given as changes: name to version and state, empty for one that is gone."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    rig = Rig(**data.get("rig", {}))
    commands: dict[str, Any] = {}
    for name, given in data.get("commands", {}).items():
        if name == "@packages":
            commands[DPKG] = rig.dpkg(**given)
        else:
            commands[_LINES.get(name, name)] = CommandOutput(**given) if isinstance(given, dict) else given
    rig.files = data.get("files", {})
    rig.commands = commands
    rig.nvml = data.get("nvml")
    return Variant(data["title"], data["first"], tuple(data.get("others", ())), rig.capture())


VARIANTS = {path.stem: read(path) for path in sorted(FOLDER.glob("*.yaml"))}
