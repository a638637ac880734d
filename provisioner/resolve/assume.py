"""What-if: `--assume os=ubuntu-24.04` makes other facts and another request of those that were seen. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from provisioner.errors import BadInput
from provisioner.matrix.entries import DriverBranch, DriverPackages
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts, OfferedPackage, PciGpu
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.model.version import DebianVersion, DottedVersion
from provisioner.resolve.conflict import NoSolution
from provisioner.resolve.containers import TOOLKIT_ID, toolkits_of
from provisioner.resolve.host import prepare, quick, unseen
from provisioner.resolve.listed import assumed_offer
from provisioner.resolve.options import named_parts, network_named
from provisioner.resolve.question import Question, read_question
from provisioner.resolve.repairs import with_components, with_os
from provisioner.resolve.resolver import solve

ORDER = ("os", "components", "gpu", "runtime", "toolkit", "cdi", "network", "client", "driver", "cuda", "modules")
"""Another release takes away what was on the host, so it comes first; the order of the words does not count."""

_SIGNS = {
    "os": ("=",),
    "components": ("+=",),
    "gpu": ("+=", "-="),
    "network": ("+=", "-="),
}
HINT = (
    "write os=debian-13, components+=non-free, gpu+=rtx-5090, gpu-=0, network+=akash, network-=lium, akash=0.16.2, "
    "driver=580, cuda=13.0, modules=open, runtime=podman, toolkit=1.19.1 or cdi=present"
)


@dataclass(frozen=True)
class Assumption:
    """One thing that is not so: `Assumption("gpu", "+=", "rtx-5090")`; `text` is as it was written."""

    kind: str
    sign: str
    value: str
    text: str


def read_assumption(text: str, matrix: Matrix) -> Assumption:
    """Read one --assume. Raises BadInput for what means nothing, before any host is looked at."""
    match = re.fullmatch(r"\s*([a-z0-9-]+?)(\+=|-=|=)(.+?)\s*", text)
    if match is None:
        raise BadInput("assumption-not-read", f"--assume {text}: this is no assumption", hint=HINT)
    name, sign, value = match.groups()
    signs = _SIGNS.get(name, ("=",))
    if sign not in signs:
        raise BadInput("assumption-not-read", f"--assume {text}: {name} takes {' or '.join(signs)}", hint=HINT)
    if name not in _SIGNS:
        return _of_a_value(name, value, text, matrix)
    known: Iterable[str] = {
        "os": matrix.os,
        "components": sorted({c for release in matrix.os.values() for c in release.components}),
        "gpu": [model.id for model in matrix.gpus.values() if model.pci],
        "network": [value],
    }[name]
    if name == "network":
        network_named(value, matrix)
    if sign != "-=" and value not in known:
        raise BadInput(
            "assumption-not-read",
            f"--assume {text}: the matrix has no {_WHAT[name]} '{value}'",
            context=[] if name == "gpu" else [f"known: {', '.join(known)}"],
            hint="provision matrix list gpus" if name == "gpu" else HINT,
        )
    return Assumption(name, sign, value, text)


_WHAT = {"os": "release", "components": "component", "gpu": "card with a known PCI id", "network": "network"}


def _of_a_value(name: str, value: str, text: str, matrix: Matrix) -> Assumption:
    """What is chosen is assumed in the words of a question."""
    try:
        question = read_question(f"{name}={value}", matrix)
    except BadInput as problem:
        raise BadInput(
            "assumption-not-read", f"--assume {text}: {problem.message}", context=problem.context, hint=HINT
        ) from problem
    return Assumption(
        "client" if question.network else name, "=", f"{name}@{value}" if question.network else value, text
    )


def what_if(
    facts: HostFacts, intent: Intent, assumptions: Sequence[Assumption], matrix: Matrix
) -> HostLock | NoSolution:
    """Solve the host as it would be. The stack names no packages: what nobody saw has no hash to pin."""
    if unseen(facts):
        return solve(facts, intent, matrix)
    answer = solve(*assume(facts, intent, assumptions, matrix), matrix)
    return answer if isinstance(answer, NoSolution) else answer.model_copy(update={"packages": ()})


def assume(
    facts: HostFacts, intent: Intent, assumptions: Sequence[Assumption], matrix: Matrix
) -> tuple[HostFacts, Intent]:
    """The host and request as they would be. Raises BadInput for a card that is not there to be taken out."""
    taken = [(a, _slot_of(a, facts, matrix)) for a in assumptions if (a.kind, a.sign) == ("gpu", "-=")]
    for one in sorted(assumptions, key=lambda a: ORDER.index(a.kind)):
        if one.kind == "os":
            facts = _on_release(facts, one.value, matrix)
        elif one.kind == "components":
            facts = _with_component(facts, one.value, matrix)
        elif one.kind == "gpu" and one.sign == "+=":
            facts = _with_card(facts, one.value, matrix)
        elif one.kind == "runtime":
            facts, intent = _with_runtime(facts, one.value, matrix), intent.model_copy(update={"runtime": one.value})
        elif one.kind == "toolkit":
            facts, intent = _with_toolkit(facts, one.value, matrix), intent.model_copy(update={"toolkit": one.value})
        elif one.kind == "cdi":
            intent = intent.model_copy(update={"cdi": one.value})
        elif one.kind in ("network", "client"):
            intent = intent.model_copy(update={"networks": _networks(intent, one)})
        elif one.kind in ("driver", "cuda", "modules"):
            intent = intent.model_copy(update={one.kind: one.value})
            facts = _with_driver(facts, one.value, matrix) if one.kind == "driver" else facts
    gone = {slot for _, slot in taken}
    assert facts.gpus is not UNKNOWN
    return dataclasses.replace(facts, gpus=tuple(g for g in facts.gpus if g.slot not in gone)), intent


def _slot_of(one: Assumption, facts: HostFacts, matrix: Matrix) -> str:
    """Which card is meant: its place on the bus (0 is the first), its slot, or its model."""
    assert facts.gpus is not UNKNOWN
    cards = [*zip(facts.gpus, prepare(facts, matrix).cards, strict=True)]
    for place, (gpu, card) in enumerate(cards):
        if one.value in (str(place), gpu.slot, card.id):
            return gpu.slot
    raise BadInput(
        "no-such-card",
        f"--assume {one.text}: there is no such card",
        context=[f"{place}: {card.id} in slot {gpu.slot}" for place, (gpu, card) in enumerate(cards)],
        hint="write its number, its slot or its model",
    )


def _with_card(facts: HostFacts, model: str, matrix: Matrix) -> HostFacts:
    assert facts.gpus is not UNKNOWN
    pci = matrix.gpus[model].pci[0]
    place = 1 + sum(gpu.slot.startswith("assumed-") for gpu in facts.gpus)
    card = PciGpu(f"assumed-{place}", pci.vendor, pci.device, (pci.subsystems or ("",))[0])
    return dataclasses.replace(facts, gpus=(*facts.gpus, card))


def _networks(intent: Intent, one: Assumption) -> tuple[str, ...]:
    """`network+=akash` serves one more, `network-=akash` one less, `akash=0.16.2` pins its client and serves it."""
    network, way, pin = named_parts(one.value)
    others = tuple(name for name in intent.networks if named_parts(name)[0] != network)
    if one.sign == "-=":
        if others == intent.networks:
            raise BadInput("no-such-network", f"--assume {one.text}: the request names no {network}")
        return others
    if one.kind == "network":
        return (*others, one.value)
    way = next((f"/{w}" for n, w, _ in map(named_parts, intent.networks) if n == network and w), way)
    pinned = f"{network}{way}@{pin}"
    if len(others) == len(intent.networks):
        return (*others, pinned)
    return tuple(pinned if named_parts(name)[0] == network else name for name in intent.networks)


# --- offers that nobody saw ---------------------------------------------------------------------------------------


def _on_release(facts: HostFacts, os: str, matrix: Matrix) -> HostFacts:
    """Beside what the matrix lists by version, the newest of each branch that it lists by name alone."""
    facts = with_os(facts, os, matrix)
    for branch in matrix.drivers.values():
        for names in branch.packages:
            if os in names.os and names.origin in ("debian", "ubuntu") and not names.versions:
                facts = _offering(facts, _set(branch, names, branch.latest.version.text))
    return facts


def _with_component(facts: HostFacts, component: str, matrix: Matrix) -> HostFacts:
    if facts.components is not UNKNOWN and component in facts.components:
        return facts
    if facts.components is UNKNOWN:
        facts = dataclasses.replace(facts, components=())
    return with_components(facts, component, matrix)


def _with_driver(facts: HostFacts, wanted: str, matrix: Matrix) -> HostFacts:
    """When no source of the host offers such a driver, all that the matrix knows are, by the names that it has.

    All and not the newest alone: a network's list of exact versions may let in an older one only.
    """
    specifier = Question("driver", wanted).drivers
    assert specifier is not None
    allows = quick(specifier)
    host = prepare(facts, matrix)
    if any(allows(driver.version) for driver in host.drivers):
        return facts
    for branch in matrix.drivers.values():
        known = {*branch.versions, branch.latest.version, *(specifier.exact_versions() or ())}
        fitting = [version for version in known if version.branch == branch.branch and allows(version)]
        if not fitting:
            continue
        sets: dict[str, DriverPackages] = {}
        for names in branch.packages:
            if host.os in names.os:
                sets.setdefault(names.flavour, names)
        for names in sets.values():
            for version in sorted(fitting):
                facts = _offering(facts, _set(branch, names, version.text))
    return facts


def _with_runtime(facts: HostFacts, runtime: str, matrix: Matrix) -> HostFacts:
    """A runtime that no source offers is offered in the newest version that the matrix knows."""
    assert facts.os is not UNKNOWN and facts.offers is not UNKNOWN
    offered = {offer.name for offer in facts.offers}
    entry = matrix.runtimes[runtime]
    for names in entry.packages:
        if facts.os.id in names.os and not offered.issuperset(names.install):
            releases = [DebianVersion(release.latest) for release in entry.releases if release.latest]
            version = names.versions[-1].text if names.versions else max(releases).text if releases else "1"
            return _offering(facts, [(name, version, "") for name in names.install])
    return facts


def _with_toolkit(facts: HostFacts, wanted: str, matrix: Matrix) -> HostFacts:
    """When no source offers such a toolkit, the releases that the matrix knows count as offered."""
    specifier = Question("toolkit", wanted).toolkits
    assert facts.os is not UNKNOWN and specifier is not None
    there = toolkits_of(prepare(facts, matrix), Intent(), matrix)
    if any(toolkit is not None and specifier.allows(toolkit.version) for toolkit in there):
        return facts
    entry = matrix.runtimes[TOOLKIT_ID]
    for names in entry.packages:
        if facts.os.id in names.os:
            known = [DottedVersion(release.version) for release in entry.releases]
            known += specifier.exact_versions() or ()
            for version in dict.fromkeys(known):
                if specifier.allows(version):
                    facts = _offering(facts, [(name, f"{version.text}-1", "") for name in names.install])
            return facts
    return facts


def _set(branch: DriverBranch, names: DriverPackages, version: str) -> list[tuple[str, str, str]]:
    return [(name, version, names.source or "") for name in dict.fromkeys((names.kernel_package, *names.install))]


def _offering(facts: HostFacts, packages: Iterable[tuple[str, str, str]]) -> HostFacts:
    assert facts.os is not UNKNOWN and facts.offers is not UNKNOWN
    more: list[OfferedPackage] = [assumed_offer(*package, facts.os.architecture) for package in packages]
    return dataclasses.replace(facts, offers=(*facts.offers, *(offer for offer in more if offer not in facts.offers)))
