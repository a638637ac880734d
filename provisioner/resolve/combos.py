"""Which combinations to rehearse: all that are valid, a covering array over them, or those that a lock holds.

Valid means that the resolver finds a stack: each combination is a host that could be (`hypothetical.py`) with a
request that names driver branch, module flavour, runtime and network. No rule is written a second time here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from provisioner.errors import BadInput
from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import judge
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock, Lock
from provisioner.resolve.covering import Space, covering_array
from provisioner.resolve.host import Host, prepare
from provisioner.resolve.hypothetical import Shelf
from provisioner.resolve.options import Option, network_named, options_of
from provisioner.resolve.problem import Model, build
from provisioner.resolve.rules import DRIVER, brings_its_own_driver
from provisioner.resolve.solver import Rule, best
from provisioner.resolve.wishes import situation

PARAMETERS = ("os", "architecture", "branch", "modules", "runtime", "network")
NO_DRIVER = "none"
"""Value of branch and modules where the network brings a driver of its own."""


@dataclass(frozen=True)
class Combo:
    """One host to rehearse. `driver` is the exact version that the resolver chooses for it, `gpus` are model ids."""

    os: str
    architectures: tuple[str, ...]
    gpus: tuple[str, ...]
    branch: str
    modules: str
    driver: str
    runtime: str
    networks: tuple[str, ...]
    hosts: tuple[str, ...] = ()  # of the fleet; empty when the combination comes from the matrix

    @property
    def name(self) -> str:
        """`debian-12-ada-535-open-docker-io-akash`: a job or platform name; unique within one answer."""
        parts = [self.os, *dict.fromkeys(self.architectures), self.branch, self.modules, self.runtime, *self.networks]
        return "-".join(part.replace("/", "-").replace("_", "-") for part in parts if part and part != NO_DRIVER)


@dataclass(frozen=True)
class Upgrade:
    """Hosts that go from one combination to another."""

    before: Combo
    after: Combo
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Upgrades:
    """The pairs between two locks; hosts that only one of them knows are told apart, for they are no upgrade."""

    pairs: tuple[Upgrade, ...]
    unchanged: tuple[str, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


Only = Mapping[str, Sequence[str]]


def valid(matrix: Matrix, shelf: Shelf, only: Only) -> dict[tuple[str, ...], Combo]:
    """Every valid combination by its values in the order of PARAMETERS, ordered as the matrix is."""
    known = parameters(matrix, shelf, only)
    found: dict[tuple[str, ...], Combo] = {}
    for os in known["os"]:
        for architecture in known["architecture"]:
            models = [gpu.id for gpu in matrix.gpus.values() if gpu.architecture == architecture]
            hosts = {model: prepare(shelf.host(os, [model]), matrix) for model in models}
            for runtime in known["runtime"]:
                most = _most(hosts.values(), runtime, matrix)
                for network in known["network"]:
                    for values, combo in _of_a_network(hosts, runtime, network, matrix, most).items():
                        row = (os, architecture, *values, runtime, network)
                        if all(value in known[name] for name, value in zip(PARAMETERS, row, strict=True)):
                            found[row] = dataclasses.replace(combo, os=os, architectures=(architecture,))
    return found


def array(rows: Mapping[tuple[str, ...], Combo], strength: int) -> tuple[Combo, ...]:
    """A covering array over valid rows: every pair (strength 2) that some valid row holds stands in it."""
    names = list(rows)
    columns = [list(dict.fromkeys(row[place] for row in names)) for place in range(len(PARAMETERS))]
    index = [{value: number for number, value in enumerate(column)} for column in columns]
    numbers = [tuple(index[place][value] for place, value in enumerate(row)) for row in names]
    space = Space.of_rows([len(column) for column in columns], numbers)
    chosen = covering_array(space, strength) if names else ()
    return tuple(rows[tuple(columns[place][x] for place, x in enumerate(row))] for row in sorted(chosen))


def parameters(matrix: Matrix, shelf: Shelf, only: Only) -> dict[str, tuple[str, ...]]:
    """The values of each parameter, narrowed by `only`. Raises BadInput for a name or value that is not known."""
    every: dict[str, tuple[str, ...]] = {
        "os": shelf.releases(),
        "architecture": tuple(dict.fromkeys(gpu.architecture for gpu in matrix.gpus.values())),
        "branch": (*matrix.drivers, NO_DRIVER),
        "modules": ("proprietary", "open", NO_DRIVER),
        "runtime": tuple(runtime.id for runtime in matrix.runtimes.values() if runtime.kind == "engine"),
        "network": tuple(matrix.networks),
    }
    for name, values in only.items():
        if name not in every:
            raise BadInput(
                "combos-unknown-parameter", f"there is no parameter '{name}'", hint=f"Known: {', '.join(every)}"
            )
        if name == "network":
            for value in values:
                network_named(value, matrix)  # akash/gpu-operator is a way to serve that is not tried by default
        elif wrong := [value for value in values if value not in every[name]]:
            raise BadInput(
                "combos-unknown-value",
                f"'{wrong[0]}' is no value of {name} here",
                hint=f"Known: {', '.join(every[name])}",
            )
        every[name] = tuple(dict.fromkeys(values))
    return every


def _most(hosts: Iterable[Host], runtime: str, matrix: Matrix) -> set[tuple[str, str]]:
    """What any of these hosts can run while no network asks for anything: a network only ever takes away."""
    different = {_alike(host, ()): host for host in hosts}
    return {values for host in different.values() for values in _fitting(host, Intent(runtime=runtime), matrix)}


def _of_a_network(
    hosts: Mapping[str, Host], runtime: str, network: str, matrix: Matrix, most: set[tuple[str, str]]
) -> dict[tuple[str, str], Combo]:
    """By branch and flavour, the first card of the architecture that serves the network with them."""
    intent = Intent(networks=(network,), runtime=runtime)
    options = options_of(*network_named(network, matrix))
    goal = set(most)
    if any(brings_its_own_driver(option) for option in options):
        goal.add((NO_DRIVER, NO_DRIVER))
    found: dict[tuple[str, str], Combo] = {}
    tried: set[object] = set()
    for model, host in hosts.items() if goal else ():
        alike = _alike(host, options)
        if alike in tried:
            continue
        tried.add(alike)
        for values, version in _fitting(host, intent, matrix).items():
            if values not in found:
                found[values] = Combo("", (), (model,), *values, version, runtime, (network,))
        if goal <= set(found):
            break
    return {values: found[values] for values in sorted(found)}


def _alike(host: Host, options: Sequence[Option]) -> object:
    """Equal for hosts whose cards every rule judges alike, as far as this network goes."""
    asked = {id(r): r for option in options for r in option.profile.requirements if r.key.startswith("gpu.")}
    known = situation(host)
    cards = [
        (card.ceiling, card.model.modules, card.model.driver_floor, card.model.last_driver)
        for card in host.cards
        if card.model is not None
    ]
    return tuple(cards), tuple(judge(requirement, known).answer for requirement in asked.values())


def _fitting(host: Host, intent: Intent, matrix: Matrix) -> dict[tuple[str, str], str]:
    """Branch and flavour → the version that the resolver prefers of those with which a stack exists."""
    model = build(host, intent, matrix, beside="none")
    found: dict[tuple[str, str], str] = {}
    for place, driver in enumerate(model.drivers):
        values = (driver.branch.branch, driver.flavour) if driver is not None else (NO_DRIVER, NO_DRIVER)
        if values not in found and _solvable_with(model, place):
            found[values] = driver.version.text if driver is not None else ""
    return found


def _solvable_with(model: Model, driver: int) -> bool:
    problem = model.problem
    others = frozenset((place,) for place in range(len(model.drivers)) if place != driver)
    always = (Rule((DRIVER,), others), *problem.always) if others else problem.always
    return best(dataclasses.replace(problem, always=always)) is not None


# --- a fleet ------------------------------------------------------------------------------------------------------


def of_lock(lock: Lock, matrix: Matrix) -> tuple[Combo, ...]:
    """The combinations that a fleet really has, most common first; each names its hosts."""
    grouped: dict[Combo, list[str]] = {}
    for name, stack in lock.hosts.items():
        grouped.setdefault(_combo(stack, matrix), []).append(name)
    found = [dataclasses.replace(combo, hosts=tuple(sorted(names))) for combo, names in grouped.items()]
    return tuple(sorted(found, key=lambda combo: (-len(combo.hosts), combo.name, combo.driver, combo.gpus)))


def upgrades(before: Lock, after: Lock, matrix: Matrix) -> Upgrades:
    """Each way from a combination of the first lock to one of the second, once, with the hosts that go it."""
    grouped: dict[tuple[Combo, Combo], list[str]] = {}
    unchanged = []
    for name in sorted(before.hosts.keys() & after.hosts.keys()):
        old, new = before.hosts[name], after.hosts[name]
        if (_combo(old, matrix), _units(old)) == (_combo(new, matrix), _units(new)):
            unchanged.append(name)
        else:
            grouped.setdefault((_combo(old, matrix), _combo(new, matrix)), []).append(name)
    pairs = [Upgrade(old, new, tuple(names)) for (old, new), names in grouped.items()]
    return Upgrades(
        pairs=tuple(sorted(pairs, key=lambda pair: (-len(pair.hosts), pair.hosts))),
        unchanged=tuple(unchanged),
        only_before=tuple(sorted(before.hosts.keys() - after.hosts.keys())),
        only_after=tuple(sorted(after.hosts.keys() - before.hosts.keys())),
    )


def _units(stack: HostLock) -> tuple[object, ...]:
    """What else can change while the names stay: package versions and clients."""
    return (
        tuple(sorted((package.name, package.version) for package in stack.packages)),
        tuple(sorted((name, choice.value) for name, choice in stack.networks.items())),
        stack.module_options,
    )


def _combo(stack: HostLock, matrix: Matrix) -> Combo:
    models = tuple(dict.fromkeys(stack.gpus))
    return Combo(
        os=stack.os,
        architectures=tuple(dict.fromkeys(_architecture(name, matrix) for name in models)),
        gpus=models,
        branch=stack.driver_branch.value if stack.driver_branch is not None else NO_DRIVER,
        modules=stack.modules.value if stack.modules is not None else NO_DRIVER,
        driver=stack.driver_version.value if stack.driver_version is not None else "",
        runtime=stack.engine,
        networks=tuple(sorted(stack.intent.networks)),
    )


def _architecture(name: str, matrix: Matrix) -> str:
    """A lock names a model, an architecture where the model is not known, or a PCI id where neither is."""
    model = matrix.gpus.get(name)
    return model.architecture if model is not None else name
