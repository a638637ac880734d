"""What the page of `provision matrix html` looks up: for each release and card, what every rule takes away and why.

Each rule is one that the resolver uses, taken from the problem that it builds for such a host. A rule forbids values
of one axis (drivers, CUDA levels, engine versions) or everything, and applies when the networks it names are picked.
So the page decides a cell as the resolver would decide a request for that driver branch and that CUDA level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from provisioner.errors import ProvisionError
from provisioner.matrix.reader import Matrix
from provisioner.model.intent import Intent
from provisioner.resolve import explain
from provisioner.resolve.conflict import Claim, entry
from provisioner.resolve.host import prepare
from provisioner.resolve.hypothetical import Shelf, Sources
from provisioner.resolve.options import Option, named_parts, network_named, options_of, versioned_client
from provisioner.resolve.problem import Model, build
from provisioner.resolve.rules import CUDA, DRIVER, FIRST_NETWORK, RUNTIME

FORMAT = 1
AXES = {DRIVER: "d", CUDA: "c", RUNTIME: "r"}
SOURCES: tuple[Sources, ...] = ("archive", "vendor")
ENGINES = ("docker-io", "docker-ce", "podman")
"""The page takes the first of these that a release offers."""

Packed = tuple[int, str, str, tuple[int, ...]]
"""Text, axis, forbidden values as a bit mask in hex, networks that must be picked."""


def page_data(matrix: Matrix) -> dict[str, Any]:
    """All that the page holds: texts and rules once, and for each place (release, sources) and card which apply."""
    networks = _networks(matrix)
    book = _Book()
    places = []
    for sources in SOURCES:
        shelf = Shelf(matrix, sources)
        places += [_place(os, shelf, networks, book) for os in shelf.releases()]
    return {
        "format": FORMAT,
        "digest": matrix.digest,
        "read": Shelf(matrix, "archive").day().isoformat(),
        "os": {os: matrix.os[os].name for os in dict.fromkeys(place["os"] for place in places)},
        "gpus": [[gpu.id, gpu.name, matrix.architectures[gpu.architecture].title] for gpu in matrix.gpus.values()],
        "networks": [[name, _network_title(name, matrix)] for name in networks],
        "branches": {branch.branch: _branch(branch.id, matrix) for branch in matrix.drivers.values()},
        "places": places,
        "rules": list(book.rules),
        "texts": list(book.texts),
    }


def engine_of(os: str, shelf: Shelf) -> str:
    """The engine that the page takes on a release."""
    named = {offer.name for offer in shelf.offers(os)}
    for engine in ENGINES:
        for names in shelf.matrix.runtimes[engine].packages:
            if os in names.os and named.issuperset(names.install):
                return engine
    return ENGINES[0]


def _networks(matrix: Matrix) -> tuple[str, ...]:
    """Each way to serve a network, the default one by the plain name as in a request; where clients differ, each."""
    found = []
    for network in matrix.networks.values():
        default = network.default_profile
        ways = [network.id] if default is not None or not network.profiles else []
        ways += [f"{network.id}/{p.id}" for p in network.profiles if default is None or p.id != default.id]
        for way in ways:
            clients = list(dict.fromkeys(option.client for option in options_of(*network_named(way, matrix))))
            found += [f"{way}@{client}" for client in clients] if len(clients) > 1 else [way]
    return tuple(found)


def _network_title(name: str, matrix: Matrix) -> str:
    network_id, profile_id, client = named_parts(name)
    network = matrix.networks[network_id]
    titles = [profile.title for profile in network.profiles if profile.id == profile_id]
    title = f"{network.name}: {titles[0]}" if titles else network.name
    program = versioned_client(network)
    return f"{title}, {program.name} {client}" if client and program is not None else title


def _branch(name: str, matrix: Matrix) -> dict[str, Any]:
    branch = matrix.drivers[name]
    level = branch.native_cuda.level.text
    carried = Claim("native-cuda", level, (("branch", branch.branch),), (entry("drivers", branch, branch.id),))
    words = f"{explain.sentence(carried)} and nothing higher"
    ended = branch.eol.is_past(Shelf(matrix, "archive").day()) is True
    return {
        "native": level,
        "until": branch.eol.date or "",
        "ended": ended,
        "carried": [words, "; ".join(explain.sources(carried))],
    }


class _Book:
    """Texts and rules, each once, by number."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], int] = {}
        self.rules: dict[Packed, int] = {}

    def rule(self, claim: Claim, axis: str, values: Iterable[int], networks: tuple[int, ...]) -> int:
        text = (explain.sentence(claim), "; ".join(explain.sources(claim)))
        number = self.texts.setdefault(text, len(self.texts))
        mask = sum(1 << value for value in set(values))
        return self.rules.setdefault((number, axis, f"{mask:x}", networks), len(self.rules))


def _place(os: str, shelf: Shelf, networks: tuple[str, ...], book: _Book) -> dict[str, Any]:
    """A release with one choice of package sources: what can be chosen there, and the rules of each card."""
    engine = engine_of(os, shelf)
    first, *others = shelf.matrix.gpus
    whole = _model(os, first, shelf, Intent(networks=networks, runtime=engine), between=True)
    every = _rules(whole, networks, range(len(networks)), book)
    # What networks ask of anything but the card, and of each other, is the same for the next card.
    asking = [place for place, name in enumerate(networks) if _asks_of_cards(name, shelf.matrix)]
    packed = list(book.rules)
    shared = [number for number in every if packed[number][3] and not set(packed[number][3]) <= set(asking)]
    shared += [number for number in every if len(packed[number][3]) > 1 and number not in shared]
    rules = {first: set(every)}
    narrow = Intent(networks=tuple(networks[place] for place in asking), runtime=engine)
    for gpu in others:
        model = _model(os, gpu, shelf, narrow, between=False)
        if (model.drivers, model.levels, model.runtimes) != (whole.drivers, whole.levels, whole.runtimes):
            raise ProvisionError(
                "page-cannot-show", f"the page takes the choices of {os} as one, {gpu} tells them apart"
            )
        rules[gpu] = {*shared, *_rules(model, networks, asking, book)}
    common = set.intersection(*rules.values())
    return {
        "os": os,
        "sources": shelf.sources,
        "engine": engine,
        "drivers": [
            [driver.branch.branch, driver.version.text, driver.flavour]
            for driver in whole.drivers
            if driver is not None
        ],
        "levels": [level.text for level in whole.levels if level is not None],
        "engines": len(whole.runtimes) - 1,
        "rules": sorted(common),
        "gpus": {gpu: sorted(numbers - common) for gpu, numbers in rules.items()},
    }


def _model(os: str, gpu: str, shelf: Shelf, intent: Intent, *, between: bool) -> Model:
    return build(prepare(shelf.host(os, [gpu]), shelf.matrix), intent, shelf.matrix, between=between)


def _asks_of_cards(name: str, matrix: Matrix) -> bool:
    return any(key.startswith("gpu.") for option in options_of(*network_named(name, matrix)) for key in option.wishes)


def _rules(model: Model, names: Sequence[str], places: Sequence[int], book: _Book) -> list[int]:
    """The rules of a problem as numbers; `places` are its networks by their place on the page.

    Where the page names a client, the others of that network are not its business, nor is that it is named.
    """
    found = []
    meant = {
        FIRST_NETWORK + place: _meant(options, named_parts(names[places[place]])[2])
        for place, options in enumerate(model.options)
    }
    dead = _dead(model, meant)
    last = {DRIVER: len(model.drivers) - 1, CUDA: len(model.levels) - 1, RUNTIME: len(model.runtimes) - 1}
    for rule, claim in zip(model.problem.rules, model.claims, strict=True):
        if claim.kind == "wanted-client":
            continue
        axes = [variable for variable in rule.scope if variable < FIRST_NETWORK]
        if not set(axes) <= set(AXES):
            raise ProvisionError("page-cannot-show", f"the page assumes no toolkit and no cuda-compat: {claim}")
        picked = [variable for variable in rule.scope if variable >= FIRST_NETWORK]
        networks = tuple(places[variable - FIRST_NETWORK] for variable in picked)
        if len(axes) > 1:
            raise ProvisionError("page-cannot-show", f"the page looks up one axis per rule, this has two: {claim}")
        if not axes and len(picked) == 1:
            if picked[0] in dead:
                found.append(book.rule(claim, "", (), networks))
            continue
        # The last value of each axis is "none": a cell always asks for a driver, so it is never looked at.
        forbids = [
            items
            for items in rule.forbids
            if all(value in meant[v] for v, value in zip(rule.scope, items, strict=True) if v in meant)
        ]
        values = {items[0] for items in forbids} - {last[axes[0]]} if axes else set()
        if not forbids or (axes and not values):
            continue
        counted = sum(1 for items in forbids if not axes or items[0] != last[axes[0]])
        clients = math.prod(len(meant[variable]) for variable in picked)
        if counted != clients * (len(values) if axes else 1):
            raise ProvisionError(
                "page-cannot-show", f"the page takes the clients of a network as one, this tells them apart: {claim}"
            )
        found.append(book.rule(claim, AXES[axes[0]] if axes else "", values, networks))
    return found


def _meant(options: Sequence[Option], client: str) -> set[int]:
    return {value for value, option in enumerate(options) if client in ("", option.client)}


def _dead(model: Model, meant: Mapping[int, set[int]]) -> set[int]:
    """Networks of which no client is left: single clients that fall leave the others."""
    fallen: dict[int, set[int]] = {}
    for rule, claim in zip(model.problem.rules, model.claims, strict=True):
        if len(rule.scope) == 1 and rule.scope[0] >= FIRST_NETWORK and claim.kind != "wanted-client":
            fallen.setdefault(rule.scope[0], set()).update(value for (value,) in rule.forbids)
    return {variable for variable, values in fallen.items() if meant[variable] <= values}
