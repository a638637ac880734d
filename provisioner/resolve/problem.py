"""Turns host, request and matrix into variables and rules; every rule carries the claim that it stands for.

Variables, in order of preference: `driver` (exact version and flavour), `compat` (a package for forward
compatibility, or none), `cuda` (level offered), `runtime`, `toolkit`, `cdi`, and one per network (profile and client
version). The first assignment in the order of their values is the one wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from provisioner.matrix.entries import DriverBranch, Flavour
from provisioner.matrix.reader import Matrix
from provisioner.model.intent import Intent
from provisioner.model.version import CudaVersion, DriverVersion, Specifier
from provisioner.resolve.compat import Compat, compats_of
from provisioner.resolve.conflict import Claim
from provisioner.resolve.containers import (
    Cdi,
    Toolkit,
    cdi_of,
    runtimes_of,
    toolkit_specifier,
    toolkits_of,
)
from provisioner.resolve.host import (
    Driver,
    Host,
    NewestFirst,
    RuntimeVersion,
    below_floor,
    is_backport,
    past_end_of_life,
    quick,
    today,
)
from provisioner.resolve.options import Option, cuda_level, driver_specifier, network_named, options_of
from provisioner.resolve.question import Question, pin, pose
from provisioner.resolve.rules import NONE, Values
from provisioner.resolve.solver import Problem
from provisioner.resolve.tunnels import rules_of_the_tunnel
from provisioner.resolve.wishes import Wishes

Beside = Literal["none", "newest", "telling"]


@dataclass(frozen=True)
class Model:
    """The problem with the meaning of its indices; `warnings` hold whatever is chosen."""

    host: Host
    intent: Intent
    drivers: tuple[Driver | None, ...]
    compats: tuple[Compat | None, ...]
    levels: tuple[CudaVersion | None, ...]
    runtimes: tuple[RuntimeVersion | None, ...]
    toolkits: tuple[Toolkit | None, ...]
    cdi: tuple[Cdi | None, ...]
    options: tuple[tuple[Option, ...], ...]  # one per network of the request
    problem: Problem
    claims: tuple[Claim, ...]  # claims[i] is what problem.rules[i] stands for
    warnings: tuple[Claim, ...]
    only_with: tuple[tuple[int, frozenset[int], Claim], ...]  # warnings that hold with these clients of a network


def build(
    host: Host,
    intent: Intent,
    matrix: Matrix,
    *,
    beside: Beside = "newest",
    between: bool = True,
    asked: Question | None = None,
) -> Model:
    """Return the problem of one host. Raises BadInput when the request names what cannot be read.

    `beside` says which drivers stand in it that no source of the host offers: none, to see whether there is a
    stack at all; the newest of each branch, to say why nothing newer; or `telling`, one for each way in which
    some rule tells versions apart: without them a list of exact versions would seem at odds with the host
    where only an offer is missing. Without `between`, networks are not set against each other: that does not
    depend on the host, so who asks about many hosts asks it once. `asked` is a value that must be taken, as a
    rule like any other.
    """
    networks = tuple(network_named(name, matrix) for name in dict.fromkeys(intent.networks))
    also = {network.id: pin for network, _, pin in networks}
    if asked is not None and asked.network is not None:
        also[asked.network] = asked.value
    options = tuple(
        _pinned_first(options_of(network, way, also[network.id]), pinned) for network, way, pinned in networks
    )
    wanted_driver = driver_specifier(intent)
    wanted_cuda = cuda_level(intent)
    wishes = (wanted_driver, asked.drivers if asked is not None else None)
    specifiers = _specifiers(host, options, [wish for wish in wishes if wish is not None])
    elsewhere = () if beside == "none" else _elsewhere(host, matrix, specifiers if beside == "telling" else ())
    drivers = _drivers(host, intent, elsewhere)
    wanted_levels = [level for level in (wanted_cuda, asked.level if asked is not None else None) if level is not None]
    compats = compats_of(
        host, matrix, drivers, (*wanted_levels, *_levels_asked(options)), elsewhere=beside == "telling"
    )
    levels = _levels(host, drivers, compats, wanted_levels)
    runtimes = runtimes_of(host, intent, matrix)
    toolkits = toolkits_of(host, intent, matrix)
    values = Values(drivers, compats, levels, runtimes, toolkits, cdi_of(toolkits), options)
    rules = Wishes(host, intent, matrix, values)
    rules.of_the_cards()
    rules.of_the_offers()
    rules.of_the_request(wanted_driver, wanted_cuda)
    rules.of_the_kernels()
    rules.of_the_runtime()
    rules.of_the_toolkit(toolkit_specifier(intent))
    rules.of_cdi()
    for place in range(len(options)):
        rules.of_a_network(place)
    rules_of_the_tunnel(rules)
    if between:
        rules.between_networks()
    for network, _, pinned in networks:
        if pinned is not None:
            pin(rules, Question(network.id, pinned))
    if asked is not None:
        pose(rules, asked)
    return Model(
        host=host,
        intent=intent,
        drivers=drivers,
        compats=compats,
        levels=levels,
        runtimes=runtimes,
        toolkits=toolkits,
        cdi=values.cdi,
        options=options,
        problem=Problem(
            values.sizes,
            tuple(rules.rules),
            tuple(rules.always),
        ),
        claims=tuple(rules.claims),
        warnings=tuple(dict.fromkeys(rules.warnings)),
        only_with=tuple(rules.only_with),
    )


def _pinned_first(options: tuple[Option, ...], pinned: str | None) -> tuple[Option, ...]:
    """What is said of a network is said of its first client, so a pinned one stands first."""
    return options if pinned is None else tuple(sorted(options, key=lambda option: option.client != pinned))


def _specifiers(
    host: Host, options: Sequence[Sequence[Option]], wanted: Sequence[Specifier[DriverVersion]]
) -> tuple[Specifier[DriverVersion], ...]:
    """Every condition on the exact driver version that stands in some rule."""
    found = list(wanted)
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
    day = today(host.facts)
    keep = intent.policy.past_end_of_life == "keep"

    def order(driver: Driver) -> tuple[Any, ...]:
        stays = driver.installed and keep
        ended = past_end_of_life(driver, day)
        support = "" if ended else (driver.branch.eol.date or "")
        return (
            driver.package is None,  # what no source offers is listed last, only to say why it is not chosen
            ended and not stays,
            below_floor(driver, day) and not stays,
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
    return (numbers, NewestFirst(driver.package.version) if driver.package is not None else NewestFirst("0"))


def _levels_asked(options: Sequence[Sequence[Option]]) -> tuple[CudaVersion, ...]:
    """The lowest level that each network lets in."""
    found: dict[CudaVersion, None] = {}
    for option in (option for network in options for option in network):
        for wish in option.wishes.get("cuda", ()):
            low = wish.cuda.intervals[0].low if wish.cuda is not None and wish.forbids else None
            if low is not None:
                found[low.level] = None
    return tuple(found)


def _levels(
    host: Host,
    drivers: Sequence[Driver | None],
    compats: Sequence[Compat | None],
    wanted: Sequence[CudaVersion],
) -> tuple[CudaVersion | None, ...]:
    """Only levels at which some rule changes its answer, highest first."""
    branches = {driver.branch.id: driver.branch for driver in drivers if driver is not None}
    found = {branch.native_cuda.level for branch in branches.values()}
    found |= {card.ceiling for card in host.cards if card.ceiling is not None}
    found |= {compat.level for compat in compats if compat is not None}
    found |= set(wanted)
    return (*sorted(found, reverse=True), NONE)
