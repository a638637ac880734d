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
from provisioner.model.source import LockedSource

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
    kept: bool = True  # a rollback takes it back; false for what carries the way in
    of_client: bool = False  # a client reads it when it starts: it must not change under a running one

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


class PackageSource(_Kind):
    """A package source in two files: where it lies, and the key that must sign it. In force before any transaction."""

    kind: Literal["package-source"] = "package-source"
    source: LockedSource

    @property
    def key(self) -> str:
        return f"package source {self.source.id}"


class ReplacedSource(_Kind):
    """A file of somebody else that names a package source of the lock: apt refuses two keys for one address."""

    kind: Literal["replaced-source"] = "replaced-source"
    path: str
    by: str
    also: tuple[str, ...] = ()  # other addresses in the same file, which must not be lost

    @property
    def key(self) -> str:
        return f"file {self.path}"


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


class ContainerImages(_Kind):
    """The images of a network's client, as they are named to Docker; all of them are there."""

    kind: Literal["container-images"] = "container-images"
    network: str
    images: tuple[str, ...] = ()
    sha256: str  # of the note on the host: the names, a line each

    @property
    def key(self) -> str:
        return f"images {self.network}"

    @property
    def mark(self) -> str:
        """What provision-container wrote when every image was there."""
        return f"/var/lib/provision/images/{self.network}"


class Settings(_Kind):
    """Keys that a JSON file must hold, whatever else its owner keeps there; `restarts` are units that read it."""

    kind: Literal["settings"] = "settings"
    path: str
    values: dict[str, JsonValue]
    restarts: tuple[str, ...] = ()
    wrote: dict[str, JsonValue] | None = None  # of an observed one: what provision wrote there last

    @property
    def wrote_path(self) -> str:
        """Where the host keeps what provision wrote: without it nobody could tell whose a value is."""
        return f"/var/lib/provision/wrote{self.path.replace('/', '-')}"

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
    auto: bool = False  # apt's mark of what came along as a dependency
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


class Hold(_Kind):
    """A package that stays at whatever version it has: kernels, so that none comes for which there is no module."""

    kind: Literal["hold"] = "hold"
    name: str

    @property
    def key(self) -> str:
        return f"hold {self.name}"


class VersionLock(_Kind):
    """Our part of dnf's version lock: what stands in it cannot be moved to another version, whoever asks.

    The owner's own entries stand beside it in the same file.
    """

    kind: Literal["version-lock"] = "version-lock"
    path: str = "/etc/dnf/plugins/versionlock.list"
    lines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"version lock {self.path}"


class NoRunFile(_Kind):
    """No driver of NVIDIA's own installer lies beside the packages: it would overwrite them, and they it."""

    kind: Literal["no-run-file"] = "no-run-file"

    @property
    def key(self) -> str:
        return "driver of NVIDIA's installer (.run)"


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


CONTAINERD_FILES = ("/etc/containerd/config.toml", "/etc/containerd/conf.d/99-nvidia.toml")
"""The owner's configuration, and the drop-in of NVIDIA's toolkit (nvidia-ctk's default place)."""


class ContainerdRuntime(_Kind):
    """containerd knows the nvidia runtime: NVIDIA's drop-in is there, and the owner's configuration imports it."""

    kind: Literal["containerd-runtime"] = "containerd-runtime"

    @property
    def key(self) -> str:
        return "containerd's nvidia runtime"


class CdiSpec(_Kind):
    """The description of the GPUs for container engines, made from the driver of this version."""

    kind: Literal["cdi-spec"] = "cdi-spec"
    version: str

    @property
    def key(self) -> str:
        return "CDI spec"


class Service(_Kind):
    """A systemd unit; `after_reboot` ones can only run once the driver is loaded."""

    kind: Literal["service"] = "service"
    name: str
    enabled: bool = True
    active: bool = True
    after_reboot: bool = False
    kept: bool = True  # a rollback takes it back; false for what carries the way in

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


class Tool(_Kind):
    """A program that a tunnel or an engine needs, at whatever version the host has or is offered; no part of the stack.

    It is installed by itself and kept out of what a rollback takes back, which must not take the way in with it.
    """

    kind: Literal["tool"] = "tool"
    name: str

    @property
    def key(self) -> str:
        return f"tool {self.name}"


class KeyPair(_Kind):
    """A key that is made on the host and stays there; the public half lies beside it for the probe."""

    kind: Literal["key-pair"] = "key-pair"
    path: str
    public: str
    maker: Literal["wireguard", "ssh", "nebula"]

    @property
    def key(self) -> str:
        return f"key {self.path}"


class SecretFile(_Kind):
    """A file whose text comes from a vault or the environment at run time; only its mode and owner are seen.

    `mode` has the owner behind it when that is not root, such as `0600 lium:root`, as it is seen.
    """

    kind: Literal["secret-file"] = "secret-file"
    path: str
    expression: str  # what Ansible fills in, such as hostvars['rig-01'].provision_tunnel_preshared
    mode: str = "0600"
    owner: str = "root"

    @property
    def key(self) -> str:
        return f"secret {self.path}"


class GuardedFile(_Kind):
    """One file of a guarded change; `content` None: it is kept for the way back, and made by a command."""

    path: str
    content: str | None
    mode: str = "0644"


class Guarded(_Kind):
    """Files and units that could cut the host off: put in force together, and taken back unless confirmed in time.

    `path` is the address on the host to which the confirming session must come; empty: any new session.
    `run` are commands between files and units, `undo` those after the kept files are back, `settle` those once it is
    confirmed.
    """

    kind: Literal["guarded"] = "guarded"
    name: str
    files: tuple[GuardedFile, ...] = ()
    absent: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    run: tuple[tuple[str, ...], ...] = ()
    undo: tuple[tuple[str, ...], ...] = ()
    settle: tuple[tuple[str, ...], ...] = ()
    confirm_s: int = 120
    path: str = ""
    peer: str = ""  # who must answer where there is no session, because the owner works at the host itself

    @property
    def key(self) -> str:
        return self.name


Resource = Annotated[
    Directory
    | File
    | KeptFile
    | AbsentFile
    | PackageSource
    | PythonEnvironment
    | ContainerImages
    | ReplacedSource
    | Settings
    | Package
    | AbsentPackage
    | Hold
    | VersionLock
    | NoRunFile
    | WholePackages
    | KernelModule
    | CdiSpec
    | ContainerdRuntime
    | Service
    | RunningDriver
    | Tool
    | KeyPair
    | SecretFile
    | Guarded,
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
