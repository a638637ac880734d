"""A second opinion on whole hosts: which stack is best, by trying everything, sharing no code with the resolver.

It reads the entries of the matrix itself, from the meaning of each field, for the random worlds of
test_resolver.py: cards that the matrix knows, requests with a driver, flavour, CUDA level, engine, toolkit, CDI,
policy and networks. A stack is taken apart into what is chosen, every combination is looked at, and the best is the
one that an order written here puts first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import Any

from provisioner.matrix.reader import Matrix
from provisioner.model.facts import HostFacts, OfferedPackage
from provisioner.model.intent import Intent
from provisioner.model.version import CudaVersion, DebianVersion, DottedVersion, DriverVersion, Specifier

CLASHING = ("swap", "cgroup_driver", "unattended_upgrades")
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
DISTRIBUTION = ("debian", "debian-backports", "ubuntu")


@dataclass(frozen=True)
class Stack:
    """What was chosen: package versions, `None` for none."""

    driver: str
    compat: str | None  # name and version
    cuda: str | None
    engine: str  # name and version
    toolkit: str | None
    cdi: str | None
    clients: tuple[tuple[str, str], ...]


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
    """Whether the driver may run on these cards by this request; networks and CUDA levels are asked elsewhere."""
    upstream = DriverVersion(DebianVersion(one.package).upstream)
    number = int(one.branch.branch)
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
    if one.branch.branch in intent.policy.forbid_branches:
        return False
    return not (intent.policy.past_end_of_life == "refuse" and _ended(one, facts))


def can_be_built(one: Found, facts: HostFacts) -> bool:
    """Whether each kernel that gets the module can have it: headers, and nothing that is known against building it.

    Who has the module there already needs neither.
    """
    there = {(build.kernel, build.version, build.flavour) for build in facts.driver.modules or ()}
    upstream = DebianVersion(one.package).upstream
    headers = set(facts.kernel.headers or ()) | {
        offer.name.removeprefix("linux-headers-")
        for offer in facts.offers or ()
        if offer.name.startswith("linux-headers-")
    }
    boots, runs = facts.kernel.next_boot, facts.kernel.running
    if boots not in headers and not any((kernel, version) == (boots, upstream) for kernel, version, _ in there):
        return False
    for kernel in {boots} | ({runs} & headers):
        if (kernel, upstream, one.names.flavour) in there:
            continue
        for fact in one.names.does_not_build:
            if one.package in [version.text for version in fact.versions] and _within(str(kernel), str(fact.kernels)):
                return False
    return True


def _within(release: str, bounds: str) -> bool:
    """`6.1.0-57-amd64` is within `>=6.1.0-53,<6.1.1`: all numbers in turn, those of the flavour aside."""
    numbers = _numbers(release)
    signs = {">=": numbers.__ge__, ">": numbers.__gt__, "<=": numbers.__le__, "<": numbers.__lt__}
    clauses = [re.fullmatch(r"([<>]=?)(.+)", clause) for clause in bounds.split(",")]
    return all(clause is not None and signs[clause[1]](_numbers(clause[2])) for clause in clauses)


def _numbers(text: str) -> tuple[int, ...]:
    kernel, build = re.match(r"([\d.]+)(?:-(\d+))?", text).groups()  # type: ignore[union-attr]  # every kernel has one
    return (*([int(part) for part in kernel.split(".")] + [0, 0])[:3], int(build or -1))


def _profile(name: str, matrix: Matrix) -> Any:
    return matrix.networks[name.partition("@")[0]].default_profile


def _asked(name: str, client: str, matrix: Matrix) -> list[Any]:
    """What a network with this client asks for and means: nothing that only warns."""
    return [
        r
        for r in _profile(name, matrix).requirements
        if r.forbids and (r.with_client is None or not client or r.with_client.allows(DottedVersion(client)))
    ]


def _ended(one: Found, facts: HostFacts) -> bool:
    return one.branch.eol.is_past(facts.taken_at.date()) is True


def host_can(facts: HostFacts, intent: Intent, matrix: Matrix) -> bool:
    """What no choice of versions changes: the cards against each network, and the networks against each other."""
    models = [matrix.gpus_with_pci(gpu.vendor, gpu.device)[0] for gpu in facts.gpus or ()]
    release = facts.kernel.next_boot
    assert isinstance(release, str)
    kernel = tuple(int(part) for part in release.split("-")[0].split("+")[0].split(".")[:2])
    for name in intent.networks:
        for requirement in _profile(name, matrix).requirements:
            if not requirement.forbids:
                continue
            key, wanted = requirement.key, requirement.value
            if key == "gpu.model" and any(model.id not in wanted for model in models):
                return False
            if key == "gpu.architecture" and any(model.architecture not in wanted for model in models):
                return False
            if key == "gpu.same_model" and len({model.id for model in models}) > 1:
                return False
            if key == "gpu.memory_gib" and any(
                len(model.memory_gib) == 1 and not wanted.allows(DottedVersion(f"{model.memory_gib[0]:g}"))
                for model in models
            ):
                return False
            if key == "kernel":
                low = wanted.intervals[0].low
                if low is not None and kernel < tuple(int(part) for part in low.text.split(".")[:2]):
                    return False
    return all(not (one < other and _clash(one, other, matrix)) for one, other in product(intent.networks, repeat=2))


def _clash(one: str, other: str, matrix: Matrix) -> bool:
    left = {r.key: r for r in _profile(one, matrix).requirements if r.forbids}
    right = {r.key: r for r in _profile(other, matrix).requirements if r.forbids}
    if any(key in left and key in right and left[key].value != right[key].value for key in (*CLASHING, "cdi")):
        return True
    return "gpu.exclusive" in left and "gpu.exclusive" in right


def engines(facts: HostFacts, intent: Intent, matrix: Matrix) -> list[tuple[str, Any, Any, str]]:
    """Entry id, entry, names and version of every engine whose packages are all offered."""
    found = []
    for runtime in matrix.runtimes.values():
        if runtime.kind == "toolkit" or intent.runtime not in ("auto", runtime.id):
            continue
        for names in runtime.packages:
            if facts.os and facts.os.id in names.os and all(_versions(name, facts) for name in names.install):
                found += [(runtime.id, runtime, names, version) for version in _versions(names.install[0], facts)]
    return found


def takers(engine: str, matrix: Matrix) -> int:
    """Ways to serve a network that name this engine, or its kind."""
    profiles = [profile for network in matrix.networks.values() for profile in network.profiles]
    wishes = [r.value for profile in profiles for r in profile.requirements if r.key == "runtime"]
    return sum(engine in wish or engine.partition("-")[0] in wish for wish in wishes)


def _versions(name: str, facts: HostFacts) -> set[str]:
    return {offer.version for offer in facts.offers or () if offer.name == name}


def _there(name: str, version: str | None, facts: HostFacts) -> bool:
    have = (facts.packages or {}).get(name)
    return have is not None and version is not None and have.version == version


def sound_toolkits(facts: HostFacts, matrix: Matrix) -> list[str]:
    """Versions of which all four packages are offered and that are above every fixed version of a bulletin."""
    whole = set.intersection(*(_versions(name, facts) for name in TOOLKIT))
    holes = [h for h in matrix.runtimes[TOOLKIT[0]].vulnerabilities if h.fixed and h.confidence != "low"]
    return [
        version
        for version in whole
        if all(DottedVersion(DebianVersion(version).upstream) >= DottedVersion(hole.fixed or "0") for hole in holes)
    ]


def compats(facts: HostFacts, matrix: Matrix) -> list[tuple[str, str, Any]]:
    """Name, version and CUDA level of each cuda-compat package that every card here can use."""
    models = [matrix.gpus_with_pci(gpu.vendor, gpu.device)[0] for gpu in facts.gpus or ()]
    if not all(model.forward_compat for model in models):
        return []
    found = []
    for offer in facts.offers or ():
        if offer.name.startswith("cuda-compat-"):
            level = matrix.cuda.get(offer.name.removeprefix("cuda-compat-").replace("-", "."))
            if level is not None and level.forward_compat is not None:
                found.append((offer.name, offer.version, level))
    return found


def carried(one: Found, compat: tuple[str, str, Any] | None, facts: HostFacts, matrix: Matrix) -> CudaVersion | None:
    """The highest level that driver and package give these cards; None: the package is not for this driver."""
    level = one.branch.native_cuda.level
    if compat is not None:
        inside = DriverVersion(DebianVersion(compat[1]).upstream)
        branch = compat[2].forward_compat.on_branch.get(one.branch.branch)
        if branch != "compatible" or inside <= DriverVersion(DebianVersion(one.package).upstream):
            return None
        level = max(level, compat[2].level)
    for gpu in facts.gpus or ():
        model = matrix.gpus_with_pci(gpu.vendor, gpu.device)[0]
        architecture = matrix.architectures[model.architecture]
        window = next((w for w in architecture.windows if model.compute_capability in w.capabilities), None)
        limit = model.last_cuda or (window.last_cuda if window is not None else architecture.last_cuda)
        if limit is not None:
            level = min(level, limit.level)
    return level


def clients(name: str, matrix: Matrix) -> list[str]:
    """Versions of the client that the network lets in and the request leaves open, newest first."""
    network = matrix.networks[name.partition("@")[0]]
    program = next((c for c in network.clients if c.versions), None)
    if program is None:
        return [""]
    oldest = next((v.oldest_supported for v in program.versions if v.oldest_supported), None)
    known = [v.version for v in program.versions]
    if oldest is not None:
        known = [v for v in known if DottedVersion(v) >= DottedVersion(oldest)]
    pin = name.partition("@")[2]
    return [v for v in known if not pin or v == pin]


def best(facts: HostFacts, intent: Intent, matrix: Matrix) -> Stack | None:
    """The best stack of all that fit, or None."""
    if not host_can(facts, intent, matrix):
        return None
    drivers = [one for one in offered(facts, matrix) if fits(one, facts, intent, matrix) and can_be_built(one, facts)]
    drivers.sort(key=lambda one: DebianVersion(one.package), reverse=True)
    drivers.sort(key=lambda one: _worse(one, facts, intent))
    packages = sorted(compats(facts, matrix), key=lambda c: DebianVersion(c[1]), reverse=True)
    packages.sort(key=lambda c: (c[2].level, not _there(c[0], c[1], facts)))
    wanted = intent.toolkit
    toolkits: list[str | None] = list(sound_toolkits(facts, matrix)) if wanted != "none" else []
    may_set_cdi = bool(toolkits)
    toolkits.sort(key=lambda v: DebianVersion(v or "0"), reverse=True)
    toolkits.sort(key=lambda v: not _there(TOOLKIT[0], v, facts))
    toolkits.append(None)
    found = engines(facts, intent, matrix)
    found.sort(key=lambda e: DebianVersion(e[3]), reverse=True)
    found.sort(
        key=lambda e: (
            not _there(e[2].install[0], e[3], facts),
            e[1].kind != "engine",
            e[2].origin not in DISTRIBUTION,
            -takers(e[0], matrix),
            e[0],
            "bpo" in e[3],
        )
    )
    each_client = [clients(name, matrix) for name in intent.networks]
    for driver, compat, engine, toolkit, cdi in product(
        drivers, [None, *packages], found, toolkits, ("present", "absent") if may_set_cdi else (None,)
    ):
        if not _containers_fit(engine, toolkit, cdi, intent, matrix):
            continue
        level = carried(driver, compat, facts, matrix)
        if level is None or (intent.cuda is not None and level < CudaVersion(intent.cuda)):
            continue
        for chosen in product(*each_client):
            pairs = list(zip(intent.networks, chosen, strict=True))
            asked = [(r, name) for name, client in pairs for r in _asked(name, client, matrix)]
            if all(_grants(r, driver, level, engine, toolkit, cdi, facts, matrix, name) for r, name in asked):
                return Stack(
                    driver.package,
                    f"{compat[0]} {compat[1]}" if compat is not None else None,
                    level.text,
                    f"{engine[2].install[0]} {engine[3]}",
                    toolkit,
                    cdi,
                    tuple((name.partition("@")[0], client) for name, client in pairs),
                )
    return None


def _containers_fit(
    engine: tuple[str, Any, Any, str], toolkit: str | None, cdi: str | None, intent: Intent, matrix: Matrix
) -> bool:
    """The request's own wishes for toolkit and CDI, and that specs need somebody to write and to read them."""
    if intent.toolkit not in ("auto", "none"):
        text = intent.toolkit if not intent.toolkit[0].isdigit() else f"=={intent.toolkit}"
        demanded = Specifier.parse(text, DottedVersion)
        if toolkit is None or not demanded.allows(DottedVersion(DebianVersion(toolkit).upstream)):
            return False
    if cdi is None:
        return intent.cdi != "present"
    if intent.cdi not in ("auto", cdi) or (cdi == "present" and toolkit is None):
        return False
    wishes = [
        r
        for name in intent.networks
        for r in _profile(name, matrix).requirements
        if r.key == "cdi" and r.forbids and r.value == "present"
    ]
    # A network that asks for CDI says for itself whether the host's engine has to read it.
    return cdi == "absent" or bool(wishes) or reads_cdi(engine)


def reads_cdi(engine: tuple[str, Any, Any, str]) -> bool:
    """NVIDIA's floors for the specs that a sound toolkit writes."""
    floors = {"docker-io": "26.1.0", "docker-ce": "26.1.0", "podman": "5.1.0", "containerd": "1.7.16"}
    numbers = re.match(r"[0-9]+(\.[0-9]+){1,3}", DebianVersion(engine[3]).upstream)
    return numbers is None or DottedVersion(numbers[0]) >= DottedVersion(floors[engine[0]])


def _grants(
    requirement: Any,
    driver: Found,
    level: CudaVersion,
    engine: tuple[str, Any, Any, str],
    toolkit: str | None,
    cdi: str | None,
    facts: HostFacts,
    matrix: Matrix,
    name: str,
) -> bool:
    """Whether the stack is what one requirement of a network asks for; keys that nothing here chooses are granted."""
    key, wanted = requirement.key, requirement.value
    upstream = DriverVersion(DebianVersion(driver.package).upstream)
    if key == "driver":
        return bool(wanted.allows(upstream))
    if key == "modules":
        return bool(wanted == driver.names.flavour)
    if key == "cuda":
        return bool(wanted.allows(level))
    if key == "host_driver":
        return bool(wanted == "present")
    if key == "runtime":
        return bool({engine[0], engine[0].partition("-")[0]} & set(wanted))
    if key == "docker" and engine[0].startswith("docker"):
        numbers = re.match(r"[0-9]+(\.[0-9]+)+", DebianVersion(engine[3]).upstream)
        return numbers is None or bool(wanted.allows(DottedVersion(numbers[0])))
    if key == "toolkit" and cdi is not None:
        return toolkit is not None and bool(wanted.allows(DottedVersion(DebianVersion(toolkit).upstream)))
    if key == "cdi" and cdi is not None:
        cluster = any(r.key == "kubernetes" for r in _profile(name, matrix).requirements)
        return bool(wanted == cdi) and (cdi == "absent" or cluster or reads_cdi(engine))
    return True


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
