"""Which packages are installed, and which of them are held."""

from __future__ import annotations

import re
import shlex

from provisioner.facts.listing import commands_like
from provisioner.model.capture import UNKNOWN, Capture, CommandOutput, Unknown
from provisioner.model.facts import Package

_BEGINNING = r"dpkg-query -W -f='${Package}\t${Version}\t${db:Status-Abbrev}\n'"
ALL = "*"
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_VERSION = re.compile(r"[A-Za-z0-9.+~:-]+")


def read(capture: Capture) -> tuple[dict[str, Package] | Unknown, tuple[str, ...]]:
    """Return packages by name, and the patterns that were looked at (`*` for all of them)."""
    packages: dict[str, Package] = {}
    patterns: tuple[str, ...] = ()
    held = _showhold(capture)
    for line in commands_like(capture, _BEGINNING):
        answer = capture.commands[line]
        if not _whole(answer):
            continue
        patterns += tuple(shlex.split(line)[3:]) or (ALL,)
        for name, package in parse(answer.stdout, held).items():
            packages.setdefault(name, package)
    return (packages, patterns) if patterns else (UNKNOWN, ())


def interrupted(capture: Capture, packages: dict[str, Package] | Unknown) -> bool | Unknown:
    """Whether dpkg died in the middle: it left numbered files of its journal, or a package that is half unpacked.

    Until that is finished apt reads a state that is not true: it leaves the journal out (seen with apt 2.6).
    """
    answer = capture.command("ls /var/lib/dpkg/updates")
    if answer is UNKNOWN or packages is UNKNOWN:
        return UNKNOWN
    return any(name.isdigit() for name in answer.stdout.split()) or any(p.half for p in packages.values())


def _whole(answer: CommandOutput) -> bool:
    """dpkg-query exits with 1 when one of its patterns matched nothing; what it printed holds all the same."""
    return answer.rc == 0 or (answer.rc == 1 and (not answer.stderr or "no packages found" in answer.stderr))


def _showhold(capture: Capture) -> frozenset[str]:
    answer = capture.command("apt-mark showhold")
    return frozenset(answer.stdout.split()) if answer is not UNKNOWN and answer.rc == 0 else frozenset()


def parse(text: str, held: frozenset[str] = frozenset()) -> dict[str, Package]:
    """`docker.io\\t20.10.24\\thi ` is held and whole; `rc` (only its configuration left) is not installed."""
    packages: dict[str, Package] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("\t")
        version, _, status = rest.partition("\t")
        # A host may print anything, and these words go into playbooks.
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
            continue
        # Wanted, status, error: `ii `, `hi `, `iU `, `iHR`.
        if not name or len(status) < 2 or status[1] in "nc" or not version:
            continue
        found = Package(
            name=name,
            version=version,
            held=status[0] == "h" or name in held,
            whole=status[1] == "i" and status[2:3] in ("", " "),
            half=status[2:3] == "R",
        )
        if name not in packages or (found.whole and not packages[name].whole):
            packages[name] = found
    return packages
