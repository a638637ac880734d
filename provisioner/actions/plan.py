"""The steps of `provision plan`: look once, compare with the lock, put the difference in order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from provisioner import __version__
from provisioner.actions.locked import not_locked
from provisioner.actions.observe import Seen, observe
from provisioner.actions.ports import Clock, Prober, Signatures
from provisioner.errors import HostError
from provisioner.facts import dnf_table
from provisioner.facts.listeners import LISTENERS, listeners
from provisioner.facts.simulation import Simulation
from provisioner.facts.simulation import read as read_simulation
from provisioner.host.programs import CLUSTER
from provisioner.model.capture import UNKNOWN, Capture
from provisioner.model.enrolment import RECORD, lock_digest, record_in
from provisioner.model.history import Stack
from provisioner.model.intent import Policy, outside
from provisioner.model.inventory import InventoryHost
from provisioner.model.manager import Manager, manager_of
from provisioner.model.plan import DrainStep, HostPlan, Plan
from provisioner.model.requirements import OWN, PACKAGES, pinned, requirements
from provisioner.model.resource import (
    CONTAINERD_FILES,
    AbsentFile,
    CdiSpec,
    ContainerdRuntime,
    ContainerImages,
    Directory,
    File,
    Guarded,
    KeptFile,
    KernelModule,
    KeyPair,
    PackageSource,
    PythonEnvironment,
    Resource,
    SecretFile,
    Service,
    Settings,
)
from provisioner.model.stack import HostLock, Lock
from provisioner.model.transaction import ASK_AT_WORK, AT_WORK
from provisioner.plan.cost import not_serving_s
from provisioner.plan.kernels import SIGNING, asks_for_a_key, boot_refusals, key_refusals
from provisioner.plan.order import host_plan, plan_from
from provisioner.plan.refuse import refusals, unmade
from provisioner.plan.rpm import as_dnf, with_before
from provisioner.plan.simulate import simulation
from provisioner.plan.trial import notes_of, trial_of
from provisioner.probe.request import (
    AHEAD,
    DNF_STATE,
    KUBERNETES,
    SOURCE_FILES,
    STATE,
    Command,
    Profile,
    Request,
)
from provisioner.probe.script import without_secrets
from provisioner.resources.difference import difference
from provisioner.resources.wanted import CDI_SPECS, CONTAINERS, beside_the_lock, wanted
from provisioner.tunnels.kinds import tunnel_resources

SIMULATION_LIMIT_S = 120
CLOCK = "date +%s.%N"
"""What a host says of its time is held against the time of the look that asked; the probe always asks."""


@dataclass(frozen=True)
class Goal:
    """What one host is to be: what its lock entry wants, or a state of before that is brought back.

    `stack` is what it is verified against and enrolled with; None: it had none then. `undone` names the kept changes
    that are taken back, oldest first.
    """

    resources: tuple[Resource, ...]
    stack: Stack | None
    policy: Policy
    networks: tuple[str, ...]
    undone: tuple[str, ...] = ()
    manager: Manager = "apt"


def goal_of(entry: HostLock, matrix: str) -> Goal:
    """Return the goal of a host that is to be as locked."""
    resources = (*wanted(entry), *tunnel_resources(entry))
    stack = Stack(entry=entry, matrix=matrix)
    return Goal(resources, stack, entry.intent.policy, tuple(entry.networks), manager=manager_of(entry.os))


if TYPE_CHECKING:
    from provisioner.doctor.diagnose import Catalogue
    from provisioner.matrix.entries import Contract

Contracts = Callable[[], "Mapping[str, Contract | None]"]
"""Gives the contract of each network of the matrix, by its id."""
Mechanisms = Callable[[], "Catalogue"]
"""Gives the mechanisms of failure."""


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made from; `failed` holds the hosts that could not be planned."""

    plan: Plan
    seen: dict[str, Seen] = field(default_factory=dict)
    failed: dict[str, HostError] = field(default_factory=dict)
    goals: dict[str, Goal] = field(default_factory=dict)


def make_plan(
    hosts: Sequence[InventoryHost],
    lock: Lock,
    *,
    prober: Prober,
    clock: Clock,
    signatures: Signatures,
    sources: tuple[str, ...] = (),
    limit: str | None = None,
    contracts: Contracts | None = None,
    mechanisms: Mechanisms | None = None,
    environment: Collection[str] = (),
) -> Planned:
    """Return what each host needs to be what its lock entry says; changes nothing.

    `environment` names the variables of the environment here, of which secrets may come.
    `contracts` is asked only when a client has to stop, `mechanisms` only when something changes: a plan that changes
    nothing must not pay for the matrix.
    """
    locked, failed = _locked(hosts, lock)
    for host in hosts:
        if host.name not in locked:
            continue
        entry = locked[host.name]
        problem = (
            _secret_missing(host, sources, environment)
            or _client_cannot_run(host, entry)
            or _client_not_pinned(host, entry)
        )
        if problem is not None:
            failed[host.name] = problem
            del locked[host.name]
    targets = [host for host in hosts if host.name in locked]
    goals = {name: goal_of(entry, lock.matrix) for name, entry in locked.items()}
    seen, unseen = observe(targets, {name: request_for(goal) for name, goal in goals.items()}, prober)
    failed |= unseen
    plans = {name: plan_for(one, goals[name], signatures) for name, one in seen.items()}
    plans, again, unasked = _asked(plans, seen, prober, AHEAD if mechanisms is not None else Profile())
    failed |= unasked
    plans = draining(plans, seen, contracts)
    if mechanisms is not None and any(plan.changes for plan in plans.values()):
        plans = _with_ahead(plans, locked, seen, again, mechanisms())
    plan = Plan(
        made_by=__version__,
        made_at=clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        matrix=lock.matrix,
        inventory=sources,
        limit=limit,
        locked={name: locked[name] for name in plans},
        hosts=plans,
        failed={name: f"{problem.reference}: {problem.message}" for name, problem in failed.items()},
    )
    return Planned(plan, {name: seen[name] for name in plans}, failed, goals)


def draining(
    plans: Mapping[str, HostPlan], seen: Mapping[str, Seen], contracts: Contracts | None
) -> dict[str, HostPlan]:
    """Say how the clients of enrolled hosts stop; a host that does not serve has nothing to drain."""
    serving = [name for name, plan in plans.items() if plan.drain and isinstance(seen[name].capture.file(RECORD), str)]
    if contracts is None or not serving:
        return dict(plans)
    known = contracts()
    return {**plans, **{name: with_drains(plans[name], known, runs_kubernetes(seen[name].capture)) for name in serving}}


def runs_kubernetes(capture: Capture) -> bool:
    """Return whether something of Kubernetes is on the host. What was not looked at may be there."""
    answers = [capture.command(f"ls -d {path}") for path in KUBERNETES]
    return any(answer is UNKNOWN or answer.rc == 0 for answer in answers)


def with_drains(plan: HostPlan, contracts: Mapping[str, Contract | None], kubernetes: bool = True) -> HostPlan:
    """Say how each client stops, as its network's contract has it; `kubernetes`: whether something of it is here."""
    steps = []
    for network in plan.drain:
        contract = contracts.get(network)
        if contract is None:
            continue
        drain, busy = contract.drain, contract.busy
        step = DrainStep(
            network=network,
            kind=drain.kind,
            how=drain.how,
            by_hand=drain.by_hand,
            command=drain.command,
            undo=drain.undo,
            containers=busy.containers,
            sees_jobs=busy.kind != "unknown",
            wait_s=drain.wait_min * 60,
            penalty=drain.penalty,
        )
        steps.append(_of_cluster(step, kubernetes) if contract.cluster is not None else step)
    return plan.model_copy(update={"drains": tuple(steps)})


def _of_cluster(step: DrainStep, kubernetes: bool) -> DrainStep:
    """The provider is scaled down and the node cordoned; when no tenant's pod is left, the rest is evicted."""
    if not kubernetes:
        how = "There is neither kubectl nor a kubelet on this host: nothing of Kubernetes serves from it."
        return step.model_copy(update={"kind": "absent", "how": how, "penalty": None})
    words = {name: (CLUSTER, verb, step.network) for name, verb in _CLUSTER_VERBS.items()}
    return step.model_copy(update=words)


_CLUSTER_VERBS = {"command": "hold", "undo": "release", "then": "evict"}


def interrupting(planned: Planned) -> Planned:
    """The same plan for somebody who said that running jobs may be lost: clients are stopped at once.

    A node of a cluster is held back all the same, and its pods get their time to end well: a provider that bids on
    while its node changes loses more than the jobs.
    """
    hosts = {
        name: plan.model_copy(
            update={
                "drains": tuple(
                    step.model_copy(update={"interrupt": True, "wait_s": 0}) for step in plan.drains if step.then
                )
            }
        )
        for name, plan in planned.plan.hosts.items()
    }
    return replace(planned, plan=planned.plan.model_copy(update={"hosts": hosts}))


def request_for(goal: Goal) -> Request:
    """Return what must be looked at to compare a host with its goal."""
    files = [r for r in goal.resources if isinstance(r, (AbsentFile, Directory, File, KeptFile, Settings))]
    profile = STATE if goal.manager == "apt" else DNF_STATE
    sources = [r.source for r in goal.resources if isinstance(r, PackageSource)]
    if any(isinstance(r, ContainerImages) for r in goal.resources):
        profile = replace(profile, files=(*profile.files, *LISTENERS))
    if sources:
        profile = replace(
            profile, files=(*profile.files, *SOURCE_FILES, *(path for s in sources for path in (s.path, s.key_path)))
        )
    guarded = [r for r in goal.resources if isinstance(r, Guarded)]
    paths = [r.path for r in files] + [r.public for r in goal.resources if isinstance(r, KeyPair)]
    paths += [file.path for change in guarded for file in change.files if file.content is not None]
    paths += CDI_SPECS if any(isinstance(r, CdiSpec) for r in goal.resources) else ()
    paths += CONTAINERD_FILES if any(isinstance(r, ContainerdRuntime) for r in goal.resources) else ()
    stats = [r.path for r in goal.resources if isinstance(r, SecretFile)]
    units = [r.name for r in goal.resources if isinstance(r, Service)]
    return Request(
        profile,
        files=tuple(dict.fromkeys(paths)),
        units=(*units, *(name for change in guarded for name in (*change.units, *change.stop))),
        sums=(
            *(r.path for r in files if isinstance(r, KeptFile)),
            *(r.mark for r in goal.resources if isinstance(r, (PythonEnvironment, ContainerImages))),
        ),
        stats=(*stats, *(path for change in guarded for path in change.absent)),
    )


def plan_of(seen: Seen, entry: HostLock, matrix: str, signatures: Signatures) -> HostPlan:
    """Return one host's plan to be as locked, from what was seen of it. Nobody asked its apt."""
    return plan_for(seen, goal_of(entry, matrix), signatures)


def plan_for(seen: Seen, goal: Goal, signatures: Signatures) -> HostPlan:
    """Return one host's plan to reach its goal, from what was seen of it. Nobody asked its apt."""
    enrolled = goal.stack is not None and _enrolled(seen, goal.stack, signatures)
    if goal.stack is not None and not goal.undone:
        entry = goal.stack.entry
        resources = (*goal.resources, *beside_the_lock(entry, seen.facts))
        plan = host_plan(seen.host.name, entry, difference(resources, seen.facts, seen.capture), enrolled=enrolled)
        refused = (*boot_refusals(plan, entry, seen.facts), *ports_taken(entry, seen.capture))
        waiting = _waiting(entry)
        if goal.manager == "dnf":
            plan = as_dnf(plan, seen.facts, seen.capture)
        return plan.model_copy(
            update={
                "blocked": (*plan.blocked, *refused),
                "reasons": (*plan.reasons, *([waiting] if waiting and plan.changes else [])),
                "trial": trial_of(plan, goal.policy, seen.facts) if goal.manager == "apt" else None,
                "notes": (*plan.notes, *notes_of(seen.facts)),
            }
        )
    differences = difference(goal.resources, seen.facts, seen.capture)
    plan = plan_from(seen.host.name, differences, policy=goal.policy, networks=goal.networks, enrolled=enrolled)
    if goal.manager == "dnf":
        plan = as_dnf(plan, seen.facts, seen.capture)
    return plan.model_copy(
        update={
            "verified": goal.stack is not None,
            "takes_back": goal.undone,
            "notes": (*plan.notes, *notes_of(seen.facts)),
        }
    )


def ports_taken(entry: HostLock, capture: Capture) -> list[str]:
    """Name the ports of clients on which somebody else listens; who has its container already listens itself."""
    tables = [table for path in LISTENERS if isinstance(table := capture.file(path), str)]
    listening = {f"{port}/tcp" for table in tables for port in listeners(table)}
    told = []
    for one in entry.intent.clients:
        ours = capture.file(f"{CONTAINERS}/{one.network}.json")
        told += [
            f"{one.called} wants port {port}, and something listens on it already: sudo ss -ltnp"
            for port in outside(one)
            if port in listening and not (isinstance(ours, str) and re.search(rf'[":]{port.partition("/")[0]}:', ours))
        ]
    return told


def _waiting(entry: HostLock) -> str:
    """Why a tunnel is not in the plan yet; the keys are made on their hosts, and nobody knows them before."""
    lock = entry.tunnel
    if lock is None or lock.kind == "none" or lock.complete:
        return ""
    whose = [*(["this host"] if lock.public_key is None else []), *lock.waits_for]
    if not whose:
        return f"its tunnel waits for a certificate that {lock.hub} signs: apply there, resolve, then apply again"
    return f"its tunnel waits for the key of {', '.join(whose)}: apply there, then resolve, then apply again"


def _enrolled(seen: Seen, stack: Stack, signatures: Signatures) -> bool:
    record = record_in(seen.capture)
    return (
        record is not None
        and record.host == seen.host.name
        and record.lock_digest == lock_digest(stack.entry)
        and record.matrix_digest == stack.matrix
        and seen.capture.taken_at < record.expires_at
        and signatures.verifies(record) is True
    )


def simulated(
    plans: Mapping[str, HostPlan], seen: Mapping[str, Seen], prober: Prober
) -> tuple[dict[str, HostPlan], dict[str, HostError]]:
    """Let each host's apt say what the plan's transaction would do; hosts where no package moves are not asked.

    A plan whose transaction apt refuses, or that does what nobody asked for, is blocked.
    """
    found, _, failed = _asked(plans, seen, prober, Profile())
    return found, failed


def _asked(
    plans: Mapping[str, HostPlan], seen: Mapping[str, Seen], prober: Prober, beside: Profile
) -> tuple[dict[str, HostPlan], dict[str, Seen], dict[str, HostError]]:
    """As `simulated`; what else a preflight wants to see is asked `beside` it, in the same round trip."""
    lines = {name: line for name, plan in plans.items() if (line := simulation(plan)) is not None}
    signed = {name for name, plan in plans.items() if asks_for_a_key(plan, seen[name].facts)}
    asked = [name for name in plans if name in lines or name in signed]
    if not asked:
        return dict(plans), {}, {}
    requests = {
        name: Request(
            replace(
                beside,
                commands=(
                    *(
                        [Command(lines[name], limit_s=SIMULATION_LIMIT_S, shell=True), _AT_WORK]
                        if name in lines
                        else []
                    ),
                    *([Command(SIGNING, shell=True)] if name in signed else []),
                    *beside.commands,
                ),
            )
        )
        for name in asked
    }
    again, failed = observe([seen[name].host for name in asked], requests, prober)
    found = {name: plan for name, plan in plans.items() if name not in failed}
    for name, one in again.items():
        read = dnf_table.read if plans[name].manager == "dnf" else read_simulation
        answer = read(one.capture, lines[name]) if name in lines else UNKNOWN
        if answer is not UNKNOWN:
            found[name] = _with(found[name], answer, seen[name])
            found[name] = _moving_by_itself(found[name], one.capture)
        if name in signed:
            refused = key_refusals(one.capture.command(SIGNING), plans[name].manager)
            found[name] = found[name].model_copy(update={"blocked": (*found[name].blocked, *refused)})
    return found, again, failed


def _with_ahead(
    plans: Mapping[str, HostPlan],
    locked: Mapping[str, HostLock],
    seen: Mapping[str, Seen],
    again: Mapping[str, Seen],
    catalogue: Catalogue,
) -> dict[str, HostPlan]:
    """Hold the mechanisms of failure against what each host would be after its plan."""
    found = dict(plans)
    for name, plan in plans.items():
        if plan.changes:
            looks = (seen[name].capture, *([again[name].capture] if name in again else []))
            found[name] = with_ahead(plan, locked[name], merged(*looks), catalogue)
    return found


def with_ahead(plan: HostPlan, entry: HostLock, capture: Capture, catalogue: Catalogue) -> HostPlan:
    """Say what would be wrong after the plan; what must not come about blocks it."""
    from provisioner.doctor.foresee import foresee

    ahead = foresee(capture, plan, catalogue)
    stops = (*_unbuildable(plan, entry, catalogue), *(f"{i.title}: {i.costs}" for i in ahead if i.stops))
    return plan.model_copy(update={"ahead": ahead, "blocked": (*plan.blocked, *stops)})


def _unbuildable(plan: HostPlan, entry: HostLock, catalogue: Catalogue) -> tuple[str, ...]:
    """Modules that the plan would build, minutes long, for kernels on which they are known not to compile."""
    kernels = [c.wanted.kernel for c in plan.changes if isinstance(c.wanted, KernelModule)]
    if not kernels or catalogue.matrix is None:
        return ()
    from provisioner.resolve.builds import unbuildable
    from provisioner.resolve.explain import warning

    claims = unbuildable(entry, kernels, catalogue.matrix)
    return tuple(f"{warning(claim)}. What would work: provision resolve --limit {plan.host}" for claim in claims)


def merged(first: Capture, *more: Capture) -> Capture:
    """Several looks at one host as one capture; the later one counts, and so does its time when it has the host's."""
    for other in more:
        first = first.model_copy(
            update={
                "taken_at": other.taken_at if CLOCK in other.commands else first.taken_at,
                "files": {**first.files, **other.files},
                "commands": {**first.commands, **other.commands},
                "nvml": other.nvml if other.nvml is not None else first.nvml,
                "redacted": tuple(dict.fromkeys((*first.redacted, *other.redacted))),
            }
        )
    return first


_AT_WORK = Command(ASK_AT_WORK, shell=True)


def _moving_by_itself(plan: HostPlan, capture: Capture) -> HostPlan:
    """Whatever apt simulated may be past already when another one was at work meanwhile, so it refuses nothing yet."""
    answer = capture.command(ASK_AT_WORK)
    if answer is UNKNOWN or AT_WORK not in answer.stdout:
        return plan
    note = "another apt or dpkg is at work there now: a run waits for it, and plans anew what it has left"
    said = tuple(f"until then: {line}" for line in plan.blocked)
    return plan.model_copy(update={"at_work": True, "blocked": (), "notes": (*plan.notes, note, *said)})


def _with(plan: HostPlan, answer: Simulation, seen: Seen) -> HostPlan:
    if answer.problem:
        said = f"{plan.manager} would not do it: {answer.problem[0]}"
        return plan.model_copy(update={"blocked": (said, *answer.problem[1:])})
    moves = answer.moves
    refused: tuple[str, ...] = ()
    if plan.manager == "dnf":
        moves, refused = with_before(moves, seen.facts.packages), unmade(moves, plan.moving)
    refused = (*refusals(moves, plan.changes, seen.facts.packages, plan.manager), *refused)
    asked = plan.model_copy(update={"transaction": moves, "blocked": refused})
    seconds = not_serving_s(plan.changes, drains=plan.not_serving_s > 0, built_before=asked.module_source is not None)
    return asked.model_copy(update={"not_serving_s": seconds})


def _locked(hosts: Sequence[InventoryHost], lock: Lock) -> tuple[dict[str, HostLock], dict[str, HostError]]:
    locked: dict[str, HostLock] = {}
    failed: dict[str, HostError] = {}
    for host in hosts:
        problem = not_locked(host.name, lock)
        if problem is not None:
            failed[host.name] = problem
            continue
        entry = lock.hosts[host.name]
        if entry.intent != host.intent:
            failed[host.name] = HostError(
                "lock-out-of-date",
                host.name,
                f"{host.name}: the lock was made for another intent than the inventory states now",
                context=_changed(entry, host),
                hint=f"provision resolve --limit {host.name}",
            )
        else:
            locked[host.name] = entry
    return locked, failed


def _secret_missing(host: InventoryHost, sources: tuple[str, ...], environment: Collection[str]) -> HostError | None:
    """Name the secrets that the run could not take from where the intent says; their values are not looked at."""
    missing = []
    for one in host.intent.secrets:
        if one.env is not None and one.env not in environment:
            missing.append(f"{one.network} {one.name}: the environment has no {one.env}")
        elif one.variable is not None and not sources:
            missing.append(f"{one.network} {one.name}: variable {one.variable} needs an inventory (-i); use env here")
        elif one.variable is not None and one.variable not in host.variables:
            missing.append(f"{one.network} {one.name}: the inventory has no variable {one.variable} for {host.name}")
    if not missing:
        return None
    return HostError(
        "secret-missing",
        host.name,
        f"{host.name}: {len(missing)} secret{'s are' if len(missing) > 1 else ' is'} missing; nothing was changed",
        context=missing,
        hint="docs/guide/secrets.md says where secrets may come from",
    )


def _client_cannot_run(host: InventoryHost, entry: HostLock) -> HostError | None:
    """Name what keeps a client's containers from running; all of it stands in the request and the lock."""
    wrong = []
    for one in entry.intent.clients:
        version = entry.networks[one.network].value if one.network in entry.networks else "none"
        if one.taken(version) is None:
            wrong.append(f"{one.called}: no image for client {version} ({', '.join(dict(one.images))} have one)")
        if one.gpus != "none" and entry.toolkit is None:
            wrong.append(f"{one.called}: wants GPUs, and the lock has no container toolkit (gpus: none does without)")
        cards = one.gpus if isinstance(one.gpus, tuple) else ()
        beyond = [card for card in cards if card.isdigit() and int(card) >= len(entry.gpus)]
        if beyond:
            wrong.append(f"{one.called}: wants GPU {', '.join(beyond)}, and the host has {len(entry.gpus)} (from 0 on)")
        if not entry.engine.startswith("docker"):
            wrong.append(f"{one.called}: runs in Docker, and the lock has {entry.engine or 'no container engine'}")
        text = json.dumps(dict(one.environment))
        if without_secrets(text) != text:
            wrong.append(f"{one.called}: its environment holds a secret; provision_secrets is for that")
    if not wrong:
        return None
    return HostError(
        "client-cannot-run",
        host.name,
        f"{host.name}: a client could not run as it is asked for; nothing was changed",
        context=wrong,
        hint="docs/reference/clients.md says what provision_clients takes",
    )


def _client_not_pinned(host: InventoryHost, entry: HostLock) -> HostError | None:
    """A list of requirements installs one version of the client; it must be that of the lock."""
    for network, package in PACKAGES.items():
        text = requirements(network) if network in entry.networks else None
        have = pinned(text).get(package) if text is not None else None
        want = entry.networks[network].value if text is not None else None
        if want and have != want:
            return HostError(
                "client-not-pinned",
                host.name,
                f"{host.name}: the lock has client {want} of {network}, and what is pinned here is {package} {have}",
                context=(f"nothing was changed; {OWN}/{network}.txt would be a list of your own for {want}",),
                hint=f"docs/guide/serve.md says how to make one; or {network}@{have} in provision_networks",
            )
    return None


def _changed(entry: HostLock, host: InventoryHost) -> list[str]:
    then, now = entry.intent.model_dump(mode="json"), host.intent.model_dump(mode="json")
    return [f"provision_{key}: {then[key]!r} in the lock, {now[key]!r} now" for key in now if then[key] != now[key]]
