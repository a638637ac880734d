"""What apt says a transaction would do: the lines of `apt-get --simulate`, or why it would not do it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provisioner.model.capture import UNKNOWN, Capture, CommandOutput, Unknown
from provisioner.model.transaction import Action, Move
from provisioner.model.version import DebianVersion

# Inst NAME [OLD] (NEW ORIGIN, ORIGIN [ARCH]) [broken for now …]; the name may carry `:i386`.
_LINE = re.compile(
    r"(?P<verb>Inst|Remv|Purg) (?P<name>[a-z0-9][a-z0-9+.:-]*)(?= |$)"
    r"(?: \[(?P<before>[A-Za-z0-9.+~:-]+)\])?"
    r"(?: \((?P<after>[A-Za-z0-9.+~:-]+) (?P<origin>.*?) ?\[(?P<arch>[^\]]+)\]\))?"
)


_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")


@dataclass(frozen=True)
class Simulation:
    """The moves in apt's order; `problem` says why there are none: the lines in which apt refused."""

    moves: tuple[Move, ...] = ()
    problem: tuple[str, ...] = ()


def read(capture: Capture, line: str) -> Simulation | Unknown:
    """Return what the simulation `line` came to. UNKNOWN when the capture does not hold it."""
    answer = capture.command(line)
    return UNKNOWN if answer is UNKNOWN else parse(answer)


def parse(answer: CommandOutput) -> Simulation:
    """`Inst runc [1.1.5] (1.3.0 Debian:13.1/stable [amd64])` is an upgrade; `Conf` lines repeat and are left out."""
    if answer.rc != 0:
        return Simulation(problem=_problem(answer))
    moves: dict[str, Move] = {}
    said, _, relations = answer.stdout.partition("\n# relations\n")
    for line in said.splitlines():
        match = _LINE.match(line)
        if match is None or (match["verb"] == "Inst" and match["after"] is None):
            continue
        name, before, after = match["name"], match["before"], match["after"]
        known = moves.get(name)
        if known is not None and match["verb"] == "Purg":
            before = before or known.before
        moves[name] = Move(
            name=name,
            action=_action(match["verb"], before, after),
            before=before,
            after=after,
            origin=(match["origin"] or "").strip(),
        )
    places = _places(relations, moves)
    return Simulation(tuple(move.model_copy(update={"instead": places.get(name, "")}) for name, move in moves.items()))


def _places(text: str, moves: dict[str, Move]) -> dict[str, str]:
    """Which incoming package takes the place of one that goes.

    `nvidia-libopencl1` conflicts with `libopencl1` and provides it, as `ocl-icd-libopencl1` does, which goes.
    """
    provides: dict[str, set[str]] = {}
    against: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        field, _, value = line.partition(": ")
        names = {match[0] for part in value.split(",") if (match := _NAME.match(part.strip()))}
        if field == "Package":
            name = value.strip()
            provides.setdefault(name, {name})
        elif field == "Provides":
            provides[name] |= names
        elif field in ("Conflicts", "Breaks", "Replaces"):
            against.setdefault(name, set()).update(names)
    found = {}
    for going, move in moves.items():
        if move.after is None:
            for coming, refused in against.items():
                common = refused & provides.get(going, set())
                if coming in moves and moves[coming].after is not None and common & provides.get(coming, set()):
                    found[going] = coming
    return found


def _action(verb: str, before: str | None, after: str | None) -> Action:
    if verb != "Inst":
        return "purge" if verb == "Purg" else "remove"
    if before is None or after is None:
        return "install"
    if before == after:
        return "reinstall"
    return "upgrade" if DebianVersion(before) < DebianVersion(after) else "downgrade"


def _problem(answer: CommandOutput) -> tuple[str, ...]:
    """What apt found unmet, then its errors; the rest of its output is no reason."""
    lines = [line.rstrip() for line in (answer.stdout + "\n" + answer.stderr).splitlines() if line.strip()]
    unmet = [line.strip() for line in lines if re.match(r" \S+ : ", line) or line.startswith(" " * 8)]
    errors = [line for line in lines if line.startswith("E: ")]
    return (*unmet[:6], *errors[:4]) or tuple(lines[-3:]) or (f"apt-get ended with exit code {answer.rc}",)
