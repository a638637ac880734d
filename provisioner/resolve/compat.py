"""Forward compatibility: NVIDIA's cuda-compat packages carry a newer CUDA level on an older driver, on some cards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from provisioner.matrix.entries import CudaLevel
from provisioner.matrix.reader import Matrix
from provisioner.model.facts import OfferedPackage
from provisioner.model.version import CudaVersion, DriverVersion
from provisioner.resolve.host import Driver, Host, NewestFirst, upstream

_NAME = re.compile(r"cuda-compat-([0-9]+)-([0-9]+)")


@dataclass(frozen=True)
class Compat:
    """One version of a cuda-compat package; `package` is None when no source of the host offers it."""

    entry: CudaLevel
    name: str
    driver: DriverVersion  # of the libraries inside
    package: OfferedPackage | None = None
    installed: bool = False

    @property
    def level(self) -> CudaVersion:
        return self.entry.level


def compats_of(
    host: Host, matrix: Matrix, drivers: Sequence[Driver | None], asked: Iterable[CudaVersion], *, elsewhere: bool
) -> tuple[Compat | None, ...]:
    """None first: it is used only where a driver alone does not carry what is asked; then the lowest level that does.

    With `elsewhere`, those of the levels asked for stand in it too when no source offers them and every card could
    use them: so that "not offered" is a claim. On a GeForce nothing would come of offering one.
    """
    if not host.cards:
        return (None,)
    found = [*_offered(host, matrix)]
    if elsewhere and all(card.model is not None and card.model.forward_compat for card in host.cards):
        known = {compat.level for compat in found}
        for level in sorted(set(asked) - known):
            entry = matrix.cuda.get(level.text)
            named = [r.compat_package for r in entry.releases if r.compat_package is not None] if entry else []
            if entry is not None and named:
                newest = max(named, key=lambda package: package.driver)
                found.append(Compat(entry, newest.name, newest.driver))
    found = [compat for compat in found if any(works(driver, compat) for driver in drivers if driver is not None)]
    found.sort(
        key=lambda c: (
            c.package is None,
            c.level,
            not c.installed,
            NewestFirst(c.package.version if c.package is not None else c.driver.text),
        )
    )
    return (None, *found)


def _offered(host: Host, matrix: Matrix) -> Iterable[Compat]:
    for name, offers in host.offers.by_name.items():
        match = _NAME.fullmatch(name)
        entry = matrix.cuda.get(f"{match[1]}.{match[2]}") if match is not None else None
        if entry is None or entry.forward_compat is None or entry.forward_compat.confidence == "low":
            continue
        have = host.packages.get(name)
        for offer in offers:
            try:
                inside = DriverVersion(upstream(offer.version))
            except ValueError:
                continue
            installed = have is not None and have.whole and have.version == offer.version
            yield Compat(entry, name, inside, offer, installed)


def works(driver: Driver, compat: Compat) -> bool:
    """By NVIDIA's table of branches; libraries older than the driver never match (rules/forward-compatibility)."""
    table = compat.entry.forward_compat
    if table is None or table.on_branch.get(driver.branch.branch) != "compatible":
        return False
    return compat.driver > driver.version


def not_carried(
    drivers: Sequence[Driver | None], compats: Sequence[Compat | None], levels: Sequence[CudaVersion | None]
) -> frozenset[tuple[int, int, int]]:
    """A driver carries its own level and all below; beside a compat package that works on it, that one's as well.

    No driver carries no level, and no level is what no driver carries: else it would stand for any that is asked.
    """
    found: set[tuple[int, int, int]] = set()
    for d, driver in enumerate(drivers):
        for k, compat in enumerate(compats):
            if driver is None:
                found.update((d, k, c) for c, level in enumerate(levels) if level is not None)
                continue
            most = driver.branch.native_cuda.level
            if compat is not None and works(driver, compat):
                most = max(most, compat.level)
            found.update((d, k, c) for c, level in enumerate(levels) if level is None or level > most)
    return frozenset(found)


def useless(drivers: Sequence[Driver | None], compats: Sequence[Compat | None]) -> frozenset[tuple[int, int]]:
    """A package that does not work on a driver must stay off its library path."""
    return frozenset(
        (d, k)
        for d, driver in enumerate(drivers)
        for k, compat in enumerate(compats)
        if compat is not None and (driver is None or not works(driver, compat))
    )
