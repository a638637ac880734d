"""Turns host, request and matrix into variables and rules; every rule carries the claim that it stands for.

Variables, in order of preference: `driver` (exact version and flavour), `cuda` (level offered), `runtime`, and one
per network (profile and client version). The first assignment in the order of their values is the one that is wanted.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from provisioner.errors import BadInput
from provisioner.matrix.entries import Architecture, DriverBranch, Flavour, Network, Profile
from provisioner.matrix.entries import Conflict as MatrixConflict
from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import Answer, Ports, Requirement, judge, text_of
from provisioner.model.capture import UNKNOWN
from provisioner.model.intent import Intent
from provisioner.model.version import CudaVersion, DottedVersion, DriverVersion, Specifier
from provisioner.resolve.conflict import Claim, Source
from provisioner.resolve.host import (
    Card,
    Driver,
    Host,
    RuntimeVersion,
    debian,
    is_backport,
    kernel_version,
    upstream,
)
from provisioner.resolve.solver import Problem, Rule

NONE = None
"""The value "no driver" (and so "no CUDA level"): right for a host without GPUs, or when a network brings its own."""

CONFIGURED = {
    "cdi",
    "cgroup_driver",
    "swap",
    "sysctl",
    "unattended_upgrades",
    "gpu.exclusive",
    "dedicated",
    "gpu.binding",
}
"""Keys that a host does not have but is given: they matter only between two networks."""

SEEN_ON_HOST = {
    "os",
    "arch",
    "kernel",
    "ram_gib",
    "gpu.count",
    "gpu.same_model",
    "gpu.compute_capability",
    "gpu.memory_gib",
    "gpu.model",
    "gpu.architecture",
    "gpu.brand",
    "clock_skew_s",
}
"""Keys that the facts answer; all others are left to checks and to the network's own installer."""

CHOSEN = {"driver", "host_driver", "modules", "cuda", "runtime", "docker", "containerd", "client"}
"""Keys that the resolver itself decides."""


Beside = Literal["none", "newest", "telling"]


@dataclass(frozen=True)
class Option:
    """One way to serve a network: a profile, and a version of the client ('' where none is published)."""

    network: Network
    profile: Profile
    client: str
    program: str
    wishes: Mapping[str, tuple[Requirement, ...]]  # of the profile, by key
    claims: Mapping[int, Claim]  # of each wish, by its identity


@dataclass(frozen=True)
class Model:
    """The problem with the meaning of its indices; `warnings` hold whatever is chosen."""

    host: Host
    intent: Intent
    drivers: tuple[Driver | None, ...]
    levels: tuple[CudaVersion | None, ...]
    runtimes: tuple[RuntimeVersion | None, ...]
    options: tuple[tuple[Option, ...], ...]  # one per network of the request
    problem: Problem
    claims: tuple[Claim, ...]  # claims[i] is what problem.rules[i] stands for
    warnings: tuple[Claim, ...]


def build(host: Host, intent: Intent, matrix: Matrix, *, beside: Beside = "newest") -> Model:
    """Return the problem of one host. Raises BadInput when the request names what cannot be read.

    `beside` says which drivers stand in it that no source of the host offers: none, to see whether there is a
    stack at all; the newest of each branch, to say why nothing newer; or `telling`, one for each way in which
    some rule tells versions apart: without them a list of exact versions would seem at odds with the host
    where only an offer is missing.
    """
    networks = tuple(_network(name, matrix) for name in dict.fromkeys(intent.networks))
    options = tuple(_remembered(network, profile) for network, profile in networks)
    wanted_driver = _driver_specifier(intent)
    wanted_cuda = _cuda_level(intent)
    specifiers = _specifiers(host, options, wanted_driver)
    elsewhere = () if beside == "none" else _elsewhere(host, matrix, specifiers if beside == "telling" else ())
    drivers = _drivers(host, intent, elsewhere)
    levels = _levels(host, drivers, wanted_cuda, options)
    runtimes = _runtimes(host, intent, matrix)
    rules = _Rules(host, intent, matrix, drivers, levels, runtimes, options)
    rules.of_the_cards()
    rules.of_the_offers()
    rules.of_the_request(wanted_driver, wanted_cuda)
    rules.of_the_kernels()
    rules.of_the_runtime()
    for place in range(len(options)):
        rules.of_a_network(place)
    rules.between_networks()
    return Model(
        host=host,
        intent=intent,
        drivers=drivers,
        levels=levels,
        runtimes=runtimes,
        options=options,
        problem=Problem(
            (len(drivers), len(levels), len(runtimes), *(len(o) for o in options)),
            tuple(rules.rules),
            tuple(rules.always),
        ),
        claims=tuple(rules.claims),
        warnings=tuple(dict.fromkeys(rules.warnings)),
    )


# --- what the request names ---------------------------------------------------------------------------------------


def _network(name: str, matrix: Matrix) -> tuple[Network, str | None]:
    """`akash` is its default way, `akash/gpu-operator` a named one."""
    network_id, _, profile = name.partition("/")
    network = matrix.networks.get(network_id)
    if network is None:
        close = difflib.get_close_matches(network_id, matrix.networks, 3, 0.5)
        raise BadInput(
            "unknown-network",
            f"there is no network '{network_id}' in the matrix",
            context=[f"did you mean {' or '.join(close)}?"] if close else [f"known: {', '.join(matrix.networks)}"],
            hint="set provision_networks to ids of matrix/networks",
        )
    if profile and profile not in {p.id for p in network.profiles}:
        raise BadInput(
            "unknown-profile",
            f"network {network_id} has no profile '{profile}'",
            context=[f"it has: {', '.join(p.id for p in network.profiles) or 'none'}"],
        )
    return network, profile or None


_REMEMBERED: dict[tuple[int, str | None], tuple[Network, tuple[Option, ...]]] = {}


def _remembered(network: Network, profile_id: str | None) -> tuple[Option, ...]:
    """The options of an entry, sorted out once: a fleet asks for the same few networks thousands of times."""
    key = (id(network), profile_id)
    known = _REMEMBERED.get(key)
    if known is None or known[0] is not network:
        if len(_REMEMBERED) > 1024:
            _REMEMBERED.clear()
        known = _REMEMBERED[key] = (network, _options(network, profile_id))
    return known[1]


def _options(network: Network, profile_id: str | None) -> tuple[Option, ...]:
    """The default profile, or all where the entry names no default; each with the clients that are still let in."""
    if profile_id is not None:
        profiles = tuple(p for p in network.profiles if p.id == profile_id)
    else:
        default = network.default_profile
        profiles = (default,) if default is not None else network.profiles
    if not profiles:
        profiles = (Profile(id="any", title=network.name, requirements=()),)
    client = next((c for c in network.clients if c.versions), None)
    # Of several programs without versions it is not known which one a profile means.
    program = client.name if client is not None else network.clients[0].name if len(network.clients) == 1 else ""
    versions = [""]
    if client is not None:
        oldest = next((v.oldest_supported for v in client.versions if v.oldest_supported), None)
        versions = [v.version for v in client.versions if oldest is None or not _older(v.version, oldest)][:3] or [""]
    found = []
    for profile in profiles:
        wishes: dict[str, tuple[Requirement, ...]] = {}
        for requirement in profile.requirements:
            wishes[requirement.key] = (*wishes.get(requirement.key, ()), requirement)
        for version in versions:
            shown = f"{program} {version}".strip()
            claims = {id(r): requirement_claim(network, profile, shown, r) for r in profile.requirements}
            found.append(Option(network, profile, version, program, wishes, claims))
    return tuple(found)


def _older(version: str, than: str) -> bool:
    try:
        return DottedVersion(version) < DottedVersion(than)
    except ValueError:
        return False


def _driver_specifier(intent: Intent) -> Specifier[DriverVersion] | None:
    if intent.driver is None:
        return None
    text = intent.driver.strip()
    try:
        if text.isdigit():
            return Specifier.parse(f"=={text}.*", DriverVersion)
        if text[:1].isdigit():
            return Specifier.exact([DriverVersion(text)])
        return Specifier.parse(text, DriverVersion)
    except ValueError as problem:
        raise BadInput(
            "driver-specifier",
            f"provision_driver: {problem}",
            hint='write a branch ("535"), a version ("535.261.03") or conditions (">=535.261.03,<536")',
        ) from problem


def _cuda_level(intent: Intent) -> CudaVersion | None:
    if intent.cuda is None:
        return None
    try:
        return CudaVersion(intent.cuda).level
    except ValueError as problem:
        raise BadInput("cuda-level", f"provision_cuda: {problem}", hint='write a level such as "12.2"') from problem


# --- domains, in order of preference ------------------------------------------------------------------------------


def _today(host: Host) -> dt.date:
    """The day the facts were taken: the same capture gives the same answer on any later day."""
    return host.facts.taken_at.date()


def past_end_of_life(driver: Driver, today: dt.date) -> bool:
    return driver.branch.eol.is_past(today) is True


def below_floor(driver: Driver, today: dt.date) -> bool:
    """Below the highest fixed version that a bulletin names, or of a branch that bulletins no longer mend."""
    floor = driver.branch.security_floor
    if floor is not None and driver.version < floor:
        return True
    if driver.branch.latest_bulletin_omits_it:
        return True
    return floor is None and past_end_of_life(driver, today)


Allows = Callable[[DriverVersion], bool]


def quick(specifier: Specifier[DriverVersion]) -> Allows:
    """A long list of exact versions is asked as a set."""
    listed = specifier.exact_versions()
    if listed is None:
        return specifier.allows
    return frozenset(listed).__contains__


def _specifiers(
    host: Host, options: Sequence[Sequence[Option]], wanted: Specifier[DriverVersion] | None
) -> tuple[Specifier[DriverVersion], ...]:
    """Every condition on the exact driver version that stands in some rule."""
    found = [wanted] if wanted is not None else []
    found += [card.model.driver_floor for card in host.cards if card.model is not None and card.model.driver_floor]
    for option in (option for network in options for option in network):
        found += [r.driver for r in option.wishes.get("driver", ()) if r.driver is not None and r.forbids]
    return tuple(dict.fromkeys(found))


def _elsewhere(host: Host, matrix: Matrix, specifiers: Sequence[Specifier[DriverVersion]]) -> tuple[Driver, ...]:
    """Drivers that no source of this host offers: of each branch and flavour the newest that each rule judges alike."""
    asked = [quick(specifier) for specifier in specifiers]
    offered = {(driver.version, driver.flavour) for driver in host.drivers}
    found = []
    for branch in matrix.drivers.values():
        versions = {branch.latest.version}
        if asked:
            versions.update(branch.versions)
            for specifier in specifiers:
                versions.update(v for v in specifier.exact_versions() or () if v.branch == branch.branch)
        newest: dict[tuple[bool, ...], DriverVersion] = {}
        for version in sorted(versions):
            newest[tuple(allows(version) for allows in asked)] = version
        for flavour in flavours_of(branch):
            found += [Driver(branch, v, flavour) for v in newest.values() if (v, flavour) not in offered]
    return tuple(found)


def flavours_of(branch: DriverBranch) -> tuple[Flavour, ...]:
    """620 carries no proprietary modules, 470 no open ones; where it is not known, both may be."""
    found: list[Flavour] = []
    if branch.modules.proprietary is not False:
        found.append("proprietary")
    if branch.modules.open:
        found.append("open")
    return tuple(found)


def _drivers(host: Host, intent: Intent, elsewhere: Sequence[Driver]) -> tuple[Driver | None, ...]:
    if not host.cards:
        return (NONE,)
    today = _today(host)
    keep = intent.policy.past_end_of_life == "keep"

    def order(driver: Driver) -> tuple[Any, ...]:
        stays = driver.installed and keep
        ended = past_end_of_life(driver, today)
        support = "" if ended else (driver.branch.eol.date or "")
        return (
            driver.package is None,  # what no source offers is listed last, only to say why it is not chosen
            ended and not stays,
            below_floor(driver, today) and not stays,
            not driver.installed,
            [-ord(c) for c in support.ljust(10, "0")],  # longest supported first
            driver.rank >= 100,
            driver.flavour != (driver.branch.modules.default or "proprietary"),
            driver.package is not None and is_backport(driver.package),
            driver.rank,
            _descending(driver),
            driver.key,
        )

    return (*sorted((*host.drivers, *elsewhere), key=order), NONE)


def _descending(driver: Driver) -> tuple[Any, ...]:
    """Newest patch first; of one patch the newest package revision."""
    numbers = tuple(-int(part) for part in driver.version.text.split("."))
    return (numbers, _Reversed(driver.package.version) if driver.package is not None else _Reversed("0"))


class _Reversed:
    """Orders package versions newest first inside a sort key."""

    def __init__(self, version: str) -> None:
        self.version = version

    def __lt__(self, other: _Reversed) -> bool:
        return debian(other.version) < debian(self.version)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.version == other.version

    __hash__ = None  # type: ignore[assignment]  # a sort key is never hashed


def _levels(
    host: Host,
    drivers: Sequence[Driver | None],
    wanted: CudaVersion | None,
    options: Sequence[Sequence[Option]],
) -> tuple[CudaVersion | None, ...]:
    """Only levels at which some rule changes its answer, highest first."""
    branches = {driver.branch.id: driver.branch for driver in drivers if driver is not None}
    found = {branch.native_cuda.level for branch in branches.values()}
    found |= {card.ceiling for card in host.cards if card.ceiling is not None}
    if wanted is not None:
        found.add(wanted)
    return (*sorted(found, reverse=True), NONE)


def _runtimes(host: Host, intent: Intent, matrix: Matrix) -> tuple[RuntimeVersion | None, ...]:
    runtime = matrix.runtimes.get(intent.runtime)
    if runtime is None:
        raise BadInput(
            "unknown-runtime",
            f"there is no runtime '{intent.runtime}' in the matrix",
            context=[f"known: {', '.join(matrix.runtimes)}"],
            hint="set provision_runtime to an id of matrix/runtimes",
        )
    found: list[RuntimeVersion] = []
    for names in runtime.packages:
        if host.os not in names.os:
            continue
        main = names.install[0]
        if any(host.offers.newest(name) is None for name in names.install):
            continue
        have = host.packages.get(main)
        for offer in host.offers.named(main):
            installed = have is not None and have.whole and have.version == offer.version
            if RuntimeVersion(names, offer, installed) not in found:
                found.append(RuntimeVersion(names, offer, installed))
    found.sort(key=lambda r: (not r.installed, is_backport(r.package), _Reversed(r.package.version)))
    return (*found, NONE)


# --- rules --------------------------------------------------------------------------------------------------------

DRIVER, CUDA, RUNTIME, FIRST_NETWORK = 0, 1, 2, 3


def entry(room: str, claim: Any, entry_id: str) -> Source:
    return Source(
        f"{room}/{entry_id}",
        getattr(claim, "listed_on", None) or claim.seen,
        claim.confidence,
        claim.sources[0] if claim.sources else None,
    )


def from_host(what: str) -> Source:
    return Source(f"host: {what}")


class _Rules:
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
        self.today = _today(host)
        self.rules: list[Rule] = []
        self.claims: list[Claim] = []
        self.always: list[Rule] = []
        self.warnings: list[Claim] = []
        if "situation" not in host.remembered:
            host.remembered["situation"] = situation(host)
        self.situation = host.remembered["situation"]
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
        if self.host.cards and not any(self._brings_its_own_driver(option) for o in self.options for option in o):
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

    def _brings_its_own_driver(self, option: Option) -> bool:
        return any(r.host_driver == "absent" for r in option.wishes.get("host_driver", ()))

    # --- networks ---

    def of_a_network(self, place: int) -> None:
        options = self.options[place]
        variable = FIRST_NETWORK + place
        if self.host.cards and any(self._brings_its_own_driver(o) for network in self.options for o in network):
            network = options[0].network
            self.rule(
                Claim("network-needs-driver", network.name, (), (entry("networks", network, network.id),)),
                (DRIVER, variable),
                (
                    (d, o)
                    for d, driver in enumerate(self.drivers)
                    for o, option in enumerate(options)
                    if driver is None and "host_driver" not in option.wishes
                ),
            )
        for profile in {option.profile.id: option.profile for option in options}.values():
            chosen = [o for o, option in enumerate(options) if option.profile.id == profile.id]
            option = options[chosen[0]]
            for key, requirements in option.wishes.items():
                if key not in CONFIGURED:
                    for requirement in requirements:
                        self._of_a_requirement(option, key, requirement, variable, chosen)

    def _of_a_requirement(
        self, option: Option, key: str, requirement: Requirement, variable: int, chosen: Sequence[int]
    ) -> None:
        claim = option.claims[id(requirement)]
        if key in ("driver", "host_driver", "modules", "cuda") and not self.host.cards:
            return  # "no GPU" says it all
        if key in CHOSEN:
            self._of_a_choice(option, requirement, claim, variable, chosen)
            return
        # The matrix outlives its hosts, so a requirement can be told by its identity.
        judgement = self.host.remembered.get(id(requirement))
        if judgement is None:
            judgement = self.host.remembered[id(requirement)] = judge(requirement, self.situation)
        if judgement.answer is Answer.YES:
            return
        if judgement.answer is Answer.UNKNOWN:
            if key in SEEN_ON_HOST and requirement.forbids and self._fact_is_unknown(key):
                unseen = Claim("not-seen", claim.about, claim.words, claim.rests_on)
                self.rule(unseen, (variable,), ((o,) for o in chosen))
            else:
                self.warnings.append(Claim("not-checked", claim.about, claim.words, claim.rests_on))
            return
        shown = judgement.found or ""
        if key == "gpu.same_model":
            shown = ", ".join(dict.fromkeys(card.name for card in self.host.cards))
        found = Claim(claim.kind, claim.about, (*claim.words, ("found", shown)), claim.rests_on)
        if requirement.forbids:
            self.rule(found, (variable,), ((o,) for o in chosen))
        else:
            self.warnings.append(found)

    def _fact_is_unknown(self, key: str) -> bool:
        facts = self.host.facts
        if key == "kernel":
            return facts.kernel.running is UNKNOWN and facts.kernel.next_boot is UNKNOWN
        if key == "ram_gib":
            return facts.memory_mib is UNKNOWN
        return False

    def _of_a_choice(
        self, option: Option, requirement: Requirement, claim: Claim, variable: int, chosen: Sequence[int]
    ) -> None:
        key, wanted = requirement.key, requirement.value
        scope: tuple[int, ...]
        bad: list[tuple[int, ...]]
        if key in ("driver", "host_driver", "modules"):
            scope = (DRIVER, variable)
            if key == "driver":
                allows = quick(wanted)
                fits = [driver is None or allows(driver.version) for driver in self.drivers]
            else:
                fits = [_suits(key, wanted, driver) for driver in self.drivers]
            bad = [(d, o) for d, fit in enumerate(fits) if not fit for o in chosen]
        elif key == "cuda":
            scope = (CUDA, variable)  # no driver, no level: "needs a driver" is said by a rule of its own
            fits = [level is None or bool(wanted.allows(level)) for level in self.levels]
            bad = [(c, o) for c, fit in enumerate(fits) if not fit for o in chosen]
        elif key in ("runtime", "docker", "containerd"):
            scope = (RUNTIME, variable)
            bad = [
                (r, o)
                for r, runtime in enumerate(self.runtimes)
                for o in chosen
                if not self._runs(key, wanted, runtime)
            ]
        else:
            scope = (variable,)
            options = self.options[variable - FIRST_NETWORK]
            bad = [(o,) for o in chosen if not _client_suits(wanted, options[o])]
        if requirement.forbids:
            if key == "driver":
                claim = self._with_latest_accepted(claim, wanted)
            self.rule(claim, scope, bad)
        # What does not forbid is asked again when the stack is known: reasons.unmet.

    def _with_latest_accepted(self, claim: Claim, wanted: Specifier[DriverVersion]) -> Claim:
        offered = [d.version for d in self.drivers if d is not None and d.package is not None]
        allows = quick(wanted)
        latest = max((v for v in offered if allows(v)), default=None)
        listed = wanted.exact_versions()
        branches = {v.branch for v in offered}
        near = [v.text for v in listed or () if v.branch in branches]
        words = [
            ("latest", latest.text if latest is not None else ""),
            (
                "too-new",
                ", ".join(sorted({v.text for v in offered if not allows(v)}, key=DriverVersion)),
            ),
            ("listed", str(len(listed)) if listed is not None and len(listed) > 1 else ""),
            ("near", near[-1] if near else ""),
        ]
        return Claim(claim.kind, claim.about, (*claim.words, *words), claim.rests_on)

    def _runs(self, key: str, wanted: Any, runtime: RuntimeVersion | None) -> bool:
        if runtime is None:
            return True  # "not offered" is said by a rule of its own
        if key == "runtime":
            engine = self.intent.runtime
            return bool({engine, *_ALSO.get(engine, ())} & set(wanted))
        if key == "docker" and not self.intent.runtime.startswith("docker"):
            return True
        package = runtime.package
        if key == "containerd":
            newest = self.host.offers.newest("containerd")
            if newest is None:
                return True
            package = newest
        version = kernel_version(upstream(package.version))
        return version is None or bool(wanted.allows(version))

    def between_networks(self) -> None:
        """Two networks that want opposite things of one host."""
        for a in range(len(self.options)):
            for b in range(a + 1, len(self.options)):
                self._between(a, b)

    def _between(self, a: int, b: int) -> None:
        scope = (FIRST_NETWORK + a, FIRST_NETWORK + b)
        told: set[str] = set()
        for conflict in self.matrix.conflicts.values():
            pairs = [
                (i, j)
                for i, one in enumerate(self.options[a])
                for j, other in enumerate(self.options[b])
                if _parties(conflict, one, other)
            ]
            # Which ports really meet is computed from the wishes themselves; the entry speaks of all at once.
            if not pairs or conflict.about == "ports":
                continue
            told.add(conflict.about)
            one, other = self.options[a][pairs[0][0]], self.options[b][pairs[0][1]]
            claim = Claim(
                "networks-conflict",
                f"{one.network.name} and {other.network.name}",
                (("statement", conflict.statement), ("way-out", conflict.way_out or "")),
                (entry("conflicts", conflict, conflict.id),),
            )
            if conflict.exclusive and conflict.confidence != "low" and conflict.about not in CHOSEN:
                self.rule(claim, scope, pairs)
            elif conflict.about not in CHOSEN:
                self.warnings.append(claim)
        for key in sorted((CONFIGURED | {"ports"}) - told):
            self._opposite(a, b, key, scope)

    def _opposite(self, a: int, b: int, key: str, scope: tuple[int, int]) -> None:
        pairs: list[tuple[int, ...]] = []
        words: tuple[tuple[str, str], ...] = ()
        rests: tuple[Source, ...] = ()
        hard = True
        for i, one in enumerate(self.options[a]):
            for j, other in enumerate(self.options[b]):
                clash = _clash(key, one, other)
                if clash is None:
                    continue
                left, right = clash
                pairs.append((i, j))
                hard = left.forbids and right.forbids and key != "ports"  # ports can be moved
                words = (
                    ("key", key),
                    ("one", text_of(left.value)),
                    ("other", text_of(right.value)),
                    ("first", one.network.name),
                    ("second", other.network.name),
                )
                rests = (entry("networks", left, one.network.id), entry("networks", right, other.network.id))
        if not pairs:
            return
        names = f"{self.options[a][0].network.name} and {self.options[b][0].network.name}"
        claim = Claim("opposite-wishes", names, words, rests)
        if hard:
            self.rule(claim, scope, pairs)
        else:
            self.warnings.append(claim)


_ALSO = {"docker-io": ("docker",), "docker-ce": ("docker",)}
"""What an engine also counts as: a network that asks for Docker takes either package of it."""


def requirement_claim(network: Network, profile: Profile, client: str, requirement: Requirement) -> Claim:
    words = (
        ("key", requirement.key),
        ("wanted", text_of(requirement.value)),
        ("because", requirement.because),
        ("client", client),
        ("profile", profile.title),
        ("seen", requirement.listed_on or requirement.seen or ""),
    )
    return Claim("network-wants", network.name, words, (entry("networks", requirement, network.id),))


def situation(host: Host) -> dict[str, Any]:
    """The host in the words of the requirement language; what is not known is left out."""
    facts = host.facts
    found: dict[str, Any] = {"os": host.os, "gpus": [_gpu(card, host) for card in host.cards]}
    if facts.os is not UNKNOWN:
        found["arch"] = {"amd64": "x86_64", "arm64": "aarch64"}.get(facts.os.architecture, facts.os.architecture)
    version = kernel_version(host.next_boot) if host.next_boot is not None else None
    if version is not None:
        found["kernel"] = version
    if facts.clock_skew_s is not UNKNOWN:
        found["clock_skew_s"] = DottedVersion(str(round(abs(facts.clock_skew_s))))
    if facts.memory_mib is not UNKNOWN:
        # A machine of 16 GiB shows a little less: the kernel and firmware keep some.
        found["ram_gib"] = DottedVersion(str(-(-facts.memory_mib // 1024)))
    return found


def _gpu(card: Card, host: Host) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if card.model is not None:
        found = {
            "model": card.model.id,
            "architecture": card.model.architecture,
            "brand": card.model.brand,
            "compute_capability": card.model.compute_capability,
        }
        if len(card.model.memory_gib) == 1:
            found["memory_gib"] = DottedVersion(f"{card.model.memory_gib[0]:g}")
    return found


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


def _suits(key: str, wanted: Any, driver: Driver | None) -> bool:
    if key == "host_driver":
        return (driver is not None) is bool(wanted == "present")
    if driver is None:
        return True  # "needs a driver" is said by a rule of its own
    return bool(driver.flavour == wanted)


def _client_suits(wanted: Mapping[str, Any], option: Option) -> bool:
    spec = wanted.get(option.program)
    if spec is None or not option.client:
        return True
    try:
        return bool(spec.allows(DottedVersion(option.client)))
    except ValueError:
        return True


def _parties(conflict: MatrixConflict, one: Option, other: Option) -> bool:
    """Whether the options stand on two sides: two parties that want the same value are on one side."""

    def sides(option: Option) -> list[tuple[int, str | None]]:
        return [
            (place, party.value)
            for place, party in enumerate(conflict.parties)
            if party.network == option.network.id and party.profile in (None, option.profile.id)
        ]

    return any(
        here != there and (value is None or value != opposite)
        for here, value in sides(one)
        for there, opposite in sides(other)
    )


def _clash(key: str, one: Option, other: Option) -> tuple[Requirement, Requirement] | None:
    """The two wishes that cannot both be granted: swap absent beside swap present."""
    for left in one.wishes.get(key, ()):
        for right in other.wishes.get(key, ()):
            if _opposed(key, left, right):
                return left, right
    if key == "gpu.binding":
        # A GPU that is handed to a VM is gone for whoever uses the host's driver, whether or not it says so.
        for bound, free in ((one, other), (other, one)):
            vfio = next((r for r in bound.wishes.get(key, ()) if r.value == "vfio"), None)
            if vfio is not None and key not in free.wishes:
                return vfio, vfio
    return None


def _opposed(key: str, left: Requirement, right: Requirement) -> bool:
    if key in ("gpu.exclusive", "dedicated"):
        return bool(left.value or right.value)
    if key == "sysctl":
        return any(right.value.get(name, value) != value for name, value in left.value.items())
    if key == "ports":
        return _overlap(left.value, right.value)
    return bool(left.value != right.value)


def _overlap(left: Ports, right: Ports) -> bool:
    """Both take 443/tcp for themselves; what is only sent to others can be shared."""
    if "outbound" in (left.direction, right.direction):
        return False
    return any(
        low <= other_high and other_low <= high
        for protocol in ("tcp", "udp")
        for low, high in left.numbers(protocol)
        for other_low, other_high in right.numbers(protocol)
    )


def has_headers(host: Host, release: str) -> bool:
    on_disk = host.facts.kernel.headers
    if on_disk is not UNKNOWN and release in on_disk:
        return True
    return bool(host.offers.named(f"linux-headers-{release}"))


def has_module(host: Host, release: str, driver: Driver) -> bool:
    modules = host.facts.driver.modules
    if modules is UNKNOWN:
        return False
    return any(m.kernel == release and m.version == driver.version.text for m in modules)
