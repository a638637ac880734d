"""The kinds of thing a host can be wanted to have: a closed set of plain values, each with a key that names it.

Wanted and observed resources are values of the same kinds; `ABSENT` and UNKNOWN stand for an observed
resource that is not there and for one that could not be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.facts import Flavour

Unit = Literal["kernel", "driver", "compat", "runtime", "toolkit", "other"]
"""What must move together; `other` packages came along with one of them."""


class _Kind(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Directory(_Kind):
    """A folder owned by root."""

    kind: Literal["directory"] = "directory"
    path: str
    mode: str = "0755"

    @property
    def key(self) -> str:
        return f"directory {self.path}"


class File(_Kind):
    """A file owned by root with exactly this text; `rebuilds_initramfs` when the boot image carries a copy."""

    kind: Literal["file"] = "file"
    path: str
    content: str
    mode: str = "0644"
    rebuilds_initramfs: bool = False
    pins: bool = False  # must be in force before the drain and any package transaction: pins, the gate

    @property
    def key(self) -> str:
        return f"file {self.path}"


class KeptFile(_Kind):
    """A file as it was before a change: `source` is the copy on the host. Its text may hold secrets and stays there."""

    kind: Literal["kept-file"] = "kept-file"
    path: str
    source: str
    sha256: str
    mode: str = "0644"
    owner: str = "root:root"
    rebuilds_initramfs: bool = False
    pins: bool = False
    restarts: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"file {self.path}"


class AbsentFile(_Kind):
    """A file that was not there before a change that is undone."""

    kind: Literal["absent-file"] = "absent-file"
    path: str
    rebuilds_initramfs: bool = False
    pins: bool = False
    restarts: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"file {self.path}"


class Secret(_Kind):
    """A file whose text nobody here knows: where the run takes it from. What a host has is told by mode and owner.

    `mode` has the owner behind it when that is not root, as it is seen.
    """

    kind: Literal["secret"] = "secret"
    path: str
    owner: str = "root"
    mode: str
    source: Literal["variable", "env"]
    word: str  # name of the variable

    @property
    def key(self) -> str:
        return f"secret {self.path}"


class PythonEnvironment(_Kind):
    """An environment of a network's Python client, made from a list of requirements with this SHA-256."""

    kind: Literal["python-environment"] = "python-environment"
    network: str
    sha256: str

    @property
    def key(self) -> str:
        return f"python environment {self.network}"

    @property
    def folder(self) -> str:
        """`/opt/provision/NETWORK/current` leads to the one that is whole."""
        return f"/opt/provision/{self.network}/{self.sha256[:12]}"

    @property
    def mark(self) -> str:
        """The list it was made from; it gets its name when everything is installed."""
        return f"/opt/provision/{self.network}/current/requirements.txt"


class Settings(_Kind):
    """Keys that a JSON file must hold, whatever else its owner keeps there; `restarts` are units that read it."""

    kind: Literal["settings"] = "settings"
    path: str
    values: dict[str, JsonValue]
    restarts: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"settings {self.path}"


class Package(_Kind):
    """A package at an exact version, held or not. SHA-256 and size (bytes) of its archive."""

    kind: Literal["package"] = "package"
    name: str
    version: str
    held: bool = True
    unit: Unit
    architecture: str = "amd64"  # of the archive, a part of its file name
    sha256: str | None = None
    size: int = 0
    archive: str | None = None  # a file on the host that holds exactly this version; None: from its package sources

    @property
    def key(self) -> str:
        return f"package {self.name}"


class AbsentPackage(_Kind):
    """A package that must go: of another driver than the locked one, or brought by a change that is undone."""

    kind: Literal["absent-package"] = "absent-package"
    name: str
    unit: Unit = "driver"
    purge: bool = False  # its configuration goes too: there was none before the change that is undone

    @property
    def key(self) -> str:
        return f"package {self.name}"


class WholePackages(_Kind):
    """No package is left half-installed; `interrupted` when dpkg must finish before apt can say anything true."""

    kind: Literal["whole-packages"] = "whole-packages"
    broken: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def key(self) -> str:
        return "dpkg state"


class KernelModule(_Kind):
    """A driver module that lies on disk for one kernel, built from the driver of this version."""

    kind: Literal["kernel-module"] = "kernel-module"
    kernel: str
    version: str
    flavour: Flavour

    @property
    def key(self) -> str:
        return f"module nvidia for {self.kernel}"


class Service(_Kind):
    """A systemd unit; `after_reboot` ones can only run once the driver is loaded."""

    kind: Literal["service"] = "service"
    name: str
    enabled: bool = True
    active: bool = True
    after_reboot: bool = False

    @property
    def key(self) -> str:
        return f"service {self.name}"


class RunningDriver(_Kind):
    """The driver that the kernel has loaded, None for none; it differs from what is installed when a reboot is due."""

    kind: Literal["running-driver"] = "running-driver"
    version: str | None
    flavour: Flavour | None

    @property
    def key(self) -> str:
        return "running driver"


Resource = Annotated[
    Directory
    | File
    | KeptFile
    | AbsentFile
    | Secret
    | PythonEnvironment
    | Settings
    | Package
    | AbsentPackage
    | WholePackages
    | KernelModule
    | Service
    | RunningDriver,
    Field(discriminator="kind"),
]


class Absent(_Kind):
    """Looked for, and not there."""

    kind: Literal["absent"] = "absent"


ABSENT = Absent()

Observed = Union[Resource, Absent, Unknown]  # noqa: UP007  (evaluated at run time, which | is not on Python 3.10 here)


@dataclass(frozen=True)
class Difference:
    """One resource that is not as wanted; `keys` names what differs, and is empty when the resource is absent."""

    wanted: Resource
    observed: Observed
    keys: tuple[str, ...] = ()

    @property
    def unseen(self) -> bool:
        return self.observed is UNKNOWN
