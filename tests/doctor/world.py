"""What the tests of doctor share: the mechanisms that ship, the recorded failures, one look."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import yaml

from provisioner.doctor.diagnose import Catalogue, Diagnosis, diagnose
from provisioner.doctor.facts.fact import CALLED
from provisioner.doctor.mechanism import Mechanism
from provisioner.doctor.reader import load
from provisioner.facts.files import parse_capture
from provisioner.matrix.reader import Matrix
from provisioner.matrix.reader import load as load_matrix
from provisioner.model.capture import Capture, CommandOutput
from provisioner.probe.request import BOOT_MODULES, CDI_GONE, INITRAMFS, KEYRINGS

CAPTURES = Path(__file__).parents[1] / "captures"
LINES_CALLED = {name: line for line, name in CALLED.items()}
EXPECTED: dict[str, str] = yaml.safe_load((Path(__file__).parent / "expected.yaml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def mechanisms() -> dict[str, Mechanism]:
    return load()


@lru_cache(maxsize=1)
def matrix() -> Matrix:
    return load_matrix()


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    return Catalogue(mechanisms(), matrix())


@lru_cache(maxsize=100)
def failure(name: str) -> Capture:
    """A recorded failure by the name of its case."""
    path = CAPTURES / "failures" / f"{name}.yaml"
    return parse_capture(path.read_bytes(), str(path))


def look(capture: Capture) -> Diagnosis:
    return diagnose(capture, catalogue())


def ids(diagnosis: Diagnosis) -> list[str]:
    """Findings, the first one first."""
    return [finding.mechanism.id for finding in diagnosis.findings]


def _told_by(where: str, commands: Mapping[str, CommandOutput]) -> str | None:
    """The command of which one line begins with this file: boot images, and specs with paths that are gone."""
    names = {where, where.rpartition(":")[0]}
    for key in (BOOT_MODULES.line, CDI_GONE.line):
        if key in commands and any(row.split(" ")[0] in names for row in commands[key].stdout.splitlines()):
            return key
    return None


def without(capture: Capture, where: str) -> Capture:
    """The capture without the file, command or NVML answer that a line of evidence came from."""
    if where == "NVML":
        return capture.model_copy(update={"nvml": None})
    files, commands = dict(capture.files), dict(capture.commands)
    if where == "/sys/bus/pci/devices":
        commands.pop("ls -d /sys/bus/pci/devices/*/vendor", None)
    elif KEYRINGS.line in commands and f"{where} " in commands[KEYRINGS.line].stdout:
        commands.pop(KEYRINGS.line)
    elif INITRAMFS.line in commands and f"{where}\n" in commands[INITRAMFS.line].stdout:
        commands.pop(INITRAMFS.line)
    elif where in LINES_CALLED:
        commands.pop(LINES_CALLED[where])
    elif (key := _told_by(where, commands)) is not None:
        commands.pop(key)
        files.pop(where.rpartition(":")[0], None)
    elif where in files or where in commands:
        files.pop(where, None)
        commands.pop(where, None)
    else:
        files.pop(where.rpartition(":")[0], None)
    return capture.model_copy(update={"files": files, "commands": commands})
