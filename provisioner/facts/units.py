"""States of systemd's units, and which of them failed."""

from __future__ import annotations

import shlex

from provisioner.facts.listing import commands_like
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import UnitState


def read(capture: Capture) -> dict[str, UnitState] | Unknown:
    """Units by the name that was asked for and by their own (`sshd.service` is an alias of `ssh.service`)."""
    states: dict[str, UnitState] = {}
    asked = False
    for line in commands_like(capture, "systemctl show "):
        answer = capture.commands[line]
        if answer.rc != 0 or "-p Id," not in line:
            continue
        asked = True
        found = parse(answer.stdout)
        for name, state in zip(_named(line), found, strict=False):
            states[name] = UnitState(name, state.load, state.active, state.enabled)
        for state in found:
            states.setdefault(state.name, state)
    return states if asked else UNKNOWN


def _named(line: str) -> list[str]:
    """Units come first in the answer, in the order asked; what patterns match comes behind them."""
    words = shlex.split(line)[2:]
    names = [word for i, word in enumerate(words) if not word.startswith("-") and (i == 0 or words[i - 1] != "-p")]
    return [name for name in names if "*" not in name]


def parse(text: str) -> list[UnitState]:
    """Blocks of `Id=`, `LoadState=`, `ActiveState=`, `UnitFileState=`, an empty line between them."""
    states = []
    for block in text.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in fields and "LoadState" in fields and "ActiveState" in fields:
            states.append(
                UnitState(fields["Id"], fields["LoadState"], fields["ActiveState"], fields.get("UnitFileState", ""))
            )
    return states


def failed(capture: Capture) -> tuple[str, ...] | Unknown:
    """Every failed unit. Only a listing of all of them tells: states of a few named units do not."""
    for line in commands_like(capture, "systemctl show "):
        answer = capture.commands[line]
        if answer.rc == 0 and "--state=failed" in line and "'*'" in line:
            return tuple(dict.fromkeys(state.name for state in parse(answer.stdout) if state.active == "failed"))
    for line in commands_like(capture, "systemctl list-units", "systemctl --failed", "systemctl --state=failed"):
        answer = capture.commands[line]
        if answer.rc == 0 and "failed" in line and "--plain" in line and "--no-legend" in line:
            return tuple(row.split()[0] for row in answer.stdout.splitlines() if row.strip())
    return UNKNOWN
