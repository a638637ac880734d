"""What dnf says a transaction would do: the table that it prints before it asks, or why it would not do it."""

from __future__ import annotations

import re

from provisioner.facts.simulation import Simulation
from provisioner.model.capture import UNKNOWN, Capture, CommandOutput, Unknown
from provisioner.model.transaction import Action, Move

_SECTIONS: dict[str, Action] = {
    "Installing": "install",
    "Installing dependencies": "install",
    "Installing weak dependencies": "install",
    "Upgrading": "upgrade",
    "Downgrading": "downgrade",
    "Reinstalling": "reinstall",
    "Removing": "remove",
    "Removing dependent packages": "remove",
    "Removing unused dependencies": "remove",
}
_RULE = re.compile(r"=+")
_HEADING = re.compile(r"([A-Z][A-Za-z ]*):")
_REPLACING = re.compile(r"\s+replacing\s+(?P<name>\S+)\.\S+\s+(?P<version>\S+)")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^:-]*")
_COLUMNS = 5  # name, architecture, version, repository, size


def read(capture: Capture, line: str) -> Simulation | Unknown:
    """Return what the simulation `line` came to. UNKNOWN when the capture does not hold it."""
    answer = capture.command(line)
    return UNKNOWN if answer is UNKNOWN else parse(answer)


def parse(answer: CommandOutput) -> Simulation:
    """Read the table. A name that is too long for its column stands on a line of its own, and its row goes on below.

    With --assumeno dnf ends with 1 whether it refused or was told no; a table, or "Nothing to do", tells them apart.
    """
    said = answer.stdout + "\n" + answer.stderr
    missing = re.findall(r"(?m)^(?:> )*(No match for argument: .*|All matches were filtered out .*)$", said)
    if missing:
        return Simulation(problem=tuple(dict.fromkeys(missing)))
    if "Transaction Summary" not in answer.stdout:
        nothing = "Nothing to do" in answer.stdout and answer.rc in (0, 1) and "Error:" not in said
        return Simulation() if nothing else Simulation(problem=_problem(answer))
    moves: dict[str, Move] = {}
    other: list[str] = []
    row: list[str] = []
    section, rules, last = "", 0, ""
    for line in answer.stdout.splitlines():
        if _RULE.fullmatch(line.strip("> ")):
            rules += 1
            continue
        if rules != 2 or not line.strip():
            rules = 3 if rules == 2 else rules
            continue
        if heading := _HEADING.fullmatch(line):
            section, row = heading[1], []
            continue
        if replaced := _REPLACING.match(line):
            moves[replaced["name"]] = Move(
                name=replaced["name"], action="remove", before=replaced["version"], instead=last
            )
            continue
        if section not in _SECTIONS:
            other.append(f"{section}: {' '.join(line.split())}")
            continue
        row += line.split()
        if len(row) < _COLUMNS:
            continue
        name, version, origin = row[0], row[2], row[3]
        row = []
        if not _WORD.fullmatch(name) or not _WORD.fullmatch(version):
            return Simulation(problem=(f"dnf printed a row that cannot be read: {line.strip()[:80]}",))
        action = _SECTIONS[section]
        gone = action == "remove"
        moves[name] = Move(
            name=name,
            action=action,
            before=version if gone else None,
            after=None if gone else version,
            origin="" if gone else origin.lstrip("@"),
        )
        last = name
    return Simulation(problem=tuple(other)) if other else Simulation(tuple(moves.values()))


def _problem(answer: CommandOutput) -> tuple[str, ...]:
    """dnf's own words from `Error:` on, without its hints."""
    lines = [line.rstrip() for line in answer.stderr.splitlines() if line.strip()]
    at = next((number for number, line in enumerate(lines) if line.startswith("Error")), None)
    found = [line.strip(" -") for line in lines[at:] if line.strip() != "Error:"] if at is not None else lines[-3:]
    return tuple(found[:8]) or tuple(answer.stdout.splitlines()[-3:]) or (f"dnf ended with exit code {answer.rc}",)
