"""`solve`: one host, one request, one matrix; gives its lock entry or the reasons why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import Answer, judge
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import Choice, HostLock, LockedPackage, Reason
from provisioner.model.version import CudaVersion
from provisioner.resolve import explain, packages, reasons
from provisioner.resolve.conflict import Claim, NoSolution, Source, entry
from provisioner.resolve.host import (
    Driver,
    Host,
    RuntimeVersion,
    has_headers,
    kernel_version,
    prepare,
    unseen,
    upstream,
)
from provisioner.resolve.options import Option
from provisioner.resolve.problem import Model, build
from provisioner.resolve.question import Question
from provisioner.resolve.repairs import repairs
from provisioner.resolve.rules import FIRST_NETWORK
from provisioner.resolve.solver import best, refute
from provisioner.resolve.wishes import CHOSEN

MOST_CONFLICTS = 8


def solve(facts: HostFacts, intent: Intent, matrix: Matrix) -> HostLock | NoSolution:
    """Return the best stack, or every minimal conflict with the repairs that work.

    Pure: the same facts, intent and matrix give the same answer, byte for byte, on any day.
    """
    missing = unseen(facts)
    if missing:
        return NoSolution(facts.host, (), (), unseen=missing)
    host = prepare(facts, matrix)
    model = build(host, intent, matrix)
    solution = best(model.problem)
    if solution is not None:
        return lock_of(model, solution, matrix)
    model = build(host, intent, matrix, beside="telling")
    refutation = refute(model.problem)
    found = tuple(reasons.conflict(model, numbers) for numbers in refutation.conflicts[:MOST_CONFLICTS])
    return NoSolution(
        host=facts.host,
        conflicts=found,
        repairs=repairs(host, intent, matrix, found, lambda h, i: stack_of(h, i, matrix)),
        complete=refutation.complete and len(refutation.conflicts) <= MOST_CONFLICTS,
    )


def stack_of(host: Host, intent: Intent, matrix: Matrix, asked: Question | None = None) -> HostLock | None:
    """The stack without explanations of failure: what a repair is tried with."""
    if best(build(host, intent, matrix, beside="none", asked=asked).problem) is None:
        return None
    model = build(host, intent, matrix, asked=asked)
    solution = best(model.problem)
    return None if solution is None else lock_of(model, solution, matrix)


def lock_of(model: Model, solution: tuple[int, ...], matrix: Matrix) -> HostLock:
    """The lock entry that an assignment stands for, with its reasons and warnings."""
    host = model.host
    driver = model.drivers[solution[0]]
    level = model.levels[solution[1]]
    runtime = model.runtimes[solution[2]]
    options = tuple(model.options[place][value] for place, value in enumerate(solution[FIRST_NETWORK:]))
    warnings = list(model.warnings)
    warnings += _unmet(model, driver, level, runtime, options)
    warnings += reasons.standing_warnings(model, driver)
    locked: list[LockedPackage] = []
    kernels: tuple[str, ...] = ()
    if driver is not None:
        unit, left = packages.driver_unit(driver, host)
        locked += unit
        words = (("version", driver.package.version if driver.package is not None else ""),)
        warnings += [Claim("left-behind", name, words, (Source("host: packages"),)) for name in left]
        kernels = tuple(k for k in host.kernels if k == host.next_boot or has_headers(host, k))
        locked += packages.kernel_unit(host, kernels)
    if runtime is not None:
        locked += packages.runtime_unit(runtime, host)
        warnings += _replaced(runtime, model, matrix)
    warnings += _about_the_os(host, matrix)
    return HostLock(
        os=host.os,
        gpus=tuple(card.id for card in host.cards),
        intent=model.intent,
        **_driver_choices(model, solution, driver),
        cuda=_cuda(level, driver, model, solution),
        runtime=_runtime(runtime, host),
        networks={option.network.id: _network(option) for option in options},
        kernels=kernels,
        packages=tuple(sorted(locked, key=lambda p: (p.unit, p.name))),
        warnings=_told(claim for claim in warnings if claim.kind != "not-checked"),
        unchecked=_told(claim for claim in warnings if claim.kind == "not-checked"),
        module_options=_module_options(driver, host),
    )


def _told(claims: Iterable[Claim]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(explain.warning(claim) for claim in claims))


def _module_options(driver: Driver | None, host: Host) -> tuple[str, ...]:
    """515 to 535: the open modules drive a GeForce or workstation card only when told to."""
    if driver is None or driver.flavour != "open" or driver.branch.modules.open_option is None:
        return ()
    segments = {card.model.segment for card in host.cards if card.model is not None}
    if segments.isdisjoint(driver.branch.modules.open_needs_option_for):
        return ()
    return (driver.branch.modules.open_option,)


def _reason(claim: Claim) -> Reason:
    return Reason(text=explain.sentence(claim), rests_on=explain.sources(claim))


def _choice(value: str, *because: Claim, not_newer: tuple[Claim, ...] = ()) -> Choice:
    return Choice(
        value=value,
        because=tuple(_reason(claim) for claim in because),
        not_newer=tuple(_reason(claim) for claim in not_newer),
    )


def _driver_choices(model: Model, solution: tuple[int, ...], driver: Driver | None) -> dict[str, Any]:
    if driver is None or driver.package is None:
        return {"driver_branch": None, "driver_version": None, "modules": None}
    because = reasons.driver_because(model, driver)
    newer = reasons.not_newer(model, driver, solution)
    same_branch = tuple(c for place, c in newer if place == driver.branch.branch)
    other_branch = tuple(dict.fromkeys(c for place, c in newer if place != driver.branch.branch))
    carried = Claim(
        "flavour-of-package",
        driver.flavour,
        (("package", driver.package.name),),
        (entry("drivers", driver.branch, driver.branch.id),),
    )
    return {
        "driver_branch": _choice(driver.branch.branch, *_of_branch(because), not_newer=other_branch),
        "driver_version": _choice(driver.version.text, *_of_patch(because), not_newer=same_branch),
        "modules": _choice(driver.flavour, carried),
    }


def _of_branch(because: tuple[Claim, ...]) -> tuple[Claim, ...]:
    return tuple(claim for claim in because if claim.kind != "newest-patch") or because


def _of_patch(because: tuple[Claim, ...]) -> tuple[Claim, ...]:
    return tuple(c for c in because if c.kind in ("newest-patch", "only-one", "installed", "asked-for")) or because


def _cuda(level: CudaVersion | None, driver: Driver | None, model: Model, solution: tuple[int, ...]) -> Choice | None:
    if level is None or driver is None:
        return None
    native = driver.branch.native_cuda.level
    rests = (entry("drivers", driver.branch, driver.branch.id),)
    claim = Claim("native-cuda", native.text, (("branch", driver.branch.branch),), rests)
    lower = reasons.not_higher(model, solution) if level < native else ()
    return _choice(level.text, claim, not_newer=lower)


def _runtime(runtime: RuntimeVersion | None, host: Host) -> Choice | None:
    if runtime is None:
        return None
    kind = "installed" if runtime.installed else "newest-offered"
    about = f"{runtime.package.name} {runtime.package.version}"
    return _choice(about, Claim(kind, about, (("os", host.os),), (Source("host: packages"),)))


def _network(option: Option) -> Choice:
    rests = (entry("networks", option.network, option.network.id),)
    way = [Claim("served-as", option.network.name, (("title", option.profile.title),), rests)]
    if len(option.network.profiles) < 2:
        way = []
    if not option.client:
        return _choice("unversioned", Claim("unversioned-client", option.network.name, (), rests), *way)
    claim = Claim("newest-client", option.client, (("program", option.program),), rests)
    return _choice(option.client, claim, *way)


def _unmet(
    model: Model,
    driver: Driver | None,
    level: CudaVersion | None,
    runtime: RuntimeVersion | None,
    options: tuple[Option, ...],
) -> list[Claim]:
    """Requirements on the chosen stack that do not forbid and do not hold: they warn."""
    situation: dict[str, Any] = {
        "driver": driver.version if driver is not None else None,
        "host_driver": "absent" if driver is None else "present",
        "modules": driver.flavour if driver is not None else None,
        "cuda": level,
    }
    if runtime is not None:
        version = kernel_version(upstream(runtime.package.version))
        situation |= {"docker": version, "runtime": [model.intent.runtime, "docker"]}
    found = []
    for option in options:
        for requirement in (r for key in sorted(CHOSEN) for r in option.wishes.get(key, ()) if not r.forbids):
            if judge(requirement, situation).answer is Answer.NO:
                claim = option.claims[id(requirement)]
                found.append(Claim("soft", claim.about, claim.words, claim.rests_on))
    return found


def _replaced(runtime: RuntimeVersion, model: Model, matrix: Matrix) -> list[Claim]:
    """Another engine that is there and has to make way: its containers stop, which nobody should learn later."""
    found = []
    for other_id in matrix.runtimes[model.intent.runtime].conflicts_with:
        other = matrix.runtimes.get(other_id)
        there = [p.install[0] for p in other.packages if p.install[0] in model.host.packages] if other else []
        if there:
            words = (("chosen", runtime.package.name), ("id", other_id))
            found.append(Claim("runtime-replaced", there[0], words, (Source(f"runtimes/{model.intent.runtime}"),)))
    return found


def _about_the_os(host: Host, matrix: Matrix) -> list[Claim]:
    release = matrix.os.get(host.os)
    if release is None or release.eol.is_past(host.facts.taken_at.date()) is not True:
        return []
    words = (("date", release.eol.date or ""),)
    return [Claim("os-ended", release.name, words, (entry("os", release, release.id),))]
