"""What a host must have to be again what it was before a change: kept records → resources. Decides nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.history import HISTORY, KeptPackage, Record
from provisioner.model.resource import (
    AbsentFile,
    AbsentPackage,
    CdiSpec,
    KeptFile,
    KernelModule,
    Package,
    Resource,
    RunningDriver,
    Service,
    WholePackages,
)
from provisioner.model.transaction import rpm_name
from provisioner.resources.wanted import flavour_of


def undo(records: Sequence[Record], kernels: Sequence[str] | Unknown) -> tuple[Resource, ...]:
    """Return the resources of the state before the oldest of `records`, which come oldest first.

    What several changes touched is as the oldest found it. `kernels` are those installed now: one that has gone needs
    no module.
    """
    oldest = records[0]
    units = {name: unit for record in reversed(records) for name, unit in record.units.items()}
    there = {name for name, unit in units.items() if unit.there}
    resources: list[Resource] = [WholePackages()] if oldest.manager == "apt" else []
    owners = {path: record for record in reversed(records) for path in record.files}
    files = [_file(path, record, there) for path, record in sorted(owners.items())]
    resources += [file for file in files if file.pins]
    holders = {name: record for record in reversed(records) for name in record.packages}
    resources += [_package(name, record) for name, record in sorted(holders.items())]
    resources += [file for file in files if not file.pins]
    before = oldest.before.entry if oldest.before is not None else None
    if before is not None and before.driver_version is not None and before.modules is not None:
        resources += [
            KernelModule(kernel=kernel, version=before.driver_version.value, flavour=flavour_of(before.modules.value))
            for kernel in before.kernels
            if kernels is not UNKNOWN and kernel in kernels
        ]
        # A spec names libraries of one driver; left as it is it would mount files that have gone.
        if before.cdi is not None and before.cdi.value == "present" and before.toolkit is not None:
            resources.append(CdiSpec(version=before.driver_version.value))
    resources += [
        Service(name=name, enabled=unit.enabled, active=unit.active, after_reboot=unit.after_reboot)
        for name, unit in sorted(units.items())
        if unit.there
    ]
    driver = oldest.driver
    resources.append(
        RunningDriver(version=driver.version, flavour=driver.flavour)
        if driver is not None
        else RunningDriver(version=None, flavour=None)
    )
    return tuple(resources)


def _file(path: str, record: Record, there: set[str]) -> KeptFile | AbsentFile:
    kept = record.files[path]
    restarts = tuple(unit for unit in kept.restarts if unit in there)
    if kept.sha256 is None:
        return AbsentFile(path=path, rebuilds_initramfs=kept.initramfs, pins=kept.pins, restarts=restarts)
    return KeptFile(
        path=path,
        source=f"{record.folder}/files{path}",
        sha256=kept.sha256,
        mode=kept.mode,
        owner=kept.owner,
        rebuilds_initramfs=kept.initramfs,
        pins=kept.pins,
        restarts=restarts,
    )


def _package(name: str, record: Record) -> Package | AbsentPackage:
    kept = record.packages[name]
    if kept.version is None:
        return AbsentPackage(name=name, unit=kept.unit, purge=True)
    return Package(
        name=name,
        version=kept.version,
        held=kept.held,
        auto=kept.auto,
        unit=kept.unit,
        architecture=kept.architecture,
        sha256=kept.sha256,
        archive=f"{HISTORY}/{record.run}/{_archive(name, kept, record)}" if kept.sha256 is not None else None,
    )


def _archive(name: str, kept: KeptPackage, record: Record) -> str:
    if record.manager == "dnf":
        return f"rpms/{rpm_name(name, kept.version or '', kept.architecture)}"
    return f"debs/{archive_name(name, kept)}"


def archive_name(name: str, kept: KeptPackage) -> str:
    """apt's own name of an archive; the colon of an epoch is written `%3a`."""
    return f"{name}_{(kept.version or '').replace(':', '%3a')}_{kept.architecture}.deb"
