"""`solve`: one host, one request, one matrix; gives its lock entry or the reasons why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import Answer, judge
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import Choice, HostLock, LockedPackage, Reason
from provisioner.model.version import CudaVersion
from provisioner.resolve import container_reasons, explain, packages, reasons
from provisioner.resolve.compat import Compat
from provisioner.resolve.conflict import Claim, NoSolution, Source, entry
from provisioner.resolve.containers import counts_as, engine_version
from provisioner.resolve.host import (
    Driver,
    Host,
    RuntimeVersion,
    module_kernels,
    prepare,
    unseen,
)
from provisioner.resolve.options import Option, comes_with, named_parts, versioned_client
from provisioner.resolve.problem import Model, build
from provisioner.resolve.question import Question
from provisioner.resolve.repairs import repairs
from provisioner.resolve.rules import CDI, COMPAT, CUDA, DRIVER, FIRST_NETWORK, RUNTIME, TOOLKIT
from provisioner.resolve.solver import best, refute
from provisioner.resolve.wishes import CHOSEN, WITH_TOOLKIT

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
    driver = model.drivers[solution[DRIVER]]
    compat = model.compats[solution[COMPAT]]
    level = model.levels[solution[CUDA]]
    runtime = model.runtimes[solution[RUNTIME]]
    toolkit = model.toolkits[solution[TOOLKIT]]
    options = tuple(model.options[place][value] for place, value in enumerate(solution[FIRST_NETWORK:]))
    warnings = list(model.warnings)
    warnings += [claim for variable, values, claim in model.only_with if solution[variable] in values]
    warnings += _unmet(model, solution, options)
    warnings += [claim for option in options for claim in _older_client(option, model.intent)]
    warnings += reasons.standing_warnings(model, driver)
    warnings += container_reasons.toolkit_warnings(model, toolkit, driver, matrix)
    locked: list[LockedPackage] = []
    kernels: tuple[str, ...] = ()
    if driver is not None:
        unit, left = packages.driver_unit(driver, host)
        locked += unit
        words = (("version", driver.package.version if driver.package is not None else ""),)
        warnings += [Claim("left-behind", name, words, (Source("host: packages"),)) for name in left]
        kernels = module_kernels(host)
        locked += packages.kernel_unit(host, kernels, hold=model.intent.policy.hold_kernel)
    if compat is not None:
        locked += packages.compat_unit(compat)
    if runtime is not None:
        locked += packages.runtime_unit(runtime, host)
        warnings += _replaced(runtime, model, matrix)
    if toolkit is not None:
        locked += packages.toolkit_unit(toolkit)
    warnings += _about_the_os(host, matrix)
    chosen = _driver_choices(model, solution, driver)
    return HostLock(
        os=host.os,
        gpus=tuple(card.id for card in host.cards),
        intent=model.intent,
        driver_branch=chosen.branch,
        driver_version=chosen.version,
        modules=chosen.modules,
        cuda=_cuda(level, driver, compat, model, solution),
        runtime=_choice_of(container_reasons.runtime(runtime, model, solution, matrix)),
        toolkit=_choice_of(container_reasons.toolkit(model, toolkit, solution, matrix)),
        cdi=_choice_of(container_reasons.cdi(model, solution, matrix)),
        compat=_compat(compat, driver, model),
        networks={option.network.id: _network(option, model, place, solution) for place, option in enumerate(options)},
        kernels=kernels,
        packages=tuple(sorted(locked, key=lambda p: (p.unit, p.name))),
        warnings=_told(claim for claim in warnings if claim.kind != "not-checked"),
        unchecked=_told(claim for claim in warnings if claim.kind == "not-checked"),
        cgroup_driver=_cgroup_driver(model.intent, options),
        default_runtime=None if model.intent.policy.default_runtime == "auto" else model.intent.policy.default_runtime,
        vendor_driver=driver is not None and driver.package is not None and driver.package.flat,
        module_options=_module_options(driver, host),
    )


def _told(claims: Iterable[Claim]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(explain.warning(claim) for claim in claims))


def _cgroup_driver(intent: Intent, options: Iterable[Option]) -> Literal["systemd", "cgroupfs"] | None:
    """What the request says, else what a network's own installer would set."""
    asked = intent.policy.cgroup_driver
    if asked != "auto":
        return asked
    wishes = [r.value for option in options for r in option.wishes.get("cgroup_driver", ()) if r.forbids]
    return "cgroupfs" if "cgroupfs" in wishes else "systemd" if "systemd" in wishes else None


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


@dataclass(frozen=True)
class _Chosen:
    """The three choices that a driver is; None when there is none."""

    branch: Choice | None = None
    version: Choice | None = None
    modules: Choice | None = None


def _driver_choices(model: Model, solution: tuple[int, ...], driver: Driver | None) -> _Chosen:
    if driver is None or driver.package is None:
        return _Chosen()
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
    return _Chosen(
        branch=_choice(driver.branch.branch, *_of_branch(because), not_newer=other_branch),
        version=_choice(driver.version.text, *_of_patch(because), not_newer=same_branch),
        modules=_choice(driver.flavour, carried),
    )


def _of_branch(because: tuple[Claim, ...]) -> tuple[Claim, ...]:
    return tuple(claim for claim in because if claim.kind != "newest-patch") or because


def _of_patch(because: tuple[Claim, ...]) -> tuple[Claim, ...]:
    return tuple(c for c in because if c.kind in ("newest-patch", "only-one", "installed", "asked-for")) or because


def _choice_of(found: container_reasons.Chosen | None) -> Choice | None:
    return None if found is None else _choice(found.value, *found.because, not_newer=found.not_newer)


def _compat(compat: Compat | None, driver: Driver | None, model: Model) -> Choice | None:
    """Why a package for forward compatibility: somebody asks for more than the driver carries, and the cards can."""
    if compat is None or compat.package is None or driver is None:
        return None
    cards = ", ".join(dict.fromkeys(card.name for card in model.host.cards))
    words = (("driver", driver.version.text), ("level", compat.level.text), ("native", _native(driver)))
    rests = (entry("cuda", compat.entry.forward_compat or compat.entry, compat.entry.id, compat.entry),)
    models = [card.model for card in model.host.cards if card.model is not None]
    able = tuple(dict.fromkeys(entry("gpus", card, card.id) for card in models))
    return _choice(
        f"{compat.name} {compat.package.version}",
        Claim("compat-carries", compat.name, words, rests),
        Claim("compat-able", cards, (), able),
    )


def _native(driver: Driver) -> str:
    return driver.branch.native_cuda.level.text


def _cuda(
    level: CudaVersion | None,
    driver: Driver | None,
    compat: Compat | None,
    model: Model,
    solution: tuple[int, ...],
) -> Choice | None:
    if level is None or driver is None:
        return None
    native = driver.branch.native_cuda.level
    if compat is not None and level > native:
        words = (("driver", driver.version.text), ("level", level.text), ("native", native.text))
        rests = (entry("cuda", compat.entry, compat.entry.id),)
        above = reasons.not_higher(model, solution)
        return _choice(level.text, Claim("compat-carries", compat.name, words, rests), not_newer=above)
    rests = (entry("drivers", driver.branch, driver.branch.id),)
    claim = Claim("native-cuda", native.text, (("branch", driver.branch.branch),), rests)
    lower = reasons.not_higher(model, solution) if level < native else ()
    return _choice(level.text, claim, not_newer=lower)


def _network(option: Option, model: Model, place: int, solution: tuple[int, ...]) -> Choice:
    rests = (entry("networks", option.network, option.network.id),)
    way = [Claim("served-as", option.network.name, (("title", option.profile.title),), rests)]
    if len(option.network.profiles) < 2:
        way = []
    if not option.client:
        return _choice("unversioned", Claim("unversioned-client", option.network.name, (), rests), *way)
    newer = _newer_clients(model, place, solution)
    words = (("program", option.program),)
    return _choice(option.client, Claim("newest-client", option.client, words, rests), *way, not_newer=newer)


def _newer_clients(model: Model, place: int, solution: tuple[int, ...]) -> tuple[Claim, ...]:
    """What of the rest of the stack stands against each newer client of the network."""
    variable = FIRST_NETWORK + place
    found: dict[Claim, None] = {}
    for value in range(solution[variable]):
        for rule, claim in zip(model.problem.rules, model.claims, strict=True):
            if variable not in rule.scope:
                continue
            chosen = tuple(value if v == variable else solution[v] for v in rule.scope)
            if chosen in rule.forbids and claim.kind != "wanted-client":
                found.setdefault(claim)
    return tuple(found)


def _older_client(option: Option, intent: Intent) -> list[Claim]:
    """That a client is not the newest though nobody asked for that, and breakages that the newest does not have."""
    client = versioned_client(option.network)
    if client is None or not option.client:
        return []
    newest = client.versions[0].version
    found: list[Claim] = []
    pinned = any(named_parts(name)[0] == option.network.id and named_parts(name)[2] for name in intent.networks)
    if option.client != newest and not pinned:
        words = (("program", option.program), ("client", option.client), ("newest", newest))
        found.append(
            Claim(
                "older-client",
                option.network.name,
                words,
                (entry("networks", client, option.network.id, option.network),),
            )
        )
    for step in option.network.breakages:
        known = step.with_client
        if known is None or not comes_with(known, option.client) or comes_with(known, newest):
            continue
        words = (("program", option.program), ("client", option.client), ("text", step.text))
        found.append(
            Claim(
                "client-defect",
                option.network.name,
                words,
                (entry("networks", step, option.network.id, option.network),),
            )
        )
    return found


def _unmet(model: Model, solution: tuple[int, ...], options: tuple[Option, ...]) -> list[Claim]:
    """Requirements on the chosen stack that do not forbid and do not hold: they warn."""
    driver, runtime = model.drivers[solution[DRIVER]], model.runtimes[solution[RUNTIME]]
    toolkit, cdi = model.toolkits[solution[TOOLKIT]], model.cdi[solution[CDI]]
    situation: dict[str, Any] = {
        "driver": driver.version if driver is not None else None,
        "host_driver": "absent" if driver is None else "present",
        "modules": driver.flavour if driver is not None else None,
        "cuda": model.levels[solution[CUDA]],
        "toolkit": toolkit.version if toolkit is not None else None,
        "cdi": cdi,
    }
    if runtime is not None:
        situation |= {"docker": engine_version(runtime), "runtime": list(counts_as(runtime.id))}
    keys = CHOSEN | (WITH_TOOLKIT if cdi is not None else set())
    found = []
    for option in options:
        for requirement in (r for key in sorted(keys) for r in option.wishes.get(key, ()) if not r.forbids):
            if judge(requirement, situation).answer is Answer.NO:
                claim = option.claims[id(requirement)]
                found.append(Claim("soft", claim.about, claim.words, claim.rests_on))
    return found


def _replaced(runtime: RuntimeVersion, model: Model, matrix: Matrix) -> list[Claim]:
    """Another engine that is there and has to make way: its containers stop, which nobody should learn later."""
    found = []
    for other_id in matrix.runtimes[runtime.id].conflicts_with:
        other = matrix.runtimes.get(other_id)
        there = [p.install[0] for p in other.packages if p.install[0] in model.host.packages] if other else []
        if there:
            words = (("chosen", runtime.package.name), ("id", other_id))
            found.append(Claim("runtime-replaced", there[0], words, (Source(f"runtimes/{runtime.id}"),)))
    return found


def _about_the_os(host: Host, matrix: Matrix) -> list[Claim]:
    release = matrix.os.get(host.os)
    if release is None or release.eol.is_past(host.facts.taken_at.date()) is not True:
        return []
    words = (("date", release.eol.date or ""),)
    return [Claim("os-ended", release.name, words, (entry("os", release, release.id),))]
