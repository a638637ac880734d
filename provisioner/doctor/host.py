"""One capture as doctor reads it: texts by the place where they were said, facts on demand, each read once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from provisioner.doctor.truth import Evidence
from provisioner.facts import driver, gpus, kernel, nvml, os_release, packages, units
from provisioner.model.capture import UNKNOWN, Capture, CommandOutput, Unknown
from provisioner.model.facts import NvmlFacts, OsRelease, Package, PciGpu, UnitState

if TYPE_CHECKING:
    from provisioner.matrix.reader import Matrix

V = TypeVar("V")
LONGEST_LINE = 2000
"""Characters of a line that are looked at: a hostile line of megabytes must not cost minutes of matching."""

_REFUSED = re.compile(r"permission denied|not permitted|no permission", re.IGNORECASE)
_LOGS = ("kernel-log", "past-xids")


@dataclass(frozen=True)
class Place:
    """Where something is said: which commands and files belong to it, and what would show it."""

    words: str
    show: str
    commands: re.Pattern[str]
    files: re.Pattern[str] | None = None
    asked: bool = False  # doctor's own look shows it
    open_end: bool = False  # much may be said there that no capture holds: silence proves nothing


def _words(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?:sudo )?(?:{text})")


_APT = (
    r"apt\b|apt-get\b|aptitude\b|dpkg(?!-query)\b|unattended-upgrade|dnf\b|yum\b|zypper\b|/usr/bin/apt"
    r"|(journalctl|systemctl status)\b.*(apt-daily|unattended)"
)
# Listings in which nobody says anything; some are large.
_SILENT = r"set -- |apt-cache|dpkg-query|systemctl show|ls |readlink|df |lsmod|modinfo|uname|stat |date|lsinitramfs|ps "
PLACES: dict[str, Place] = {
    "kernel-log": Place(
        "the kernel's log",
        "dmesg",
        _words(r"dmesg\b|journalctl\b(?!.*--grep).*(\s-\w*k\b|--dmesg|_TRANSPORT=kernel)"),
        re.compile(r"/var/log/(kern\.log|dmesg|syslog|messages)"),
        asked=True,
    ),
    "past-xids": Place(
        "Xids of the last month", "journalctl -k --grep Xid", _words(r"journalctl\b.*--grep.*Xid"), asked=True
    ),
    "containers": Place(
        "a container that asks for a GPU",
        "docker run --rm --gpus all ubuntu nvidia-smi",
        _words(
            r"(docker|podman|nerdctl|ctr|crictl|kubectl|k3s)\b(?! (info|version|ps|images|container ls))|docker-compose"
            r"|(journalctl|systemctl status)\b.*(docker|containerd|kubelet|k3s|nvidia-container)"
        ),
        re.compile(r"/var/log/(nvidia-container|containers/|pods/|docker)"),
    ),
    "apt": Place(
        "what the package manager says",
        "apt-get update; apt-get check",
        _words(_APT),
        re.compile(r"/var/log/(apt/term\.log|dpkg\.log|unattended-upgrades/)"),
    ),
    "dkms": Place(
        "what DKMS says",
        "dkms status",
        _words(rf"dkms\b|.*make\.log|{_APT}"),
        re.compile(r"/var/lib/dkms/.*make\.log|/var/log/apt/term\.log"),
    ),
    "modprobe": Place(
        "what loading the module says", "modprobe nvidia", _words(r"modprobe\b|insmod\b|systemctl|journalctl")
    ),
    "units": Place("what a unit's journal says", "systemctl status UNIT", _words(r"systemctl status|journalctl\b")),
    "anywhere": Place(
        "what clients and networks say",
        "the client's own log",
        _words(rf"(?!{_SILENT}).*"),
        re.compile(r"/var/log/"),
        open_end=True,
    ),
}


@lru_cache(maxsize=4096)
def _places_of(line: str) -> frozenset[str]:
    """The places that a command line belongs to; hosts of a fleet are asked the same lines."""
    return frozenset(name for name, place in PLACES.items() if place.commands.match(line))


@lru_cache(maxsize=2048)
def _fixed(pattern: str) -> tuple[str, bool]:
    """What stands before the first star, and whether there is one at all."""
    head = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return head, head != pattern


def matches(text: str, pattern: str) -> bool:
    """As fnmatchcase, but most texts fall at their beginning already."""
    head, stars = _fixed(pattern)
    if not stars:
        return text == pattern
    return text.startswith(head) and fnmatchcase(text, pattern)


def _one(known: Mapping[str, V], name: str) -> tuple[tuple[str, V], ...]:
    """What a name without stars matches."""
    return ((name, known[name]),) if name in known else ()


@dataclass(frozen=True)
class Said:
    """A line that was said, and where."""

    text: str
    where: str
    part: str = ""  # what of the line matched


class Host:
    """What the mechanisms ask of one capture. `matrix` tells of cards; without it their architecture is unknown."""

    def __init__(self, capture: Capture, matrix: Matrix | None = None) -> None:
        self.capture = _tamed(capture)
        self.matrix = matrix
        self.facts: dict[str, Any] = {}
        self._places: dict[str, tuple[tuple[str, str], ...]] = {}
        self._joined: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}

    # What others read already.

    @cached_property
    def os(self) -> OsRelease | Unknown:
        return os_release.read(self.capture)

    @cached_property
    def running(self) -> str | Unknown:
        return kernel.running(self.capture)

    @cached_property
    def installed(self) -> tuple[str, ...] | Unknown:
        return kernel.installed(self.capture)

    @cached_property
    def next_boot(self) -> str | Unknown:
        return kernel.next_boot(self.capture, self.installed)

    @cached_property
    def _packages(self) -> tuple[dict[str, Package] | Unknown, tuple[str, ...]]:
        return packages.read(self.capture)

    @property
    def packages(self) -> dict[str, Package] | Unknown:
        return self._packages[0]

    def package(self, name: str) -> Package | Unknown | None:
        """None: looked for and not installed."""
        known, patterns = self._packages
        if known is UNKNOWN:
            return UNKNOWN
        if name in known:
            return known[name]
        return None if any(matches(name, pattern) for pattern in patterns) else UNKNOWN

    @cached_property
    def package_line(self) -> str:
        """The command that told of packages."""
        return next((line for line in self.capture.commands if line.startswith("dpkg-query -W")), "dpkg-query -W")

    @cached_property
    def units(self) -> dict[str, UnitState] | Unknown:
        return units.read(self.capture)

    @cached_property
    def gpus(self) -> tuple[PciGpu, ...] | Unknown:
        return gpus.read(self.capture)

    @cached_property
    def bus(self) -> str:
        """Where the cards on the bus were seen."""
        if "ls -d /sys/bus/pci/devices/*/vendor" in self.capture.commands:
            return "/sys/bus/pci/devices"
        return next((line for line in self.capture.commands if line.startswith("lspci")), "lspci")

    def shown_by(self, *lines: str) -> str:
        """The first of these commands or files that the capture has, else the first of them."""
        known = (*self.capture.commands, *self.capture.files)
        return next((line for line in lines if line in known), lines[0])

    @cached_property
    def unit_line(self) -> str:
        """The command that told of units."""
        return next(
            (line for line in self.capture.commands if line.startswith("systemctl show -p Id,")), "systemctl show"
        )

    @cached_property
    def nvml(self) -> NvmlFacts | Unknown:
        return nvml.read(self.capture)

    @cached_property
    def modules(self) -> tuple[Any, ...] | Unknown:
        return driver.modules(self.capture, self.running, self.packages)

    # Commands and files.

    def answers(self, *patterns: str) -> list[tuple[str, CommandOutput]]:
        """Commands whose line matches one of the patterns (stars), that the host has and that ended in time."""
        found = {line: answer for pattern in patterns for line, answer in self._like(pattern)}
        return [(line, answer) for line, answer in found.items() if answer.rc not in (124, 127)]

    def _like(self, pattern: str) -> Iterator[tuple[str, CommandOutput]]:
        """Commands that match; a pattern that names its program looks at that program's lines alone."""
        head, stars = _fixed(pattern)
        if not stars:
            return iter(_one(self.capture.commands, pattern))
        program, space, _ = head.partition(" ")
        lines = self._by_program.get(program, ()) if space else self.capture.commands.items()
        return ((line, answer) for line, answer in lines if matches(line, pattern))

    @cached_property
    def _by_program(self) -> dict[str, list[tuple[str, CommandOutput]]]:
        found: dict[str, list[tuple[str, CommandOutput]]] = {}
        for line, answer in self.capture.commands.items():
            found.setdefault(line.partition(" ")[0], []).append((line, answer))
        return found

    def first_file(self, *paths: str) -> tuple[str, str | Unknown | None]:
        """The first of these that was read; else the first that is known to be absent."""
        answers = [(path, self.capture.file(path)) for path in paths]
        read = [item for item in answers if isinstance(item[1], str)]
        absent = [item for item in answers if item[1] is None]
        return read[0] if read else absent[0] if len(absent) == len(paths) else (paths[0], UNKNOWN)

    def files(self, pattern: str) -> dict[str, str]:
        """Path to text of the files whose path matches."""
        return {
            path: text for path, text in self.capture.files.items() if isinstance(text, str) and matches(path, pattern)
        }

    def exists(self, path: str) -> bool | Unknown:
        """Whether the path is there, as far as any file or listing of the capture tells."""
        known = self.capture.file(path)
        if known is not UNKNOWN:
            return known is not None
        folder, _, name = path.rpartition("/")
        for line, answer in self.capture.commands.items():
            words = line.split()
            if not words or words[0] not in ("ls", "stat", "test") or answer.rc in (124, 127):
                continue
            asked = words[-1].rstrip("/") or "/"
            if asked == folder and answer.rc == 0 and "-d" not in words:
                return name in {item.split()[-1] for item in answer.stdout.splitlines() if item.strip()}
            if asked == path or ("*" in asked and asked.count("/") == path.count("/") and fnmatchcase(path, asked)):
                if answer.rc == 0:
                    return asked == path or path in answer.stdout.split()
                if "No such file" in answer.stderr:
                    return False
        return UNKNOWN

    # Texts.

    def texts(self, places: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """(where, text) of everything that was said in these places."""
        if len(places) == 1:
            return self._texts(places[0])
        if places not in self._joined:
            by_source = {item[0]: item for place in places for item in self._texts(place)}
            self._joined[places] = tuple(by_source.values())
        return self._joined[places]

    def _texts(self, place: str) -> tuple[tuple[str, str], ...]:
        if place not in self._places:
            self._places[place] = tuple(self._read_texts(place))
        return self._places[place]

    def _read_texts(self, name: str) -> Iterator[tuple[str, str]]:
        place = PLACES.get(name)
        said_by: Iterable[tuple[str, CommandOutput]]
        if place is not None:
            said_by = ((line, answer) for line, answer in self.capture.commands.items() if name in _places_of(line))
        else:
            said_by = () if name[0] == "/" else self._like(name)
        for line, answer in said_by:
            if answer.rc == 127:
                continue  # what a shell says of a missing program is no word of that program
            text = "\n".join(part for part in (answer.stdout, answer.stderr) if part)
            refused = name in _LOGS and answer.rc != 0 and not answer.stdout and _REFUSED.search(text)
            if not refused and (text or answer.rc != 124):
                yield line, _shortened(text)
        if place is None and name[0] != "/":
            return  # a command line: no file answers to it
        if place is None and not _fixed(name)[1]:
            named: Iterable[tuple[str, str | None]] = _one(self.capture.files, name)
        else:
            named = (
                (path, content)
                for path, content in self.capture.files.items()
                if ((place.files is not None and place.files.match(path)) if place else matches(path, name))
            )
        for path, content in named:
            if isinstance(content, str):
                yield path, _shortened(content)

    def absent_place(self, name: str) -> bool:
        """Whether a path or command that was looked for is not there: then it can't say anything either."""
        if name in PLACES:
            return False
        if name.startswith("/"):
            return self.capture.files.get(name, "") is None or self._no_match(name)
        answers = [answer for _, answer in self._like(name)]
        return bool(answers) and all(answer.rc == 127 for answer in answers)

    def _no_match(self, pattern: str) -> bool:
        answer = self.capture.commands.get(f"ls -d {pattern}")
        return answer is not None and answer.rc != 0 and "No such file" in answer.stderr

    def find(self, regex: re.Pattern[str], places: tuple[str, ...]) -> tuple[Said, ...]:
        """The first line of each text that matches; lines of files carry their number."""
        found = []
        for where, text in self.texts(places):
            match = regex.search(text)
            if match is None:
                continue
            start = text.rfind("\n", 0, match.start()) + 1
            end = text.find("\n", match.end())
            line = text[start : end if end >= 0 else len(text)].strip()
            number = f":{text.count(chr(10), 0, start) + 1}" if where.startswith("/") else ""
            found.append(Said(line, where + number, match[0]))
        return tuple(found)


_ENDLESS = re.compile(r"(\d{40})\d{60,}")


def _tamed(capture: Capture) -> Capture:
    """Numbers of thousands of digits are cut: Python refuses to read them, and no host means them."""
    texts = (
        *capture.files.values(),
        *(part for item in capture.commands.values() for part in (item.stdout, item.stderr)),
    )
    if not any(text and _ENDLESS.search(text) for text in texts):
        return capture
    files = {path: text if text is None else _ENDLESS.sub(r"\1", text) for path, text in capture.files.items()}
    commands = {
        line: CommandOutput(
            rc=item.rc, stdout=_ENDLESS.sub(r"\1", item.stdout), stderr=_ENDLESS.sub(r"\1", item.stderr)
        )
        for line, item in capture.commands.items()
    }
    return capture.model_copy(update={"files": files, "commands": commands})


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_LINE or max(map(len, text.split("\n"))) <= LONGEST_LINE:
        return text
    return "\n".join(line[:LONGEST_LINE] for line in text.split("\n"))


def shown(label: str, text: object, where: str, part: str = "") -> Evidence:
    """Evidence on one line."""
    return Evidence(label, " ".join(str(text).split()), where, " ".join(part.split()))
