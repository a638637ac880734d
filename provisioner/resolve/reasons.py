"""Turns sets of rules into trees of reasons, and a solution into the reasons of each choice; no wording."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provisioner.model.version import CudaVersion
from provisioner.resolve.conflict import Claim, Conflict, Falls, Reason, Source, entry
from provisioner.resolve.host import Driver, below_floor, past_end_of_life
from provisioner.resolve.problem import Model
from provisioner.resolve.rules import COMPAT, CUDA, DRIVER
from provisioner.resolve.solver import Rule

_FIRST = (
    "network-wants", "not-seen", "networks-conflict", "opposite-wishes", "wanted-driver",
    "wanted-driver-source", "wanted-modules",
    "wanted-cuda", "network-needs-driver", "forbidden-branches", "refuse-ended", "no-reboot", "no-headers",
    "kernel-floor", "does-not-build", "cuda-ceiling", "card-driver", "card-floor", "card-flavour", "card-unknown",
    "driver-not-offered", "fabric-manager-not-offered", "compat-refused", "compat-unknown", "compat-not-offered",
    "wanted-runtime", "wanted-toolkit",
    "wanted-cdi", "toolkit-holes", "engine-reads-no-cdi", "cdi-without-toolkit", "engines-offered",
)  # fmt: skip
"""The order in which a person reads a conflict: who wants what, then what stands against it."""


def conflict(model: Model, numbers: Iterable[int]) -> Conflict:
    """The claims of a minimal set of rules, and how they leave nothing."""
    order = sorted(numbers, key=lambda n: (_place(model.claims[n].kind), n))
    claims = tuple(model.claims[n] for n in order)
    rules = [(model.problem.rules[n], model.claims[n]) for n in order]
    if any(rule.scope[0] in (DRIVER, CUDA) for rule, _ in rules):
        return Conflict(claims, _over_drivers(model, rules))
    return Conflict(claims, Falls("stack", (), claims))


def _place(kind: str) -> int:
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


def _over_drivers(model: Model, rules: Sequence[tuple[Rule, Claim]]) -> Falls:
    """Group the drivers by what takes them away; those that fall by their CUDA level form the last group."""
    standing = dict(enumerate(model.drivers))
    because: list[Reason] = []
    through_cuda = [claim for rule, claim in rules if rule.scope[0] == CUDA]
    others = [claim for rule, claim in rules if rule.scope[0] not in (DRIVER, COMPAT, CUDA)]
    compat = [claim for rule, claim in rules if rule.scope[0] == COMPAT]
    for rule, claim in rules:
        if rule.scope[0] != DRIVER:
            continue
        gone = sorted({values[0] for values in rule.forbids} & set(standing))
        because.append(Falls("driver", tuple(_key(standing[d]) for d in gone), (claim,)))
        for d in gone:
            del standing[d]
    if through_cuda:
        left = [driver for driver in standing.values() if driver is not None]
        background: list[Reason] = []
        if left and not any(claim.kind == "cuda-ceiling" for claim in through_cuda):
            background.append(carries(max(left, key=lambda d: d.branch.native_cuda)))
        elif left:
            newest = max(left, key=lambda d: d.branch.native_cuda)
            ceiling = next(claim for claim in through_cuda if claim.kind == "cuda-ceiling")
            if newest.branch.native_cuda > CudaVersion(ceiling.word("ceiling")):
                background = []
        because.insert(0, Falls("driver", tuple(_key(d) for d in standing.values()), (*through_cuda, *background)))
    if compat:
        because.append(Falls("compat", (), tuple(compat)))
    if others:
        because.insert(0, Falls("stack", (), tuple(others)))
    return Falls("driver", tuple(_key(d) for d in model.drivers), tuple(because))


def _key(driver: Driver | None) -> str:
    return driver.key if driver is not None else "none"


def carries(driver: Driver) -> Claim:
    """A driver's own CUDA level: background that every stack obeys."""
    return Claim(
        "carries",
        driver.version.text,
        (("cuda", driver.branch.native_cuda.level.text),),
        (entry("drivers", driver.branch, driver.branch.id),),
    )


def driver_because(model: Model, chosen: Driver) -> tuple[Claim, ...]:
    """Why this driver: it is there, or what was there had to move; then support, default, newest patch."""
    host, today = model.host, model.host.facts.taken_at.date()
    about = chosen.version.text
    fits = _fitting(model)
    if chosen.installed:
        return (Claim("installed", about, (), (Source("host: packages"),)),)
    found: list[Claim] = []
    there = next((d for d in model.drivers if d is not None and d.installed), None)
    if there is not None:
        rests = (entry("drivers", there.branch, there.branch.id),)
        floor = there.branch.security_floor
        if not any(driver is there for driver in fits):
            found.append(Claim("moved-unfit", there.version.text, (), rests))
        elif past_end_of_life(there, today) and not past_end_of_life(chosen, today):
            found.append(Claim("moved-ended", there.version.text, (("date", there.branch.eol.date or ""),), rests))
        elif floor is not None and below_floor(there, today):
            found.append(Claim("moved-floor", there.version.text, (("floor", floor.text),), rests))
    elif isinstance(host.facts.driver.library, str) and host.facts.driver.library != about:
        found.append(Claim("not-any-more", host.facts.driver.library, (), (Source("host: package sources"),)))
    if model.intent.driver is not None:
        found.append(Claim("asked-for", model.intent.driver, (), (Source("request: provision_driver"),)))
    versions = {d.version for d in fits}
    if len(versions) == 1:
        found.append(Claim("only-one", about, (), (Source("host: package sources"),)))
        return tuple(found)
    rests = (entry("drivers", chosen.branch, chosen.branch.id),)
    if not past_end_of_life(chosen, today) and chosen.branch.eol.date:
        found.append(Claim("longest-supported", chosen.branch.branch, (("until", chosen.branch.eol.date),), rests))
    elif chosen.rank < 100 and any(d.branch != chosen.branch for d in fits):
        found.append(Claim("default-of-os", about, (("os", host.os),), (Source("host: package sources"),)))
    if any(d.branch == chosen.branch and d.version != chosen.version for d in fits):
        found.append(Claim("newest-patch", about, (), (Source("host: package sources"),)))
    return tuple(found) or (Claim("newest-patch", about, (), (Source("host: package sources"),)),)


def _fitting(model: Model) -> list[Driver]:
    """Offered drivers that no rule on the driver alone forbids."""
    return [
        driver
        for place, driver in enumerate(model.drivers)
        if driver is not None and driver.package is not None and not _against(model, place)
    ]


def _against(model: Model, place: int, chosen: Sequence[int] | None = None) -> list[Claim]:
    """The claims that take a driver away: by itself, and beside the rest of what was chosen."""
    found = []
    for rule, claim in zip(model.problem.rules, model.claims, strict=True):
        if rule.scope == (DRIVER,):
            if (place,) in rule.forbids:
                found.append(claim)
        elif rule.scope[0] == DRIVER and chosen is not None:
            values = (place, *(chosen[variable] for variable in rule.scope[1:]))
            if values in rule.forbids:
                found.append(claim)
    return found


def not_newer(model: Model, chosen: Driver, solution: Sequence[int]) -> tuple[tuple[str, Claim], ...]:
    """Why not a newer one, each reason with the branch it is about: every offered one, and the rest together."""
    found: dict[tuple[str, Claim], None] = {}
    elsewhere: list[list[Claim]] = []
    newer = [
        (driver, place)
        for place, driver in enumerate(model.drivers)
        if driver is not None and driver.version > chosen.version
    ]
    for driver, place in sorted(newer, key=lambda pair: (pair[0].version, pair[1])):
        against = _against(model, place, solution)
        if driver.package is None:
            if driver.branch != chosen.branch and driver.flavour == chosen.flavour:
                elsewhere.append(against)
        elif against:
            found.setdefault((driver.branch.branch, against[0]))
        else:
            found.setdefault((driver.branch.branch, _not_preferred(model, driver, chosen)))
    # What would fit were it offered says most; if nothing would, the reason that stands against the next one.
    absent = [claims for claims in elsewhere if [c.kind for c in claims] == ["driver-not-offered"]]
    others = [c for claims in (absent or elsewhere[:1]) for c in claims]
    telling = [c for c in others if c.kind != "driver-not-offered"] or others
    return (*found, *(("", claim) for claim in telling[:1]))


def not_higher(model: Model, solution: Sequence[int]) -> tuple[Claim, ...]:
    """What keeps the CUDA level below that of the driver."""
    found = []
    for rule, claim in zip(model.problem.rules, model.claims, strict=True):
        if rule.scope[0] != CUDA:
            continue
        rest = tuple(solution[variable] for variable in rule.scope[1:])
        if any((higher, *rest) in rule.forbids for higher in range(solution[CUDA])):
            found.append(claim)
    return tuple(found)


def _not_preferred(model: Model, other: Driver, chosen: Driver) -> Claim:
    today = model.host.facts.taken_at.date()
    if chosen.installed:
        why = "it is on the host already"
    elif past_end_of_life(other, today) and not past_end_of_life(chosen, today):
        why = "it is still supported"
    elif below_floor(other, today) and not below_floor(chosen, today):
        why = "it has the security fixes"
    elif other.branch != chosen.branch and not past_end_of_life(chosen, today):
        why = "its branch is supported longer"
    elif other.rank >= 100 > chosen.rank:
        why = "it is the default of the distribution"
    else:
        why = "it is no backport"
    return Claim(
        "not-preferred",
        f"{other.version.text} ({other.flavour})",
        (("chosen", chosen.version.text), ("why", why)),
        (entry("drivers", other.branch, other.branch.id),),
    )


def standing_warnings(model: Model, chosen: Driver | None) -> tuple[Claim, ...]:
    """What is true of the chosen driver and host and should be known, though nothing better is there."""
    host, today = model.host, model.host.facts.taken_at.date()
    found: list[Claim] = []
    if chosen is None:
        return ()
    rests = (entry("drivers", chosen.branch, chosen.branch.id),)
    if past_end_of_life(chosen, today):
        better = any(not past_end_of_life(d, today) for d in _fitting(model))
        found.append(
            Claim(
                "ended",
                chosen.branch.branch,
                (("date", chosen.branch.eol.date or ""), ("better", "yes" if better else "")),
                rests,
            )
        )
    floor = chosen.branch.security_floor
    if floor is not None and chosen.version < floor:
        found.append(Claim("below-floor", chosen.version.text, (("floor", floor.text),), rests))
    elif below_floor(chosen, today):
        found.append(Claim("below-floor", chosen.version.text, (), rests))
    if host.facts.driver.secure_boot is True:
        found.append(Claim("secure-boot", host.os, (), (Source("host: Secure Boot"),)))
    if host.facts.driver.run_file_install is True:
        found.append(Claim("run-file", host.os, (), (Source("host: /usr/bin/nvidia-uninstall"),)))
    return tuple(found)
