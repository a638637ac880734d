"""What was resolved for a host: exact versions, hashes, and the reason of each choice; the lock is a set of these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from provisioner.model.intent import Intent
from provisioner.model.source import LockedSource
from provisioner.model.tunnel import Tunnel, TunnelLock


class Reason(BaseModel):
    """Why: one conclusion in a sentence-sized value, with the entries it rests on (matrix ids or host facts)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    rests_on: tuple[str, ...] = ()


class LockedPackage(BaseModel):
    """An exact package; SHA-256 and size (bytes) as the host's own package index states them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    architecture: str = "amd64"  # of the archive: amd64 or all, as the index states it
    sha256: str
    size: int
    unit: Literal["driver", "compat", "runtime", "toolkit", "kernel"]  # what must move together
    hold: bool = True


class Choice(BaseModel):
    """One resolved variable (driver branch, exact version, flavour, CUDA level, runtime, toolkit, a client …)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str
    because: tuple[Reason, ...] = ()
    not_newer: tuple[Reason, ...] = ()


class HostLock(BaseModel):
    """The stack of one host. `kernels` must each have the driver's module before a reboot is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    os: str
    gpus: tuple[str, ...]  # matrix model ids, or architecture ids when the PCI id is not known
    intent: Intent
    driver_branch: Choice | None  # None: the host needs no driver (no GPU and no network that wants one)
    driver_version: Choice | None
    modules: Choice | None  # open or proprietary
    cuda: Choice | None
    runtime: Choice | None
    toolkit: Choice | None = None  # None: no source of the host offers one, or the request wants none
    cdi: Choice | None = None  # present or absent; None: nothing here sets it up
    compat: Choice | None = None  # forward compatibility: what carries a CUDA level that the driver does not
    networks: dict[str, Choice] = {}
    kernels: tuple[str, ...] = ()
    packages: tuple[LockedPackage, ...] = ()
    warnings: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()  # what a network asks for that facts do not show: for checks and installers
    cgroup_driver: Literal["systemd", "cgroupfs"] | None = None  # of Docker; None: as its owner has it
    default_runtime: Literal["runc", "nvidia"] | None = None  # of Docker; None: as its owner has it
    sources: tuple[LockedSource, ...] = ()  # package sources that must be there before the packages
    vendor_driver: bool = False  # the driver comes from NVIDIA's own repository, not from the distribution's
    module_options: tuple[str, ...] = ()  # lines for modprobe.d that this flavour needs on these cards
    tunnel: TunnelLock | None = None

    @property
    def engine(self) -> str:
        """The matrix id of the chosen runtime: `docker.io 26.1.5` is docker-io; '' when there is none."""
        if self.runtime is None:
            return ""
        name = self.runtime.value.partition(" ")[0]
        return "docker-io" if name == "docker.io" else name


class ParkedTunnel(BaseModel):
    """The tunnel of a host without an entry: its peers still know it, and its address stays its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wish: Tunnel
    lock: TunnelLock


SAME = "same_as"
"""The one key of an entry that stands at another host."""


def _is_same(entry: object) -> bool:
    return isinstance(entry, dict) and entry.keys() == {SAME} and isinstance(entry[SAME], str)


class Lock(BaseModel):
    """`provision.lock`: one entry per host, and the digest of the matrix it was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1, 2] = 2  # 2 adds toolkit, cdi, compat and older; a file of format 1 is read as one that has none
    made_by: str  # provision's version
    matrix: str  # sha256 of the matrix
    older: dict[str, str] = {}  # hosts whose entries another matrix made, and its sha256: kept, and not acted upon
    hosts: dict[str, HostLock]
    tunnels: dict[str, ParkedTunnel] = {}

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any) -> Any:
        """`{"same_as": "rig-01"}` is the entry of that host; whoever reads the file itself need not know of it."""
        hosts = data.get("hosts") if isinstance(data, dict) else None
        if not isinstance(hosts, dict):
            return data
        whole = {name: hosts.get(entry[SAME], entry) if _is_same(entry) else entry for name, entry in hosts.items()}
        return {**data, "hosts": whole}

    def matrix_of(self, host: str) -> str:
        """The sha256 of the matrix that a host's entry was made with."""
        return self.older.get(host, self.matrix)
