"""What gives containers their GPUs: the engine, NVIDIA's container toolkit, CDI; what a host is offered of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from provisioner.errors import BadInput
from provisioner.matrix.entries import Floor, Runtime
from provisioner.matrix.reader import Matrix
from provisioner.model.facts import OfferedPackage
from provisioner.model.intent import Intent
from provisioner.model.version import DottedVersion, Specifier
from provisioner.resolve.host import Host, NewestFirst, RuntimeVersion, is_backport, kernel_version, upstream

TOOLKIT_ID = "nvidia-container-toolkit"
Cdi = Literal["present", "absent"]
ENGINE_KINDS = ("engine", "containerd")
DISTRIBUTION = ("debian", "debian-backports", "ubuntu")


@dataclass(frozen=True)
class Toolkit:
    """One offered version of the toolkit: its packages are one unit, all of exactly this version."""

    version: DottedVersion
    packages: tuple[OfferedPackage, ...]  # the first gives the unit its name
    installed: bool
    holes: tuple[str, ...]  # published and mended later, as CVE ids

    @property
    def shown(self) -> str:
        return f"{self.packages[0].name} {self.packages[0].version}"


# --- engines ------------------------------------------------------------------------------------------------------


def runtimes_of(host: Host, intent: Intent, matrix: Matrix) -> tuple[RuntimeVersion | None, ...]:
    """Every engine version that the host is offered and the request leaves open, best first; None at the end.

    What is on the host comes first, then the distribution's own engines, of those the one that most networks take, then
    the newest. Raises BadInput for a runtime that the matrix does not know.
    """
    if intent.runtime != "auto" and intent.runtime not in matrix.runtimes:
        raise BadInput(
            "unknown-runtime",
            f"there is no runtime '{intent.runtime}' in the matrix",
            context=[f"known: auto, {', '.join(r.id for r in matrix.runtimes.values() if r.kind in ENGINE_KINDS)}"],
            hint="set provision_runtime to an id of matrix/runtimes, or leave it out",
        )
    known: Iterable[Runtime] = matrix.runtimes.values()
    if intent.runtime != "auto":
        known = (matrix.runtimes[intent.runtime],)
    found: dict[tuple[str, str], tuple[tuple[Any, ...], RuntimeVersion]] = {}
    for runtime in known:
        if runtime.kind not in ENGINE_KINDS:
            continue
        for names in runtime.packages:
            if host.os not in names.os or any(host.offers.newest(name) is None for name in names.install):
                continue
            have = host.packages.get(names.install[0])
            for offer in host.offers.named(names.install[0]):
                installed = have is not None and have.whole and have.version == offer.version
                order = (
                    not installed,
                    runtime.kind != "engine",
                    names.origin not in DISTRIBUTION,
                    -taken_by(runtime.id, matrix),
                    runtime.id,
                    is_backport(offer),
                    NewestFirst(offer.version),
                )
                one = RuntimeVersion(runtime.id, names, offer, installed)
                found.setdefault((runtime.id, offer.version), (order, one))
    return (*(one for _, one in sorted(found.values(), key=lambda pair: pair[0])), None)


_ALSO = {"docker-io": ("docker",), "docker-ce": ("docker",)}
"""What an engine also counts as: a network that asks for Docker takes either package of it."""


def counts_as(engine: str) -> tuple[str, ...]:
    """`docker-io` serves who asks for it, and who asks for any Docker."""
    return (engine, *_ALSO.get(engine, ()))


_TAKEN: dict[int, tuple[Matrix, dict[str, int]]] = {}


def taken_by(engine: str, matrix: Matrix) -> int:
    """How many ways to serve a network take this engine by name; counted once for each matrix."""
    known = _TAKEN.get(id(matrix))
    if known is None or known[0] is not matrix:
        _TAKEN.clear()
        wishes = [
            set(r.runtime)
            for network in matrix.networks.values()
            for profile in network.profiles
            for r in profile.requirements
            if r.runtime is not None
        ]
        count = {name: sum(bool(wish & set(counts_as(name))) for wish in wishes) for name in matrix.runtimes}
        known = _TAKEN[id(matrix)] = (matrix, count)
    return known[1].get(engine, 0)


def engine_version(runtime: RuntimeVersion) -> DottedVersion | None:
    """`5:28.5.1-1~debian.12~bookworm` is 28.5.1."""
    return kernel_version(upstream(runtime.package.version))


# --- the toolkit --------------------------------------------------------------------------------------------------


def toolkits_of(host: Host, intent: Intent, matrix: Matrix) -> tuple[Toolkit | None, ...]:
    """Every version of which the host is offered all packages, what is on it first, then newest; None at the end."""
    entry = matrix.runtimes.get(TOOLKIT_ID)
    if entry is None or not host.cards or intent.toolkit == "none":
        return (None,)
    found: dict[str, Toolkit] = {}
    for names in entry.packages:
        if host.os not in names.os:
            continue
        have = host.packages.get(names.install[0])
        for offer in host.offers.named(names.install[0]):
            unit = [_exactly(name, offer.version, host) for name in names.install]
            version = toolkit_version(offer.version)
            if version is None or any(one is None for one in unit):
                continue
            installed = have is not None and have.whole and have.version == offer.version
            packages = tuple(one for one in unit if one is not None)
            found.setdefault(offer.version, Toolkit(version, packages, installed, holes_of(version, entry)))
    order = sorted(found.values(), key=lambda t: (not t.installed, NewestFirst(t.packages[0].version)))
    return (*order, None)


def toolkit_version(package: str) -> DottedVersion | None:
    """`1.19.1-1` is 1.19.1; a release candidate (`1.19.1~rc.1-1`) comes before it, and its holes may still be open."""
    try:
        return DottedVersion(upstream(package))
    except ValueError:
        return None


def _exactly(name: str, version: str, host: Host) -> OfferedPackage | None:
    return next((offer for offer in host.offers.named(name) if offer.version == version), None)


def holes_of(version: DottedVersion, entry: Runtime) -> tuple[str, ...]:
    """Published holes of a toolkit version, the newest bulletin first; a claim of low confidence counts for nothing."""
    known = [
        hole
        for hole in entry.vulnerabilities
        if hole.fixed is not None and hole.confidence != "low" and version < DottedVersion(hole.fixed)
    ]
    return tuple(hole.cve for hole in sorted(known, key=lambda hole: hole.published or "", reverse=True))


def floor_of(entry: Runtime, key: str) -> Floor | None:
    """The lowest version that an entry's floors name under a key of the requirement language."""
    floors = [f for f in entry.floors if f.key == key and f.version is not None and f.confidence != "low"]
    return max(floors, key=lambda f: f.version or DottedVersion("0"), default=None)


def toolkit_specifier(intent: Intent) -> Specifier[DottedVersion] | None:
    """What the request demands of the toolkit; None: nothing. Raises BadInput for what cannot be read."""
    text = intent.toolkit.strip()
    if text in ("auto", "none"):
        return None
    try:
        if text[:1].isdigit():
            return Specifier.exact([DottedVersion(text)])
        return Specifier.parse(text, DottedVersion)
    except ValueError as problem:
        raise BadInput(
            "toolkit-specifier",
            f"provision_toolkit: {problem}",
            hint='write auto, none, a version ("1.19.1") or conditions (">=1.19.1,<1.20")',
        ) from problem


# --- CDI ----------------------------------------------------------------------------------------------------------


def cdi_of(toolkits: Iterable[Toolkit | None]) -> tuple[Cdi | None, ...]:
    """Whether the host keeps CDI specs is only open where a sound toolkit could write them."""
    return ("present", "absent") if any(t is not None and not t.holes for t in toolkits) else (None,)


_FLOOR_KEYS: Mapping[str, str] = {"docker-io": "docker", "docker-ce": "docker"}


def too_old_for_cdi(runtime: RuntimeVersion | None, matrix: Matrix) -> Floor | None:
    """The floor that an engine misses to read the specs which sound toolkits write by default; None: it reads them."""
    if runtime is None:
        return None
    entry = matrix.runtimes[runtime.id]
    floor = floor_of(entry, _FLOOR_KEYS.get(runtime.id, runtime.id))
    version = engine_version(runtime)
    if floor is None or floor.version is None or version is None or version >= floor.version:
        return None
    return floor
