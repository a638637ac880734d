"""What points to what: the ids that entries name, and the entries that a network's wishes are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.matrix.reader import Position, Rooms
from provisioner.matrix.specifier import Requirement, os_matches
from provisioner.model.version import DriverVersion, Specifier


@dataclass(frozen=True)
class Reference:
    """`networks/lium` names `gpus/rtx-4090` at `profiles.0.requirements.5.gpu.model`."""

    room: str
    entry_id: str
    where: Position
    target_room: str
    target: str


def references(r: Rooms) -> Iterator[Reference]:
    """Every id that an entry names; that none of them leads nowhere is the linter's to say."""
    for driver in r.drivers.values():
        for name in ("architectures", "last_branch_for", "drops", "not_supported"):
            for n, target in enumerate(getattr(driver, name)):
                yield Reference("drivers", driver.id, (name, n), "architectures", target)
        for name in ("proprietary_architectures", "open_architectures"):
            for n, target in enumerate(getattr(driver.modules, name)):
                yield Reference("drivers", driver.id, ("modules", name, n), "architectures", target)
        yield Reference("drivers", driver.id, ("native_cuda",), "cuda", str(driver.native_cuda))
        for n, packages in enumerate(driver.packages):
            for k, target in enumerate(packages.os):
                yield Reference("drivers", driver.id, ("packages", n, "os", k), "os", target)
    for level in r.cuda.values():
        yield Reference("cuda", level.id, ("native_branch",), "drivers", level.native_branch)
        for n, release in enumerate(level.releases):
            yield Reference("cuda", level.id, ("releases", n, "driver_branch"), "drivers", release.driver_branch)
    for gpu in r.gpus.values():
        yield Reference("gpus", gpu.id, ("architecture",), "architectures", gpu.architecture)
        if gpu.last_driver:
            yield Reference("gpus", gpu.id, ("last_driver",), "drivers", gpu.last_driver)
        if gpu.last_cuda:
            yield Reference("gpus", gpu.id, ("last_cuda",), "cuda", str(gpu.last_cuda))
    for release_of in r.os.values():
        for n, target in enumerate(release_of.unsupported_architectures):
            yield Reference("os", release_of.id, ("unsupported_architectures", n), "architectures", target)
    for source in r.sources.values():
        for n, repository in enumerate(source.repositories):
            for k, target in enumerate(repository.os):
                yield Reference("sources", source.id, ("repositories", n, "os", k), "os", target)
    for runtime in r.runtimes.values():
        for n, target in enumerate(runtime.conflicts_with):
            yield Reference("runtimes", runtime.id, ("conflicts_with", n), "runtimes", target)
        for n, runtime_packages in enumerate(runtime.packages):
            for k, target in enumerate(runtime_packages.os):
                yield Reference("runtimes", runtime.id, ("packages", n, "os", k), "os", target)
    for network in r.networks.values():
        if network.parent:
            yield Reference("networks", network.id, ("parent",), "networks", network.parent)
        for n, profile in enumerate(network.profiles):
            for k, item in enumerate(profile.requirements):
                here = ("profiles", n, "requirements", k, item.key)
                for target in (*(item.model or ()), *(item.not_model or ())):
                    yield Reference("networks", network.id, here, "gpus", target)
                for target in item.architecture or ():
                    yield Reference("networks", network.id, here, "architectures", target)
    for conflict in r.conflicts.values():
        for n, party in enumerate(conflict.parties):
            if party.network:
                yield Reference("conflicts", conflict.id, ("parties", n, "network"), "networks", party.network)
    for kind in r.tunnels.values():
        for n, case in enumerate(kind.breaks):
            yield Reference("tunnels", kind.id, ("breaks", n, "network"), "networks", case.network)
    for images in r.container_images.values():
        if images.level:
            yield Reference("container-images", images.id, ("level",), "cuda", str(images.level))


def wishes(r: Rooms) -> Iterator[Reference]:
    """Every branch, release and runtime that satisfies a network's wish: what it could be served with."""
    for network in r.networks.values():
        for n, profile in enumerate(network.profiles):
            for k, item in enumerate(profile.requirements):
                for room, target in _satisfying(item, r):
                    yield Reference("networks", network.id, ("profiles", n, "requirements", k, item.key), room, target)


def _satisfying(item: Requirement, r: Rooms) -> Iterator[tuple[str, str]]:
    if item.driver is not None:
        for branch in r.drivers:
            if not item.driver.intersect(Specifier.parse(f"=={branch}.*", DriverVersion)).is_empty():
                yield "drivers", branch
    if item.cuda is not None:
        for level in r.cuda.values():
            if item.cuda.allows(level.level):
                yield "cuda", level.id
    for release in r.os if item.os else ():
        if any(os_matches(wanted, release) for wanted in item.os or ()):
            yield "os", release
    for runtime in r.runtimes.values():
        named = {runtime.id, "docker"} if runtime.id in ("docker-io", "docker-ce") else {runtime.id}
        named |= {runtime.kind} & {"toolkit", "containerd"}
        keys = {key for key in ("docker", "toolkit", "containerd") if getattr(item, key) is not None}
        if named & {*(item.runtime or ()), *keys}:
            yield "runtimes", runtime.id
