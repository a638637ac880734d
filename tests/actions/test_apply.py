"""The steps of apply against a world of fakes: what is run, what is not, and who gets enrolled."""

from __future__ import annotations

import ast
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from provisioner.actions import settle
from provisioner.actions.apply import Applied, ApplyPorts, Who, apply, refuse_if_moved
from provisioner.actions.plan import Planned, interrupting, make_plan, runs_kubernetes
from provisioner.actions.settle import ASK, BOOT, CLOCK, GOING_DOWN, UP, WAIT
from provisioner.doctor.diagnose import Catalogue
from provisioner.errors import BadInput, Exit, HostError
from provisioner.facts.machine import boot_identity
from provisioner.matrix.entries import Contract
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.enrolment import RECORD, EnrolmentRecord, lock_digest, read_record
from provisioner.model.history import NOW, Stack
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import Ahead, DrainStep, Phase, Plan
from provisioner.model.results import CheckResult, HostVerification
from provisioner.model.run import HostOutcome, RunEvent
from provisioner.model.stack import Choice, HostLock, Lock
from provisioner.model.transaction import AT_WORK
from provisioner.probe.request import Request
from provisioner.render.project import Project
from tests.doctor.world import catalogue
from tests.enrolments import record
from tests.world import DRIVER, KERNEL, WHEN, Rig, entry, locked

LOCK = entry()


@dataclass
class World:
    """Rigs and what acts on them; every fake notes what it was asked."""

    rigs: dict[str, Rig]
    unreachable: set[str] = field(default_factory=set)
    task_fails: set[str] = field(default_factory=set)
    does_nothing: set[str] = field(default_factory=set)  # the playbook ends well, the host stays as it was
    check_fails: set[str] = field(default_factory=set)
    driver_fails: set[tuple[str, str]] = field(default_factory=set)  # host and driver that does not work there
    sources: list[tuple[str, ...]] = field(default_factory=list)  # the inventories that each run was told
    changes_back: int = 1  # how many changes a rollback takes back
    busy: set[str] = field(default_factory=set)
    never_done: set[str] = field(default_factory=set)  # where another apt hangs
    apt_ends: Callable[[Rig], None] = lambda rig: None  # what another apt has done when it is through
    boot_ends: Callable[[Rig], None] = lambda rig: None  # what is so when a host that went away is up again
    refuses: set[str] = field(default_factory=set)  # the login
    signature_holds: bool | None = True
    log: list[str] = field(default_factory=list)
    store: Store = field(default_factory=lambda: Store())

    # Prober
    def probe(self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]) -> dict[str, Capture | HostError]:
        self.log.append("probe" if all(request.profile.files for request in requests.values()) else "simulate")
        return {
            host.name: HostError("ssh-timeout", host.name, f"{host.name} did not answer")
            if host.name in self.unreachable
            else self.rigs[host.name].capture(requests[host.name])
            for host in hosts
        }

    # HostShell
    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        held = host.name in self.busy and "rm -f /var/lib/provision/apply.lock" not in script
        if script.startswith("rm -rf"):
            gone = script.split(" -- ")[1].split()
            files = self.rigs[host.name].files
            for path in [path for path in files if any(path.startswith(folder) for folder in gone)]:
                del files[path]
            self.log.append(f"forget {host.name}")
            return CommandOutput(rc=0)
        if script == ASK:
            rig = self.rigs[host.name]
            told = f"{AT_WORK}\n" if rig.at_work else ""
            return CommandOutput(rc=0, stdout=f"{told}{BOOT}{rig.boot}\n{CLOCK}1796000000\n{rig.shutdown}")
        if script == UP:
            self.log.append(f"up? {host.name}")
        if self.rigs[host.name].boot_begins:
            word = self.rigs[host.name].boot_begins.pop(0)
            if word == "gone":
                raise HostError("ssh-unreachable", host.name, f"{host.name} cannot be reached: ssh could not connect")
            if word == "stopping":
                return CommandOutput(rc=1 if script == UP else 76)
        if script == UP:
            self.boot_ends(self.rigs[host.name])
            return CommandOutput(rc=0)
        if script == WAIT:
            self.log.append(f"wait {host.name}")
            if host.name in self.never_done:
                return CommandOutput(rc=75)
            self.apt_ends(self.rigs[host.name])
            return CommandOutput(rc=0)
        if host.name in self.refuses:
            raise HostError("ssh-auth-failed", host.name, f"{host.name} refused the login")
        self.log.append(f"shell {host.name}")
        return (
            CommandOutput(rc=75, stdout="run=r0\nuser=ben\ncontroller=laptop\npid=1\n") if held else CommandOutput(rc=0)
        )

    # Clock
    def now(self) -> datetime:
        return WHEN

    # Paths
    def new(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        return host

    def fresh(self, host: InventoryHost) -> InventoryHost:
        return host

    def keep(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        self.log.append(f"keep {host.name}")
        return host

    # Signatures
    def verifies(self, record: EnrolmentRecord) -> bool | None:
        return self.signature_holds

    # Verifier
    def verify(
        self, hosts: Sequence[InventoryHost], locked: Mapping[str, HostLock], *, run: str
    ) -> dict[str, HostVerification]:
        self.log.append("verify")
        return {
            host.name: HostVerification(
                host.name,
                run,
                lock_digest(locked[host.name]),
                (
                    CheckResult(
                        host.name,
                        "driver-loaded",
                        "the loaded driver is the locked one",
                        "failed" if self._fails(host.name, locked[host.name]) else "passed",
                        required=True,
                        detail="loaded 535.216.03",
                    ),
                ),
            )
            for host in hosts
        }

    def _fails(self, host: str, entry: HostLock) -> bool:
        driver = entry.driver_version.value if entry.driver_version else ""
        return host in self.check_fails or (host, driver) in self.driver_fails

    # Enroller
    def enrol(self, host: InventoryHost, verification: HostVerification, locked: HostLock, *, matrix: str) -> None:
        self.log.append(f"enrol {host.name}")
        signed = record(
            host=host.name, lock_digest=lock_digest(locked), matrix_digest=matrix, run=verification.run, key="SHA256:x"
        )
        files = self.rigs[host.name].files
        files[RECORD] = signed.text
        files[NOW] = Stack(entry=locked, matrix=matrix).text
        files |= {path.replace("record.json", "done"): "" for path in files if path.endswith("/record.json")}

    def withdraw(self, host: InventoryHost) -> None:
        self.log.append(f"withdraw {host.name}")
        self.rigs[host.name].files.pop(RECORD, None)


class Runner:
    """A PlaybookRunner that brings rigs to what was planned, or fails as the world says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.transactions: list[str] = []
        self.playbooks: list[str] = []

    def run(
        self,
        folder: Path,
        project: Project,
        *,
        sources: Sequence[str],
        on_event: Callable[[RunEvent], None],
        on_done: Callable[[Mapping[str, HostOutcome]], None] = lambda outcomes: None,
    ) -> dict[str, HostOutcome]:
        outcomes: dict[str, HostOutcome] = {}
        self._world.sources.append(tuple(sources))
        for group in project.groups:
            self.transactions.append(project.files.get(f"files/{group.name}/transaction", ""))
            self.playbooks.append(project.files[group.playbook])
        for group in project.groups:
            for name in group.hosts:
                self._world.log.append(f"run {name}")
                if name in self._world.task_fails:
                    outcomes[name] = HostOutcome(
                        False, "Install 5 packages", "E: Unable to locate package", {"stage": 1.0}
                    )
                    continue
                rig = self._world.rigs[name]
                keep = project.files.get(f"files/{group.name}/keep.py")
                if "Finish the interrupted installation" in project.files[group.playbook] and rig.interrupted:
                    rig.interrupted = name in self._world.does_nothing
                elif keep is None:
                    for _ in range(self._world.changes_back):
                        rig.go_back()
                elif name not in self._world.does_nothing:
                    rig.keep(ast.literal_eval(keep.rpartition("\nmain(")[2].rstrip()[:-1]))
                    rig.bring_to(rig.lock)
                seconds: dict[Phase, float] = {"stage": 2.0, "change": 30.0, "reboot": 5.0}
                outcomes[name] = HostOutcome(True, seconds=seconds, rebooting=5.0, away_since=time.monotonic() - 40)
            on_done({name: outcomes[name] for name in group.hosts})
        return outcomes


class Store:
    def __init__(self) -> None:
        self._runs = 0

    def new_id(self) -> str:
        self._runs += 1
        return f"r{self._runs}"

    def write(self, run: str, project: Project) -> Path:
        return Path("runs") / run


def hosts(world: World) -> list[InventoryHost]:
    return [InventoryHost(name, {}, rig.lock.intent) for name, rig in world.rigs.items()]


def planned(world: World) -> Planned:
    lock = Lock(made_by="0.1.0", matrix="m", hosts={name: rig.lock for name, rig in world.rigs.items()})
    return make_plan(hosts(world), lock, prober=world, clock=world, signatures=world)


def ports_of(world: World) -> ApplyPorts:
    return ApplyPorts(
        prober=world,
        shell=world,
        runner=Runner(world),
        store=world.store,
        verifier=world,
        enroller=world,
        signatures=world,
        paths=world,
        clock=world,
        alive=lambda pid: True,
    )


def do(world: World, plan: Planned | None = None, *, force: bool = False) -> Applied:
    return apply(
        plan or planned(world),
        ports_of(world),
        Who("anna", "console", 1),
        on_event=lambda event: None,
        break_lock=force,
    )


def world_of(**rigs: bool) -> World:
    """Return rigs by name; True: bare."""
    return World({name.replace("_", "-"): Rig(name.replace("_", "-"), LOCK, bare=bare) for name, bare in rigs.items()})


def states(applied: Applied) -> dict[str, str]:
    return {name: result.state for name, result in applied.results.items()}


def test_a_bare_host_is_run_verified_and_enrolled() -> None:
    """Look, take, run, look again, verify, enrol, give back: in this order."""
    world = world_of(rig_01=True)
    applied = do(world)

    assert states(applied) == {"rig-01": "enrolled"}
    assert world.log == [
        *("probe", "simulate", "shell rig-01", "run rig-01", "probe", "verify", "enrol rig-01", "shell rig-01"),
    ]
    assert applied.exit_code == Exit.OK


def test_a_second_apply_runs_nothing() -> None:
    """As locked and enrolled: one look, no lock, no playbook, no checks."""
    world = world_of(rig_01=True)
    do(world)
    world.log.clear()
    applied = do(world)

    assert (states(applied), world.log) == ({"rig-01": "unchanged"}, ["probe"])
    assert applied.folder is None


def test_as_locked_but_not_enrolled_is_only_verified() -> None:
    """A host that is as wanted needs no playbook to be enrolled."""
    world = world_of(rig_01=False)
    applied = do(world)

    assert states(applied) == {"rig-01": "enrolled"}
    assert "run rig-01" not in world.log


def test_an_enrolment_for_another_lock_entry_does_not_count() -> None:
    """When the lock moves on, the old record is worth nothing."""
    world = world_of(rig_01=True)
    do(world)
    signed = read_record(world.rigs["rig-01"].files[RECORD])
    assert signed is not None
    assert planned(world).plan.hosts["rig-01"].enrolled
    world.rigs["rig-01"].files[RECORD] = signed.model_copy(update={"lock_digest": "sha256:0"}).text

    assert not planned(world).plan.hosts["rig-01"].enrolled


def test_an_enrolment_that_ended_does_not_count() -> None:
    """The host is verified again, and enrolled again."""
    world = world_of(rig_01=True)
    do(world)
    signed = read_record(world.rigs["rig-01"].files[RECORD])
    assert signed is not None
    world.rigs["rig-01"].files[RECORD] = signed.model_copy(update={"expires_at": WHEN}).text

    assert not planned(world).plan.hosts["rig-01"].enrolled
    assert states(do(world)) == {"rig-01": "enrolled"}


@pytest.mark.parametrize("holds", [False, None])
def test_a_record_that_nobody_trusted_signed_does_not_count(holds: bool | None) -> None:
    """An edited record, or one of an unknown key, is no enrolment: the host is verified again."""
    world = world_of(rig_01=True)
    do(world)
    world.signature_holds = holds

    assert not planned(world).plan.hosts["rig-01"].enrolled
    assert states(do(world)) == {"rig-01": "enrolled"}


def test_a_record_of_another_host_does_not_count() -> None:
    """A good record copied from the neighbour opens nothing."""
    world = world_of(rig_01=True, rig_02=False)
    do(world)
    world.rigs["rig-02"].files[RECORD] = world.rigs["rig-01"].files[RECORD]

    assert not planned(world).plan.hosts["rig-02"].enrolled


def test_each_failure_is_its_own() -> None:
    """Unreachable, failed task, nothing happened, failed check: four reasons, and the fifth host is enrolled."""
    world = world_of(rig_01=True, rig_02=True, rig_03=True, rig_04=True, rig_05=True)
    world.unreachable, world.task_fails = {"rig-01"}, {"rig-02"}
    world.does_nothing, world.check_fails = {"rig-03"}, {"rig-04"}
    applied = do(world)

    assert {name: result.reference for name, result in sorted(applied.results.items())} == {
        "rig-01": "ssh-timeout",
        "rig-02": "task-failed",
        "rig-03": "difference-left",
        "rig-04": "not-verified",
        "rig-05": "",
    }
    assert applied.exit_code == Exit.FAILED
    assert [line for line in world.log if line.startswith(("enrol", "withdraw"))] == ["withdraw rig-04", "enrol rig-05"]


def test_a_host_serves_again_before_a_slower_one_is_done() -> None:
    """Two plans, so two playbooks: the first host is verified and enrolled while the second is still being changed."""
    world = world_of(rig_01=True, rig_02=True)
    world.rigs["rig-02"].packages["docker.io"] = "1\tii "
    applied = do(world)

    assert states(applied) == {"rig-01": "enrolled", "rig-02": "enrolled"}
    runs = [line for line in world.log if line.startswith(("run", "verify", "enrol"))]
    assert runs == ["run rig-01", "verify", "enrol rig-01", "run rig-02", "verify", "enrol rig-02"]
    assert set(applied.verified) == {"rig-01", "rig-02"}
    assert all(spent.not_serving >= 40 for spent in applied.spent.values())


def test_a_failed_check_keeps_a_host_out() -> None:
    """The host is withdrawn, with the check and what it saw as the reason."""
    world = world_of(rig_01=False)
    world.check_fails = {"rig-01"}
    (result,) = do(world).results.values()

    assert (result.state, result.context) == ("out", ("the loaded driver is the locked one: loaded 535.216.03",))


def test_a_failed_task_tells_what_it_printed() -> None:
    """Task, output and what to do next."""
    world = world_of(rig_01=True)
    world.task_fails = {"rig-01"}
    (result,) = do(world).results.values()

    assert result.reason == "rig-01 failed at: Install 5 packages"
    assert result.context == ("E: Unable to locate package",)


def test_a_busy_host_is_left_alone() -> None:
    """Another run holds it: nothing is run there, and the exit code says busy."""
    world = world_of(rig_01=True)
    world.busy = {"rig-01"}
    applied = do(world)

    assert applied.results["rig-01"].reference == "host-busy"
    assert applied.exit_code == Exit.BUSY
    assert not [line for line in world.log if line.startswith("run")]


def test_hosts_are_given_back_after_an_interruption() -> None:
    """Ctrl-C in the middle still lets go of what was taken."""
    world = world_of(rig_01=True)

    class Interrupted(Runner):
        def run(self, *args: object, **more: object) -> dict[str, HostOutcome]:
            raise KeyboardInterrupt

    ports = replace(ports_of(world), runner=Interrupted(world))
    plan = planned(world)
    world.log.clear()
    with pytest.raises(KeyboardInterrupt):
        apply(plan, ports, Who("anna", "console", 1), on_event=lambda event: None)

    assert world.log == ["shell rig-01", "shell rig-01"]


def test_a_saved_plan_is_refused_when_the_host_has_changed() -> None:
    """Exactly that plan or nothing: a package that moved since is named."""
    world = world_of(rig_01=False)
    world.rigs["rig-01"].packages["nvidia-smi"] = "535.216.03-1\thi "
    saved = Plan.model_validate_json(planned(world).plan.model_dump_json())
    refuse_if_moved(saved, planned(world))

    world.rigs["rig-01"].packages["docker.io"] = "26.1.5\tii "
    with pytest.raises(BadInput) as caught:
        refuse_if_moved(saved, planned(world))

    assert caught.value.reference == "plan-stale"
    assert caught.value.context == ("rig-01: has changed since: package docker.io",)


def test_intent_that_moved_on_since_the_lock() -> None:
    """A lock for another intent is not applied; the changed variable is named."""
    world = world_of(rig_01=False)
    lock = Lock(made_by="0.1.0", matrix="m", hosts={"rig-01": LOCK})
    host = InventoryHost("rig-01", {}, Intent(networks=("akash", "lium")))
    failed = make_plan([host], lock, prober=world, clock=world, signatures=world).failed["rig-01"]

    assert failed.reference == "lock-out-of-date"
    assert failed.context == ("provision_networks: ['akash'] in the lock, ['akash', 'lium'] now",)


def test_host_without_lock_entry() -> None:
    """A host that was never resolved is told so, and is not looked at."""
    world = world_of(rig_01=False)
    found = make_plan(
        hosts(world), Lock(made_by="0.1.0", matrix="m", hosts={}), prober=world, clock=world, signatures=world
    )

    assert found.failed["rig-01"].reference == "host-not-locked"


def contract(**drain: Any) -> Contract:
    word = {"how": "x"}
    return Contract.model_validate(
        {
            **dict.fromkeys(("start", "resume", "deregister", "upgrade"), word),
            "install": {"kind": "helm", **word},
            "healthy": {"kind": "unknown", **word},
            "busy": {"kind": "containers", "containers": "pod_*", **word},
            "drain": {"kind": "scale-zero", **word, **drain},
        }
    )


def plan_with(world: World, known: Mapping[str, Contract | None]) -> Planned:
    lock = Lock(made_by="0.1.0", matrix="m", hosts=dict.fromkeys(world.rigs, LOCK))
    return make_plan(hosts(world), lock, prober=world, clock=world, signatures=world, contracts=lambda: known)


def test_an_enrolled_host_drains_as_its_networks_ask() -> None:
    """What the contract says stands in the plan; a host that never served has nothing to drain."""
    world = world_of(rig_01=False, rig_02=True)
    do(world)
    world.rigs["rig-01"].packages.pop("docker.io")
    world.rigs["rig-02"].files.pop(RECORD)
    world.rigs["rig-02"].packages.pop("docker.io")
    found = plan_with(world, {"akash": contract(command=("a",), undo=("b",), wait_min=5, penalty="p")}).plan

    [step] = found.hosts["rig-01"].drains
    assert (step.network, step.command, step.undo, step.containers) == ("akash", ("a",), ("b",), "pod_*")
    assert (step.wait_s, step.penalty, step.sees_jobs) == (300, "p", True)
    assert found.hosts["rig-02"].drain == ("akash",)
    assert found.hosts["rig-02"].drains == ()


CLUSTER = {"namespace": "akash-services", "workload": "statefulset/akash-provider", "jobs": "akash.network/x"}


def of_a_cluster(**more: Any) -> Contract:
    base = contract(penalty="p").model_dump(exclude_none=True)
    return Contract.model_validate({**base, "busy": {"kind": "pods", "how": "x"}, "cluster": CLUSTER, **more})


@pytest.mark.parametrize("there", ["", "/usr/bin/kubectl", "/usr/local/bin/k3s", "/usr/bin/kubelet"])
def test_a_node_of_a_cluster_is_held_back(there: str) -> None:
    """Where there is neither kubectl nor a kubelet nothing of Kubernetes serves, and the host can be changed.

    A kubelet without kubectl can't be drained from the host: the run says so there, and leaves the host as it is.
    """
    world = world_of(rig_01=False)
    do(world)
    world.rigs["rig-01"].files |= {there: ""} if there else {}
    world.rigs["rig-01"].packages.pop("docker.io")
    planned = plan_with(world, {"akash": of_a_cluster()})
    [step] = planned.plan.hosts["rig-01"].drains
    program = "/usr/local/sbin/provision-cluster"

    assert step.command == ((program, "hold", "akash") if there else ())
    assert step.undo == ((program, "release", "akash") if there else ())
    assert step.then == ((program, "evict", "akash") if there else ())
    assert (step.kind, step.penalty) == (("scale-zero", "p") if there else ("absent", None))
    assert (step.wait_s, step.interrupt, step.sees_jobs) == (1800, False, True)

    lost = interrupting(planned).plan.hosts["rig-01"].drains
    assert [(one.wait_s, one.interrupt, one.command) for one in lost] == ([(0, True, step.command)] if there else [])


def test_a_capture_that_did_not_look_for_kubernetes_rules_nothing_out() -> None:
    """Of a recorded host nobody knows whether kubectl is there: the contract stands."""
    assert runs_kubernetes(Capture(host="rig-01", taken_at=WHEN, probe="0.1.0"))


def test_a_network_without_a_contract_and_an_operator_who_does_not_wait() -> None:
    """Both end with the clients simply stopped."""
    world = world_of(rig_01=False)
    do(world)
    world.rigs["rig-01"].packages.pop("docker.io")
    assert plan_with(world, {}).plan.hosts["rig-01"].drains == ()
    waiting = plan_with(world, {"akash": contract()})
    assert waiting.plan.hosts["rig-01"].drains != ()
    assert interrupting(waiting).plan.hosts["rig-01"].drains == ()


def test_the_matrix_is_not_read_for_nothing() -> None:
    """A plan in which no client stops is made without the contracts."""
    world = world_of(rig_01=False)
    do(world)

    def never() -> Mapping[str, Contract | None]:
        raise AssertionError("asked for contracts")

    lock = Lock(made_by="0.1.0", matrix="m", hosts=dict.fromkeys(world.rigs, LOCK))

    def never_either() -> Catalogue:
        raise AssertionError("asked for mechanisms")

    make_plan(
        hosts(world),
        lock,
        prober=world,
        clock=world,
        signatures=world,
        contracts=never,
        mechanisms=never_either,
    )


def test_a_plan_that_changes_something_looks_ahead() -> None:
    """Without being asked; what stops it stands among the reasons, and apply leaves the host."""
    world = world_of(rig_01=True)
    lock = Lock(made_by="0.1.0", matrix="m", hosts=dict.fromkeys(world.rigs, LOCK))
    plan = make_plan(hosts(world), lock, prober=world, clock=world, signatures=world, mechanisms=catalogue)
    late = Ahead(mechanism="clock-is-off", title="The clock is off", costs="refused", stops=True)
    before = plan.plan.hosts["rig-01"]
    stopped = before.model_copy(update={"ahead": (late,), "blocked": (late.title,)})
    blocked = replace(plan, plan=plan.plan.model_copy(update={"hosts": {"rig-01": stopped}}))

    assert [item for item in before.ahead if item.stops] == []
    assert do(world, blocked).results["rig-01"].reference == "plan-blocked"


def test_a_module_that_cannot_be_built_stops_the_plan_before_the_drain() -> None:
    """The kernel came with its headers after the lock was made, or the fact did: minutes of building would fail."""
    fresh = "6.1.0-57-amd64"
    module = locked("nvidia-open-kernel-dkms", "535.261.03-1")
    lock = entry(
        modules=Choice(value="open"),
        kernels=(KERNEL, fresh),
        packages=(module, *(p for p in LOCK.packages if p.name != "nvidia-kernel-dkms")),
    )
    world = world_of(rig_01=True)
    world.rigs["rig-01"].lock = lock
    whole = Lock(made_by="0.1.0", matrix="m", hosts={"rig-01": lock})
    plan = make_plan(hosts(world), whole, prober=world, clock=world, signatures=world, mechanisms=catalogue)
    stopped = [line for line in plan.plan.hosts["rig-01"].blocked if "does not build" in line]

    assert len(stopped) == 1
    assert stopped[0].startswith(
        f"the open module of nvidia-open-kernel-dkms 535.261.03-1 does not build for kernel {fresh}: "
    )
    assert stopped[0].endswith(
        "(drivers/535, seen 2026-11-30; host: kernel). What would work: provision resolve --limit rig-01"
    )
    assert do(world, plan).results["rig-01"].reference == "plan-blocked"
    assert not any(line.startswith(("run", "shell")) for line in world.log)


def test_an_interrupted_dpkg_is_finished_first() -> None:
    """apt reads a state that is not true until then: it is asked afterwards, and the rest is done in a second run."""
    world = world_of(rig_01=True)
    world.rigs["rig-01"].interrupted = True
    plan = planned(world)
    assert plan.plan.hosts["rig-01"].transaction is None
    applied = do(world, plan)

    assert states(applied) == {"rig-01": "enrolled"}
    assert world.log == [
        *("probe", "shell rig-01", "run rig-01", "probe", "simulate"),
        *("run rig-01", "probe", "verify", "enrol rig-01", "shell rig-01"),
    ]


def test_packages_that_are_not_whole_may_be_somebodys_dpkg_at_work() -> None:
    """The run that was killed goes on by itself on the host: it is waited for, and what is left is planned anew."""
    world = world_of(rig_01=False)
    rig = world.rigs["rig-01"]
    rig.packages["nvidia-smi"] = rig.packages["nvidia-smi"].replace("hi ", "hU ")
    rig.interrupted = True
    plan = planned(world)
    rig.packages["nvidia-smi"] = rig.packages["nvidia-smi"].replace("hU ", "hi ")
    applied = do(world, plan)

    assert states(applied) == {"rig-01": "enrolled"}
    assert world.log.count("run rig-01") == 1


def test_what_apt_would_do_then_must_be_what_was_meant() -> None:
    """Finished, and left at that: apt would take the kernel away."""
    world = world_of(rig_01=True)
    rig = world.rigs["rig-01"]
    rig.interrupted, rig.also = True, ["Remv linux-image-6.1.0-50-amd64 [6.1.175-1]"]
    result = do(world).results["rig-01"]

    assert (result.state, result.reference) == ("failed", "plan-blocked")
    assert world.log.count("run rig-01") == 1


def test_a_dpkg_that_stays_interrupted_is_not_asked_for_more() -> None:
    """The host is as it was; the reason is told."""
    world = world_of(rig_01=True)
    world.rigs["rig-01"].interrupted = True
    world.does_nothing = {"rig-01"}
    result = do(world).results["rig-01"]

    assert (result.state, result.reference) == ("failed", "dpkg-not-whole")
    assert world.log.count("run rig-01") == 1


def test_a_plan_that_grew_meanwhile_is_not_applied() -> None:
    """Only what was shown may be done after the interrupted part was finished."""
    world = world_of(rig_01=False)
    rig = world.rigs["rig-01"]
    rig.interrupted = True
    plan = planned(world)
    rig.packages["nvidia-smi"] = "535.216.03-1\thi "
    result = do(world, plan).results["rig-01"]

    assert (result.reference, result.context) == (
        "plan-stale",
        ("not in the plan that was shown: package nvidia-smi",),
    )


def a_world_with_apt_at_work() -> tuple[World, Planned]:
    """A plan that was made while the apt of a run that was killed put one of the packages there."""
    world = world_of(rig_01=True)
    rig = world.rigs["rig-01"]
    rig.at_work = True

    def ends(rig: Rig) -> None:
        rig.at_work = False
        rig.packages["nvidia-smi"] = f"{locked('nvidia-smi').version}\tii "

    world.apt_ends = ends
    return world, planned(world)


def test_somebodys_apt_is_waited_for_and_the_rest_is_planned_anew() -> None:
    """What apt was said to do is past then: the run must not expect it any more."""
    world, plan = a_world_with_apt_at_work()
    moves = plan.plan.hosts["rig-01"].transaction or ()
    runner = Runner(world)
    applied = apply(
        plan, replace(ports_of(world), runner=runner), Who("anna", "console", 1), on_event=lambda event: None
    )

    assert states(applied) == {"rig-01": "enrolled"}
    assert world.log == [
        *("probe", "simulate", "shell rig-01", "wait rig-01", "probe", "simulate", "run rig-01"),
        *("probe", "verify", "enrol rig-01", "shell rig-01"),
    ]
    assert "nvidia-smi" in {move.name for move in moves}
    assert "nvidia-smi" not in runner.transactions[0]


@pytest.mark.parametrize("stays", [False, True])
def test_what_apt_refuses_while_another_is_at_work_is_asked_again(stays: bool) -> None:
    """Half of what the other one does is no reason to leave a host as it is, nor to do what nobody asked for."""
    world, _ = a_world_with_apt_at_work()
    rig = world.rigs["rig-01"]
    rig.also = ["Remv linux-image-6.1.0-50-amd64 [6.1.175-1]"]
    before = world.apt_ends

    def ends(rig: Rig) -> None:
        before(rig)
        rig.also = rig.also if stays else []

    world.apt_ends = ends
    plan = planned(world)
    assert plan.plan.hosts["rig-01"].blocked == ()
    assert "linux-image" in plan.plan.hosts["rig-01"].notes[-1]
    result = do(world, plan).results["rig-01"]

    assert (result.state, result.reference) == (("failed", "plan-blocked") if stays else ("enrolled", ""))
    assert ("run rig-01" in world.log) is not stays


def test_an_apt_that_ended_meanwhile_makes_the_plan_old_all_the_same() -> None:
    """It was at work when the plan was made, and no longer when the run begins: nobody is waited for."""
    world, plan = a_world_with_apt_at_work()
    world.apt_ends(world.rigs["rig-01"])
    applied = do(world, plan)

    assert plan.plan.hosts["rig-01"].at_work
    assert "a run waits for it" in plan.plan.hosts["rig-01"].notes[-1]
    assert states(applied) == {"rig-01": "enrolled"}
    assert "wait rig-01" not in world.log
    assert world.log.count("simulate") == 2


def test_an_apt_that_hangs_ends_the_run_before_the_drain() -> None:
    """The host serves on, and the message says how to find who it is."""
    world, plan = a_world_with_apt_at_work()
    world.never_done = {"rig-01"}
    result = do(world, plan).results["rig-01"]

    assert (result.state, result.reference) == ("failed", "apt-at-work")
    assert "fuser" in result.hint
    assert "run rig-01" not in world.log


def a_world_that_was_told_to_reboot(*words: str) -> tuple[World, Planned]:
    """A plan that was made of a host with an old driver loaded, just before a killed run's reboot took effect."""
    world = world_of(rig_01=False)
    rig = world.rigs["rig-01"]
    rig.loaded = "535.216.03"
    plan = planned(world)
    assert plan.plan.hosts["rig-01"].reboot
    rig.boot_begins = list(words)

    def ends(rig: Rig) -> None:
        rig.boot, rig.loaded = "b2:7", DRIVER

    world.boot_ends = ends
    return world, plan


@pytest.mark.parametrize("words", [("stopping", "stopping", "gone", "gone"), ("gone", "stopping"), ("gone",)])
def test_a_host_that_reboots_under_a_plan_is_waited_for_and_seen_anew(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed had told it to: it must not be drained while it goes down, nor be rebooted once more."""
    monkeypatch.setattr(settle, "PAUSE_S", 0)
    world, plan = a_world_that_was_told_to_reboot(*words)
    events: list[str] = []
    applied = apply(plan, ports_of(world), Who("anna", "console", 1), on_event=lambda event: events.append(event.task))

    assert states(applied) == {"rig-01": "enrolled"}
    assert "run rig-01" not in world.log
    assert events[0] == "wait until it is up: it reboots, or went away"
    assert world.log.count("up? rig-01") == len(words)


@pytest.mark.parametrize(("word", "reference"), [("gone", "ssh-unreachable"), ("stopping", GOING_DOWN)])
def test_a_host_that_does_not_come_back_fails_as_it_was_last_seen(
    word: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was begun on it."""
    monkeypatch.setattr(settle, "PAUSE_S", 0)
    monkeypatch.setattr(settle, "BACK_S", 0)
    world, plan = a_world_that_was_told_to_reboot(*[word] * 9)
    result = do(world, plan).results["rig-01"]

    assert (result.state, result.reference) == ("failed", reference)
    assert "run rig-01" not in world.log


def scheduled(in_s: int, mode: str = "reboot") -> str:
    return f"USEC={(1796000000 + in_s) * 1_000_000}\nWARN_WALL=1\nMODE={mode}\n"


@pytest.mark.parametrize(
    ("shutdown", "words"),
    [
        (scheduled(1740), "rig-01 is scheduled to reboot in 29 min"),
        (scheduled(3599, "poweroff"), "rig-01 is scheduled to power off in 60 min"),
        (scheduled(-5), "rig-01 is scheduled to reboot in 0 min"),
    ],
)
def test_no_change_begins_on_a_host_that_is_soon_to_go_down(shutdown: str, words: str) -> None:
    """It would be cut off in the middle, and the tenants' time with it."""
    world = world_of(rig_01=False)
    world.rigs["rig-01"].loaded = "535.216.03"
    plan = planned(world)
    world.rigs["rig-01"].shutdown = shutdown
    result = do(world, plan).results["rig-01"]

    assert (result.state, result.reference) == ("failed", "shutdown-scheduled")
    assert result.reason.startswith(words)
    assert "shutdown -c" in result.hint
    assert "run rig-01" not in world.log


@pytest.mark.parametrize("shutdown", [scheduled(3600), scheduled(60, "dry-reboot"), "USEC=\n", ""])
def test_a_shutdown_that_is_far_off_or_only_words_holds_nothing_back(shutdown: str) -> None:
    """`shutdown -k` writes to the terminals; tonight's reboot is later than any change lasts."""
    world = world_of(rig_01=False)
    world.rigs["rig-01"].loaded = "535.216.03"
    plan = planned(world)
    world.rigs["rig-01"].shutdown = shutdown

    do(world, plan)
    assert "run rig-01" in world.log


def test_a_reboot_that_unattended_upgrades_scheduled_at_its_end_is_seen_too() -> None:
    """With Automatic-Reboot it does so after the last package, so the first look cannot know."""
    world, plan = a_world_with_apt_at_work()
    before = world.apt_ends

    def ends(rig: Rig) -> None:
        before(rig)
        rig.shutdown = scheduled(120)

    world.apt_ends = ends
    result = do(world, plan).results["rig-01"]

    assert (result.state, result.reference) == ("failed", "shutdown-scheduled")
    assert "run rig-01" not in world.log


def test_a_host_whose_login_is_refused_is_not_waited_for() -> None:
    """That does not pass by waiting."""
    world, plan = a_world_that_was_told_to_reboot()
    world.refuses = {"rig-01"}
    result = do(world, plan).results["rig-01"]

    assert (result.state, result.reference) == ("failed", "ssh-auth-failed")
    assert "up? rig-01" not in world.log


def test_the_boot_that_the_host_tells_is_the_one_that_the_probe_takes() -> None:
    """Asked of this machine, both ways; the condition for a host that is up holds here."""
    done = subprocess.run(["sh", "-c", ASK], capture_output=True, text=True, check=True)
    files = {path: Path(path).read_text() for path in ("/proc/sys/kernel/random/boot_id", "/proc/1/stat")}

    assert BOOT + str(boot_identity(Capture(host="a", taken_at=WHEN, probe="0", files=files))) in (
        done.stdout.splitlines()
    )
    assert re.search(rf"^{CLOCK}\d+$", done.stdout, re.MULTILINE)
    assert subprocess.run(["sh", "-c", UP], check=False).returncode == 0


def test_the_steps_of_the_drain_stay_when_a_plan_is_made_anew() -> None:
    """How the clients stop is not asked again."""
    world, plan = a_world_with_apt_at_work()
    step = DrainStep(network="akash", kind="command", how="", command=("true",), sees_jobs=True, wait_s=60)
    hosts_then = {"rig-01": plan.plan.hosts["rig-01"].model_copy(update={"drains": (step,)})}
    runner = Runner(world)
    apply(
        replace(plan, plan=plan.plan.model_copy(update={"hosts": hosts_then})),
        replace(ports_of(world), runner=runner),
        Who("anna", "console", 1),
        on_event=lambda event: None,
    )

    assert "drain akash" in runner.playbooks[0] or "- akash" in runner.playbooks[0]


def test_seconds_are_each_hosts_own() -> None:
    """Staged, not serving and rebooting, as the run saw that host; a plan that drains nobody takes nothing away."""
    world = world_of(rig_01=True)
    spent = do(world).spent["rig-01"]

    assert (spent.phases["stage"], spent.rebooting) == (2.0, 5.0)
    assert spent.not_serving >= 40
