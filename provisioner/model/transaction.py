"""One package transaction: what apt is asked for, word for word, and what it says it would do."""

from __future__ import annotations

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
    return (*APT_GET, *purge, *options, "install", *(_word(package) for package in packages))


def _word(package: Package | AbsentPackage) -> str:
    """`nvidia-smi=535.261.03-1`, the path of a kept archive, or `nvidia-smi-` for a package that goes."""
    if isinstance(package, AbsentPackage):
        return f"{package.name}-"
    return package.archive or f"{package.name}={package.version}"
