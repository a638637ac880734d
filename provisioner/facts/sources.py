"""The package sources that are switched on: where each lies, in which file, and its components, such as non-free."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from provisioner.facts.listing import contents
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import SourceEntry

_LINE = re.compile(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>(?:\s+[^#\s]+)*)")
_SINGLE = "/etc/apt/sources.list"


def read(capture: Capture) -> tuple[SourceEntry, ...] | Unknown:
    """Every source of binary packages, in the order in which apt reads the files."""
    single = capture.file(_SINGLE)
    lists = contents(capture, "/etc/apt/sources.list.d/*.list")
    stanzas = contents(capture, "/etc/apt/sources.list.d/*.sources")
    if single is UNKNOWN or lists is UNKNOWN or stanzas is UNKNOWN:
        return UNKNOWN
    found: list[SourceEntry] = []
    for path, text in sorted({_SINGLE: single or "", **lists}.items()):
        found += [SourceEntry(path, *entry) for entry in parse_list(text)]
    for path, text in sorted(stanzas.items()):
        found += [SourceEntry(path, *entry) for entry in parse_deb822(text)]
    return tuple(found)


def components(sources: tuple[SourceEntry, ...] | Unknown) -> tuple[str, ...] | Unknown:
    """The components of all sources, once each."""
    if sources is UNKNOWN:
        return UNKNOWN
    return tuple(dict.fromkeys(component for source in sources for component in source.components))


def parse_list(text: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """`deb http://mirror/debian bookworm main non-free` has main and non-free."""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            yield match["uri"], match["suite"], tuple(match["components"].split())


def parse_deb822(text: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every stanza that is not `Enabled: no` and offers binary packages; each of its addresses with each suite."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            parts = tuple(fields.get("components", "").split())
            for uri in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    yield uri, suite, parts


def _fields(stanza: str) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += " " + line.strip()
        elif ":" in line:
            name = line.partition(":")[0].strip().lower()
            fields[name] = line.partition(":")[2].strip()
    return fields
