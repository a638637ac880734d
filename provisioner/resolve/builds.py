"""What is known against building a locked driver's module: kernels may come, and facts be learnt, after the lock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from provisioner.matrix.entries import DoesNotBuild, DriverBranch, DriverPackages
from provisioner.matrix.reader import Matrix
from provisioner.model.stack import HostLock
from provisioner.resolve.conflict import Claim, entry, from_host
from provisioner.resolve.host import Driver, Host, against_building, module_kernels


def does_not_build(
    branch: DriverBranch, names: DriverPackages, version: str, fact: DoesNotBuild, kernels: Sequence[str]
) -> Claim:
    """The claim that a version of the module does not build for these kernels."""
    words = (("package", names.kernel_package), ("version", version), ("flavour", names.flavour), ("why", fact.why))
    rests = (entry("drivers", fact, branch.id, branch), from_host("kernel"))
    return Claim("does-not-build", " and ".join(kernels), words, rests)


def forbids(fact: DoesNotBuild, branch: DriverBranch) -> bool:
    """As everywhere in the matrix, what is stated with low confidence warns and forbids nothing."""
    return (fact.confidence or branch.confidence) != "low"


def failures(host: Host) -> Mapping[str, tuple[tuple[Claim, bool], ...]]:
    """By the key of a driver, what is known against building its module for a host's kernels, and whether that binds.

    Most hosts have none; it depends on nothing that is asked for, so it is told once for each host.
    """
    known: Mapping[str, tuple[tuple[Claim, bool], ...]] | None = host.remembered.get("failures")
    if known is None:
        found = {driver.key: tuple(_failures(host, driver)) for driver in host.drivers}
        known = host.remembered["failures"] = {key: claims for key, claims in found.items() if claims}
    return known


def _failures(host: Host, driver: Driver) -> Iterator[tuple[Claim, bool]]:
    names, package = driver.names, driver.package
    if names is None or package is None or not names.does_not_build:
        return
    against = {kernel: against_building(host, kernel, driver) for kernel in module_kernels(host)}
    for fact in names.does_not_build:
        kernels = [kernel for kernel, facts in against.items() if fact in facts]
        if kernels:
            claim = does_not_build(driver.branch, names, package.version, fact, kernels)
            yield claim, forbids(fact, driver.branch)


def unbuildable(lock: HostLock, kernels: Iterable[str], matrix: Matrix) -> tuple[Claim, ...]:
    """What forbids to build the locked module for kernels that have none of it, each kernel by itself."""
    branch = matrix.drivers.get(lock.driver_branch.value) if lock.driver_branch is not None else None
    if branch is None:
        return ()
    locked = {package.name: package.version for package in lock.packages}
    sets = [names for names in branch.packages if lock.os in names.os and names.does_not_build]
    found = [
        (names, locked[names.kernel_package], fact, kernel)
        for kernel in kernels
        for names in sets
        if names.kernel_package in locked
        for fact in names.against_building(locked[names.kernel_package], kernel)
        if forbids(fact, branch)
    ]
    return tuple(dict.fromkeys(does_not_build(branch, names, at, fact, (kernel,)) for names, at, fact, kernel in found))
