"""What would work: small sets of changes to request or host, each solved before it is told, least downtime first."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

from provisioner.matrix.entries import Profile
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts, OsRelease
from provisioner.model.intent import Intent
from provisioner.model.source import same_place
from provisioner.model.stack import HostLock
from provisioner.model.version import DottedVersion, DriverSpecifier
from provisioner.resolve.builds import forbids
from provisioner.resolve.conflict import Claim, Conflict, Edit, Repair
from provisioner.resolve.host import Host, against_building, debian, kernel_release, module_kernels, prepare
from provisioner.resolve.listed import assumed_offer, listed, vendors
from provisioner.resolve.options import named_parts

RANKS = {"no downtime": 0, "reboot": 1, "reinstall": 2, "at the rig": 3}
ON_THE_HOST = {"component", "source", "boot-kernel", "older-kernel", "os", "take-out"}
"""Edits that change what the host is; all others change the request alone."""
MOST_EDITS = 3
MOST_REPAIRS = 8

Attempt = Callable[[Host, Intent], "HostLock | None"]


def repairs(
    host: Host, intent: Intent, matrix: Matrix, conflicts: Sequence[Conflict], attempt: Attempt
) -> tuple[Repair, ...]:
    """Every minimal set of at most MOST_EDITS edits that makes the host resolvable; no subset of one is another.

    Larger sets are tried only while nothing smaller was found: a person acts on the shortest list.
    """
    edits = _edits(host, intent, matrix, conflicts)
    found: list[Repair] = []
    prepared: dict[tuple[Edit, ...], Host] = {(): host}
    for size in range(1, MOST_EDITS + 1):
        for together in itertools.combinations(edits, size):
            if any(set(repair.edits) <= set(together) for repair in found) or _contradict(together):
                continue
            if not all(any(_touches(e, c, matrix) for e in together for c in k.claims) for k in conflicts):
                continue  # a conflict that no edit touches is still there afterwards
            facts, wanted = apply(host.facts, intent, together, matrix)
            changed = tuple(change for change in together if change.kind in ON_THE_HOST)
            if changed not in prepared:
                prepared[changed] = prepare(facts, matrix)
            stack = attempt(prepared[changed], wanted)
            if stack is not None:
                found.append(_repair(together, stack, host.facts))
        if found and size >= 2:
            break
    return tuple(sorted(found, key=_order)[:MOST_REPAIRS])


_ABOUT = {
    "free-driver": ("wanted-driver",),
    "free-modules": ("wanted-modules",),
    "free-cuda": ("wanted-cuda",),
    "free-toolkit": ("wanted-toolkit",),
    "free-cdi": ("wanted-cdi", "cdi-without-toolkit", "engine-reads-no-cdi"),
    "free-client": ("wanted-client", "client-unknown", "client-ended", "unversioned-client"),
    "allow-ended": ("refuse-ended",),
    "allow-branch": ("forbidden-branches",),
    "allow-reboot": ("no-reboot",),
    "component": ("driver-not-offered",),
    "source": (
        "driver-not-offered",
        "fabric-manager-not-offered",
        "runtime-not-offered",
        "engines-offered",
        "engine-reads-no-cdi",
        "wanted-toolkit",
        "cdi-without-toolkit",
    ),
}
"""Edits that touch claims of these kinds alone."""


def _touches(edit: Edit, claim: Claim, matrix: Matrix) -> bool:
    """Whether an edit could take a claim away; when in doubt it could.

    Another way to serve a network may bring a driver of its own, and then no card needs one of the host's.
    """
    kinds = _ABOUT.get(edit.kind)
    if kinds is not None:
        return claim.kind in kinds
    if edit.kind == "drop-network":
        network = matrix.networks[named_parts(edit.value)[0]]
        texts = (claim.about, *(text for _, text in claim.words))
        return any(network.name in text for text in texts) or claim.kind == "no-gpu"
    return True


def _order(repair: Repair) -> tuple[object, ...]:
    """Least downtime, then what keeps most networks, then the fewest edits."""
    downtime = max(max(change.rank for change in repair.edits), 1 if repair.reboot else 0)
    return (
        downtime,
        len(repair.edits),
        -len(repair.stack.networks),
        [(change.rank, change.kind, change.value) for change in repair.edits],
    )


def _repair(edits: tuple[Edit, ...], stack: HostLock, facts: HostFacts) -> Repair:
    guessed = any(change.kind in ("os", "component", "source") for change in edits)
    if guessed:
        # What another release offers is known from the matrix alone: no hash is, so no package can be locked.
        stack = stack.model_copy(update={"packages": ()})
    loaded = facts.driver.loaded
    chosen = stack.driver_version.value if stack.driver_version is not None else None
    moves = chosen is not None and loaded != chosen
    boots = any(change.kind in ("boot-kernel", "older-kernel", "os") for change in edits)
    assumed = ("the packages are those that the matrix lists",) if guessed else ()
    return Repair(edits, stack, moves or boots, assumed)


def _contradict(edits: tuple[Edit, ...]) -> bool:
    kinds = [(change.kind, change.value) for change in edits]
    return (
        sum(kind == "os" for kind, _ in kinds) > 1
        or sum(kind in ("boot-kernel", "older-kernel") for kind, _ in kinds) > 1
        or (
            any(kind == "os" for kind, _ in kinds)
            and any(kind in ("component", "source", "boot-kernel", "older-kernel") for kind, _ in kinds)
        )
    )


def _edits(host: Host, intent: Intent, matrix: Matrix, conflicts: Sequence[Conflict]) -> tuple[Edit, ...]:
    """All single changes worth trying, cheapest first."""
    found: list[Edit] = []
    policy = intent.policy
    for name in intent.networks:
        network_id, way, pin = named_parts(name)
        network = matrix.networks[network_id]
        found.append(Edit("drop-network", name, 0, (("name", network.name),)))
        if pin:
            found.append(Edit("free-client", name, 0, (("name", network.name), ("pin", pin))))
        default = network.default_profile
        for profile in network.profiles:
            if not way and default is not None and profile.id != default.id and _can_be_tried(profile):
                words = (("name", network.name), ("title", profile.title))
                with_pin = f"@{pin}" if pin else ""
                found.append(Edit("profile", f"{network_id}/{profile.id}{with_pin}", 0, words))
    if intent.driver is not None:
        found.append(Edit("free-driver", intent.driver, 0))
    if intent.modules != "auto":
        found.append(Edit("free-modules", intent.modules, 0))
    if intent.cuda is not None:
        found.append(Edit("free-cuda", intent.cuda, 0))
    if policy.past_end_of_life == "refuse":
        found.append(Edit("allow-ended", "upgrade", 0))
    found += [Edit("allow-branch", branch, 0) for branch in policy.forbid_branches]
    if intent.toolkit not in ("auto", "none"):
        found.append(Edit("free-toolkit", intent.toolkit, 0))
    if intent.cdi != "auto":
        found.append(Edit("free-cdi", intent.cdi, 0))
    found += [Edit("runtime", other, 0) for other in _other_runtimes(host, intent, matrix)]
    if host.cards:
        if policy.reboot == "never":
            found.append(Edit("allow-reboot", "allow", 1))
        found += [Edit("component", component, 1) for component in _components(host, matrix)]
        found += [Edit("source", source, 1, words) for source, words in _sources(host, intent, matrix)]
        bootable = tuple(_bootable(host))
        found += [Edit("boot-kernel", release, 1) for release in bootable]
        # Asked for where it can help, and nowhere else: each edit more is tried in many sets.
        older = _older(host) if any(c.kind == "does-not-build" for k in conflicts for c in k.claims) else ()
        found += [Edit("older-kernel", at, 1, (("newer", newer),)) for at, newer in older if at not in bootable]
    found += [Edit("os", release, 2, (("name", matrix.os[release].name),)) for release in _later(host.os, matrix)]
    if len(host.cards) > 1:
        found += [Edit("take-out", card.slot, 3, (("name", card.name),)) for card in host.cards]
    return tuple(found)


def _can_be_tried(profile: Profile) -> bool:
    """A way that needs trusted execution or hands the GPU to a VM cannot be proven from facts: not proposed."""
    return not any(r.key in ("tee", "gpu.binding") for r in profile.requirements)


def _other_runtimes(host: Host, intent: Intent, matrix: Matrix) -> Iterable[str]:
    """While the request names an engine: every other one that is offered."""
    if intent.runtime == "auto":
        return
    for runtime in matrix.runtimes.values():
        if runtime.kind != "engine" or runtime.id == intent.runtime:
            continue
        if any(host.os in names.os and host.offers.named(names.install[0]) for names in runtime.packages):
            yield runtime.id


def _components(host: Host, matrix: Matrix) -> Iterable[str]:
    """One edit that enables all that the distribution's driver needs and the sources lack."""
    release = matrix.os.get(host.os)
    if release is None or host.facts.components is UNKNOWN:
        return
    missing = [c for c in release.components if c not in host.facts.components]
    if missing:
        yield ", ".join(missing)


def _sources(host: Host, intent: Intent, matrix: Matrix) -> Iterable[tuple[str, tuple[tuple[str, str], ...]]]:
    """Vendors' repositories for this release that the host does not have and the request does not name."""
    entries = host.facts.sources if host.facts.sources is not UNKNOWN else ()
    there = {same_place(entry.uri) for entry in entries}
    named = {wish.id for wish in intent.policy.sources}
    for source in matrix.sources.values():
        places = [place for place in source.repositories if host.os in place.os]
        if places and source.id not in named and not any(same_place(place.uri) in there for place in places):
            known = places[0].fingerprint is not None and places[0].confidence != "low"
            yield source.id, (("title", source.title), ("fingerprint", "" if known else "unknown"))


def _bootable(host: Host) -> Iterable[str]:
    """The newest kernel whose headers are offered, of the series that boots next; of any series where it has none."""
    offered = _with_headers(host)
    here = _series(host.next_boot or "")
    plain = [release for release in offered if _series(release) == here] or offered
    newest = max(plain, key=lambda release: debian(release.replace("_", "-")), default=None)
    if newest is not None and newest != host.next_boot:
        yield newest


def _with_headers(host: Host) -> list[str]:
    """Kernels whose headers are offered, of the flavour that boots next: nobody wants a realtime one for a driver."""
    if host.next_boot is None:
        return []
    flavour = _flavour(host.next_boot)
    named = (name.removeprefix("linux-headers-") for name in host.offers.by_name if name.startswith("linux-headers-"))
    return [release for release in named if release[:1].isdigit() and _flavour(release) == flavour]


def _flavour(release: str) -> str:
    """`6.1.0-57-amd64` is of `amd64`, `6.12.117+deb12-rt-amd64` of `rt-amd64`."""
    match = re.match(r"[0-9.]+(?:\+[\w.~]+)?(?:-\d[\w.~]*)?-(.+)", release)
    return match[1] if match else ""


def _series(release: str) -> tuple[str, ...]:
    """`6.1.0-57-amd64` is of 6.1."""
    return tuple(re.findall(r"\d+", release)[:2])


def _older(host: Host) -> Iterable[tuple[str, str]]:
    """Where a module does not build for a kernel of this host: the newest older one on which it may, and that kernel.

    It is no way out for long, for such a kernel gets no fixes; a new package version of the driver would be.
    """
    barred = [
        (release, text, driver)
        for text in module_kernels(host)
        if (release := kernel_release(text)) is not None
        for driver in host.drivers
        if any(forbids(fact, driver.branch) for fact in against_building(host, text, driver))
    ]
    if not barred:
        return
    lowest = min(release for release, _, _ in barred)
    older = [
        (release, text)
        for text in _with_headers(host)
        if (release := kernel_release(text)) is not None and release < lowest
        if any(not against_building(host, text, driver) for _, _, driver in barred)
    ]
    if older:
        yield max(older)[1], max((release, text) for release, text, _ in barred)[1]


def _later(os: str, matrix: Matrix) -> Iterable[str]:
    """Newer releases of the same family, nearest first."""
    family, _, version = os.rpartition("-")
    try:
        here = DottedVersion(version)
    except ValueError:
        return
    later = [
        release
        for release in matrix.os.values()
        if release.id.rpartition("-")[0] == family and DottedVersion(release.version) > here
    ]
    yield from (release.id for release in sorted(later, key=lambda r: DottedVersion(r.version)))


# --- what an edit makes of facts and request ----------------------------------------------------------------------


def apply(facts: HostFacts, intent: Intent, edits: Iterable[Edit], matrix: Matrix) -> tuple[HostFacts, Intent]:
    """The host and request as they would be after the edits."""
    for change in edits:
        facts, intent = _apply_one(facts, intent, change, matrix)
    return facts, intent


def _apply_one(facts: HostFacts, intent: Intent, change: Edit, matrix: Matrix) -> tuple[HostFacts, Intent]:
    value, policy = change.value, intent.policy
    if change.kind == "drop-network":
        return facts, _with(intent, networks=tuple(n for n in intent.networks if n != value))
    if change.kind == "profile":
        plain, _, pin = named_parts(value)
        plain += f"@{pin}" if pin else ""
        return facts, _with(intent, networks=tuple(value if n == plain else n for n in intent.networks))
    if change.kind == "free-client":
        free = value.partition("@")[0]
        return facts, _with(intent, networks=tuple(free if n == value else n for n in intent.networks))
    if change.kind == "free-driver":
        return facts, _with(intent, driver=None)
    if change.kind == "free-modules":
        return facts, _with(intent, modules="auto")
    if change.kind == "free-cuda":
        return facts, _with(intent, cuda=None)
    if change.kind == "runtime":
        return facts, _with(intent, runtime=value)
    if change.kind in ("free-toolkit", "free-cdi"):
        return facts, _with(intent, **{change.kind.removeprefix("free-"): "auto"})
    if change.kind == "allow-ended":
        return facts, _with(intent, policy=policy.model_copy(update={"past_end_of_life": "upgrade"}))
    if change.kind == "allow-branch":
        left = tuple(b for b in policy.forbid_branches if b != value)
        return facts, _with(intent, policy=policy.model_copy(update={"forbid_branches": left}))
    if change.kind == "allow-reboot":
        return facts, _with(intent, policy=policy.model_copy(update={"reboot": "allow"}))
    if change.kind == "component":
        return with_components(facts, value, matrix), intent
    if change.kind == "source":
        return with_source(facts, value, intent, matrix), intent
    if change.kind in ("boot-kernel", "older-kernel"):
        kernel = dataclasses.replace(facts.kernel, running=value, next_boot=value)
        return dataclasses.replace(facts, kernel=kernel), intent
    if change.kind == "os":
        return with_os(facts, value, matrix), intent
    if change.kind == "take-out":
        assert facts.gpus is not UNKNOWN
        return dataclasses.replace(facts, gpus=tuple(g for g in facts.gpus if g.slot != value)), intent
    raise ValueError(f"no such edit: {change.kind}")


def _with(intent: Intent, **changes: object) -> Intent:
    return intent.model_copy(update=changes)


def with_components(facts: HostFacts, value: str, matrix: Matrix) -> HostFacts:
    """The host with more components enabled: what the matrix lists of its archive is offered then."""
    assert facts.os is not UNKNOWN and facts.offers is not UNKNOWN and facts.components is not UNKNOWN
    more = tuple(listed(facts.os.id, facts.os.architecture, matrix, runtimes=False))
    return dataclasses.replace(
        facts,
        components=(*facts.components, *value.split(", ")),
        offers=(*facts.offers, *(offer for offer in more if offer not in facts.offers)),
    )


def with_source(facts: HostFacts, source: str, intent: Intent, matrix: Matrix) -> HostFacts:
    """The host with a vendor's repository beside its own sources, which offers what the matrix says of it."""
    assert facts.os is not UNKNOWN and facts.offers is not UNKNOWN
    asked: list[DriverSpecifier] = []
    for name in intent.networks:
        network = matrix.networks[named_parts(name)[0]]
        asked += [r.driver for profile in network.profiles for r in profile.requirements if r.driver is not None]
    asked += [gpu.driver_floor for gpu in matrix.gpus.values() if gpu.driver_floor is not None]
    more = vendors(matrix.sources[source], facts.os.id, facts.os.architecture, matrix, tuple(dict.fromkeys(asked)))
    return dataclasses.replace(facts, offers=(*facts.offers, *dict.fromkeys(more)))


def with_os(facts: HostFacts, os: str, matrix: Matrix) -> HostFacts:
    """The host freshly on another release, with nothing installed and its archive as the matrix lists it."""
    assert facts.os is not UNKNOWN
    release = matrix.os[os]
    flavour = "generic" if release.family == "ubuntu" else "amd64"
    kernel = f"{release.kernels[-1].version if release.kernels else '6.12'}-{flavour}"
    offers = list(listed(os, facts.os.architecture, matrix, runtimes=True))
    offers.append(assumed_offer(f"linux-headers-{kernel}", "1", "linux", facts.os.architecture))
    return dataclasses.replace(
        facts,
        os=OsRelease(os, release.name, release.codename or "", facts.os.architecture),
        kernel=dataclasses.replace(
            facts.kernel, running=kernel, next_boot=kernel, installed=(kernel,), headers=(kernel,)
        ),
        packages={},
        offers=tuple(offers),
        components=release.components,
    )
