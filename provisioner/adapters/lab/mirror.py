"""Where this machine gets Debian packages from, so that lab hosts get theirs from the same place.

The address, the keyring and the transport settings (proxy, login, expired archives) are read from the machine's own apt
configuration when an image is built; none of them stands in the project.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from provisioner.errors import ProvisionError

_OPTION = re.compile(r"\[(?P<options>[^]]*)\]\s*")
# What a host needs to reach the mirror as the machine does; everything else in apt.conf is the machine's own taste.
_CARRIED = re.compile(
    r"^(Acquire::(http|https|ftp|Retries|ForceIPv4|ForceIPv6|Check-Valid-Until|Check-Date|Max-ValidTime|Max-FutureTime"
    r"|AllowInsecureRepositories|AllowWeakRepositories)(::|\s))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Source:
    """One `deb` line: address, suite, components and the keyring that signs it (None: apt's trusted keys)."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None = None


@dataclass(frozen=True)
class Mirror:
    """The archive and its security part, as addresses; transport settings as lines of apt.conf."""

    archive: str
    security: str | None
    keyring: str | None
    apt_conf: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = field(default=())  # logins and certificates: path in the host → path here


def parse_one_line(text: str) -> list[Source]:
    """Read a `.list` file."""
    found: list[Source] = []
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        if not line.startswith("deb "):
            continue
        rest = line[4:].strip()
        options = ""
        if match := _OPTION.match(rest):
            options, rest = match["options"], rest[match.end() :]
        words = rest.split()
        if len(words) < 2:
            continue
        keyring = next((o.split("=", 1)[1] for o in options.split() if o.startswith("signed-by=")), None)
        found.append(Source(words[0], words[1], tuple(words[2:]), keyring))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Read a `.sources` file; a stanza that is not enabled or has no `deb` is left out."""
    found: list[Source] = []
    for stanza in re.split(r"\n\s*\n", text):
        keys: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and last:
                keys[last] += "\n" + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                last = key.strip().lower()
                keys[last] = value.strip()
        if "deb" not in keys.get("types", "").split() or keys.get("enabled", "yes").lower() in ("no", "false"):
            continue
        keyring = keys.get("signed-by")
        if keyring is not None and not keyring.startswith("/"):
            keyring = None  # a key written out in the stanza: apt's trusted keys must serve
        found += [
            Source(uri, suite, tuple(keys.get("components", "").split()), keyring)
            for uri in keys.get("uris", "").split()
            for suite in keys.get("suites", "").split()
        ]
    return found


def carried_settings(apt_config_dump: str) -> tuple[str, ...]:
    """Keep the lines of `apt-config dump` that decide how the mirror is reached and trusted."""
    return tuple(line for line in apt_config_dump.splitlines() if _CARRIED.match(line) and '""' not in line)


def choose(sources: Iterable[Source], apt_conf: tuple[str, ...], files: tuple[tuple[str, str], ...] = ()) -> Mirror:
    """Pick Debian's archive and security addresses out of the machine's sources.

    The archive is recognised by its keyring's or address's "debian" and the component main.
    """
    main = [s for s in sources if "main" in s.components and ("debian" in s.uri or "debian" in (s.signed_by or ""))]
    archive = next((s for s in main if not re.search(r"(-security|/updates)$", s.suite)), None)
    if archive is None:
        raise ProvisionError(
            "lab-no-mirror",
            "this machine's apt has no Debian archive among its sources, and lab hosts are Debian",
            context=["read: /etc/apt/sources.list, /etc/apt/sources.list.d/"],
            hint="give one: PROVISION_LAB_MIRROR=URL provision lab up …",
        )
    security = next((s for s in main if s.suite.endswith("-security")), None)
    return Mirror(archive.uri, security.uri if security else None, archive.signed_by, apt_conf, files)


def source_lines(mirror: Mirror, suite: str, components: Iterable[str], pockets: Iterable[str]) -> str:
    """The host's /etc/apt/sources.list; `pockets` are the further suites the mirror was seen to have."""
    option = f"[signed-by={mirror.keyring}] " if mirror.keyring else ""
    words = " ".join(components)
    lines = [f"deb {option}{mirror.archive} {suite} {words}"]
    for pocket in pockets:
        uri = mirror.security if pocket.endswith("-security") else mirror.archive
        lines.append(f"deb {option}{uri} {pocket} {words}")
    return "\n".join(lines) + "\n"
