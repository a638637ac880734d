"""The rules of a host and its request: cards, offers, policy, kernels, runtime; each with the claim it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from provisioner.matrix.entries import Architecture, Floor
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.intent import Intent
from provisioner.model.version import CudaVersion, DottedVersion, DriverVersion, Specifier
from provisioner.resolve.builds import failures
from provisioner.resolve.compat import Compat, not_carried, useless
from provisioner.resolve.conflict import Claim, Source, entry, from_host
from provisioner.resolve.containers import TOOLKIT_ID, Cdi, Toolkit, floor_of, too_old_for_cdi
from provisioner.resolve.host import (
    Card,
    Driver,
    Host,
    RuntimeVersion,
    fabric_manager,
    has_headers,
    has_module,
    kernel_version,
    needs_fabric_manager,
    past_end_of_life,
    today,
)
from provisioner.resolve.options import Option
from provisioner.resolve.solver import Rule

NONE = None
"""The value "no driver" (and so "no CUDA level"): right for a host without GPUs, or when a network brings its own."""

DRIVER, COMPAT, CUDA, RUNTIME, TOOLKIT, CDI, FIRST_NETWORK = 0, 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Values:
    """The values of each variable, best first, in the order of the variables."""

    drivers: tuple[Driver | None, ...]
    compats: tuple[Compat | None, ...]
    levels: tuple[CudaVersion | None, ...]
    runtimes: tuple[RuntimeVersion | None, ...]
    toolkits: tuple[Toolkit | None, ...]
    cdi: tuple[Cdi | None, ...]
    options: tuple[tuple[Option, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return (
            len(self.drivers),
            len(self.compats),
            len(self.levels),
            len(self.runtimes),
            len(self.toolkits),
            len(self.cdi),
            *(len(options) for options in self.options),
        )


class Rules:
    """Collects rules with their claims; each method answers one question."""

    def __init__(self, host: Host, intent: Intent, matrix: Matrix, values: Values) -> None:
        self.host, self.intent, self.matrix = host, intent, matrix
        self.drivers, self.compats, self.levels = values.drivers, values.compats, values.levels
        self.runtimes, self.toolkits, self.cdi = values.runtimes, values.toolkits, values.cdi
        self.options = values.options
        self.today = today(host.facts)
        self.rules: list[Rule] = []
        self.claims: list[Claim] = []
        self.always: list[Rule] = []
        self.warnings: list[Claim] = []
        self.only_with: list[tuple[int, frozenset[int], Claim]] = []
        if self.compats == (NONE,):
            self.always.append(Rule((DRIVER, CUDA), _not_carried(self.drivers, self.levels)))
        else:
            self.always.append(Rule((DRIVER, COMPAT, CUDA), not_carried(self.drivers, self.compats, self.levels)))
            self.always.append(Rule((DRIVER, COMPAT), useless(self.drivers, self.compats)))

    @property
    def sets_up_cdi(self) -> bool:
        """Whether CDI is chosen here; without a sound toolkit it is left to whoever brings one."""
        return self.cdi != (NONE,)

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
            self._of_forward_compatibility(card)
        if any(compat is not None and compat.package is None for compat in self.compats):
            self._compat_not_offered()
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

    def _of_forward_compatibility(self, card: Card) -> None:
        """Data-centre cards and a few others can; on a GeForce it fails; what is not confirmed is not built upon."""
        able = card.model.forward_compat if card.model is not None else None
        if able:
            return
        rests = [entry("gpus", card.model, card.model.id)] if card.model is not None else [from_host("PCI bus")]
        rule = self.matrix.rules.get("forward-compatibility")
        if rule is not None:
            rests.append(entry("rules", rule, rule.id))
        kind = "compat-refused" if able is False else "compat-unknown"
        self.rule(
            Claim(kind, card.name, (("packages", self._compat_names()),), tuple(rests)),
            (COMPAT,),
            ((i,) for i, compat in enumerate(self.compats) if compat is not None),
        )

    def _compat_names(self) -> str:
        return ", ".join(dict.fromkeys(compat.name for compat in self.compats if compat is not None))

    def _compat_not_offered(self) -> None:
        absent = [(i, compat) for i, compat in enumerate(self.compats) if compat is not None and compat.package is None]
        names = ", ".join(dict.fromkeys(compat.name for _, compat in absent))
        rests = (from_host("package sources"), *(entry("cuda", compat.entry, compat.entry.id) for _, compat in absent))
        self.rule(
            Claim("compat-not-offered", names, (("os", self.host.os),), tuple(dict.fromkeys(rests))),
            (COMPAT,),
            ((i,) for i, _ in absent),
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
        if needs_fabric_manager(self.host):
            lacking = dict.fromkeys(d.version.text for d in offered if not self._has_fabric_manager(d))
            self.forbid_drivers(
                Claim(
                    "fabric-manager-not-offered",
                    str(self.host.facts.nvswitches),
                    (("lacking", ", ".join(lacking)),),
                    (from_host("PCI bus"), from_host("package sources")),
                ),
                lambda d: d.package is not None and not self._has_fabric_manager(d),
            )

    def _has_fabric_manager(self, driver: Driver) -> bool:
        package = driver.package
        return package is not None and fabric_manager(package, driver.branch.branch, self.host.offers) is not None

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
        if policy.driver_source != "auto":
            vendor = policy.driver_source == "vendor"
            self.forbid_drivers(
                Claim(
                    "wanted-driver-source",
                    policy.driver_source,
                    (),
                    (Source("request: provision_policy.driver_source"),),
                ),
                lambda d: d.package is not None and d.package.flat != vendor,
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
        self._does_not_build()
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

    def _does_not_build(self) -> None:
        """A module that is known not to compile for one of its kernels: dpkg would be left with half a driver."""
        known = failures(self.host)
        if not known:
            return
        found: dict[Claim, list[int]] = {}
        unsure: set[Claim] = set()
        for place, driver in enumerate(self.drivers):
            for claim, sure in known.get(driver.key, ()) if driver is not None else ():
                found.setdefault(claim, []).append(place)
                if not sure:
                    unsure.add(claim)
        for claim, places in found.items():
            if claim in unsure:
                self.only_with.append((DRIVER, frozenset(places), claim))
            else:
                self.rule(claim, (DRIVER,), ((place,) for place in places))

    def of_the_runtime(self) -> None:
        """There is always an engine; who is offered none hears so, who asked for one hears that."""
        wanted, offered = self.intent.runtime, [r for r in self.runtimes if r is not None]
        sources = from_host("package sources")
        if not offered and wanted != "auto":
            claim = Claim(
                "runtime-not-offered", wanted, (("os", self.host.os),), (sources, Source(f"runtimes/{wanted}"))
            )
        elif wanted != "auto":
            claim = Claim("wanted-runtime", wanted, (), (Source("request: provision_runtime"),))
        else:
            shown = dict.fromkeys(f"{r.package.name} {r.package.version}" for r in offered)
            claim = Claim("engines-offered", self.host.os, (("offered", ", ".join(shown)),), (sources,))
        self.rule(claim, (RUNTIME,), ((i,) for i, runtime in enumerate(self.runtimes) if runtime is None))

    def of_the_toolkit(self, wanted: Specifier[DottedVersion] | None) -> None:
        """Versions with published holes are refused; what the request demands must be there."""
        if not self.host.cards:
            return
        none = self.toolkits.index(NONE)
        without_driver = self.drivers.index(NONE)
        # The GPU Operator brings driver and toolkit alike: a host without a driver gets no toolkit of ours.
        self.always.append(
            Rule((DRIVER, TOOLKIT), frozenset((without_driver, t) for t in range(len(self.toolkits)) if t != none))
        )
        unsound = [(t, toolkit) for t, toolkit in enumerate(self.toolkits) if toolkit is not None and toolkit.holes]
        known = self.matrix.runtimes.get(TOOLKIT_ID)
        if unsound and known is not None:
            self.rule(self._holes([toolkit for _, toolkit in unsound]), (TOOLKIT,), ((t,) for t, _ in unsound))
        if wanted is not None:
            offered = dict.fromkeys(toolkit.version.text for toolkit in self.toolkits if toolkit is not None)
            self.rule(
                Claim(
                    "wanted-toolkit",
                    self.intent.toolkit,
                    (("offered", ", ".join(offered)),),
                    (Source("request: provision_toolkit"), from_host("package sources")),
                ),
                (TOOLKIT,),
                ((t,) for t, one in enumerate(self.toolkits) if one is None or not wanted.allows(one.version)),
            )

    def _holes(self, unsound: Sequence[Toolkit]) -> Claim:
        known = self.matrix.runtimes[TOOLKIT_ID]
        floor = floor_of(known, "toolkit")
        holes = dict.fromkeys(hole for toolkit in unsound for hole in toolkit.holes)
        words = (
            ("holes", ", ".join(holes)),
            ("floor", floor.version.text if floor is not None and floor.version is not None else ""),
        )
        return Claim(
            "toolkit-holes",
            ", ".join(dict.fromkeys(toolkit.version.text for toolkit in unsound)),
            words,
            (entry("runtimes", known, known.id),),
        )

    def of_cdi(self) -> None:
        """Specs need a toolkit that writes them and an engine that reads them; networks may ask for them or not."""
        if self.intent.cdi == "present" and not self.sets_up_cdi:
            claim = Claim("cdi-without-toolkit", "present", (), (Source("request: provision_cdi"),))
            self.rule(claim, (CDI,), ((c,) for c in range(len(self.cdi))))
        if not self.sets_up_cdi:
            return
        present = self.cdi.index("present")
        self.always.append(Rule((TOOLKIT, CDI), frozenset({(self.toolkits.index(NONE), present)})))
        if self.intent.cdi != "auto":
            claim = Claim("wanted-cdi", self.intent.cdi, (), (Source("request: provision_cdi"),))
            self.rule(claim, (CDI,), ((c,) for c, value in enumerate(self.cdi) if value != self.intent.cdi))
        old = [(r, too_old_for_cdi(runtime, self.matrix)) for r, runtime in enumerate(self.runtimes)]
        wishes = [r for network in self.options for option in network for r in option.wishes.get("cdi", ())]
        asked = [wish for wish in wishes if wish.cdi == "present" and wish.forbids]
        if not asked and self.intent.cdi != "present":
            # Nobody asks for CDI: that the engine can't read it is then no conflict, only why it stays off.
            self.always.append(Rule((RUNTIME, CDI), frozenset((r, present) for r, floor in old if floor is not None)))
            return
        for place, options in enumerate(self.options):
            # A cluster brings an engine of its own, and that one reads the specs.
            through = [
                o
                for o, option in enumerate(options)
                if any(r.cdi == "present" and r.forbids for r in option.wishes.get("cdi", ()))
                and "kubernetes" not in option.wishes
            ]
            name = options[0].network.name
            self._too_old(old, name, (FIRST_NETWORK + place,), [(o,) for o in through])
        if self.intent.cdi == "present" and not asked:
            self._too_old(old, "the request", (CDI,), [(present,)])

    def _too_old(
        self,
        old: Sequence[tuple[int, Floor | None]],
        who: str,
        scope: tuple[int, ...],
        values: Sequence[tuple[int, ...]],
    ) -> None:
        forbidden: list[tuple[int, ...]] = []
        engines, floors, rests = [], [], []
        for r, floor in old:
            runtime = self.runtimes[r]
            if floor is None or runtime is None:
                continue
            forbidden += [(r, *value) for value in values]
            engines.append(f"{runtime.package.name} {runtime.package.version}")
            floors.append(f"{runtime.package.name} {floor.version}")
            rests.append(entry("runtimes", floor, runtime.id, self.matrix.runtimes[runtime.id]))
        words = (("who", who), ("floors", ", ".join(dict.fromkeys(floors))))
        claim = Claim("engine-reads-no-cdi", ", ".join(dict.fromkeys(engines)), words, tuple(dict.fromkeys(rests)))
        self.rule(claim, (RUNTIME, *scope), forbidden)


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
