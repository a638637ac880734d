"""What a host keeps of each change, so that it can be taken back: one record per run."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from provisioner.model.enrolment import decided
from provisioner.model.facts import Flavour
from provisioner.model.manager import Manager
from provisioner.model.resource import Unit
from provisioner.model.stack import HostLock

HISTORY = "/var/lib/provision/history"
"""On the host, for root alone: kept files may hold secrets."""
NOW = f"{HISTORY}/now.json"
"""The stack that the host was last enrolled with."""
BUILD = "/var/lib/provision/build"
"""Where a run builds modules ahead; what it has built lies where the package's own postinst looks for it."""
CLEAR_BUILD = (
    f"rm -rf {BUILD} /usr/share/nvidia*-dkms/*.dkms.tar.gz; "
    "rmdir --ignore-fail-on-non-empty /usr/share/nvidia*-dkms 2>/dev/null || :"
)
"""What a run clears away after its transaction, and the end of a change once more, for the run may have been killed."""


# A host wrote these words, and they go into a playbook: nothing that Ansible would evaluate gets in.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+~^:@-]*$", max_length=200)]
Path = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.+~:@-]+)+$", max_length=400)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stack(_Value):
    """A host's lock entry without the words that explain it, and the digest of the matrix that it was made with."""

    entry: HostLock
    matrix: str

    @property
    def text(self) -> str:
        """As `now.json` holds it. Without the words: they are no decision, and long."""
        return json.dumps({"entry": decided(self.entry), "matrix": self.matrix}, sort_keys=True) + "\n"

    @property
    def words(self) -> str:
        """`driver 535.261.03, docker-io`."""
        driver, runtime = self.entry.driver_version, self.entry.runtime
        return ", ".join([f"driver {driver.value}" if driver else "no driver", *([runtime.value] if runtime else [])])


class KeptPackage(_Value):
    """A package before the change; `version` None: it was not there. `sha256` is that of the kept archive."""

    version: Word | None
    unit: Unit = "other"
    held: bool = False
    auto: bool = False
    architecture: Word = "amd64"
    sha256: Digest | None = None


class KeptState(_Value):
    """A file before the change; `sha256` None: it was not there."""

    sha256: Digest | None
    mode: Word = "0644"
    owner: Word = "root:root"
    initramfs: bool = False
    pins: bool = False
    restarts: tuple[Word, ...] = ()


class UnitBefore(_Value):
    """A systemd unit before the change."""

    there: bool
    enabled: bool
    active: bool
    after_reboot: bool = False


class LoadedDriver(_Value):
    version: Word
    flavour: Flavour


class Record(_Value):
    """`history/<run>/record.json`. `began` is the first of the runs that were needed; `to` maps package to version."""

    format: int = Field(1, ge=1, le=1)
    run: Word
    began: Word
    at: Word
    before: Stack | None = Field(alias="from")
    to: dict[Word, Word | None] = {}
    driver: LoadedDriver | None
    packages: dict[Word, KeptPackage] = {}
    files: dict[Path, KeptState] = {}
    units: dict[Word, UnitBefore] = {}
    bytes: int = 0
    manager: Manager = "apt"  # a record of before there was another has none

    @property
    def folder(self) -> str:
        return f"{HISTORY}/{self.run}"


class Entry(_Value):
    """A record and whether its change came to a good end: the host was enrolled after it."""

    record: Record
    done: bool


class Unreadable(_Value):
    """A record that is there and cannot be used: damaged, changed by hand, or of a format that came later."""

    run: str
    why: str


class Keep(_Value):
    """How much a host keeps: the last changes, and MiB in all."""

    changes: int = 3
    mib: int = 4096
