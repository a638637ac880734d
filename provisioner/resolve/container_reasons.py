"""Why this engine, this toolkit, CDI on or off: the reasons of what gives containers their GPUs; no wording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.matrix.reader import Matrix
from provisioner.resolve.conflict import Claim, Source, entry, from_host
from provisioner.resolve.containers import (
    DISTRIBUTION,
    TOOLKIT_ID,
    Toolkit,
    floor_of,
    holes_of,
    taken_by,
    too_old_for_cdi,
    toolkit_version,
)
from provisioner.resolve.host import Driver, RuntimeVersion
from provisioner.resolve.problem import Model
from provisioner.resolve.rules import CDI, RUNTIME, TOOLKIT


@dataclass(frozen=True)
class Chosen:
    """A value with its reasons, before they are put into words."""

    value: str
    because: tuple[Claim, ...]
    not_newer: tuple[Claim, ...] = ()


def runtime(chosen: RuntimeVersion | None, model: Model, solution: Sequence[int], matrix: Matrix) -> Chosen | None:
    """It is there, or it is the newest; of every other engine what stands against it or why it comes later."""
    if chosen is None:
        return None
    about = f"{chosen.package.name} {chosen.package.version}"
    kind = "installed" if chosen.installed else "newest-offered"
    because = Claim(kind, about, (("os", model.host.os),), (Source("host: packages"),))
    return Chosen(about, (because,), _other_engines(model, chosen, solution, matrix))


def _other_engines(model: Model, chosen: RuntimeVersion, solution: Sequence[int], matrix: Matrix) -> tuple[Claim, ...]:
    """Of each other engine the version that is liked best. containerd alone is no alternative to an engine."""
    found: dict[str, Claim] = {}
    for place, other in enumerate(model.runtimes):
        if other is None or other.id == chosen.id or other.id in found or matrix.runtimes[other.id].kind != "engine":
            continue
        against = _against(model, RUNTIME, place, solution)
        words = (
            ("chosen", f"{chosen.package.name} {chosen.package.version}"),
            ("why", engine_first(chosen, other, matrix)),
        )
        shown = f"{other.package.name} {other.package.version}"
        stands = Claim("comes-first", shown, words, (from_host("package sources"),))
        found[other.id] = against[0] if against else stands
    return tuple(dict.fromkeys(found.values()))


def engine_first(chosen: RuntimeVersion, other: RuntimeVersion, matrix: Matrix) -> str:
    """The first rung of the order of engines on which the two differ."""
    if chosen.installed and not other.installed:
        return "installed"
    if chosen.names.origin in DISTRIBUTION and other.names.origin not in DISTRIBUTION:
        return "own-engine"
    if chosen.id == other.id:
        return "newer"
    return "taken" if taken_by(chosen.id, matrix) > taken_by(other.id, matrix) else "by-name"


def _against(model: Model, variable: int, place: int, solution: Sequence[int]) -> list[Claim]:
    """The claims that take a value away beside the rest of what was chosen."""
    return [
        claim
        for rule, claim in zip(model.problem.rules, model.claims, strict=True)
        if variable in rule.scope and tuple(place if v == variable else solution[v] for v in rule.scope) in rule.forbids
    ]


def toolkit(model: Model, chosen: Toolkit | None, solution: Sequence[int], matrix: Matrix) -> Chosen | None:
    """It is there or the newest, and why it is sound; what of newer ones some rule refuses."""
    if chosen is None:
        return None
    known = matrix.runtimes[TOOLKIT_ID]
    rests = (entry("runtimes", known, known.id),)
    because: list[Claim] = []
    if chosen.installed:
        because.append(Claim("installed", chosen.shown, (), (Source("host: packages"),)))
    else:
        there = model.host.packages.get(chosen.packages[0].name)
        moved = toolkit_version(there.version) if there is not None else None
        holes = holes_of(moved, known) if moved is not None else ()
        if moved is not None and holes:
            because.append(Claim("toolkit-moved", moved.text, (("holes", _few(holes)),), rests))
        because.append(Claim("toolkit-newest", chosen.shown, (), (from_host("package sources"),)))
    floor = floor_of(known, "toolkit")
    if floor is not None and floor.version is not None:
        words = (("floor", floor.version.text),)
        because.append(Claim("toolkit-sound", chosen.version.text, words, (entry("runtimes", floor, known.id, known),)))
    return Chosen(chosen.shown, tuple(because), _newer_toolkits(model, chosen, solution))


def _few(holes: Sequence[str]) -> str:
    """The three newest, and how many more there are."""
    return ", ".join(holes[:3]) + (f" and {len(holes) - 3} more" if len(holes) > 3 else "")


def _newer_toolkits(model: Model, chosen: Toolkit, solution: Sequence[int]) -> tuple[Claim, ...]:
    found: dict[Claim, None] = {}
    for place, other in enumerate(model.toolkits):
        if other is None or other.version <= chosen.version:
            continue
        against = _against(model, TOOLKIT, place, solution)
        for claim in against or [Claim("stays", other.shown, (("chosen", chosen.version.text),))]:
            found.setdefault(claim)
    return tuple(found)


def cdi(model: Model, solution: Sequence[int], matrix: Matrix) -> Chosen | None:
    """On where a network asks for it, or nobody minds and the engine reads it; off where one asks for that."""
    value = model.cdi[solution[CDI]]
    if value is None:
        return None
    asked = [
        claim
        for claim in _against(model, CDI, 1 - solution[CDI], solution)
        if claim.kind in ("network-wants", "wanted-cdi")
    ]
    if asked:
        return Chosen(value, tuple(asked))
    known = matrix.runtimes[TOOLKIT_ID]
    rests = (entry("runtimes", known, known.id),)
    chosen = model.runtimes[solution[RUNTIME]]
    floor = too_old_for_cdi(chosen, matrix)
    if value == "absent" and chosen is not None and floor is not None:
        about = f"{chosen.package.name} {chosen.package.version}"
        words = (("floors", f"{chosen.package.name} {floor.version}"), ("who", ""))
        return Chosen(
            value,
            (
                Claim(
                    "engine-reads-no-cdi",
                    about,
                    words,
                    (entry("runtimes", floor, chosen.id, matrix.runtimes[chosen.id]),),
                ),
            ),
        )
    if value == "absent":
        return Chosen(value, (Claim("cdi-nobody", "", (), rests),))
    return Chosen(value, (Claim("cdi-by-default", "", (), rests),))


def toolkit_warnings(model: Model, chosen: Toolkit | None, driver: Driver | None, matrix: Matrix) -> list[Claim]:
    """What a host without a toolkit should be told: that none is offered, or none that is sound."""
    known = matrix.runtimes.get(TOOLKIT_ID)
    if chosen is not None or driver is None or known is None or model.intent.toolkit == "none":
        return []
    rests = (from_host("package sources"), entry("runtimes", known, known.id))
    name = known.packages[0].install[0] if known.packages else TOOLKIT_ID
    offered = [toolkit for toolkit in model.toolkits if toolkit is not None]
    there = model.host.packages.get(name)
    version = toolkit_version(there.version) if there is not None and there.whole else None
    found = []
    if version is not None:
        holes = holes_of(version, known)
        found.append(Claim("toolkit-unpinned", version.text, (("holes", _few(holes)),), rests))
    if offered:
        newest = max(offered, key=lambda toolkit: toolkit.version)
        floor = floor_of(known, "toolkit")
        words = (
            ("holes", _few(newest.holes)),
            ("floor", floor.version.text if floor is not None and floor.version is not None else ""),
        )
        found.append(Claim("toolkit-only-holes", newest.version.text, words, rests))
    elif version is None:
        found.append(Claim("toolkit-not-offered", known.name, (), rests))
    return found
