"""Which versions of which packages the host's own sources offer: only these can be installed there."""

from __future__ import annotations

import re

from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import OfferedPackage

FLAT = "/"
_ASKED = re.compile(r'apt-cache (?:"\$@" )?show ')
_MADISON = re.compile(r'apt-cache (?:"\$@" )?madison ')


def read(capture: Capture) -> tuple[OfferedPackage, ...] | Unknown:
    """All offers, each with its index's own checksum. UNKNOWN when apt was not asked or did not finish."""
    shown = [answer for line, answer in capture.commands.items() if _ASKED.search(line)]
    shown = [answer for answer in shown if answer.rc in (0, 1, 100) and (answer.stdout or not answer.stderr)]
    if not shown:
        return UNKNOWN
    suites: dict[tuple[str, str], str] = {}
    for line, answer in capture.commands.items():
        if _MADISON.search(line):
            suites.update(parse_madison(answer.stdout))
    offers: dict[tuple[str, str, str], OfferedPackage] = {}
    for answer in shown:
        for offer in parse_show(answer.stdout, suites):
            offers.setdefault((offer.name, offer.version, offer.architecture), offer)
    return tuple(offers.values())


def parse_madison(text: str) -> dict[tuple[str, str], str]:
    """` runc | 1.1.5 | http://mirror/debian bookworm/main amd64 Packages` is of suite `bookworm`.

    A folder without suites stands as `https://nvidia.github.io/…/amd64  Packages`, and is given as `/`.
    """
    suites: dict[tuple[str, str], str] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        words = parts[2].split() if len(parts) == 3 else []
        if len(words) >= 4 and words[-1] == "Packages":
            suites.setdefault((parts[0], parts[1]), words[1].partition("/")[0])
        elif len(words) == 2 and words[-1] == "Packages":
            suites.setdefault((parts[0], parts[1]), FLAT)
    return suites


def parse_show(text: str, suites: dict[tuple[str, str], str]) -> list[OfferedPackage]:
    """Stanzas of `apt-cache show`. One without a checksum is of no index: it is what dpkg has installed."""
    offers = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            name, colon, value = line.partition(": ")
            if colon:
                fields.setdefault(name, value.strip())
        if not fields.get("SHA256") or not fields.get("Package") or not fields.get("Version"):
            continue
        size = fields.get("Size", "")
        depends = [fields[key] for key in ("Pre-Depends", "Depends") if fields.get(key)]
        suite = suites.get((fields["Package"], fields["Version"]), "")
        offers.append(
            OfferedPackage(
                name=fields["Package"],
                version=fields["Version"],
                source=fields.get("Source", fields["Package"]).partition(" ")[0],
                architecture=fields.get("Architecture", ""),
                sha256=fields["SHA256"],
                size=int(size) if size.isdecimal() else 0,
                depends=", ".join(depends),
                origin="" if suite == FLAT else suite,
                flat=suite == FLAT,
            )
        )
    return offers
