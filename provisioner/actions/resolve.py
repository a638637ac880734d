"""The steps of `provision resolve`: look once, solve each host, make the lock of those that have a stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from provisioner.actions.observe import Seen, observe
from provisioner.actions.ports import KeyReader, Prober
from provisioner.actions.tunnels import Resolves, join, request_of
from provisioner.errors import BadInput, HostError
from provisioner.facts import read as read_facts
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN, CommandOutput, Unknown
from provisioner.model.inventory import InventoryHost
from provisioner.model.source import LockedSource
from provisioner.model.stack import HostLock, Lock
from provisioner.probe.request import FULL, Profile, Request, offers_command
from provisioner.resolve import NoSolution
from provisioner.resolve.assume import Assumption, what_if
from provisioner.resolve.fleet import Fleet
from provisioner.resolve.lock import make_lock
from provisioner.resolve.shared import Shared, smallest, stack_of_lock, stacks_for, with_stack
from provisioner.resolve.sources import on_the_host, places, with_keys
from provisioner.resources.wanted import replaced_by
from provisioner.tunnels.lock import without_entries


@dataclass(frozen=True)
class Resolved:
    """What was found for each host: a lock entry, the reasons why there is none, or why it was not seen."""

    lock: Lock
    stacks: dict[str, HostLock] = field(default_factory=dict)
    unresolvable: dict[str, NoSolution] = field(default_factory=dict)
    failed: dict[str, HostError] = field(default_factory=dict)
    fleet: Shared | None = None  # the fewest stacks that would do; None: one host, or what-if
    assumed: tuple[Assumption, ...] = ()  # when there are any, `lock` holds nothing of these stacks

    @property
    def distinct(self) -> int:
        """How many different stacks serve the hosts: driver, flavour, runtime and OS taken together."""
        return len({stack_of_lock(stack) for stack in self.stacks.values()})


def resolve(
    hosts: Sequence[InventoryHost],
    matrix: Matrix,
    *,
    prober: Prober,
    keys: KeyReader,
    before: Lock | None = None,
    assumptions: Sequence[Assumption] = (),
    unify: bool = False,
    resolves: Resolves = lambda _name: True,
) -> Resolved:
    """Return the stack of every host that has one. A host that has none keeps no entry in the new lock.

    `resolves` says whether a name has an address, for the endpoints of tunnels.
    `unify` gives the hosts the fewest distinct stacks that serve all their networks. With assumptions the stacks are
    those that the hosts would have, and none of them gets into the lock.
    """
    seen, failed = observe(hosts, {host.name: request_of(host, hosts, before) for host in hosts}, prober)
    sources = _sources(seen, matrix, keys, before)
    seen, unread = with_sources(seen, sources, prober)
    failed |= unread
    stacks: dict[str, HostLock] = {}
    unresolvable: dict[str, NoSolution] = {}
    fleet = Fleet(matrix)
    for name, one in seen.items():
        try:
            if assumptions:
                answer = what_if(one.facts, one.host.intent, assumptions, matrix)
            else:
                answer = fleet.solve(one.facts, one.host.intent)
        except BadInput as problem:
            raise _named(problem, name) from problem
        if isinstance(answer, NoSolution):
            unresolvable[name] = answer
        else:
            stacks[name] = answer
    if assumptions:
        unchanged = make_lock({}, matrix.digest, before)
        return Resolved(unchanged, stacks, unresolvable, failed, assumed=tuple(assumptions))
    shared = _fleet(seen, stacks, matrix)
    if unify and shared is not None:
        stacks = _unified(seen, stacks, shared, matrix)
    stacks = {
        name: stack.model_copy(update={"sources": sources[name]}) if sources.get(name) else stack
        for name, stack in stacks.items()
    }
    stacks, before = join(seen, stacks, _others(before, unresolvable), matrix, resolves)
    lock = make_lock(stacks, matrix.digest, before)
    return Resolved(lock, stacks, unresolvable, failed, shared)


def _sources(
    seen: Mapping[str, Seen], matrix: Matrix, keys: KeyReader, before: Lock | None
) -> dict[str, tuple[LockedSource, ...]]:
    """The package sources that each host is to have, with their keys; a key is read once for all hosts."""
    found: dict[str, tuple[LockedSource, ...]] = {}
    for name, one in seen.items():
        if not one.host.intent.policy.sources or one.facts.os is UNKNOWN:
            continue
        entry = before.hosts.get(name) if before is not None else None
        known = {source.id: source for source in entry.sources} if entry is not None else {}
        try:
            found[name] = with_keys(places(one.host.intent, one.facts.os, matrix), keys.read, known)
        except BadInput as problem:
            raise _named(problem, name) from problem
    return found


def with_sources(
    seen: Mapping[str, Seen], sources: Mapping[str, tuple[LockedSource, ...]], prober: Prober
) -> tuple[dict[str, Seen], dict[str, HostError]]:
    """Look again where a source is not on the host yet: its apt reads it in a folder of its own, and changes nothing.

    So what a source offers is known before it is there, and one lock has the source and what comes from it.
    """
    lines = {}
    for name, wanted in sources.items():
        if any(not on_the_host(source, seen[name].facts) for source in wanted):
            entries = seen[name].facts.sources
            paths = () if entries is UNKNOWN else tuple(r.path for r in replaced_by(wanted, entries))
            lines[name] = offers_command(FULL.offers, wanted, paths)
    if not lines:
        return dict(seen), {}
    requests = {name: Request(Profile(commands=(line,))) for name, line in lines.items()}
    answers, failed = observe([seen[name].host for name in lines], requests, prober)
    found = {name: one for name, one in seen.items() if name not in failed}
    for name, answer in answers.items():
        said = answer.capture.command(lines[name].line)
        if said is UNKNOWN or said.rc != 0:
            failed[name] = _not_read(name, sources[name], said)
            del found[name]
            continue
        capture = seen[name].capture
        commands = {line: out for line, out in capture.commands.items() if "apt-cache" not in line}
        capture = capture.model_copy(update={"commands": {**commands, lines[name].line: said}})
        found[name] = Seen(seen[name].host, capture, read_facts(capture))
    return found, failed


def _not_read(name: str, wanted: tuple[LockedSource, ...], said: CommandOutput | Unknown) -> HostError:
    named = ", ".join(source.id for source in wanted)
    if said is UNKNOWN:
        return HostError(
            "source-not-seen",
            name,
            f"{name}: its capture does not tell what {named} offers, which is not on the host yet",
            hint="resolve it over ssh, where its apt can be asked",
        )
    return HostError(
        "source-not-read",
        name,
        f"{name}: its apt cannot read {named}",
        context=[line for line in said.stderr.splitlines() if line.strip()][:8],
        hint="can the host reach the address, and is the key the one that signs it? docs/guide/sources.md",
    )


def _fleet(seen: Mapping[str, Seen], stacks: Mapping[str, HostLock], matrix: Matrix) -> Shared | None:
    """The fewest stacks that would do. As many as there are releases is the least, and needs no search."""
    if len(stacks) < 2:
        return None
    own = {name: stack_of_lock(stack) for name, stack in stacks.items()}
    if len(set(own.values())) == len({stack.os for stack in own.values()}):
        return Shared(tuple(sorted(set(own.values()))), own)
    return smallest({name: stacks_for(seen[name].facts, seen[name].host.intent, matrix) for name in stacks})


def _unified(
    seen: Mapping[str, Seen], stacks: Mapping[str, HostLock], fleet: Shared, matrix: Matrix
) -> dict[str, HostLock]:
    count = Counter(fleet.of.values())
    return {
        name: with_stack(
            seen[name].facts, seen[name].host.intent, matrix, fleet.of[name], own, hosts=count[fleet.of[name]]
        )
        for name, own in stacks.items()
    }


def _others(before: Lock | None, unresolvable: Mapping[str, NoSolution]) -> Lock | None:
    """The former lock without hosts that no longer resolve: an old answer must not pass for a new one."""
    return None if before is None else without_entries(before, unresolvable)


def _named(problem: BadInput, host: str) -> BadInput:
    """A request that cannot be read names the host it stands at."""
    return BadInput(problem.reference, f"{host}: {problem.message}", context=problem.context, hint=problem.hint)
