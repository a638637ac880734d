"""Names every package that moves together: the driver's, the runtime's, and the headers of each kernel.

The driver unit is found by walking the dependencies of the roots that the matrix names, and keeping what the
driver's own source packages build. What others build (glx-alternatives, nvidia-support …) follows by itself:
no version of it breaks the driver, so it is not pinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from provisioner.model.driver_package import module_flavour
from provisioner.model.facts import OfferedPackage
from provisioner.model.manager import Manager
from provisioner.model.stack import LockedPackage
from provisioner.resolve.compat import Compat
from provisioner.resolve.containers import Toolkit
from provisioner.resolve.host import (
    Driver,
    Host,
    Offers,
    RuntimeVersion,
    debian,
    fabric_manager,
    headers_of,
    is_backport,
    needs_fabric_manager,
    root_offer,
    upstream,
)

Unit = Literal["driver", "compat", "runtime", "toolkit", "kernel"]
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def driver_unit(driver: Driver, host: Host) -> tuple[tuple[LockedPackage, ...], tuple[str, ...]]:
    """Return the packages, and installed packages of this driver's source that have no such version here.

    >>> driver_unit(535.261.03)  # libcuda1 needs nvidia-alternative (= 535.261.03-1): same source, so it is in
    """
    kernel, names = driver.package, driver.names
    assert kernel is not None and names is not None
    roots = [offer for name in names.install if (offer := root_offer(name, kernel, names, host.offers)) is not None]
    fabric = fabric_manager(kernel, driver.branch.branch, host.offers)
    # It starts with just this driver's version or not at all, so where it is installed it moves along.
    if fabric is not None and (needs_fabric_manager(host) or fabric.name in host.packages):
        roots.append(fabric)
    pool = _pool(kernel, roots, host.offers, host.manager)
    pool = {name: offer for name, offer in pool.items() if not _brings_the_other_flavour(name, driver)}
    chosen: dict[str, OfferedPackage] = {}
    waiting = [kernel, *roots]
    while waiting:
        offer = waiting.pop()
        if offer.name in chosen:
            continue
        chosen[offer.name] = offer
        waiting += _needed(offer.depends, pool)
    left_behind = []
    sources = {offer.source for offer in pool.values()}
    for installed in host.packages.values():
        if installed.name in chosen or _of_the_other_flavour(installed.name, driver):
            continue
        if installed.name in pool:
            waiting.append(pool[installed.name])
        elif _built_by(installed.name, installed.version, sources, host.offers):
            left_behind.append(installed.name)
    while waiting:  # a package that is there already moves with the rest, and so does what it needs
        offer = waiting.pop()
        if offer.name not in chosen:
            chosen[offer.name] = offer
            waiting += _needed(offer.depends, pool)
    return _locked(chosen.values(), "driver"), tuple(sorted(left_behind))


def _of_the_other_flavour(name: str, driver: Driver) -> bool:
    """Of one version, so it would move along; but a card has one module."""
    return module_flavour(name) not in (None, driver.flavour)


def _brings_the_other_flavour(name: str, driver: Driver) -> bool:
    """A metapackage names the module package of either flavour, and the first it names need not be this one."""
    return _of_the_other_flavour(name, driver) and not name.endswith("-support")


def _pool(
    kernel: OfferedPackage, roots: Iterable[OfferedPackage], offers: Offers, manager: Manager
) -> dict[str, OfferedPackage]:
    """What the driver's sources build in this version: the module's source, and that of the libraries."""
    wanted = upstream(kernel.version)
    if manager == "dnf":
        return _pool_of_rpms(kernel, offers)
    versions: dict[str, str] = {kernel.source: kernel.version}
    for root in roots:
        if upstream(root.version) == wanted:
            versions.setdefault(root.source, root.version)
    return {
        offer.name: offer
        for named in offers.by_name.values()
        for offer in named
        if versions.get(offer.source) == offer.version
    }


_RPM_OF_DRIVER = re.compile(r"(nvidia|libnvidia|xorg-x11-nvidia|cuda-drivers)(-|$)")
_RPM_OF_FLAVOUR = {"kmod-nvidia-open-dkms": "nvidia-open", "kmod-nvidia-latest-dkms": "cuda-drivers"}


def _pool_of_rpms(kernel: OfferedPackage, offers: Offers) -> dict[str, OfferedPackage]:
    """NVIDIA builds its RPMs of one driver from many sources, all of the driver's own version.

    The other flavour's module package, and what would bring it, are of the same version and stay out.
    """
    out = {meta for name, meta in _RPM_OF_FLAVOUR.items() if name != kernel.name}
    pool = {kernel.name: kernel}
    for named in offers.by_name.values():
        for offer in named:
            fits = _RPM_OF_DRIVER.match(offer.name) and upstream(offer.version) == upstream(kernel.version)
            if not fits or offer.name in out:
                continue
            known = pool.get(offer.name)
            if known is None or debian(known.version) < debian(offer.version):
                pool[offer.name] = offer
    return pool


def _needed(depends: str, pool: dict[str, OfferedPackage]) -> list[OfferedPackage]:
    """Of each group of alternatives the first that the pool holds.

    `firmware-nvidia-gsp (= 470.256.02) | firmware-nvidia-gsp-470.256.02` is provided by a package of another
    name that stands elsewhere in the tree; `nvidia-kernel-support--v1` is provided by nvidia-kernel-support.
    """
    found = []
    for group in depends.split(","):
        for alternative in group.split("|"):
            match = _NAME.match(alternative.strip())
            if match is None:
                continue
            offer = pool.get(match[0]) or pool.get(match[0].partition("--")[0])
            if offer is not None:
                found.append(offer)
                break
    return found


def _built_by(name: str, version: str, sources: set[str], offers: Offers) -> bool:
    return any(offer.source in sources and offer.version == version for offer in offers.named(name))


def runtime_unit(runtime: RuntimeVersion, host: Host) -> tuple[LockedPackage, ...]:
    """The engine in its version; its companions as they are while they are whole, else the newest offered."""
    companions = [*runtime.names.install[1:], "docker-cli", "containerd", "runc", "tini"]
    chosen = {runtime.package.name: runtime.package}
    needed = runtime.package.depends
    for name in dict.fromkeys(companions):
        same_source = [o for o in host.offers.named(name) if o.source == runtime.package.source]
        wanted = name in runtime.names.install or re.search(rf"(^|[ ,|]){re.escape(name)}($|[ ,(])", needed)
        # Debian 13 splits the client off and only recommends it; without it nobody can ask the engine anything.
        if not wanted and not same_source:
            continue
        offer = next((o for o in same_source if o.version == runtime.package.version), None)
        if offer is None and not same_source:
            offer = _kept_or_newest(name, host)
        if offer is not None:
            chosen[name] = offer
    return _locked(chosen.values(), "runtime")


def toolkit_unit(toolkit: Toolkit) -> tuple[LockedPackage, ...]:
    """All packages of the toolkit, each in exactly its version."""
    return _locked(toolkit.packages, "toolkit")


def compat_unit(compat: Compat) -> tuple[LockedPackage, ...]:
    """The one package for forward compatibility."""
    return _locked([compat.package] if compat.package is not None else [], "compat")


def _kept_or_newest(name: str, host: Host) -> OfferedPackage | None:
    have = host.packages.get(name)
    if have is not None and have.whole:
        kept = next((o for o in host.offers.named(name) if o.version == have.version), None)
        if kept is not None:
            return kept
    return host.offers.newest(name)


def kernel_unit(host: Host, kernels: Iterable[str], *, hold: bool = True) -> tuple[LockedPackage, ...]:
    """Headers of each kernel, and the meta package that brings those of the kernel that boots next."""
    chosen: dict[str, OfferedPackage] = {}
    for release in kernels:
        named = headers_of(release, host)
        if named:
            offer = max(named, key=lambda o: debian(o.version))
            chosen[offer.name] = offer
    if host.next_boot is not None and host.manager == "apt":
        flavour = re.sub(r"^[0-9][^-]*(-[0-9.]*[0-9](\.deb[0-9]+\.[0-9]+)?)?-", "", host.next_boot)
        metas = [
            offer
            for offer in host.offers.named(f"linux-headers-{flavour}")
            if re.search(rf"(^|[ ,|])linux-headers-{re.escape(host.next_boot)}($|[ ,(|])", offer.depends)
        ]
        if metas:
            meta = max(metas, key=lambda o: (not is_backport(o), debian(o.version)))
            chosen[meta.name] = meta
    return _locked(chosen.values(), "kernel", hold=hold)


def _locked(offers: Iterable[OfferedPackage], unit: Unit, hold: bool = True) -> tuple[LockedPackage, ...]:
    return tuple(
        LockedPackage(
            name=offer.name,
            version=offer.version,
            sha256=offer.sha256,
            size=offer.size,
            unit=unit,
            hold=hold,
            architecture=offer.architecture,
        )
        for offer in sorted(offers, key=lambda o: o.name)
    )
