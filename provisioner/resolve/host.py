"""What can be chosen on a host: its cards, the drivers and runtimes its own package sources offer, its kernels."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from provisioner.matrix.entries import (
    Architecture,
    DoesNotBuild,
    DriverBranch,
    DriverPackages,
    Flavour,
    GpuModel,
    RuntimePackages,
)
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts, OfferedPackage, Package, PciGpu
from provisioner.model.manager import READ, Manager, as_package, manager_of
from provisioner.model.version import (
    CudaVersion,
    DebianVersion,
    DottedVersion,
    DriverVersion,
    KernelRelease,
    RpmVersion,
    Specifier,
)


@dataclass(frozen=True)
class Card:
    """A GPU of the host; `architecture` is None when neither the matrix nor NVML knows the card."""

    slot: str
    pci_id: str
    model: GpuModel | None
    architecture: Architecture | None
    ceiling: CudaVersion | None  # last CUDA level whose toolkits build for it; None: not dropped yet

    @property
    def id(self) -> str:
        """`rtx-3090`, else the architecture, else the PCI id."""
        if self.model is not None:
            return self.model.id
        return self.architecture.id if self.architecture is not None else self.pci_id

    @property
    def name(self) -> str:
        if self.model is not None:
            return self.model.name
        return f"GPU {self.pci_id}" if self.architecture is None else f"{self.architecture.title} {self.pci_id}"


@dataclass(frozen=True)
class Driver:
    """One driver that could run: an exact version in one flavour; `package` is None when no source here offers it."""

    branch: DriverBranch
    version: DriverVersion
    flavour: Flavour
    names: DriverPackages | None = None
    rank: int = 0  # place of `names` among the distribution's sets: its own default first
    package: OfferedPackage | None = None
    installed: bool = False

    @property
    def key(self) -> str:
        text = self.package.version if self.package is not None else self.version.text
        source = f" {self.package.source}" if self.package is not None else ""
        return f"{text} {self.flavour}{source}"


@dataclass(frozen=True)
class RuntimeVersion:
    """One offered version of a container runtime; `id` is that of its matrix entry."""

    id: str
    names: RuntimePackages
    package: OfferedPackage
    installed: bool


@dataclass(frozen=True)
class Offers:
    """The package sources of the host by name; each (name, version) once."""

    by_name: Mapping[str, tuple[OfferedPackage, ...]]
    with_vendor: bool = False  # some come from a folder without suites

    def named(self, name: str) -> tuple[OfferedPackage, ...]:
        return self.by_name.get(name, ())

    def newest(self, name: str) -> OfferedPackage | None:
        """The newest version that is not a backport, else the newest backport."""
        return max(self.named(name), key=lambda o: (not is_backport(o), debian(o.version)), default=None)


@dataclass(frozen=True)
class Host:
    """Everything about a host that does not depend on the request."""

    facts: HostFacts
    os: str
    cards: tuple[Card, ...]
    offers: Offers
    packages: Mapping[str, Package]
    drivers: tuple[Driver, ...]  # what its own package sources offer
    kernels: tuple[str, ...]  # running and next to boot
    next_boot: str | None
    manager: Manager = "apt"
    remembered: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)
    """What repairs ask of one host again and again; nothing in it outlives the host."""


@lru_cache(maxsize=65536)
def debian(text: str) -> DebianVersion:
    """The version of a package, ordered as its own manager does; an RPM's is told by the release it was built for."""
    return RpmVersion(text) if _BUILT_FOR.search(text) else DebianVersion(text)


_BUILT_FOR = re.compile(r"-[^-]*\.(el|fc)\d+(_\d+)?(\.|$)")


@lru_cache(maxsize=16384)
def upstream(text: str) -> str:
    """`1:535.261.03-1~deb12u1` packages `535.261.03`; what is no package version gives ''."""
    try:
        return debian(text).upstream
    except ValueError:
        return ""


class NewestFirst:
    """Orders package versions newest first inside a sort key."""

    def __init__(self, version: str) -> None:
        self.version = version

    def __lt__(self, other: NewestFirst) -> bool:
        return debian(other.version) < debian(self.version)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NewestFirst) and self.version == other.version

    __hash__ = None  # type: ignore[assignment]  # a sort key is never hashed


def is_backport(offer: OfferedPackage) -> bool:
    return "backports" in offer.origin or "~bpo" in offer.version


def prepare(facts: HostFacts, matrix: Matrix) -> Host:
    """Gather what a host leaves open. Needs os, gpus, packages and offers to be seen (`unseen` says so)."""
    assert facts.os is not UNKNOWN and facts.gpus is not UNKNOWN
    assert facts.packages is not UNKNOWN and facts.offers is not UNKNOWN
    offers = _index(facts.offers, facts.os.architecture)
    cards = tuple(_card(gpu, facts, matrix) for gpu in facts.gpus)
    offered = tuple(_offered(facts.os.id, offers, facts.packages, matrix))
    kernels, next_boot = _kernels(facts)
    return Host(
        facts=facts,
        os=facts.os.id,
        cards=cards,
        offers=offers,
        packages=facts.packages,
        drivers=offered,
        kernels=kernels,
        next_boot=next_boot,
        manager=manager_of(facts.os.id),
    )


def unseen(facts: HostFacts) -> tuple[str, ...]:
    """Facts without which nothing can be chosen, in words; a GPU that was not looked for is not "no GPU"."""
    needed = {
        "which OS it runs": facts.os,
        "which GPUs it has": facts.gpus,
        "which packages are installed": facts.packages,
        "what its package sources offer": facts.offers,
    }
    missing = [what for what, fact in needed.items() if fact is UNKNOWN]
    if facts.os is not UNKNOWN and facts.packages is UNKNOWN and not facts.os.id.startswith(tuple(READ)):
        missing = [what for what in missing if "package" not in what]
        missing.append(
            f"its packages: those of Debian, Ubuntu, RHEL and Rocky are read, and {facts.os.id} is none of them"
        )
    if facts.gpus and facts.kernel.next_boot is UNKNOWN and facts.kernel.running is UNKNOWN:
        missing.append("which kernel it boots")
    return tuple(missing)


def _index(offers: Iterable[OfferedPackage], architecture: str) -> Offers:
    found: dict[str, dict[str, OfferedPackage]] = {}
    for offer in offers:
        # What apt calls a version and is none (a hand-made package) cannot be ordered, so it cannot be chosen.
        if offer.architecture in as_package(architecture) and upstream(offer.version):
            known = found.setdefault(offer.name, {})
            # One version in two suites is one package; the suite that is no backport speaks for it.
            if offer.version not in known or is_backport(known[offer.version]):
                known[offer.version] = offer
    flat = any(offer.flat for versions in found.values() for offer in versions.values())
    return Offers({name: tuple(versions.values()) for name, versions in found.items()}, flat)


def _kernels(facts: HostFacts) -> tuple[tuple[str, ...], str | None]:
    """Running and next to boot, once each; a fact that was not seen is left out, its twin stands for both."""
    running = facts.kernel.running if facts.kernel.running is not UNKNOWN else None
    next_boot = facts.kernel.next_boot if facts.kernel.next_boot is not UNKNOWN else running
    return tuple(dict.fromkeys(k for k in (running, next_boot) if k)), next_boot


def _card(gpu: PciGpu, facts: HostFacts, matrix: Matrix) -> Card:
    models = matrix.gpus_with_pci(gpu.vendor, gpu.device)
    if len(models) > 1 and gpu.subsystem is not UNKNOWN:
        boards = [
            model for model in models if any(p.device == gpu.device and p.is_board(gpu.subsystem) for p in model.pci)
        ]
        models = tuple(boards) or models
    if not models and facts.nvml is not UNKNOWN:
        seen = {_slot(health.slot): health.name for health in facts.nvml.gpus}
        name = seen.get(_slot(gpu.slot), "").removeprefix("NVIDIA ").lower()
        models = tuple(m for m in matrix.gpus.values() if name and m.name.removeprefix("NVIDIA ").lower() == name)
    model = models[0] if models else None
    architecture = matrix.architectures.get(model.architecture) if model is not None else None
    return Card(gpu.slot, f"{gpu.vendor}:{gpu.device}", model, architecture, _ceiling(model, architecture))


def _slot(text: str) -> str:
    """NVML writes 00000000:01:00.0, the bus 0000:01:00.0."""
    return text.lower()[-12:]


def _ceiling(model: GpuModel | None, architecture: Architecture | None) -> CudaVersion | None:
    """Kepler 3.0 ends at CUDA 10.2, Kepler 3.7 at 11.8: the window of its capability decides."""
    if model is None:
        return None
    if model.last_cuda is not None:
        return model.last_cuda.level
    if architecture is None:
        return None
    for window in architecture.windows:
        if model.compute_capability in window.capabilities:
            return window.last_cuda.level if window.last_cuda is not None else None
    return architecture.last_cuda.level if architecture.last_cuda is not None else None


def _offered(os: str, offers: Offers, packages: Mapping[str, Package], matrix: Matrix) -> Iterable[Driver]:
    """Every (package set, version) of which the host's sources offer all that must be installed."""
    seen: set[tuple[str, str, str, str]] = set()
    for branch in matrix.drivers.values():
        for rank, names in enumerate(branch.packages):
            if os not in names.os:
                continue
            for offer in offers.named(names.kernel_package):
                version = upstream(offer.version)
                known = (branch.id, offer.name, offer.version, names.flavour)
                if version.partition(".")[0] != branch.branch or known in seen:
                    continue
                if not _same_side(offer, names, offers):
                    continue
                # An open module package has a source of its own; the set names that of the driver.
                foreign = names.source is not None and offer.source not in ("", names.source)
                if foreign and names.flavour == "proprietary":
                    continue
                if any(root_offer(name, offer, names, offers) is None for name in names.install):
                    continue
                seen.add(known)
                have = packages.get(offer.name)
                yield Driver(
                    branch,
                    DriverVersion(version),
                    names.flavour,
                    names,
                    _default_first(names, rank),
                    offer,
                    have is not None and have.whole and have.version == offer.version,
                )


def _same_side(offer: OfferedPackage, names: DriverPackages, offers: Offers) -> bool:
    """Whether an offer can be of this set: NVIDIA's own repository calls packages as Debian does.

    What is not known of an offer does not part it from its set, as long as nothing here comes from NVIDIA's.
    """
    if offer.flat:
        return names.origin == "nvidia"
    return names.origin != "nvidia" or not (offer.origin or offers.with_vendor)


def _default_first(names: DriverPackages, rank: int) -> int:
    """The distribution's own line before its tesla lines, those before a vendor's repository."""
    if names.origin == "nvidia":
        return 200 + rank
    return (100 if any("tesla" in name or "server" in name for name in names.install) else 0) + rank


def root_offer(name: str, driver: OfferedPackage, names: DriverPackages, offers: Offers) -> OfferedPackage | None:
    """The version of a root that goes with the module package `driver`; None: it is not offered in that version.

    Debian's open module of 535.261.03-1 goes with libcuda1 535.261.03-1; persistenced has versions of its own.
    """
    if name in names.independent:
        return _of_the_branch(name, driver, offers) or offers.newest(name)
    wanted = upstream(driver.version)
    same = [o for o in offers.named(name) if upstream(o.version) == wanted and o.flat == driver.flat]
    exact = [offer for offer in same if offer.version == driver.version]
    fitting = exact or sorted(same, key=lambda o: (is_backport(o), o.version))
    return fitting[0] if fitting else None


def fabric_manager(driver: OfferedPackage, branch: str, offers: Offers) -> OfferedPackage | None:
    """The fabric manager of exactly this driver's version, from the same side; None: it is not offered.

    Source of the names: NVIDIA's driver installation guide (nvidia-fabricmanager-<branch>; 590 and newer have no
    branch in their names).
    """
    for name in (f"nvidia-fabricmanager-{branch}", "nvidia-fabricmanager"):
        for offer in offers.named(name):
            if upstream(offer.version) == upstream(driver.version) and offer.flat == driver.flat:
                return offer
    return None


def needs_fabric_manager(host: Host) -> bool:
    """Cards behind NVSwitch do not compute without it."""
    return host.facts.nvswitches is not UNKNOWN and host.facts.nvswitches > 0


def _of_the_branch(name: str, driver: OfferedPackage, offers: Offers) -> OfferedPackage | None:
    """The newest nvidia-modprobe of the driver's own branch: a tool of branch 535 beside driver 470 is not needed.

    Debian 11 offered that tool in an index of its security suite when the archive itself no longer had the file.
    """
    branch = upstream(driver.version).partition(".")[0]
    same = [offer for offer in offers.named(name) if upstream(offer.version).partition(".")[0] == branch]
    return max(same, key=lambda offer: (not is_backport(offer), debian(offer.version)), default=None)


def kernel_version(release: str) -> DottedVersion | None:
    """`6.12.117+deb13-amd64` is kernel 6.12.117."""
    match = re.match(r"\d+(\.\d+){1,3}", release)
    return DottedVersion(match[0]) if match else None


def kernel_release(text: str) -> KernelRelease | None:
    """A kernel of which one can say whether another one is newer; None for a name that has no number."""
    try:
        return KernelRelease(text)
    except ValueError:
        return None


def today(facts: HostFacts) -> dt.date:
    """The day the facts were taken: the same capture gives the same answer on any later day."""
    return facts.taken_at.date()


def past_end_of_life(driver: Driver, day: dt.date) -> bool:
    return driver.branch.eol.is_past(day) is True


def below_floor(driver: Driver, day: dt.date) -> bool:
    """Below the highest fixed version that a bulletin names, or of a branch that bulletins no longer mend."""
    floor = driver.branch.security_floor
    if floor is not None and driver.version < floor:
        return True
    if driver.branch.latest_bulletin_omits_it:
        return True
    return floor is None and past_end_of_life(driver, day)


Allows = Callable[[DriverVersion], bool]


def quick(specifier: Specifier[DriverVersion]) -> Allows:
    """A long list of exact versions is asked as a set."""
    listed = specifier.exact_versions()
    if listed is None:
        return specifier.allows
    return frozenset(listed).__contains__


def has_headers(host: Host, release: str) -> bool:
    on_disk = host.facts.kernel.headers
    if on_disk is not UNKNOWN and release in on_disk:
        return True
    return bool(headers_of(release, host))


def headers_of(release: str, host: Host) -> tuple[OfferedPackage, ...]:
    """What a module for this kernel is built against: `linux-headers-RELEASE`, on RHEL-likes the very kernel-devel."""
    if host.manager == "apt":
        return host.offers.named(f"linux-headers-{release}")
    return tuple(o for o in host.offers.named("kernel-devel") if f"{o.version}.{o.architecture}" == release)


def has_module(host: Host, release: str, driver: Driver) -> bool:
    modules = host.facts.driver.modules
    if modules is UNKNOWN:
        return False
    return any(m.kernel == release and m.version == driver.version.text for m in modules)


def module_kernels(host: Host) -> tuple[str, ...]:
    """Kernels that get the driver's module: the one that boots next, and the running one while it has headers."""
    return tuple(k for k in host.kernels if k == host.next_boot or has_headers(host, k))


def against_building(host: Host, release: str, driver: Driver) -> tuple[DoesNotBuild, ...]:
    """What says that the module of an offered driver does not build here. A module that is there has been built."""
    names, package = driver.names, driver.package
    if names is None or package is None or not names.does_not_build:
        return ()
    modules = host.facts.driver.modules
    there = modules is not UNKNOWN and any(
        (m.kernel, m.version, m.flavour) == (release, driver.version.text, driver.flavour) for m in modules
    )
    return () if there else names.against_building(package.version, release)
