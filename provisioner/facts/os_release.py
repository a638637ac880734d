"""Which operating system: /etc/os-release, and the architecture."""

from __future__ import annotations

import re
import shlex

from provisioner.facts.kernel import running
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import OsRelease

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386"}
_MAJOR = ("rhel", "rocky")


def read(capture: Capture) -> OsRelease | Unknown:
    text = capture.file("/etc/os-release")
    return parse(text, architecture(capture)) if isinstance(text, str) else UNKNOWN


def parse(text: str, machine: str = "") -> OsRelease | Unknown:
    """`ID=debian` and `VERSION_ID="12"` are `debian-12`; a rolling release has no number.

    RHEL and Rocky 9.6 are `rhel-9` and `rocky-9`: a point release takes the place of the one before it.
    """
    values: dict[str, str] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*([A-Z_]+)=(.*)", line)
        if match:
            values[match[1]] = _unquoted(match[2])
    if not values.get("ID"):
        return UNKNOWN
    number = values.get("VERSION_ID")
    if number and values["ID"] in _MAJOR:
        number = number.partition(".")[0]
    return OsRelease(
        id=f"{values['ID']}-{number}" if number else values["ID"],
        name=values.get("PRETTY_NAME") or values.get("NAME") or values["ID"],
        codename=values.get("VERSION_CODENAME", ""),
        architecture=machine,
    )


def _unquoted(word: str) -> str:
    try:
        return "".join(shlex.split(word))
    except ValueError:
        return word.strip("\"'")


def architecture(capture: Capture) -> str:
    """As dpkg names it, from `uname -m` or what the kernel's release name ends in; empty when neither tells."""
    answer = capture.command("uname -m")
    if answer is not UNKNOWN and answer.rc == 0 and answer.stdout.strip():
        machine = answer.stdout.strip()
        return _ARCHITECTURES.get(machine, machine)
    release = running(capture)
    if isinstance(release, str) and release.rpartition("-")[2] in _ARCHITECTURES.values():
        return release.rpartition("-")[2]
    return ""
