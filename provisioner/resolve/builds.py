"""What is known against building a locked driver's module: kernels may come, and facts be learnt, after the lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provisioner.matrix.entries import DoesNotBuild, DriverBranch, DriverPackages
from provisioner.matrix.reader import Matrix
from provisioner.model.stack import HostLock
from provisioner.resolve.conflict import Claim, entry, from_host


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
