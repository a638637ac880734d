"""What a schema cannot check: ids that lead nowhere, gaps and overlaps, claims without source, entries past their end.

Every finding names file, line and field. An error makes the matrix unusable for a release; a warning is for the eye.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from provisioner.errors import BadInput
from provisioner.matrix.entries import ROOMS, CudaLevel, DriverBranch, Entry, Network
from provisioner.matrix.reader import Document, Position, Rooms, parent_cycle, problems_of, read_documents, rooms_of
from provisioner.matrix.references import references
from provisioner.matrix.specifier import Requirement, os_family, text_of
from provisioner.model.version import CudaVersion, DottedSpecifier, DottedVersion, DriverVersion, Specifier


@dataclass(frozen=True)
class Finding:
    """One complaint: `drivers/535.yaml:12: modules.open: why`."""

    level: Literal["error", "warning"]
    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.message}"


@dataclass(frozen=True)
class _World:
    """All that a check may look at, and the one way to make a finding."""

    documents: dict[tuple[str, str], Document]
    rooms: Rooms
    today: dt.date

    def finding(
        self, level: Literal["error", "warning"], room: str, entry_id: str, where: Position, message: str
    ) -> Finding:
        document = self.documents[room, entry_id]
        name = ".".join(str(part) for part in where) or "entry"
        return Finding(level, document.path, document.line(where), name, message)


def lint(folder: Path, today: dt.date) -> list[Finding]:
    """Every finding in the matrix under `folder`, errors first, each list in the order of files and lines."""
    try:
        documents = read_documents(folder)
    except BadInput as error:
        return [_from_text(error.message)]
    broken = [_from_text(text) for document in documents for text in problems_of(document)]
    if broken:
        return sorted(broken, key=_order)
    try:
        rooms = rooms_of(documents)
    except BadInput as error:
        return [_from_text(error.message)]
    by_id = {(d.path.partition("/")[0], str(d.data["id"])): d for d in documents}
    world = _World(by_id, rooms, today)
    return sorted((f for check in CHECKS for f in check(world)), key=_order)


def _order(finding: Finding) -> tuple[bool, str, int, str]:
    return (finding.level == "warning", finding.file, finding.line, finding.field)


def _from_text(text: str) -> Finding:
    """`drivers/535.yaml:3: id: why` comes apart again; what has no such head is about the folder."""
    file, _, rest = text.partition(":")
    line, _, rest = rest.partition(": ")
    if not line.isdigit():
        return Finding("error", "matrix", 1, "matrix", text)
    name, _, message = rest.partition(": ")
    return Finding("error", file, int(line), name if message else "entry", message or rest)


# --- ids ----------------------------------------------------------------------------------------------------------


def dangling_ids(world: _World) -> Iterator[Finding]:
    """An id that another entry should have and none has."""
    for ref in references(world.rooms):
        if ref.target not in world.rooms.room(ref.target_room):
            message = f"there is no {ref.target_room}/{ref.target}.yaml"
            yield world.finding("error", ref.room, ref.entry_id, ref.where, message)
    for conflict in world.rooms.conflicts.values():
        for n, party in enumerate(conflict.parties):
            network = world.rooms.networks.get(party.network or "")
            if party.profile and network and party.profile not in {p.id for p in network.profiles}:
                where = ("parties", n, "profile")
                message = f"{network.id} has no profile '{party.profile}'"
                yield world.finding("error", "conflicts", conflict.id, where, message)


def unknown_systems(world: _World) -> Iterator[Finding]:
    """An OS in a requirement that the matrix does not describe: nothing can be said about it."""
    families = {entry.family for entry in world.rooms.os.values()}
    for network in world.rooms.networks.values():
        for n, profile in enumerate(network.profiles):
            for k, item in enumerate(profile.requirements):
                for target in item.os or ():
                    exact = os_family(target) != target and ">" not in target and "<" not in target
                    if exact and os_family(target) in families and target not in world.rooms.os:
                        where = ("profiles", n, "requirements", k, "os")
                        message = f"{target} is not in the room os: it has ended or is not described"
                        yield world.finding("warning", "networks", network.id, where, message)


def client_versions(world: _World) -> Iterator[Finding]:
    """Versions of a client stand newest first, each once; what is said of some must be about one that is known."""
    for network in world.rooms.networks.values():
        for n, client in enumerate(network.clients):
            numbers = [number for v in client.versions if (number := _number(v.version)) is not None]
            if any(not later < earlier for earlier, later in itertools.pairwise(numbers)):
                message = f"the versions of {client.name} stand newest first, each once"
                yield world.finding("error", "networks", network.id, ("clients", n, "versions"), message)
        known = _known_clients(network)
        told: list[tuple[Position, DottedSpecifier | None]] = [
            (("profiles", n, "requirements", k, "with_client"), item.with_client)
            for n, profile in enumerate(network.profiles)
            for k, item in enumerate(profile.requirements)
        ]
        told += [(("breakages", n, "with_client"), step.with_client) for n, step in enumerate(network.breakages)]
        for where, versions in told:
            if versions is not None and not any(versions.allows(number) for number in known):
                message = f"no version that {network.id} lists is in '{versions}'"
                yield world.finding("error", "networks", network.id, where, message)


def _known_clients(network: Network) -> list[DottedVersion]:
    """Versions of the program whose versions are published."""
    versioned = next((client for client in network.clients if client.versions), None)
    known = [_number(v.version) for v in versioned.versions] if versioned is not None else []
    return [number for number in known if number is not None]


def _asks(item: Requirement, client: DottedVersion) -> bool:
    return item.with_client is None or item.with_client.allows(client)


def _number(text: str) -> DottedVersion | None:
    try:
        return DottedVersion(text)
    except ValueError:
        return None


# --- ranges -------------------------------------------------------------------------------------------------------


def driver_versions(world: _World) -> Iterator[Finding]:
    """A version in the wrong branch, a list out of order, a first after the latest."""
    for driver in world.rooms.drivers.values():
        named: list[tuple[Position, DriverVersion]] = [
            (("first", "version"), driver.first.version),
            (("latest", "version"), driver.latest.version),
        ]
        named += [(("versions", n), version) for n, version in enumerate(driver.versions)]
        named += [
            (("security", n, "version"), floor.version)
            for n, floor in enumerate(driver.security)
            if floor.version is not None
        ]
        for where, version in named:
            if version.branch != driver.branch:
                message = f"{version} is of branch {version.branch}, not {driver.branch}"
                yield world.finding("error", "drivers", driver.id, where, message)
        if list(driver.versions) != sorted(set(driver.versions)):
            message = "versions stand in ascending order, each once"
            yield world.finding("error", "drivers", driver.id, ("versions",), message)
        for n, packages in enumerate(driver.packages):
            for k, version_of in enumerate(packages.versions):
                if DriverVersion(version_of.upstream).branch != driver.branch:
                    message = f"{version_of} packages another branch than {driver.branch}"
                    yield world.finding("error", "drivers", driver.id, ("packages", n, "versions", k), message)
            known = {version_of.text for version_of in packages.versions}
            for k, fact in enumerate(packages.does_not_build):
                for m, version_of in enumerate(fact.versions):
                    place: Position = ("packages", n, "does_not_build", k, "versions", m)
                    if version_of.text not in known:
                        message = f"{version_of} is no version of this set: of what would it hold?"
                        yield world.finding("error", "drivers", driver.id, place, message)


def architecture_ranges(world: _World) -> Iterator[Finding]:
    """Gaps and overlaps: between what an architecture says of branches and what branches say of it."""
    branches = sorted(world.rooms.drivers.values(), key=lambda d: DriverVersion(d.branch))
    for architecture in world.rooms.architectures.values():
        where: Position = ("last_driver",)
        drives = [d.branch for d in branches if architecture.id in d.architectures]
        if architecture.last_driver and drives and drives[-1] != architecture.last_driver:
            message = f"the last branch that lists {architecture.id} is {drives[-1]}"
            yield world.finding("error", "architectures", architecture.id, where, message)
        if architecture.first_driver and drives and drives[0] != architecture.first_driver:
            message = f"the first branch that lists {architecture.id} is {drives[0]}"
            yield world.finding("error", "architectures", architecture.id, ("first_driver",), message)
        between = [d.branch for d in branches if drives and drives[0] <= d.branch <= drives[-1]]
        for missing in sorted(set(between) - set(drives)):
            message = f"a gap: branches before and after list {architecture.id}, this one does not"
            yield world.finding("error", "drivers", missing, ("architectures",), message)
        known = set(architecture.capabilities)
        windows = [c for window in architecture.windows for c in window.capabilities]
        if len(windows) != len(set(windows)):
            message = "two windows overlap: a capability stands in both"
            yield world.finding("error", "architectures", architecture.id, ("windows",), message)
        if set(windows) != known:
            message = "the windows leave a gap: together they must have exactly the capabilities"
            yield world.finding("error", "architectures", architecture.id, ("windows",), message)
    yield from _prefixes(world)
    for gpu in world.rooms.gpus.values():
        home = world.rooms.architectures.get(gpu.architecture)
        if home and gpu.compute_capability not in home.capabilities:
            message = f"{home.id} has no capability {gpu.compute_capability}"
            yield world.finding("error", "gpus", gpu.id, ("compute_capability",), message)
        if home and not set(gpu.modules) <= set(home.modules):
            message = f"{home.id} takes {' or '.join(home.modules)} modules alone"
            yield world.finding("error", "gpus", gpu.id, ("modules",), message)


def _prefixes(world: _World) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for architecture in world.rooms.architectures.values():
        for n, prefix in enumerate(architecture.chip_prefixes):
            other = owners.setdefault(prefix, architecture.id)
            if other != architecture.id:
                where = ("chip_prefixes", n)
                message = f"'{prefix}' is also a prefix of {other}"
                yield world.finding("error", "architectures", architecture.id, where, message)


def cuda_ranges(world: _World) -> Iterator[Finding]:
    """Drivers and CUDA levels must agree on what a branch carries, and floors must be floors."""
    for driver in world.rooms.drivers.values():
        yield from _native(world, driver)
    levels = sorted(world.rooms.cuda.values(), key=lambda c: c.level)
    for level in levels:
        yield from _releases(world, level)
    for before, after in itertools.pairwise(levels):
        same_major = before.level.major == after.level.major
        if same_major and after.level.minor != before.level.minor + 1:
            message = f"a gap: nothing between {before.level} and {after.level}"
            yield world.finding("error", "cuda", after.id, ("level",), message)


def _native(world: _World, driver: DriverBranch) -> Iterator[Finding]:
    level = world.rooms.cuda.get(str(driver.native_cuda))
    if level is None or level.native_branch == driver.branch:
        return
    if DriverVersion(level.native_branch) > DriverVersion(driver.branch):
        message = f"branch {driver.branch} can't carry CUDA {level.level}: that came with {level.native_branch}"
    else:
        message = f"CUDA {level.level} names branch {level.native_branch} as its own"
    yield world.finding("error", "drivers", driver.id, ("native_cuda",), message)


def _releases(world: _World, level: CudaLevel) -> Iterator[Finding]:
    seen: set[CudaVersion] = set()
    for n, release in enumerate(level.releases):
        where: Position = ("releases", n, "version")
        if release.version.level != level.level:
            message = f"{release.version} is not a release of {level.level}"
            yield world.finding("error", "cuda", level.id, where, message)
        if release.version in seen:
            yield world.finding("error", "cuda", level.id, where, f"{release.version} stands here twice")
        seen.add(release.version)
        if release.driver is not None and release.driver < release.minor_floor:
            message = f"the floor for all features, {release.driver}, is below {release.minor_floor}"
            yield world.finding("error", "cuda", level.id, ("releases", n, "driver"), message)
        if release.driver is not None and release.driver.branch != release.driver_branch:
            message = f"{release.driver} is not of branch {release.driver_branch}"
            yield world.finding("error", "cuda", level.id, ("releases", n, "driver"), message)
    if level.released != bool(level.releases):
        message = "a released level has releases, one that never was has none"
        yield world.finding("error", "cuda", level.id, ("released",), message)
    if level.capabilities and level.capabilities.all:
        listed = level.capabilities.all
        ends: tuple[tuple[str, DottedVersion, DottedVersion], ...] = (
            ("min", level.capabilities.min, min(listed)),
            ("max", level.capabilities.max, max(listed)),
        )
        for name, stated, real in ends:
            if stated != real:
                message = f"{stated} is not the {name} of the list, {real} is"
                yield world.finding("error", "cuda", level.id, ("capabilities", name), message)


def profiles(world: _World) -> Iterator[Finding]:
    """A profile whose own requirements can never hold together, a network without one to take."""
    for network in world.rooms.networks.values():
        if len(network.profiles) > 1 and not any(p.default for p in network.profiles):
            message = "of several profiles one is the default"
            yield world.finding("error", "networks", network.id, ("profiles",), message)
        for n, profile in enumerate(network.profiles):
            for key in dict.fromkeys(item.key for item in profile.requirements):
                musts = [i for i in profile.requirements if i.key == key and i.severity == "must"]
                # What different versions of the client ask for need not hold together.
                parties = [[i for i in musts if _asks(i, number)] for number in _known_clients(network)] or [musts]
                wanted = next((w for w in ([i.value for i in p] for p in parties) if _never_together(key, w)), None)
                if wanted is not None:
                    what = "version" if isinstance(wanted[0], Specifier) else "host"
                    message = f"no {what} satisfies every requirement on {key}"
                    yield world.finding("error", "networks", network.id, ("profiles", n), message)


_ONE_OF = {"gpu.model", "gpu.architecture", "gpu.brand", "arch", "tee"}
"""Keys whose list names what is allowed, by the very words of the host."""


def _never_together(key: str, wanted: list[Any]) -> bool:
    if all(isinstance(value, Specifier) for value in wanted):
        together: Specifier[Any] = Specifier.any()
        for specifier in wanted:
            together = together.intersect(specifier)
        return together.is_empty()
    if all(isinstance(value, (str, bool)) for value in wanted):
        return len(set(wanted)) > 1
    return key in _ONE_OF and not set.intersection(*(set(value) for value in wanted))


def known_drivers(world: _World) -> Iterator[Finding]:
    """A requirement on the driver that no branch of the matrix can meet never holds on any host."""
    branches: Specifier[DriverVersion] = Specifier.none()
    for driver in world.rooms.drivers.values():
        branches = branches.union(Specifier.parse(f"=={driver.branch}.*", DriverVersion))
    for network in world.rooms.networks.values():
        for n, profile in enumerate(network.profiles):
            for k, item in enumerate(profile.requirements):
                if item.driver is not None and item.driver.intersect(branches).is_empty():
                    where = ("profiles", n, "requirements", k, "driver")
                    message = f"no branch of the room drivers can satisfy {text_of(item.driver)}"
                    yield world.finding("error", "networks", network.id, where, message)


def cyclic_parents(world: _World) -> Iterator[Finding]:
    """A network that is part of itself: whoever follows parents would never arrive."""
    for network_id in world.rooms.networks:
        way = parent_cycle(world.rooms.networks, network_id)
        if way is not None:
            yield world.finding("error", "networks", network_id, ("parent",), f"a cycle: {' → '.join(way)}")


# --- trust --------------------------------------------------------------------------------------------------------

_CLAIM_KEYS = {"sources", "confidence"}


def claims_without_source(world: _World) -> Iterator[Finding]:
    """An entry without any source, or a part that states its confidence and not where it comes from."""
    for (room, entry_id), document in world.documents.items():
        if not document.data.get("sources"):
            yield world.finding("error", room, entry_id, ("sources",), "a claim names where it comes from")
        for where, part in _mappings(document.data, ()):
            if where and where[0] != "details" and part.get("sources") == []:
                yield world.finding("error", room, entry_id, (*where, "sources"), "an empty list of sources")
            if where and where[0] not in ("details", "figures") and "confidence" in part and "sources" not in part:
                message = "it states a confidence and no source"
                yield world.finding("error", room, entry_id, (*where, "confidence"), message)


def _mappings(data: Any, where: Position) -> Iterator[tuple[Position, dict[str, Any]]]:
    if isinstance(data, dict):
        yield where, data
        for key, value in data.items():
            yield from _mappings(value, (*where, key))
    elif isinstance(data, list):
        for n, value in enumerate(data):
            yield from _mappings(value, (*where, n))


def past_their_end(world: _World) -> Iterator[Finding]:
    """Entries whose support has ended: they stay, because hosts still have them."""
    for room, entries in (("drivers", world.rooms.drivers), ("os", world.rooms.os)):
        for entry_id, entry in entries.items():
            if entry.eol.is_past(world.today):
                message = f"support ended on {entry.eol.date} ({entry.eol.basis})"
                yield world.finding("warning", room, entry_id, ("eol",), message)


def seen_in_the_future(world: _World) -> Iterator[Finding]:
    """A day that has not come yet is a typing error."""
    for room in ROOMS:
        entries: dict[str, Entry] = dict(world.rooms.room(room))
        for entry_id, entry in entries.items():
            if entry.seen[:10] > world.today.isoformat():
                message = f"{entry.seen} has not come yet"
                yield world.finding("error", room, entry_id, ("seen",), message)


CHECKS: tuple[Callable[[_World], Iterator[Finding]], ...] = (
    dangling_ids,
    unknown_systems,
    client_versions,
    driver_versions,
    architecture_ranges,
    cuda_ranges,
    profiles,
    known_drivers,
    cyclic_parents,
    claims_without_source,
    past_their_end,
    seen_in_the_future,
)
"""Every check, in the order in which a person would want to read them."""
