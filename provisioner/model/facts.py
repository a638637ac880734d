"""What a host is, as read from a capture; every field can be UNKNOWN, and that is not the same as absent."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.shutdown import Shutdown

Flavour = Literal["open", "proprietary"]


@dataclass(frozen=True)
class OsRelease:
    """ID, VERSION_ID and VERSION_CODENAME of /etc/os-release; `id` is the matrix id, such as `debian-12`."""

    id: str
    name: str
    codename: str
    architecture: str = "amd64"  # empty when it could not be seen


@dataclass(frozen=True)
class PciGpu:
    """An NVIDIA display or 3D controller on the PCI bus; it shows with no driver at all. Ids are hex without 0x."""

    slot: str
    vendor: str
    device: str
    subsystem: str | Unknown = field(default="")  # "vendor:device" of the board
    bound_to: str | Unknown | None = None


@dataclass(frozen=True)
class KernelFacts:
    """Kernels by release name; `running` and `next_boot` are two facts, `uname -r` says nothing about the second."""

    running: str | Unknown
    installed: tuple[str, ...] | Unknown  # with a vmlinuz in /boot
    next_boot: str | Unknown  # what the boot loader takes by default
    headers: tuple[str, ...] | Unknown  # releases whose build folder is there
    boots_once: bool | Unknown = UNKNOWN  # whether the boot loader can take a kernel for one boot and forget it
    apparmor: bool | Unknown = UNKNOWN  # whether it holds what this host starts to AppArmor's profiles
    stays: str | Unknown | None = UNKNOWN  # why GRUB keeps to an older kernel, as the host itself noted


@dataclass(frozen=True)
class ModuleBuild:
    """A kernel module of NVIDIA's that lies on disk for one kernel.

    Not `noted`: it lies where DKMS puts modules, and DKMS has none installed for that kernel; it was cut off there.
    """

    kernel: str
    version: str | Unknown
    flavour: Flavour | Unknown
    noted: bool = True


@dataclass(frozen=True)
class DriverFacts:
    """Loaded module, module on disk per kernel, and libraries: three things that must agree."""

    loaded: str | Unknown | None
    loaded_flavour: Flavour | Unknown | None
    modules: tuple[ModuleBuild, ...] | Unknown
    library: str | Unknown | None  # version in the real name of libnvidia-ml.so.1
    nouveau_loaded: bool | Unknown
    nouveau_blacklisted: bool | Unknown
    secure_boot: bool | Unknown
    run_file_install: bool | Unknown = False
    module_for_running: str | Unknown | None = UNKNOWN  # what would load now; None: no module for this kernel


@dataclass(frozen=True)
class Package:
    """An installed package; `held` is dpkg's selection state `hold`.

    `whole` is false for one that is unpacked and not configured, or less; `half` is true when even unpacking was cut
    short, so that dpkg does nothing with it but unpack it again. `others` are versions that stand beside this one, as
    kernels of RHEL-likes do.
    """

    name: str
    version: str
    held: bool
    whole: bool = True
    half: bool = False
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class OfferedPackage:
    """One version of a package that the host's own sources offer, as its index states it; size in bytes."""

    name: str
    version: str
    source: str
    architecture: str
    sha256: str
    size: int
    depends: str = ""  # Pre-Depends and Depends as written, joined by ", "
    origin: str = ""  # release suite when known, such as bookworm-backports
    flat: bool = False  # from a folder without suites, as NVIDIA's repositories are; a distribution's never is


@dataclass(frozen=True)
class SourceEntry:
    """A package source that is switched on, and the file it stands in; `/` as suite is a folder without suites."""

    path: str
    uri: str
    suite: str
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuntimeFacts:
    """Container runtimes: package-independent view of what runs and how it is configured."""

    docker_active: bool | Unknown
    docker_daemon_json: str | Unknown | None
    docker_version: str | Unknown | None = None
    containers_running: int | Unknown = 0


@dataclass(frozen=True)
class UnitState:
    """A systemd unit: `enabled` is UnitFileState, `active` ActiveState, `load` LoadState (`not-found`: absent)."""

    name: str
    load: str
    active: str
    enabled: str


@dataclass(frozen=True)
class GpuHealth:
    """What NVML says of one GPU; temperatures in °C, power in watts, memory in MiB."""

    index: int
    name: str
    uuid: str
    slot: str
    memory_mib: int | None
    temperature_c: int | None
    power_w: float | None
    power_limit_w: float | None
    compute_processes: int | None
    pcie_width: int | None = None


@dataclass(frozen=True)
class NvmlFacts:
    """What NVML answered; `error` is the name of its error, or `library-not-found`."""

    error: str | None
    driver_version: str | None
    cuda_version: str | None
    gpus: tuple[GpuHealth, ...] = ()


@dataclass(frozen=True)
class Route:
    """A network that the host reaches through an interface, such as 192.168.1.0/24 on eth0."""

    network: str
    interface: str


@dataclass(frozen=True)
class PeerHealth:
    """The other end of a tunnel as the host sees it; times in seconds and milliseconds, loss in per cent.

    `handshake_age_s` None: there never was one.
    """

    host: str  # as the tunnel's config names it; its public key where it names none
    handshake_age_s: float | None
    loss_pct: float | None = None
    rtt_ms: float | None = None
    endpoint: str | None = None
    added_ms: float | None = None  # of the way there and back, by the tunnel; None where the way outside is not known


@dataclass(frozen=True)
class TunnelFacts:
    """The tunnel of a host and what one has to fit in with; `public_keys` by the file they lie in."""

    interface_mtu: int | Unknown | None = UNKNOWN  # None: there is no tunnel interface
    kind: str | Unknown | None = UNKNOWN  # as its keeper was told; None: there is no keeper
    peers: tuple[PeerHealth, ...] | Unknown = UNKNOWN
    seen_age_s: float | Unknown = UNKNOWN  # how old the host's own look at its peers is
    public_keys: dict[str, str] | Unknown = UNKNOWN
    routes: tuple[Route, ...] | Unknown = UNKNOWN
    kernel_module: bool | Unknown = UNKNOWN  # WireGuard without a program of its own
    firewall: str | Unknown | None = UNKNOWN  # what keeps the host's ports: ufw, nftables, iptables; None: nothing
    path_mtu: int | Unknown | None = UNKNOWN  # towards the tunnel's endpoint; None: nothing came back
    change: str | Unknown | None = UNKNOWN  # state of the last guarded change: applied, confirmed, reverted …
    change_why: str | Unknown = UNKNOWN
    joined: dict[str, str] | Unknown = UNKNOWN  # hub: host that joined by invitation -> its record, as text


@dataclass(frozen=True)
class TrialFacts:
    """The last change that was tried across its reboot, as the host noted it (provisioner/host/trial.py)."""

    state: str
    what: str
    at: str
    limit_s: int
    why: str = ""
    problem: str = ""

    @property
    def live(self) -> bool:
        """Whether it still goes on: it is confirmed, cancelled, or ends by itself."""
        return self.state not in ("back", "gave-up")

    @property
    def words(self) -> str:
        """What a screen says of it, in a line."""
        if self.state in ("armed", "trying", "sound"):
            return f"{self.what} is on trial: the host goes back by itself {self.limit_s // 60} min after its boot"
        if self.state == "back":
            return f"the host went back by itself, {self.what} did not stay ({self.at}): {self.why}"
        if self.state == "gave-up":
            return f"the host could not go back by itself from {self.what} ({self.at}, {self.why}): {self.problem}"
        return f"the host is going back by itself from {self.what}: {self.why}"


@dataclass(frozen=True)
class HostFacts:
    """All of it. `packages` maps name to package; a name that is not in it is not installed."""

    host: str
    taken_at: datetime
    os: OsRelease | Unknown
    kernel: KernelFacts
    gpus: tuple[PciGpu, ...] | Unknown
    driver: DriverFacts
    packages: dict[str, Package] | Unknown
    offers: tuple[OfferedPackage, ...] | Unknown
    runtime: RuntimeFacts
    nvml: NvmlFacts | Unknown
    units: dict[str, UnitState] | Unknown
    failed_units: tuple[str, ...] | Unknown
    disk_free_mib: dict[str, int] | Unknown  # mount point or path -> MiB free
    memory_mib: int | Unknown
    swap_mib: int | Unknown
    clock_skew_s: float | Unknown  # host minus controller
    boot_identity: str | Unknown  # changes with every boot, also of a system container
    virtualization: str | Unknown | None = None
    shutdown: Shutdown | Unknown | None = UNKNOWN  # None: none has a time
    sources: tuple[SourceEntry, ...] | Unknown = UNKNOWN  # package sources that are switched on
    components: tuple[str, ...] | Unknown = ()  # components of the apt sources, such as non-free
    dpkg_interrupted: bool | Unknown = UNKNOWN  # its journal is left, or a package was cut short while it was unpacked
    package_patterns: tuple[str, ...] = ("*",)  # names that were looked at; what they do not cover is unknown
    tunnel: TunnelFacts = TunnelFacts()
    trial: TrialFacts | Unknown | None = UNKNOWN  # None: there is none
    enrolled_before: bool | Unknown = UNKNOWN  # it keeps the stack that it was last enrolled with
    nvswitches: int | Unknown = UNKNOWN  # NVSwitch bridges on the PCI bus

    def package(self, name: str) -> Package | Unknown | None:
        """Return the package, None when it is not installed, UNKNOWN when it was not looked at."""
        if self.packages is UNKNOWN:
            return UNKNOWN
        if name in self.packages:
            return self.packages[name]
        return None if any(fnmatchcase(name, pattern) for pattern in self.package_patterns) else UNKNOWN
