"""One package transaction: what apt is asked for, word for word, and what it says it would do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from provisioner.model.resource import AbsentPackage, Package

Action = Literal["install", "upgrade", "downgrade", "reinstall", "remove", "purge"]


class Move(BaseModel):
    """One package that the transaction touches. `origin` is apt's word, such as `Debian:12.12/oldstable`.

    `instead` is the incoming package that takes the place of one that goes: it conflicts with it and provides the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    action: Action
    before: str | None = None
    after: str | None = None
    origin: str = ""
    instead: str = ""

    @property
    def text(self) -> str:
        """`nvidia-smi 535.216.03-1 535.261.03-1`: what a run compares with what apt says then."""
        return f"{self.name} {self.before or '-'} {self.after or '-'}"


DNF = (
    "dnf",
    # Recommends are never wanted, and what nothing needs any more is no business of this transaction.
    *("--setopt=install_weak_deps=False", "--setopt=clean_requirements_on_remove=False"),
    # What is downloaded while serving is taken by the call that follows, and a refusal is better than half of it.
    *("--setopt=keepcache=True", "--setopt=skip_if_unavailable=False", "--setopt=best=True"),
)


def dnf_call(
    packages: Sequence[Package | AbsentPackage], *, asks: bool = False, options: Sequence[str] = ()
) -> tuple[tuple[str, ...], str]:
    """Return the one call that makes the transaction, and what it reads from its standard input.

    `asks`: it is answered with no, so it only tells what it would do. From kept archives alone no repository is read.
    Where packages go, `dnf shell` resolves both together. That leaves out what it does not know and goes on: whoever
    reads its answer must see to it that everything is there.
    """
    coming = [_rpm_word(p) for p in packages if isinstance(p, Package)]
    going = [p.name for p in packages if isinstance(p, AbsentPackage)]
    kept = all(p.archive is not None for p in packages if isinstance(p, Package))
    words = (*DNF, "--assumeno" if asks else "--assumeyes", *(["--disablerepo=*"] if kept else []), *options)
    if coming and going:
        lines = [*(f"install {word}" for word in coming), *(f"remove {word}" for word in going), "run"]
        return (*words, "shell"), "".join(f"{line}\n" for line in lines)
    return (*words, "install" if coming else "remove", *(coming or going)), ""


def dnf_line(packages: Sequence[Package | AbsentPackage], option: str = "") -> str:
    """Return the call that only asks as a line of shell; `option` stands there as a shell is to read it."""
    call, _ = dnf_call(packages, asks=True)
    words = " ".join(filter(None, [call[0], option, shlex.join(call[1:])]))
    given = dnf_given(packages)
    return f"{shlex.join(given)} | {words}" if given else words


def dnf_given(packages: Sequence[Package | AbsentPackage]) -> tuple[str, ...]:
    """Return the words that print what the call reads from its standard input; () when it reads nothing."""
    _, given = dnf_call(packages)
    return ("printf", "%s\\n", *given.splitlines()) if given else ()


def _rpm_word(package: Package) -> str:
    """`nvidia-driver-cuda-3:580.95.05-1.el9.x86_64`, or the path of a kept archive."""
    return package.archive or f"{package.name}-{package.version}.{package.architecture}"


def rpm_name(name: str, version: str, architecture: str) -> str:
    """Return the file name of an RPM, which has no epoch."""
    return f"{name}-{version.partition(':')[2] or version}.{architecture}.rpm"


AT_WORK = "# apt at work"
ASK_AT_WORK = f"""python3 -c '
import fcntl, struct
for name in ("lock-frontend", "lock"):
    try:
        with open("/var/lib/dpkg/" + name, "rb") as file:
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
            kind = struct.unpack_from("h", fcntl.fcntl(file, fcntl.F_GETLK, asked))[0]
    except OSError:
        continue
    if kind != fcntl.F_UNLCK:
        print("{AT_WORK}")
        break
'"""
"""A shell command that prints AT_WORK when somebody's apt or dpkg holds its lock now; it takes none itself."""

APT_GET = (
    *("apt-get", "--yes", "--option", "DPkg::Lock::Timeout=600"),
    # A configuration file that its owner changed stays; one that nobody changed is the package's (dpkg(1)).
    *("--option", "Dpkg::Options::=--force-confdef", "--option", "Dpkg::Options::=--force-confold"),
    # Held packages may move, because a plan named them; a version that goes down is a plan too. Recommends are never
    # wanted: those of Debian's driver bring a desktop.
    *("--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages"),
)


def argv(packages: Sequence[Package | AbsentPackage], *options: str) -> tuple[str, ...]:
    """Return the one call that makes the transaction; with `--simulate` or `--download-only` the same call tries it."""
    purge = ("--purge",) if any(isinstance(p, AbsentPackage) and p.purge for p in packages) else ()
    words = [_word(package) for package in packages]
    kept = [package for package in packages if isinstance(package, Package) and package.archive is not None]
    if kept and len(kept) == len(packages):
        # apt sets paths aside before it counts what it is asked for: with paths alone that is nothing, and it refuses
        # whatever an interrupted run has left with unmet dependencies (seen with apt 2.6). A name is not set aside.
        words.append(f"{kept[0].name}={kept[0].version}")
    return (*APT_GET, *purge, *options, "install", *words)


def _word(package: Package | AbsentPackage) -> str:
    """`nvidia-smi=535.261.03-1`, the path of a kept archive, or `nvidia-smi-` for a package that goes."""
    if isinstance(package, AbsentPackage):
        return f"{package.name}-"
    return package.archive or f"{package.name}={package.version}"
