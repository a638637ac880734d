"""What the matrix says that package sources offer, where no host has shown it: an archive's, or a vendor's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provisioner.matrix.entries import DriverBranch, PackageSource
from provisioner.matrix.reader import Matrix
from provisioner.model.facts import OfferedPackage
from provisioner.model.version import DriverSpecifier, DriverVersion
from provisioner.resolve.containers import TOOLKIT_ID
from provisioner.resolve.host import quick


def listed(os: str, architecture: str, matrix: Matrix, *, runtimes: bool) -> Iterable[OfferedPackage]:
    """What the matrix says that a release's own archive offers; a vendor's repository is not assumed."""
    for branch in matrix.drivers.values():
        for names in branch.packages:
            if os in names.os and names.origin in ("debian", "ubuntu"):
                for version in names.versions:
                    source = names.source or names.kernel_package
                    for name in dict.fromkeys((names.kernel_package, *names.install)):
                        yield assumed_offer(name, version.text, source, architecture)
    if runtimes:
        for runtime in matrix.runtimes.values():
            for packages in runtime.packages:
                if os in packages.os and packages.origin in ("debian", "ubuntu"):
                    for name in packages.install:
                        version_text = packages.versions[-1].text if packages.versions else "1"
                        yield assumed_offer(name, version_text, name, architecture)


def assumed_offer(name: str, version: str, source: str, architecture: str) -> OfferedPackage:
    """A package that nobody saw: without a hash it can be in no lock."""
    return OfferedPackage(name, version, source, architecture, sha256="", size=0)


def vendors(
    source: PackageSource, os: str, architecture: str, matrix: Matrix, asked: Sequence[DriverSpecifier]
) -> Iterable[OfferedPackage]:
    """What a vendor's source offers beside the archive; of each driver branch the newest that `asked` tells apart."""
    if "driver" in source.provides:
        for branch in matrix.drivers.values():
            sets = [names for names in branch.packages if os in names.os and names.origin == "nvidia"]
            for version in telling(branch, asked) if sets else ():
                for names in sets:
                    for name in dict.fromkeys((names.kernel_package, *names.install)):
                        built = names.source or names.kernel_package
                        yield OfferedPackage(name, f"{version.text}-1", built, architecture, "", 0, flat=True)
    for runtime in matrix.runtimes.values():
        wanted = runtime.id == TOOLKIT_ID if "toolkit" in source.provides else runtime.kind == "engine"
        if not wanted or not {"toolkit", "engine"} & set(source.provides):
            continue
        for packages in runtime.packages:
            if os in packages.os and packages.origin in ("nvidia", "docker"):
                for release in runtime.releases:
                    for name in packages.install:
                        yield assumed_offer(name, f"{release.latest or release.version}-1", name, architecture)


def telling(branch: DriverBranch, asked: Sequence[DriverSpecifier]) -> list[DriverVersion]:
    """Of a branch the newest of those versions that all specifiers judge alike."""
    allows = [quick(specifier) for specifier in asked]
    newest: dict[tuple[bool, ...], DriverVersion] = {}
    for version in sorted({branch.latest.version, *branch.versions}):
        newest[tuple(one(version) for one in allows)] = version
    return sorted(newest.values())
