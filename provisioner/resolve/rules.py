"""The rules of a host and its request: cards, offers, policy, kernels, runtime; each with the claim it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from provisioner.matrix.entries import Architecture
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.intent import Intent
from provisioner.model.version import CudaVersion, DriverVersion, Specifier
from provisioner.resolve.conflict import Claim, Source, entry, from_host
from provisioner.resolve.host import (
    Card,
    Driver,
    Host,
    RuntimeVersion,
    has_headers,
    has_module,
    kernel_version,
    past_end_of_life,
    today,
)
from provisioner.resolve.options import Option
from provisioner.resolve.solver import Rule

NONE = None
"""The value "no driver" (and so "no CUDA level"): right for a host without GPUs, or when a network brings its own."""

DRIVER, CUDA, RUNTIME, FIRST_NETWORK = 0, 1, 2, 3


class Rules:
    """Collects rules with their claims; each method answers one question."""

    def __init__(
        self,
        host: Host,
        intent: Intent,
        matrix: Matrix,
        drivers: tuple[Driver | None, ...],
        levels: tuple[CudaVersion | None, ...],
        runtimes: tuple[RuntimeVersion | None, ...],
        options: tuple[tuple[Option, ...], ...],
    ) -> None:
        self.host, self.intent, self.matrix = host, intent, matrix
        self.drivers, self.levels, self.runtimes, self.options = drivers, levels, runtimes, options
        self.today = today(host.facts)
        self.rules: list[Rule] = []
        self.claims: list[Claim] = []
        self.always: list[Rule] = []
        self.warnings: list[Claim] = []
        self.always.append(
            Rule(
                (DRIVER, CUDA),
                _not_carried(drivers, levels),
            )
        )

    def rule(self, claim: Claim, scope: tuple[int, ...], forbids: Iterable[tuple[int, ...]]) -> None:
        tuples = frozenset(forbids)
        if tuples:
            self.rules.append(Rule(scope, tuples))
            self.claims.append(claim)

    def forbid_drivers(self, claim: Claim, bad: Callable[[Driver], bool], none: bool = False) -> None:
        self.rule(
            claim,
            (DRIVER,),
            ((i,) for i, d in enumerate(self.drivers) if (none if d is None else bad(d))),
        )

    def of_the_cards(self) -> None:
        """Which drivers drive each card, in which flavour, and up to which CUDA level."""
        told: set[str] = set()
        for card in self.host.cards:
            if card.id in told:
                continue
            told.add(card.id)
            self._of_a_card(card)
        if self.host.cards and not any(brings_its_own_driver(option) for o in self.options for option in o):
            # A card is there to serve: "no driver" is never the answer, so it is no member of a conflict.
            self.always.append(Rule((DRIVER,), frozenset({(self.drivers.index(NONE),)})))
        if not self.host.cards and self.options:
            wanted = ", ".join(o[0].network.name for o in self.options)
            self.rule(
                Claim("no-gpu", wanted, (), (from_host("PCI bus"),)),
                (DRIVER,),
                ((i,) for i in range(len(self.drivers))),
            )

    def _of_a_card(self, card: Card) -> None:
        architecture, model = card.architecture, card.model
        if architecture is None or model is None:
            loaded = self.host.facts.driver.loaded
            claim = Claim("card-unknown", card.pci_id, (("slot", card.slot),), (from_host(f"PCI {card.slot}"),))
            # A card that the matrix does not know may keep the driver that already drives it, and no other.
            runs = loaded if loaded is not UNKNOWN else None
            if runs is not None:
                self.warnings.append(Claim("card-guess", card.pci_id, (("loaded", runs),), claim.rests_on))
            self.forbid_drivers(claim, lambda d: runs is None or d.branch.branch != runs.partition(".")[0])
            return
        words = (("architecture", architecture.title), ("capability", model.compute_capability.text))
        rests = (entry("gpus", model, model.id), entry("architectures", architecture, architecture.id))
        self.forbid_drivers(
            Claim(
                "card-driver",
                model.name,
                (
                    *words,
                    ("first", architecture.first_driver or ""),
                    ("last", model.last_driver or architecture.last_driver or ""),
                ),
                rests,
            ),
            lambda d: not _drives(d, card, architecture),
        )
        if model.driver_floor is not None:
            floor = model.driver_floor
            self.forbid_drivers(
                Claim("card-floor", model.name, (("driver", str(floor)),), rests[:1]),
                lambda d: not floor.allows(d.version),
            )
        flavours = tuple(f for f in model.modules if f in architecture.modules) or architecture.modules
        for flavour in ("open", "proprietary"):
            if flavour not in flavours:
                claim = Claim(
                    "card-flavour",
                    model.name,
                    (*words, ("flavour", flavour), ("takes", " or ".join(flavours))),
                    rests,
                )
                if architecture.modules_confidence == "low":
                    self.warnings.append(claim)
                    continue
                self.forbid_drivers(claim, lambda d, flavour=flavour: d.flavour == flavour)  # type: ignore[misc]  # bound now, asked later
        if card.ceiling is not None:
            ceiling = card.ceiling
            self.rule(
                Claim("cuda-ceiling", model.name, (*words, ("ceiling", ceiling.text)), rests),
                (CUDA,),
                ((i,) for i, level in enumerate(self.levels) if level is not None and level > ceiling),
            )

    def of_the_offers(self) -> None:
        if not self.host.cards:
            return
        offered = [d for d in self.drivers if d is not None and d.package is not None]
        newest = max((d.version for d in offered), default=None)
        components = self.host.facts.components
        self.forbid_drivers(
            Claim(
                "driver-not-offered",
                self.host.os,
                (
                    ("offered", ", ".join(sorted({d.version.text for d in offered}, key=DriverVersion))),
                    ("newest", newest.text if newest is not None else ""),
                    ("components", "" if components is UNKNOWN else " ".join(components)),
                ),
                (from_host("package sources"),),
            ),
            lambda d: d.package is None,
        )

    def of_the_request(self, driver: Specifier[DriverVersion] | None, cuda: CudaVersion | None) -> None:
        policy = self.intent.policy
        if not self.host.cards:
            return
        if driver is not None:
            self.forbid_drivers(
                Claim("wanted-driver", self.intent.driver or "", (), (Source("request: provision_driver"),)),
                lambda d: not driver.allows(d.version),
                none=True,
            )
        if self.intent.modules != "auto":
            self.forbid_drivers(
                Claim("wanted-modules", self.intent.modules, (), (Source("request: provision_modules"),)),
                lambda d: d.flavour != self.intent.modules,
            )
        if cuda is not None:
            self.rule(
                Claim("wanted-cuda", cuda.text, (), (Source("request: provision_cuda"),)),
                (CUDA,),
                ((i,) for i, level in enumerate(self.levels) if level is None or level < cuda),
            )
        if policy.forbid_branches:
            self.forbid_drivers(
                Claim(
                    "forbidden-branches",
                    ", ".join(policy.forbid_branches),
                    (),
                    (Source("request: provision_policy.forbid_branches"),),
                ),
                lambda d: d.branch.branch in policy.forbid_branches,
            )
        if policy.past_end_of_life == "refuse":
            self.forbid_drivers(
                Claim(
                    "refuse-ended",
                    ", ".join(
                        dict.fromkeys(
                            f"{d.branch.branch} ({d.branch.eol.date})"
                            for d in self.drivers
                            if d is not None and d.package is not None and past_end_of_life(d, self.today)
                        )
                    ),
                    (("today", self.today.isoformat()),),
                    (Source("request: provision_policy.past_end_of_life"),),
                ),
                lambda d: past_end_of_life(d, self.today),
            )
        loaded = self.host.facts.driver.loaded
        if policy.reboot == "never" and loaded is not UNKNOWN and loaded is not None:
            self.forbid_drivers(
                Claim(
                    "no-reboot",
                    loaded,
                    (),
                    (Source("request: provision_policy.reboot"), from_host("loaded module")),
                ),
                lambda d: d.version.text != loaded,
            )

    def of_the_kernels(self) -> None:
        """Each kernel that runs or boots next must get the module: it needs headers, or has it already."""
        if not self.host.cards or self.host.next_boot is None:
            return
        release = self.host.next_boot
        version = kernel_version(release)
        if version is not None:
            self.forbid_drivers(
                Claim("kernel-floor", release, (), (from_host("kernel"),)),
                lambda d: d.branch.kernel_floor is not None and version < d.branch.kernel_floor,
            )
        if not has_headers(self.host, release):
            self.forbid_drivers(
                Claim("no-headers", release, (), (from_host("package sources"), from_host("/usr/src"))),
                lambda d: not has_module(self.host, release, d),
            )
        for other in self.host.kernels:
            if other != release and not has_headers(self.host, other):
                self.warnings.append(
                    Claim(
                        "running-without-headers",
                        other,
                        (("next", release),),
                        (from_host("package sources"),),
                    )
                )

    def of_the_runtime(self) -> None:
        self.rule(
            Claim(
                "runtime-not-offered",
                self.intent.runtime,
                (("os", self.host.os),),
                (from_host("package sources"), Source(f"runtimes/{self.intent.runtime}")),
            ),
            (RUNTIME,),
            ((i,) for i, runtime in enumerate(self.runtimes) if runtime is None),
        )


def brings_its_own_driver(option: Option) -> bool:
    """The GPU Operator wants a host without a driver and carries one itself."""
    return any(r.host_driver == "absent" for r in option.wishes.get("host_driver", ()))


def _not_carried(drivers: Sequence[Driver | None], levels: Sequence[CudaVersion | None]) -> frozenset[tuple[int, int]]:
    """580 can offer CUDA 13.0 and everything below; no driver offers no level."""
    none = levels.index(NONE)
    above: dict[str, tuple[int, ...]] = {}
    found: set[tuple[int, int]] = set()
    for d, driver in enumerate(drivers):
        if driver is None:
            found.update((d, c) for c in range(len(levels)) if c != none)
            continue
        if driver.branch.id not in above:
            native = driver.branch.native_cuda.level
            above[driver.branch.id] = tuple(c for c, level in enumerate(levels) if level is None or level > native)
        found.update((d, c) for c in above[driver.branch.id])
    return frozenset(found)


def _drives(driver: Driver, card: Card, architecture: Architecture) -> bool:
    branch = driver.branch
    last = (card.model.last_driver if card.model is not None else None) or architecture.last_driver
    if last is not None and int(branch.branch) > int(last):
        return False
    if architecture.first_driver is not None and int(branch.branch) < int(architecture.first_driver):
        return False
    if architecture.id in branch.not_supported:
        return False
    return not branch.architectures or architecture.id in branch.architectures
