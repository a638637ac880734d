"""What rpm has installed, what dnf's repositories offer, and which version locks hold: captures of RHEL-likes."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase

from provisioner.facts.listing import commands_like
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import OfferedPackage, Package, SourceEntry
from provisioner.model.manager import LOCKS, PLUGIN, beside_each_other, plugin_is_on
from provisioner.model.version import RpmVersion

ALL = "*"
_QUERY = "rpm -qa --qf "
_OFFERS = "dnf offers "
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_ARCHITECTURE = re.compile(r"[a-z0-9_]+")


def read(capture: Capture) -> tuple[dict[str, Package] | Unknown, tuple[str, ...]]:
    """Return packages by name, and the patterns that were looked at: rpm is always asked for all."""
    for line in commands_like(capture, _QUERY):
        answer = capture.commands[line]
        if answer.rc == 0:
            return parse(answer.stdout, locks(capture)), (ALL,)
    return UNKNOWN, ()


def parse(text: str, locked: tuple[str, ...] = ()) -> dict[str, Package]:
    """`nvidia-driver-cuda\\t3:580.95.05-1.el9\\tx86_64`; of what is there several times the newest stands for all.

    Kernels and what belongs to them stand side by side by design. Anything else that is there twice was left so by a
    transaction that was cut short.
    """
    found: dict[str, list[tuple[RpmVersion, str]]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("\t")
        version, _, architecture = rest.partition("\t")
        # A host may print anything, and these words go into playbooks.
        if not _NAME.fullmatch(name) or not _ARCHITECTURE.fullmatch(architecture) or name == "gpg-pubkey":
            continue
        try:
            found.setdefault(name, []).append((RpmVersion(version), architecture))
        except ValueError:
            continue
    packages = {}
    for name, several in found.items():
        several.sort(key=lambda pair: pair[0])
        newest, architecture = several[-1]
        # Libraries of two architectures have one version.
        others = tuple(dict.fromkeys(v.text for v, _ in several if v.text != newest.text))
        packages[name] = Package(
            name=name,
            version=newest.text,
            held=is_locked(name, newest, architecture, locked),
            whole=not others or beside_each_other(name),
            others=others,
        )
    return packages


def locks(capture: Capture) -> tuple[str, ...]:
    """The entries of the version lock that count: none where the plugin is missing or switched off."""
    text, plugin = capture.file(LOCKS), capture.file(PLUGIN)
    if not isinstance(text, str) or not plugin_is_on(plugin):
        return ()
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("#", "!")))


def is_locked(name: str, version: RpmVersion, architecture: str, locked: tuple[str, ...]) -> bool:
    """`nvidia-driver-cuda-3:580.95.05-1.el9.*` locks that version; an epoch of 0 may stand there or not."""
    bare = version.text.partition(":")[2] or version.text
    spellings = {f"{name}-{version.epoch}:{bare}.{architecture}", f"{name}-{version.text}.{architecture}"}
    return any(fnmatchcase(spelling, entry) for entry in locked for spelling in spellings)


def offers(capture: Capture) -> tuple[OfferedPackage, ...] | Unknown:
    """All offers that come with a SHA-256 of their repository. UNKNOWN when dnf was not asked or did not finish."""
    answers = [capture.commands[line] for line in commands_like(capture, _OFFERS)]
    answers = [answer for answer in answers if answer.rc == 0]
    if not answers:
        return UNKNOWN
    found: dict[tuple[str, str, str], OfferedPackage] = {}
    for answer in answers:
        for offer in parse_offers(answer.stdout):
            found.setdefault((offer.name, offer.version, offer.architecture), offer)
    return tuple(found.values())


def parse_offers(text: str) -> list[OfferedPackage]:
    """A line of JSON each, as provisioner/probe/dnf_offers.py prints them; whatever else stands there is left out.

    Every repository is a folder without suites, so none is told from a vendor's by that: the driver is always one of
    a vendor's, for the distributions have none.
    """
    found = []
    for line in text.splitlines():
        value = _value(line)
        name = value.get("name") if value is not None else None
        if value is None or not isinstance(name, str) or not _NAME.fullmatch(name):
            continue
        try:
            version = RpmVersion(str(value.get("evr")))
        except ValueError:
            continue
        architecture, digest = str(value.get("arch")), str(value.get("sha256"))
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not _ARCHITECTURE.fullmatch(architecture):
            continue
        size, requires = value.get("size"), value.get("requires")
        found.append(
            OfferedPackage(
                name=name,
                version=version.text,
                source=str(value.get("source") or name),
                architecture=architecture,
                sha256=digest,
                size=size if isinstance(size, int) else 0,
                depends=", ".join(str(one) for one in requires) if isinstance(requires, list) else "",
                origin=str(value.get("repo") or ""),
                flat=True,
            )
        )
    return found


def sources(capture: Capture) -> tuple[SourceEntry, ...] | Unknown:
    """The repositories that are switched on, as dnf itself read them."""
    answers = [capture.commands[line] for line in commands_like(capture, _OFFERS)]
    answers = [answer for answer in answers if answer.rc == 0]
    if not answers:
        return UNKNOWN
    found = []
    for answer in answers:
        for line in answer.stdout.splitlines():
            value = _value(line)
            urls = value.get("url") if value is not None and isinstance(value.get("repo"), str) else None
            if isinstance(urls, list) and value is not None and "name" not in value:
                found += [SourceEntry(path=f"repository {value['repo']}", uri=str(url), suite="/") for url in urls]
    return tuple(dict.fromkeys(found))


def _value(line: str) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
