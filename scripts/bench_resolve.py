"""The resolver against its goals, and its search against clingo and resolvelib on the same random instances.

    scripts/bench resolve            all of it, about two minutes
    scripts/bench resolve --short    a tenth of the instances and of the fleet, to see that it works

Matrix and hosts: the files of matrix/ and matrix/cases/. A fleet is simulated: every host has facts of its own (name,
hour, packages, memory, disk …), hosts of one archive share its package index. The peers are timed without the
translation of an instance into their language; clingo with its grounding, as it cannot answer without.

Seconds are those of the processor (nothing here waits for anything), so a busy machine does not change what is told.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "resolve"))

import cases  # noqa: E402  # the worlds of the tests are the worlds that are measured
import worlds  # noqa: E402

from provisioner.matrix.reader import load  # noqa: E402
from provisioner.model.facts import HostFacts, Package  # noqa: E402
from provisioner.model.intent import Intent  # noqa: E402
from provisioner.model.stack import HostLock  # noqa: E402
from provisioner.resolve import NoSolution, solve  # noqa: E402
from provisioner.resolve.fleet import Fleet, kind_of  # noqa: E402
from provisioner.resolve.lock import make_lock  # noqa: E402
from provisioner.resolve.solver import Problem, Rule, best  # noqa: E402

SEED = 3
HOSTS, KINDS, INSTANCES = 100_000, 1_000, 500
LIMITS = {"load": 0.2, "median": 0.01, "worst": 0.1, "fleet": 20.0, "memory": 1024.0}


def main() -> int:
    """Measure, print Markdown; 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tenth of it")
    parser.add_argument("--fleet", nargs=3, metavar=("HOSTS", "KINDS", "SHARED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fleet:
        print(json.dumps(fleet(int(args.fleet[0]), int(args.fleet[1]), args.fleet[2] == "shared")))
        return 0
    divisor = 10 if args.short else 1
    load_before = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, "
        + ", ".join(f"{name} {version(name)}" for name in ("pydantic", "clingo", "resolvelib"))
        + f"; load of the machine when it began: {load_before:.1f}\n"
    )
    missed = [*matrix_and_hosts(), *fleets(HOSTS // divisor), *against_peers(INSTANCES // divisor)]
    print("\n" + ("Missed: " + "; ".join(missed) if missed else "Every goal was met."))
    return 1 if missed else 0


# --- matrix and single hosts --------------------------------------------------------------------------------------


def matrix_and_hosts() -> list[str]:
    matrix = load()
    loads = [_seconds(load) for _ in range(15)]
    found: list[tuple[float, str, bool]] = []
    for path in cases.files():
        case = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        facts, intent = cases.facts(case), cases.intent(case)
        answer = solve(facts, intent, matrix)
        times = [_seconds(lambda f=facts, i=intent: solve(f, i, matrix)) for _ in range(5)]  # type: ignore[misc]
        found.append((statistics.median(times), path.stem, isinstance(answer, NoSolution)))
    solved = [seconds for seconds, _, without in found if not without]
    refuted = [seconds for seconds, _, without in found if without]
    median, worst = statistics.median(seconds for seconds, _, _ in found), max(found)
    print("| one host, one matrix | median ms | worst ms | goal ms |\n| --- | --- | --- | --- |")
    goals = f"{LIMITS['median'] * 1000:.0f} / {LIMITS['worst'] * 1000:.0f}"
    print(f"| matrix loaded and validated, warm | {_ms(loads)} | < {LIMITS['load'] * 1000:.0f} |")
    print(f"| all {len(found)} cases | {_ms([seconds for seconds, _, _ in found])} | < {goals} |")
    print(f"| {len(solved)} with a stack | {_ms(solved)} | |")
    print(f"| {len(refuted)} without, conflicts and repairs told | {_ms(refuted)} | |")
    print(f"\nThe slowest case is {worst[1]}.")
    return _over(
        {
            "loading the matrix": (statistics.median(loads), LIMITS["load"]),
            "the median host": (median, LIMITS["median"]),
            f"the worst host ({worst[1]})": (worst[0], LIMITS["worst"]),
        }
    )


def _seconds(what: Callable[[], object]) -> float:
    began = time.process_time()
    what()
    return time.process_time() - began


def _ms(times: list[float]) -> str:
    return f"{statistics.median(times) * 1000:.1f} | {max(times) * 1000:.1f}"


def _over(figures: dict[str, tuple[float, float]]) -> list[str]:
    return [f"{name} took {found:.3f}, goal {limit:g}" for name, (found, limit) in figures.items() if found >= limit]


# --- a fleet ------------------------------------------------------------------------------------------------------

CARDS = (
    ("tesla-k80",), ("gtx-980-ti",), ("gtx-1080-ti",), ("tesla-t4",), ("rtx-3090",), ("rtx-3090", "rtx-3090"),
    ("rtx-4090",), ("rtx-4090", "rtx-4090", "rtx-4090", "rtx-4090"), ("h100-pcie",), ("rtx-5090",),
    ("gtx-1080-ti", "rtx-4090"),
)  # fmt: skip
INSTALLED = {
    "debian-11": (None, ("470.256.02-2", "470.256.02")),
    "debian-12": (None, ("535.261.03-1", "535.261.03"), ("535.216.03-2~bpo12+1", "535.216.03")),
    "debian-13": (None, ("550.163.01-2", "550.163.01")),
}
REQUESTS = tuple(
    Intent(networks=networks, cuda=cuda)
    for networks in ((), ("akash",), ("ionet",), ("render",), ("lium",), ("akash", "render"))
    for cuda in (None, "12.2")
)


def kinds(number: int) -> list[tuple[HostFacts, Intent]]:
    """Different pairs of host and request, the same ones in every run."""
    combinations = [
        (release, suites, cards, installed, intent)
        for release in worlds.RELEASES
        for suites in (("",), ("", "-security"), ("", "-security", "-backports"))
        for cards in CARDS
        for installed in INSTALLED[release]
        for intent in REQUESTS
    ]
    random.Random(SEED).shuffle(combinations)
    found: dict[tuple[object, ...], tuple[HostFacts, Intent]] = {}
    for release, suites, cards, installed, intent in combinations:
        version_there, loaded = installed or (None, None)
        there = {"nvidia-kernel-dkms": version_there} if version_there else {}
        there |= {f"library-{n}": f"1.{n}-1" for n in range(40)}
        facts = worlds.host(release, *cards, suites=suites, installed=there, loaded=loaded)
        # Some suites offer nothing of interest: with and without them a host is of one kind.
        found.setdefault((kind_of(facts), facts.offers, intent), (facts, intent))
        if len(found) == number:
            break
    return list(found.values())


def hosts(number: int, patterns: list[tuple[HostFacts, Intent]], shared: bool) -> Iterator[tuple[HostFacts, Intent]]:
    """Hosts with values of their own; unless `shared`, each with its own copy of its package index, too."""
    chance = random.Random(SEED)
    for n in range(number):
        facts, intent = patterns[n % len(patterns)]
        packages = facts.packages or {}
        changes: dict[str, Any] = {
            "host": f"rig-{n:06}",
            "taken_at": facts.taken_at + timedelta(seconds=chance.randrange(3600)),
            "packages": {name: Package(name, p.version, p.held, p.whole) for name, p in packages.items()},
            "memory_mib": int(facts.memory_mib or 0) - chance.randrange(200),
            "disk_free_mib": {"/": chance.randrange(500_000)},
            "boot_identity": f"boot-{n}",
        }
        if not shared:
            changes["offers"] = tuple(dataclasses.replace(offer) for offer in facts.offers or ())
        yield dataclasses.replace(facts, **changes), intent


def fleet(number: int, how_many: int, shared: bool) -> dict[str, float]:
    """Lock entries of so many hosts of so many kinds; in a process of its own, so that its peak is its own."""
    matrix = load()
    patterns = kinds(how_many)
    solver = Fleet(matrix)
    stacks: dict[str, HostLock] = {}
    seconds = 0.0
    for facts, intent in hosts(number, patterns, shared):
        began = time.process_time()
        answer = solver.solve(facts, intent)
        if isinstance(answer, HostLock):
            stacks[facts.host] = answer
        seconds += time.process_time() - began
    began = time.process_time()
    lock = make_lock(stacks, matrix.digest)
    seconds += time.process_time() - began
    return {
        "seconds": seconds,
        "kinds": solver.kinds,
        "entries": len(lock.hosts),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def fleets(most: int) -> list[str]:
    print("\n| fleet | s | solved | lock entries | peak MiB | goal |\n| --- | --- | --- | --- | --- | --- |")
    shapes = (
        (most, KINDS, "shared"),
        (most // 10, KINDS, "shared"),
        (most, KINDS // 10, "shared"),
        (most // 20, KINDS // 10, "own"),
    )
    missed = []
    for number, how_many, shared in shapes:
        command = [sys.executable, __file__, "--fleet", str(number), str(how_many), shared]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        goal = ""
        if (number, how_many) == (most, KINDS):
            goal = f"< {LIMITS['fleet']:.0f} s, < {LIMITS['memory']:.0f} MiB"
            missed = _over(
                {
                    "the fleet, s": (found["seconds"], LIMITS["fleet"]),
                    "the fleet, MiB": (found["peak"], LIMITS["memory"]),
                }
            )
        note = "" if shared == "shared" else ", each with a package index of its own"
        print(
            f"| {number:,} hosts of {how_many:,} kinds{note} | {found['seconds']:.1f} "
            f"| {found['kinds']:.0f} | {found['entries']:,.0f} | {found['peak']:.0f} | {goal} |"
        )
        if found["kinds"] != min(how_many, number):
            missed.append(f"{found['kinds']} kinds were solved, not {how_many}")
    return missed


# --- peers --------------------------------------------------------------------------------------------------------


def instances(number: int) -> list[Problem]:
    """Random problems shaped as hosts are: many drivers, a CUDA level tied to each, runtimes, one to six networks."""
    chance = random.Random(SEED)
    return [_instance(chance) for _ in range(number)]


def _instance(chance: random.Random) -> Problem:
    drivers, levels = chance.randint(8, 40), chance.randint(4, 10)
    domains = (drivers, levels, chance.randint(2, 5), *(chance.randint(1, 4) for _ in range(chance.randint(1, 6))))
    carried = [chance.randrange(levels) for _ in range(drivers)]
    always = (Rule((0, 1), frozenset((d, c) for d in range(drivers) for c in range(carried[d]))),)
    rules = [_random_rule(chance, (0,), domains, 0.35) for _ in range(chance.randint(2, 5))]
    rules.append(Rule((1,), frozenset((c,) for c in range(chance.randint(0, levels // 2)))))
    for network in range(3, len(domains)):
        for other in chance.sample((0, 0, 1, 2), chance.randint(1, 3)):
            rules.append(_random_rule(chance, (other, network), domains, 0.55))
    for pair in itertools.combinations(range(3, len(domains)), 2):
        if chance.random() < 0.3:
            rules.append(_random_rule(chance, pair, domains, 0.4))
    return Problem(domains, tuple(rule for rule in rules if rule.forbids), always)


def _random_rule(chance: random.Random, scope: tuple[int, ...], domains: tuple[int, ...], density: float) -> Rule:
    every = itertools.product(*(range(domains[variable]) for variable in scope))
    return Rule(scope, frozenset(values for values in every if chance.random() < density))


ENCODING = """
1 { is(X,V) : value(X,V) } 1 :- variable(X).
:- is(X,V), no(X,V).
:- is(X,V), is(Y,W), no(X,V,Y,W).
#show is/2.
"""
MINIMIZE = "#minimize { V@-X,X : is(X,V) }.\n"
IN_ORDER = "#heuristic is(X,V) : value(X,V). [1000-100*X-V,true]\n"


def for_clingo(problem: Problem, preference: str) -> str:
    lines = [ENCODING, preference]
    for variable, size in enumerate(problem.domains):
        lines.append(f"variable({variable}). value({variable},0..{size - 1}).")
    for rule in (*problem.always, *problem.rules):
        for values in sorted(rule.forbids):
            words = ",".join(f"{variable},{value}" for variable, value in zip(rule.scope, values, strict=True))
            lines.append(f"no({words}).")
    return "\n".join(lines)


def clingo_answers(program: str, size: int, *options: str) -> tuple[int, ...] | None:
    import clingo

    control = clingo.Control(["--warn=none", *options])
    control.add("base", [], program)
    control.ground([("base", [])])
    answer: list[int] | None = None
    with control.solve(yield_=True) as handle:
        for model in handle:
            answer = [0] * size
            for symbol in model.symbols(shown=True):
                answer[symbol.arguments[0].number] = symbol.arguments[1].number
    return tuple(answer) if answer is not None else None


class Provider:
    """An instance in resolvelib's words: a variable is a project, a value a version, a rule a dependency."""

    def __init__(self, problem: Problem) -> None:
        self.roots = [(variable, set(range(size))) for variable, size in enumerate(problem.domains)]
        self.needs: dict[tuple[int, int], list[tuple[int, set[int]]]] = {}
        for rule in (*problem.always, *problem.rules):
            if len(rule.scope) == 1:
                self.roots[rule.scope[0]][1].difference_update(value for (value,) in rule.forbids)
                continue
            one, other = rule.scope
            for value in range(problem.domains[one]):
                allowed = {w for w in range(problem.domains[other]) if (value, w) not in rule.forbids}
                self.needs.setdefault((one, value), []).append((other, allowed))

    def identify(self, requirement_or_candidate: Any) -> int:
        return int(requirement_or_candidate[0])

    def get_preference(self, identifier: int, **_: object) -> int:
        return identifier

    def find_matches(self, identifier: int, requirements: Any, incompatibilities: Any) -> list[tuple[int, int]]:
        values = set.intersection(*(allowed for _, allowed in requirements[identifier]))
        bad = {value for _, value in incompatibilities[identifier]}
        return [(identifier, value) for value in sorted(values - bad)]

    def is_satisfied_by(self, requirement: tuple[int, set[int]], candidate: tuple[int, int]) -> bool:
        return candidate[1] in requirement[1]

    def get_dependencies(self, candidate: tuple[int, int]) -> list[tuple[int, set[int]]]:
        return self.needs.get(candidate, [])

    def narrow_requirement_selection(self, identifiers: Any, **_: object) -> Any:
        return identifiers


def resolvelib_answers(provider: Provider) -> tuple[int, ...] | None:
    import resolvelib

    resolver: Any = resolvelib.Resolver(provider, resolvelib.BaseReporter())  # type: ignore[arg-type]  # untyped words
    try:
        found = resolver.resolve(provider.roots, max_rounds=10_000_000)
    except resolvelib.ResolutionImpossible:
        return None
    return tuple(found.mapping[variable][1] for variable in range(len(provider.roots)))


def against_peers(number: int) -> list[str]:
    problems = instances(number)
    texts = {
        name: [for_clingo(problem, preference) for problem in problems]
        for name, preference in (("optimum", MINIMIZE), ("order", IN_ORDER))
    }
    providers = [Provider(problem) for problem in problems]
    sizes = [len(problem.domains) for problem in problems]
    ways: dict[str, Callable[[int], tuple[int, ...] | None]] = {
        "provision": lambda n: best(problems[n]),
        "clingo, #minimize": lambda n: clingo_answers(texts["optimum"][n], sizes[n]),
        "clingo, first model in the order of preference": lambda n: clingo_answers(
            texts["order"][n], sizes[n], "--heuristic=Domain", "1"
        ),
        "resolvelib": lambda n: resolvelib_answers(providers[n]),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[tuple[int, ...] | None]] = {name: [] for name in ways}
    for n in range(number):
        for name, way in ways.items():
            began = time.process_time()
            answer = way(n)
            times[name].append(time.process_time() - began)
            answers[name].append(answer)
    ours = answers["provision"]
    without = ours.count(None)
    print(f"\n| the same {number} random instances, {without} of them without an answer ", end="")
    print("| all, s | median ms | worst ms | times as long | same answer |\n| --- | --- | --- | --- | --- | --- |")
    missed = []
    for name, taken in times.items():
        ratio = sum(taken) / sum(times["provision"])
        same = sum(a == b for a, b in zip(answers[name], ours, strict=True))
        print(f"| {name} | {sum(taken):.2f} | {_ms(taken)} | {ratio:.1f} | {same} of {number} |")
        if ratio < 1:
            missed.append(f"{name} was faster, ratio {ratio:.2f}")
        if name.startswith("clingo") and same != number:
            missed.append(f"{name} gave another answer {number - same} times")
    return missed


if __name__ == "__main__":
    sys.exit(main())
