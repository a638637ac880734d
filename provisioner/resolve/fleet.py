"""Solves many hosts: of hosts that are alike in all that the answer rests on, only the first is solved.

A `Kind` holds every fact that the resolver may look at, and the solver is handed facts made from the kind alone.
So two hosts of one kind cannot get different answers, whatever else is true of them; that a kind leaves out nothing
that matters is what its test shows.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TypeAlias

from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.facts import (
    DriverFacts,
    GpuHealth,
    HostFacts,
    KernelFacts,
    ModuleBuild,
    NvmlFacts,
    OfferedPackage,
    OsRelease,
    Package,
    PciGpu,
    RuntimeFacts,
)
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.resolve.conflict import NoSolution
from provisioner.resolve.resolver import solve

Offered: TypeAlias = "tuple[OfferedPackage, ...] | Unknown"


@dataclass(frozen=True)
class Kind:
    """What is left of a host without its name, its hour and all that changes no answer. It can be hashed."""

    day: dt.date
    os: tuple[str, str] | Unknown  # id, architecture
    gpus: tuple[tuple[str, str, str, str | Unknown], ...] | Unknown  # slot, vendor, device, subsystem
    kernel: tuple[str | Unknown, str | Unknown, tuple[str, ...] | Unknown]  # running, next to boot, with headers
    loaded: str | Unknown | None
    library: str | Unknown | None
    modules: tuple[ModuleBuild, ...] | Unknown
    secure_boot: bool | Unknown
    run_file_install: bool | Unknown
    packages: frozenset[tuple[str, str, bool]] | Unknown  # name, version, whole
    named_by_nvml: tuple[tuple[str, str], ...] | Unknown  # slot, name
    memory_gib: int | Unknown
    clock_skew_s: int | Unknown
    components: tuple[str, ...] | Unknown
    nvswitches: int | Unknown


def kind_of(facts: HostFacts) -> Kind:
    """All facts but the package sources, which are many and shared: `Fleet` keeps those once."""
    os, kernel, driver, nvml = facts.os, facts.kernel, facts.driver, facts.nvml
    return Kind(
        day=facts.taken_at.date(),
        os=os if os is UNKNOWN else (os.id, os.architecture),
        gpus=facts.gpus
        if facts.gpus is UNKNOWN
        else tuple((gpu.slot, gpu.vendor, gpu.device, gpu.subsystem) for gpu in facts.gpus),
        kernel=(kernel.running, kernel.next_boot, kernel.headers),
        loaded=driver.loaded,
        library=driver.library,
        modules=driver.modules,
        secure_boot=driver.secure_boot,
        run_file_install=driver.run_file_install,
        packages=facts.packages
        if facts.packages is UNKNOWN
        else frozenset([(p.name, p.version, p.whole) for p in facts.packages.values()]),
        named_by_nvml=nvml if nvml is UNKNOWN else tuple((gpu.slot, gpu.name) for gpu in nvml.gpus),
        # Rounded as a requirement on memory rounds, so that a few MiB that a kernel keeps make no kind of their own.
        memory_gib=facts.memory_mib if facts.memory_mib is UNKNOWN else -(-facts.memory_mib // 1024),
        clock_skew_s=facts.clock_skew_s if facts.clock_skew_s is UNKNOWN else round(abs(facts.clock_skew_s)),
        components=facts.components,
        nvswitches=facts.nvswitches,
    )


def facts_of(kind: Kind, offers: Offered, host: str) -> HostFacts:
    """A host of this kind; what a kind does not hold is unknown, so nothing can come to rest on it."""
    return HostFacts(
        host=host,
        taken_at=dt.datetime.combine(kind.day, dt.time(), dt.timezone.utc),
        os=kind.os if kind.os is UNKNOWN else OsRelease(kind.os[0], "", "", kind.os[1]),
        kernel=KernelFacts(kind.kernel[0], UNKNOWN, kind.kernel[1], kind.kernel[2]),
        gpus=kind.gpus if kind.gpus is UNKNOWN else tuple(PciGpu(*gpu, bound_to=UNKNOWN) for gpu in kind.gpus),
        driver=DriverFacts(
            loaded=kind.loaded,
            loaded_flavour=UNKNOWN,
            modules=kind.modules,
            library=kind.library,
            nouveau_loaded=UNKNOWN,
            nouveau_blacklisted=UNKNOWN,
            secure_boot=kind.secure_boot,
            run_file_install=kind.run_file_install,
        ),
        packages=kind.packages
        if kind.packages is UNKNOWN
        else {name: Package(name, version, False, whole) for name, version, whole in sorted(kind.packages)},
        offers=offers,
        runtime=RuntimeFacts(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
        nvml=kind.named_by_nvml
        if kind.named_by_nvml is UNKNOWN
        else NvmlFacts(None, None, None, tuple(_health(slot, name) for slot, name in kind.named_by_nvml)),
        units=UNKNOWN,
        failed_units=UNKNOWN,
        disk_free_mib=UNKNOWN,
        memory_mib=kind.memory_gib if kind.memory_gib is UNKNOWN else kind.memory_gib * 1024,
        swap_mib=UNKNOWN,
        clock_skew_s=kind.clock_skew_s,
        boot_identity=UNKNOWN,
        virtualization=UNKNOWN,
        components=kind.components,
        nvswitches=kind.nvswitches,
    )


def _health(slot: str, name: str) -> GpuHealth:
    return GpuHealth(0, name, "", slot, None, None, None, None, None)


class Fleet:
    """Answers host after host; time and memory grow with the kinds of hosts, not with their number.

    >>> fleet = Fleet(matrix)
    >>> fleet.solve(facts, intent)  # HostLock or NoSolution, the very value that hosts of this kind share
    """

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix
        self._answers: dict[tuple[Kind, int, Intent], HostLock | NoSolution] = {}
        self._sources: dict[Offered, int] = {}
        self._known: dict[int, tuple[Offered, int]] = {}

    @property
    def kinds(self) -> int:
        """How many were really solved."""
        return len(self._answers)

    def solve(self, facts: HostFacts, intent: Intent) -> HostLock | NoSolution:
        """The answer that `solve` gives this host."""
        kind = kind_of(facts)
        key = (kind, self._number(facts.offers), intent)
        answer = self._answers.get(key)
        if answer is None:
            answer = solve(facts_of(kind, facts.offers, facts.host), intent, self._matrix)
            self._answers[key] = answer
        if isinstance(answer, NoSolution):
            return answer if answer.host == facts.host else replace(answer, host=facts.host)
        return answer

    def _number(self, offers: Offered) -> int:
        """The same number for equal sources; hosts that share one tuple need not have its hundreds of rows hashed."""
        known = self._known.get(id(offers))
        if known is not None and known[0] is offers:
            return known[1]
        number = self._sources.get(offers)
        if number is None:
            number = self._sources[offers] = len(self._sources)
            self._known[id(offers)] = (offers, number)  # kept, so its id stays its own
        return number
