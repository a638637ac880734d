"""A host that could be: a release, its cards, and what the matrix says that its package sources offer.

The page and the combinations ask the resolver about hosts that nobody has shown it. What they assume is all here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from provisioner.matrix.entries import GpuModel
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import (
    DriverFacts,
    HostFacts,
    KernelFacts,
    OfferedPackage,
    OsRelease,
    PciGpu,
    RuntimeFacts,
)
from provisioner.model.version import DriverSpecifier
from provisioner.resolve.listed import listed, telling

Sources = Literal["archive", "vendor"]
"""`archive`: what the matrix read in the release's own archive. `vendor`: beside it the repositories of NVIDIA and
Docker and archives that the matrix knows by package names alone, taken to offer the versions that it names."""


@dataclass(frozen=True)
class Shelf:
    """What each release would offer; made once for many hosts."""

    matrix: Matrix
    sources: Sources
    _offers: dict[str, tuple[OfferedPackage, ...]] = field(default_factory=dict, compare=False, repr=False)

    def host(self, os: str, models: Iterable[str]) -> HostFacts:
        """`host("debian-12", ["rtx-4090"])`: nothing installed, the release's last known kernel, headers there."""
        release = self.matrix.os[os]
        kernel = f"{release.kernels[-1].version}-amd64" if release.kernels else "6.12-amd64"
        headers = OfferedPackage(f"linux-headers-{kernel}", "1", "linux", "amd64", "", 0)
        return HostFacts(
            host="this host",
            taken_at=dt.datetime.combine(self.day(), dt.time(12), tzinfo=dt.timezone.utc),
            os=OsRelease(os, release.name, release.codename or ""),
            kernel=KernelFacts(kernel, (kernel,), kernel, (kernel,)),
            gpus=tuple(_card(place, self.matrix.gpus[name]) for place, name in enumerate(models, 1)),
            driver=DriverFacts(None, None, (), None, False, False, UNKNOWN),
            packages={},
            offers=(*self.offers(os), headers),
            runtime=RuntimeFacts(docker_active=False, docker_daemon_json=None),
            nvml=UNKNOWN,
            units=UNKNOWN,
            failed_units=UNKNOWN,
            disk_free_mib=UNKNOWN,
            memory_mib=1 << 21,  # more than any network asks for: memory is not what is explored here
            swap_mib=UNKNOWN,
            clock_skew_s=0.0,
            boot_identity=UNKNOWN,
            components=release.components,
        )

    def day(self) -> dt.date:
        """The last day on which the matrix was read: the same matrix gives the same answers on any later day."""
        latest = max((branch.seen for branch in self.matrix.drivers.values()), default="2000-01-01")
        year, month, day = ([int(part) for part in latest.split("-")] + [1, 1])[:3]
        return dt.date(year, month, day)

    def releases(self) -> tuple[str, ...]:
        """Releases of which some driver is known to be offered; of the others nothing can be said."""
        named = {os for branch in self.matrix.drivers.values() for names in branch.packages for os in names.os}
        return tuple(os for os in self.matrix.os if os in named and self.offers(os))

    def offers(self, os: str) -> tuple[OfferedPackage, ...]:
        if os not in self._offers:
            found = list(listed(os, "amd64", self.matrix, runtimes=True))
            if self.sources == "vendor":
                found += [*self._vendor_drivers(os), *self._vendor_engines(os)]
            self._offers[os] = tuple(dict.fromkeys(found))
        return self._offers[os]

    def _vendor_drivers(self, os: str) -> Iterable[OfferedPackage]:
        for branch in self.matrix.drivers.values():
            sets = [names for names in branch.packages if os in names.os and not names.versions]
            for version in telling(branch, self._specifiers()) if sets else ():
                for names in sets:
                    source = names.source or names.kernel_package
                    for name in dict.fromkeys((names.kernel_package, *names.install)):
                        yield OfferedPackage(name, f"{version.text}-1", source, "amd64", "", 0)

    def _vendor_engines(self, os: str) -> Iterable[OfferedPackage]:
        for runtime in self.matrix.runtimes.values():
            for names in runtime.packages:
                if os in names.os and not names.versions and runtime.kind == "engine":
                    version = max((r.version for r in runtime.releases), key=_numbers, default="1")
                    for name in names.install:
                        yield OfferedPackage(name, f"{version}-1", name, "amd64", "", 0)

    def _specifiers(self) -> tuple[DriverSpecifier, ...]:
        found = [gpu.driver_floor for gpu in self.matrix.gpus.values() if gpu.driver_floor is not None]
        for network in self.matrix.networks.values():
            for profile in network.profiles:
                found += [item.driver for item in profile.requirements if item.driver is not None]
        return tuple(dict.fromkeys(found))


def _card(place: int, model: GpuModel) -> PciGpu:
    pci = model.pci[0]
    return PciGpu(f"0000:{place:02x}:00.0", pci.vendor, pci.device, (pci.subsystems or ("",))[0])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
