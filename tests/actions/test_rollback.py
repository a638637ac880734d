"""The way back in a world of fakes: what is kept, what a rollback plans, when it happens by itself, what is left."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from provisioner.actions.apply import Applied, Who, apply
from provisioner.actions.plan import Planned
from provisioner.actions.rollback import look_back, plan_rollback
from provisioner.cli.views.history import history_json, history_text
from provisioner.errors import Exit
from provisioner.matrix.reader import Matrix
from provisioner.model.enrolment import lock_digest, read_record
from provisioner.model.history import HISTORY, NOW
from provisioner.model.intent import Intent, Policy
from provisioner.model.resource import AbsentPackage, KeptFile, Package
from provisioner.model.run import RunEvent
from provisioner.model.stack import Choice, HostLock
from provisioner.resources.wanted import PREFERENCES
from tests.actions.test_apply import World, do, hosts, planned, ports_of, scheduled, states
from tests.resolve.worlds import matrix, with_failure
from tests.world import Rig, entry, locked

OLD_DEB, NEW_DEB = "535.216.03-1~bpo12+1", "535.261.03-1~deb12u1"


def stack(version: str, deb: str, policy: Policy | None = None) -> HostLock:
    return entry(
        intent=Intent(networks=("akash",), policy=policy or Policy()),
        driver_version=Choice(value=version),
        packages=(
            locked("nvidia-kernel-dkms", deb),
            locked("nvidia-smi", deb),
            *(locked("libnvidia-nvvm4", deb) for _ in range(version == "535.261.03")),
            locked("docker.io", "20.10.24+dfsg1-1+deb12u1", "runtime"),
        ),
    )


OLD, NEW = stack("535.216.03", OLD_DEB), stack("535.261.03", NEW_DEB)


def upgraded(*, good: bool = True, lock: HostLock = NEW) -> tuple[World, Applied]:
    """A host that was enrolled with the old stack, and was then brought to the new one."""
    world = World({"rig-01": Rig("rig-01", OLD, bare=True)})
    do(world)
    world.rigs["rig-01"].lock = lock
    if not good:
        world.driver_fails = {("rig-01", "535.261.03")}
    world.log.clear()
    return world, do(world)


def back(world: World, run: str | None = None) -> Planned:
    return plan_rollback(hosts(world), run, prober=world, clock=world, signatures=world)


def go(world: World, plan: Planned) -> Applied:
    return apply(plan, ports_of(world), Who("anna", "console", 1), on_event=lambda event: None)


def enrolled_for(world: World) -> str | None:
    record = read_record(world.rigs["rig-01"].files.get("/var/lib/provision/enrolment.json", ""))
    return record.lock_digest if record is not None else None


def test_each_change_is_kept_with_the_stack_before_it() -> None:
    """The first from before any enrolment, the second from the old stack; both came to a good end."""
    world, _ = upgraded()
    entries = look_back(hosts(world), world).entries["rig-01"]

    assert [entry.record.run for entry in entries] == ["r1", "r2"]
    assert all(entry.done for entry in entries)
    first, second = (entry.record for entry in entries)
    assert first.before is None
    assert second.before is not None and second.before.words == "driver 535.216.03, docker-io"
    assert second.packages["nvidia-smi"].version == OLD_DEB
    assert second.packages["libnvidia-nvvm4"].version is None
    assert "docker.io" not in second.packages


def test_the_plan_of_a_rollback_takes_from_what_is_kept() -> None:
    """Replaced packages come from their archives, new ones go, files are those that were kept; apt is asked first."""
    world, _ = upgraded()
    world.log.clear()
    plan = back(world).plan.hosts["rig-01"]
    wanted = {change.what: change.wanted for change in plan.changes}

    assert world.log == ["probe", "probe", "simulate"]
    smi, nvvm = wanted["package nvidia-smi"], wanted["package libnvidia-nvvm4"]
    assert isinstance(smi, Package)
    assert smi.archive == f"{HISTORY}/r2/debs/nvidia-smi_{OLD_DEB}_amd64.deb"
    assert isinstance(nvvm, AbsentPackage) and nvvm.purge
    assert isinstance(wanted[f"file {PREFERENCES}"], KeptFile)
    assert (plan.reboot, plan.drain, plan.download_bytes, plan.keep) == (True, ("akash",), 0, None)
    assert plan.transaction is not None and {m.action for m in plan.transaction} == {"downgrade", "purge"}


def test_back_and_enrolled_with_the_stack_of_before() -> None:
    """Run, look, verify against the lock of that time, enrol, forget the change."""
    world, _ = upgraded()
    world.log.clear()
    applied = go(world, back(world))

    assert states(applied) == {"rig-01": "enrolled"}
    assert world.log[-4:] == ["verify", "enrol rig-01", "forget rig-01", "shell rig-01"]
    assert enrolled_for(world) == lock_digest(OLD)
    assert [e.record.run for e in look_back(hosts(world), world).entries["rig-01"]] == ["r1"]


def test_back_to_before_everything() -> None:
    """Two changes are taken back at once: the host is as provision found it, and no longer enrolled."""
    world, _ = upgraded()
    world.changes_back = 2
    applied = go(world, back(world, "r1"))

    assert states(applied) == {"rig-01": "restored"}
    assert applied.exit_code == Exit.OK
    assert world.rigs["rig-01"].packages == {}
    assert NOW not in world.rigs["rig-01"].files
    assert look_back(hosts(world), world).entries["rig-01"] == ()


def test_a_stack_that_does_not_pass_is_taken_back_by_itself() -> None:
    """The check that failed stays the reason; the host serves again with what it had; the exit code is a failure."""
    world, applied = upgraded(good=False)
    result = applied.results["rig-01"]

    assert (result.state, result.reference) == ("rolled-back", "not-verified")
    assert result.reason.startswith(
        "rig-01 did not pass with driver 535.261.03, docker-io; it is back to driver 535.21"
    )
    assert result.context == ("the loaded driver is the locked one: loaded 535.216.03",)
    assert applied.exit_code == Exit.FAILED
    assert enrolled_for(world) == lock_digest(OLD)
    assert world.rigs["rig-01"].loaded == "535.216.03"


def test_a_host_that_is_soon_to_go_down_goes_back_all_the_same() -> None:
    """It does not serve as it is: to leave it so until then would only be longer."""
    world = World({"rig-01": Rig("rig-01", OLD, bare=True)})
    do(world)
    rig = world.rigs["rig-01"]
    rig.lock = NEW
    world.driver_fails = {("rig-01", "535.261.03")}
    plan = planned(world)

    def scheduled_meanwhile(event: RunEvent) -> None:
        if event.phase == "verify":
            rig.shutdown = scheduled(1200)

    applied = apply(plan, ports_of(world), Who("anna", "console", 1), on_event=scheduled_meanwhile)

    assert rig.shutdown
    assert states(applied) == {"rig-01": "rolled-back"}


def test_the_way_back_is_told_the_inventory_too() -> None:
    """Passwords stand in vaulted group_vars: a run that knows only its own inventory could not become root."""
    world = World({"rig-01": Rig("rig-01", OLD, bare=True)})
    do(world)
    world.rigs["rig-01"].lock = NEW
    world.driver_fails = {("rig-01", "535.261.03")}
    plan = planned(world)
    do(world, replace(plan, plan=plan.plan.model_copy(update={"inventory": ("hosts.yml",)})))

    assert world.sources == [(), ("hosts.yml",), ("hosts.yml",)]


def test_never_means_never() -> None:
    """With provision_policy.rollback never, the host is left as it is, out."""
    world, applied = upgraded(good=False, lock=stack("535.261.03", NEW_DEB, Policy(rollback="never")))

    assert states(applied) == {"rig-01": "out"}
    assert world.rigs["rig-01"].loaded == "535.261.03"


def test_a_first_install_is_not_taken_back() -> None:
    """There is no stack to serve with: the host stays as it is, out, for somebody to look at."""
    world = World({"rig-01": Rig("rig-01", OLD, bare=True)}, check_fails={"rig-01"})

    assert states(do(world)) == {"rig-01": "out"}
    assert world.rigs["rig-01"].loaded == "535.216.03"


def test_a_repair_is_not_taken_back() -> None:
    """A lost hold was put back and a check fails: the stack of before is the same one and would not pass either."""
    world, _ = upgraded()
    world.rigs["rig-01"].packages["nvidia-smi"] = f"{NEW_DEB}\tii "
    world.check_fails = {"rig-01"}

    assert states(do(world)) == {"rig-01": "out"}


def test_a_way_back_that_fails_says_both() -> None:
    """Neither stack passes: out, with the first reason, the second, and how to try again."""
    world, _ = upgraded()
    world.rigs["rig-01"].lock = OLD
    world.check_fails = {"rig-01"}
    result = do(world).results["rig-01"]

    assert (result.state, result.reference) == ("failed", "rollback-failed")
    assert result.context[1].startswith("then: rig-01 is not enrolled")
    assert result.hint == "provision rollback rig-01 tries again"


def test_an_unfinished_change_goes_back_to_the_last_good_end() -> None:
    """A run that died half way left its record: the next one adds to it, and rollback skips the state between."""
    world = World({"rig-01": Rig("rig-01", OLD, bare=True)})
    do(world)
    rig = world.rigs["rig-01"]
    rig.keep(
        {
            "run": "r2",
            "to": {"nvidia-smi": NEW_DEB},
            "packages": {"nvidia-smi": "driver"},
            "replaced": ["nvidia-smi"],
            "files": {},
            "units": {},
        }
    )
    rig.packages["nvidia-smi"] = f"{NEW_DEB}\thi "
    world.store.new_id()
    rig.lock = NEW
    do(world)
    entries = look_back(hosts(world), world).entries["rig-01"]

    assert [(e.record.run, e.record.began) for e in entries] == [("r1", "r1"), ("r3", "r2")]
    assert entries[-1].record.packages["nvidia-smi"].version == OLD_DEB
    assert states(go(world, back(world))) == {"rig-01": "enrolled"}
    assert enrolled_for(world) == lock_digest(OLD)


def test_a_way_back_that_died_is_no_state_to_go_back_to() -> None:
    """The change is open again: going forward adds to it, and rollback still leads to before it."""
    world, _ = upgraded()
    rig = world.rigs["rig-01"]
    rig.go_back()
    rig.packages["nvidia-smi"] = f"{NEW_DEB}\thi "
    rig.taken_back.clear()
    do(world)
    newest = look_back(hosts(world), world).entries["rig-01"][-1].record

    assert (newest.began, newest.packages["nvidia-kernel-dkms"].version) == ("r2", OLD_DEB)
    assert newest.before is not None and newest.before.words.startswith("driver 535.216.03")


def test_nothing_kept_and_unknown_run() -> None:
    """Both are said for the host that they are true of, with what is kept."""
    bare = World({"rig-01": Rig("rig-01", OLD, bare=True)})
    world, _ = upgraded()

    assert back(bare).failed["rig-01"].reference == "nothing-kept"
    problem = back(world, "r9").failed["rig-01"]
    assert (problem.reference, problem.context) == ("run-not-kept", ("kept: r1", "kept: r2"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", "../../etc"),
        ("packages", {"x{{ lookup('pipe','id') }}": {"version": "1"}}),
        ("packages", {"x": {"version": "{{ 1 }}"}}),
        ("files", {"/etc/{{ x }}": {"sha256": None}}),
        ("files", {"/etc/x": {"sha256": None, "owner": "root:{{ x }}"}}),
        ("units", {"{% x %}": {"there": True, "enabled": True, "active": True}}),
    ],
)
def test_a_host_cannot_write_into_our_playbooks(key: str, value: object) -> None:
    """A record with words that Ansible would evaluate is no record."""
    world, _ = upgraded()
    files = world.rigs["rig-01"].files
    path = f"{HISTORY}/r2/record.json"
    files[path] = json.dumps({**json.loads(files[path]), key: value})

    kept = look_back(hosts(world), world)
    assert [e.record.run for e in kept.entries["rig-01"]] == ["r1"]
    assert [lost.run for lost in kept.unreadable["rig-01"]] == ["r2"]


def damaged(run: str, text: str = '{"format": 1, "run": "r2", "beg') -> World:
    """A host that keeps two changes, one of them with a record that cannot be read."""
    world, _ = upgraded()
    world.rigs["rig-01"].files[f"{HISTORY}/{run}/record.json"] = text
    return world


def test_a_damaged_newest_record_is_no_older_one() -> None:
    """Going back by the record before it would leave out what the newest replaced: refused, with the way on."""
    problem = back(damaged("r2")).failed["rig-01"]

    assert problem.reference == "record-unreadable"
    assert problem.message == "rig-01 keeps the change of run r2, but its record cannot be read"
    assert problem.context[0].startswith(f"{HISTORY}/r2/record.json: Invalid JSON: EOF while parsing a string")
    assert problem.hint is not None and f"ssh rig-01 sudo mv {HISTORY}/r2 /root/" in problem.hint


@pytest.mark.parametrize("run", ["r1", "r2"])
def test_nothing_goes_back_across_a_damaged_record(run: str) -> None:
    """Named by hand: neither the damaged one nor one before it."""
    assert back(damaged("r2"), run).failed["rig-01"].reference == "record-unreadable"


def test_what_came_after_a_damaged_record_can_be_taken_back() -> None:
    """The newest is whole; across the older one there is no way, and the refusal names the run up to which there is."""
    world = damaged("r1", '{"format": 2}')
    problem = back(world, "r1").failed["rig-01"]

    assert back(world).goals["rig-01"].undone == ("r2",)
    assert problem.hint is not None and problem.hint.startswith("provision rollback rig-01 r2 takes back only what")
    assert "format: Input should be less than or equal to 1" in problem.context[0]


def test_what_cannot_be_taken_back_by_itself_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check that failed stays the reason, and the host stays out; that nothing went back is told beside it."""
    world = World({"rig-01": Rig("rig-01", OLD, bare=True)})
    do(world)
    rig = world.rigs["rig-01"]
    rig.lock, world.driver_fails = NEW, {("rig-01", "535.261.03")}
    keep = rig.keep

    def damage(spec: dict[str, Any]) -> None:
        keep(spec)
        rig.files[f"{HISTORY}/{spec['run']}/record.json"] = "{"

    monkeypatch.setattr(rig, "keep", damage)
    result = do(world).results["rig-01"]

    assert (result.state, result.reference) == ("out", "not-verified")
    assert "not brought back: rig-01 keeps the change of run r2, but its record cannot be read" in result.context
    assert world.rigs["rig-01"].loaded == "535.261.03"


def test_a_run_that_does_not_exist_is_not_a_damaged_one() -> None:
    assert back(damaged("r2"), "r9").failed["rig-01"].reference == "run-not-kept"


def test_a_record_goes_by_the_name_of_its_folder() -> None:
    """A run that took an unfinished change over was killed after it renamed the folder: the archives are in the new."""
    world, _ = upgraded()
    files = world.rigs["rig-01"].files
    files[f"{HISTORY}/r3/record.json"] = files.pop(f"{HISTORY}/r2/record.json")
    plan = back(world).plan.hosts["rig-01"]
    smi = next(change.wanted for change in plan.changes if change.what == "package nvidia-smi")

    assert isinstance(smi, Package)
    assert smi.archive == f"{HISTORY}/r3/debs/nvidia-smi_{OLD_DEB}_amd64.deb"


def test_history_shows_what_it_cannot_read() -> None:
    """In its place among the others, with the reason, and in JSON beside the records."""
    world = damaged("r2", '{"format": 2}')
    text = history_text(look_back(hosts(world), world))
    shape = json.loads(history_json(look_back(hosts(world), world)))

    assert text.splitlines()[1:3] == [
        "  r2  its record cannot be read: format: Input should be less than or equal to 1",
        "      no way back to before it",
    ]
    assert text.index("  r2  ") < text.index("  r1  ")
    assert shape["unreadable"] == {"rig-01": [{"run": "r2", "why": "format: Input should be less than or equal to 1"}]}


def test_what_apt_refuses_blocks_the_plan() -> None:
    """A removal that nobody asked for is named, and nothing is run."""
    world = World({"rig-01": Rig("rig-01", OLD, bare=True)})
    world.rigs["rig-01"].also = ["Remv linux-image-6.1.0-50-amd64 [6.1.175-1]"]
    plan = planned(world)

    assert plan.plan.hosts["rig-01"].blocked == (
        "apt would remove the kernel linux-image-6.1.0-50-amd64 6.1.175-1, which the plan did not ask for",
    )
    assert do(world, plan).results["rig-01"].reference == "plan-blocked"


def test_a_module_that_does_not_build_for_todays_kernel_stops_the_way_back() -> None:
    """A kernel that came after the change stays when it is taken back, and dpkg would fail on the module half way."""
    module, fresh = "nvidia-kernel-dkms", "6.1.0-57-amd64"
    known = with_failure(matrix(), "535", module, OLD_DEB, ">=6.1.0-56")
    world, _ = upgraded()

    def blocked(told: Matrix | None) -> tuple[str, ...]:
        plan = plan_rollback(
            hosts(world),
            None,
            prober=world,
            clock=world,
            signatures=world,
            matrix=(lambda: told) if told is not None else None,
        )
        return plan.plan.hosts["rig-01"].blocked

    assert blocked(known) == ()
    world.rigs["rig-01"].kernel = fresh
    assert blocked(matrix()) == ()
    (reason,) = blocked(known)
    assert reason.startswith(f"the proprietary module of {module} {OLD_DEB} does not build for kernel {fresh}: ")
    assert reason.endswith(
        f"What would work: boot an older kernel and take this one away (apt purge linux-image-{fresh} "
        f"linux-headers-{fresh}), then provision rollback rig-01"
    )
    assert blocked(None) == ()  # by itself a host goes back from minutes before, on the kernel of then
