"""A second opinion on whole hosts: which stack is best, by trying everything, sharing no code with the resolver.

It reads the entries of the matrix itself, from the meaning of each field, for the random worlds of
test_resolver.py: cards that the matrix knows, requests with a driver, flavour, CUDA level, policy and networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import Any

from provisioner.matrix.reader import Matrix
from provisioner.model.facts import HostFacts, OfferedPackage
from provisioner.model.intent import Intent
from provisioner.model.version import CudaVersion, DebianVersion, DriverVersion, Specifier

CLASHING = ("cdi", "swap", "cgroup_driver", "unattended_upgrades")


@dataclass(frozen=True)
class Found:
    """One package set at one version."""

    package: str
    branch: Any
    names: Any
    place: int


def offered(facts: HostFacts, matrix: Matrix) -> list[Found]:
    """Every version of every set whose packages are all there."""
    assert facts.os and facts.offers
    there: dict[str, list[OfferedPackage]] = {}
    for offer in facts.offers:
        there.setdefault(offer.name, []).append(offer)
    found = []
    for branch in matrix.drivers.values():
        for place, names in enumerate(branch.packages):
            if facts.os.id not in names.os:
                continue
            for version in sorted({o.version for o in there.get(names.kernel_package, [])}):
                upstream = DebianVersion(version).upstream
                if not upstream.startswith(branch.branch + "."):
                    continue
                moving = [name for name in names.install if name not in names.independent]
                whole = all(
                    any(DebianVersion(o.version).upstream == upstream for o in there.get(name, [])) for name in moving
                ) and all(there.get(name) for name in names.independent)
                if whole:
                    found.append(Found(version, branch, names, place))
    return found


def fits(one: Found, facts: HostFacts, intent: Intent, matrix: Matrix) -> bool:
    """Whether the driver may run here: cards, request, policy, and each network's wish for it."""
    upstream = DriverVersion(DebianVersion(one.package).upstream)
    number = int(one.branch.branch)
    ceiling = one.branch.native_cuda
    for gpu in facts.gpus or ():
        model = matrix.gpus_with_pci(gpu.vendor, gpu.device)[0]
        architecture = matrix.architectures[model.architecture]
        last = model.last_driver or architecture.last_driver
        if last and number > int(last):
            return False
        if architecture.first_driver and number < int(architecture.first_driver):
            return False
        if architecture.id not in one.branch.architectures or architecture.id in one.branch.not_supported:
            return False
        if one.names.flavour not in architecture.modules or one.names.flavour not in model.modules:
            return False
        if model.driver_floor is not None and not model.driver_floor.allows(upstream):
            return False
        window = next((w for w in architecture.windows if model.compute_capability in w.capabilities), None)
        limit = model.last_cuda or (window.last_cuda if window is not None else architecture.last_cuda)
        if limit is not None and limit.level < ceiling:
            ceiling = limit.level
    if intent.driver is not None:
        wanted: Specifier[DriverVersion] = (
            Specifier.parse(f"=={intent.driver}.*", DriverVersion)
            if intent.driver.isdigit()
            else Specifier.parse(intent.driver, DriverVersion)
        )
        if not wanted.allows(upstream):
            return False
    if intent.modules not in ("auto", one.names.flavour):
        return False
    if intent.cuda is not None and ceiling < CudaVersion(intent.cuda):
        return False
    if one.branch.branch in intent.policy.forbid_branches:
        return False
    if intent.policy.past_end_of_life == "refuse" and _ended(one, facts):
        return False
    for requirement in _requirements(intent, matrix):
        if not requirement.forbids:
            continue
        if requirement.key == "driver" and not requirement.value.allows(upstream):
            return False
        if requirement.key == "modules" and requirement.value != one.names.flavour:
            return False
        if requirement.key == "cuda" and not requirement.value.allows(ceiling):
            return False
    return True


def _requirements(intent: Intent, matrix: Matrix) -> list[Any]:
    return [r for name in intent.networks for r in matrix.networks[name].default_profile.requirements]


def _ended(one: Found, facts: HostFacts) -> bool:
    return one.branch.eol.is_past(facts.taken_at.date()) is True


def host_can(facts: HostFacts, intent: Intent, matrix: Matrix) -> bool:
    """What no choice of versions changes: the cards against each network, and the networks against each other."""
    models = [matrix.gpus_with_pci(gpu.vendor, gpu.device)[0] for gpu in facts.gpus or ()]
    release = facts.kernel.next_boot
    assert isinstance(release, str)
    kernel = tuple(int(part) for part in release.split("-")[0].split("+")[0].split(".")[:2])
    for requirement in _requirements(intent, matrix):
        if not requirement.forbids:
            continue
        if requirement.key == "gpu.model" and any(model.id not in requirement.value for model in models):
            return False
        if requirement.key == "gpu.same_model" and len({model.id for model in models}) > 1:
            return False
        if requirement.key == "kernel":
            low = requirement.value.intervals[0].low
            if low is not None and kernel < tuple(int(part) for part in low.text.split(".")[:2]):
                return False
    return all(not (one < other and _clash(one, other, matrix)) for one, other in product(intent.networks, repeat=2))


def _clash(one: str, other: str, matrix: Matrix) -> bool:
    left = {r.key: r for r in matrix.networks[one].default_profile.requirements if r.forbids}
    right = {r.key: r for r in matrix.networks[other].default_profile.requirements if r.forbids}
    if any(key in left and key in right and left[key].value != right[key].value for key in CLASHING):
        return True
    return "gpu.exclusive" in left and "gpu.exclusive" in right


def best(facts: HostFacts, intent: Intent, matrix: Matrix) -> str | None:
    """The package version of the best driver that fits, or None."""
    if not host_can(facts, intent, matrix):
        return None
    candidates = [one for one in offered(facts, matrix) if fits(one, facts, intent, matrix)]
    if not candidates:
        return None
    newest = sorted(candidates, key=lambda one: DebianVersion(one.package), reverse=True)
    return min(newest, key=lambda one: _worse(one, facts, intent)).package


def _worse(one: Found, facts: HostFacts, intent: Intent) -> tuple[Any, ...]:
    """The order of design.md: nothing stale kept silently, then what is there, then support, then the default."""
    assert facts.packages is not None
    there = facts.packages.get(one.names.kernel_package)  # type: ignore[union-attr]  # worlds always know packages
    installed = there is not None and there.version == one.package
    keeps = installed and intent.policy.past_end_of_life == "keep"
    upstream = DriverVersion(DebianVersion(one.package).upstream)
    floors = [f.version for f in one.branch.security if f.version is not None and f.confidence != "low"]
    told = sorted((f for f in one.branch.security if f.confidence != "low"), key=lambda f: f.published)
    unmended = bool(told) and told[-1].version is None
    below = any(upstream < floor for floor in floors) or unmended or (not floors and _ended(one, facts))
    until = date.min
    if not _ended(one, facts) and one.branch.eol.date:
        parts = [int(p) for p in one.branch.eol.date.split("-")]
        until = date(*([*parts, 1, 1])[:3]) if len(parts) < 3 else date(*parts)
    tesla = any("tesla" in name for name in one.names.install)
    default = one.branch.modules.default or "proprietary"
    return (
        _ended(one, facts) and not keeps,
        below and not keeps,
        not installed,
        -until.toordinal(),
        tesla,
        one.names.flavour != default,
        "bpo" in one.package,
        one.place,
    )
