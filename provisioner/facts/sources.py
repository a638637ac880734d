"""Which components of the package sources are switched on, such as non-free."""

from __future__ import annotations

import re

from provisioner.facts.listing import contents
from provisioner.model.capture import UNKNOWN, Capture, Unknown

_LINE = re.compile(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)((?:\s+[^#\s]+)*)")


def read(capture: Capture) -> tuple[str, ...] | Unknown:
    single = capture.file("/etc/apt/sources.list")
    lists = contents(capture, "/etc/apt/sources.list.d/*.list")
    stanzas = contents(capture, "/etc/apt/sources.list.d/*.sources")
    if single is UNKNOWN or lists is UNKNOWN or stanzas is UNKNOWN:
        return UNKNOWN
    found: dict[str, None] = {}
    for text in (single or "", *lists.values()):
        found.update(dict.fromkeys(parse_list(text)))
    for text in stanzas.values():
        found.update(dict.fromkeys(parse_deb822(text)))
    return tuple(found)


def parse_list(text: str) -> list[str]:
    """`deb http://mirror/debian bookworm main non-free` has main and non-free."""
    found: list[str] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            found += match[3].split()
    return found


def parse_deb822(text: str) -> list[str]:
    """The Components of every stanza that is not `Enabled: no` and offers binary packages."""
    found: list[str] = []
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields: dict[str, str] = {}
        name = ""
        for line in lines:
            if line[:1] in (" ", "\t") and name:
                fields[name] += " " + line.strip()
            elif ":" in line:
                name = line.partition(":")[0].strip().lower()
                fields[name] = line.partition(":")[2].strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            found += fields.get("components", "").split()
    return found
