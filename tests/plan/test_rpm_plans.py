"""Plans of RHEL-likes: the version lock before anything moves, one dnf call, and what is refused there."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.actions.observe import Seen
from provisioner.actions.plan import _with, goal_of, plan_for, request_for
from provisioner.facts import dnf_table, read
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.history import Keep
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.manager import LOCKS, PLUGIN
from provisioner.model.plan import HostPlan
from provisioner.model.resource import AbsentPackage, KeptFile, Package, RunningDriver
from provisioner.model.stack import HostLock
from provisioner.model.transaction import Move, dnf_call, dnf_line, rpm_name
from provisioner.plan.order import plan_from
from provisioner.plan.simulate import simulation
from provisioner.probe.request import DPKG, RPM, units_command
from provisioner.render.project import project
from provisioner.resolve.resolver import solve
from provisioner.resources.wanted import version_locks
from tests.dnf_world import KERNEL, RECORDED, answer, rocky
from tests.resolve import worlds

HOST = InventoryHost("rocky-01", {}, Intent())
NVIDIA = "3:580.95.05-1.el9"
BIN = Path(sys.executable).parent


class Signed:
    def verifies(self, _record: object) -> bool:
        return False


def lock(capture: Capture, **request: Any) -> HostLock:
    entry = solve(read(capture), Intent.model_validate(request), worlds.matrix())
    assert isinstance(entry, HostLock)
    return entry


def looked_at(capture: Capture, entry: HostLock) -> Seen:
    """The capture with all that a plan asks for besides: files that are not there, units that nobody has."""
    request = request_for(goal_of(entry, "m"))
    files = {path: None for path in request.files if "*" not in path} | capture.files
    stats = {
        f"stat -c '%a %U:%G %F' {path}": answer(rc=1)
        for path in (*request.files, *request.stats)
        if "*" not in path and files.get(path) is None
    }
    commands = {**{line: CommandOutput.model_validate(a) for line, a in stats.items()}, **capture.commands}
    named = tuple(dict.fromkeys((*request.profile.units, *request.units)))
    units = "\n".join(f"Id={n}\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n" for n in named)
    commands[units_command(named).line] = CommandOutput(rc=0, stdout=units, stderr="")
    for command in request.commands:
        commands.setdefault(command.line, CommandOutput(rc=1, stdout="", stderr=""))
    whole = capture.model_copy(update={"files": files, "commands": commands})
    return Seen(HOST, whole, read(whole))


def planned(capture: Capture, entry: HostLock) -> HostPlan:
    return plan_for(looked_at(capture, entry), goal_of(entry, "m"), Signed())  # type: ignore[arg-type]


def table(moves: Mapping[str, tuple[str, str]]) -> CommandOutput:
    """dnf's table of these moves: name → section and version."""
    rows = "".join(
        f"{section}:\n {name} x86_64 {version} cuda-rhel9-x86_64 5.6 k\n" for name, (section, version) in moves.items()
    )
    return CommandOutput(rc=1, stdout=f"{'=' * 80}\n Package\n{'=' * 80}\n{rows}\nTransaction Summary\n", stderr="")


def told(plan: HostPlan, entry: HostLock, capture: Capture, moves: Mapping[str, tuple[str, str]]) -> HostPlan:
    """The plan once dnf has answered."""
    return _with(plan, dnf_table.parse(table(moves)), looked_at(capture, entry))


def installing(plan: HostPlan) -> dict[str, tuple[str, str]]:
    return {p.name: ("Installing", p.version) for p in plan.moving if isinstance(p, Package)}


def test_a_host_with_dnf_is_asked_by_rpm_and_not_by_dpkg() -> None:
    capture = rocky()
    lines = [command.line for command in request_for(goal_of(lock(capture), "m")).commands]
    assert RPM in lines
    assert DPKG not in lines


def test_the_version_lock_is_staged_and_holds_driver_and_kernel() -> None:
    capture = rocky()
    entry = lock(capture)
    plan = planned(capture, entry)
    assert plan.manager == "dnf"
    assert plan.blocked == ()
    [locks] = [change for change in plan.changes if change.wanted.kind == "version-lock"]
    assert locks.phase == "stage"
    lines = locks.wanted.lines  # type: ignore[union-attr]
    assert "nvidia-driver-cuda-3:580.159.03-1.el9.*" in lines
    assert "kernel-core-0:5.14.0-570.12.1.el9_6.*" in lines
    assert "libnvidia-container1-0:1.19.1-1.*" in lines
    assert not any("apt" in change.what or "dpkg" in change.what for change in plan.changes)


def test_a_host_as_locked_has_nothing_to_do_with_packages() -> None:
    capture = rocky()
    entry = lock(capture)
    block = "\n".join(version_locks(entry))
    held = rocky(
        "".join(f"{p.name}\t{p.version}\t{p.architecture}\n" for p in entry.packages),
        locks=f"my-own-0:1-1.*\n# BEGIN provision\n# Written by provision\n{block}\n# END provision\n",
    )
    plan = planned(held, entry)
    assert [c.what for c in plan.changes if "package" in c.what or "lock" in c.what] == []


def test_the_simulation_reads_the_lock_that_will_be_in_force() -> None:
    capture = rocky()
    entry = lock(capture)
    line = simulation(planned(capture, entry))
    assert line is not None
    assert "--assumeno" in line and "--assumeyes" not in line
    assert "nvidia-driver-cuda-3:580.159.03-1.el9.*" in line
    assert '--setopt=pluginconfpath="$p"' in line
    assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0


def test_a_transaction_that_does_just_that_is_taken() -> None:
    capture = rocky()
    entry = lock(capture)
    plan = planned(capture, entry)
    moves = installing(plan) | {"dkms": ("Installing dependencies", "3.2.1-1.el9"), "runc": ("Removing", "1.2.5-2.el9")}
    asked = told(plan, entry, capture, moves)
    assert asked.blocked == ()
    assert any(isinstance(p, AbsentPackage) and p.name == "runc" for p in asked.moving), "the plan names it"


@pytest.mark.parametrize(
    ("move", "says"),
    [
        (
            {"podman": ("Removing dependent packages", "4-1.el9")},
            "dnf would remove the container runtime podman 4-1.el9",
        ),
        ({"kernel-core": ("Installing dependencies", "5.14.0-999.el9")}, "dnf would bring the kernel package"),
        ({"kernel": ("Removing unused dependencies", "5.14.0-1.el9")}, "dnf would remove the kernel kernel"),
        ({"glibc": ("Downgrading", "2.34-1.el9")}, "dnf would take glibc"),
        (
            {"libnvidia-cfg": ("Installing dependencies", "3:590.48.01-1.el9")},
            "of another driver branch than the plan's",
        ),
        (
            {"libnvidia-ml": ("Installing", "3:590.48.01-1.el9")},
            "dnf would install libnvidia-ml 3:590.48.01-1.el9, the",
        ),
    ],
)
def test_what_nobody_asked_for_is_refused(move: dict[str, tuple[str, str]], says: str) -> None:
    capture = rocky()
    entry = lock(capture)
    plan = planned(capture, entry)
    refused = told(plan, entry, capture, installing(plan) | {"runc": ("Removing", "1.2.5-2.el9")} | move).blocked
    assert [line for line in refused if line.startswith(says) or says in line], refused


def test_what_dnf_leaves_out_is_refused() -> None:
    """`dnf shell` goes on without a word that it does not know."""
    capture = rocky()
    entry = lock(capture)
    plan = planned(capture, entry)
    moves = installing(plan)
    del moves["nvidia-persistenced"]
    assert set(told(plan, entry, capture, moves).blocked) == {
        "dnf would not remove runc",
        "dnf would not install nvidia-persistenced",
    }


@pytest.mark.parametrize(("plugin", "says"), [(None, "is not installed"), ("[main]\nenabled = 0\n", "is switched off")])
def test_without_the_version_lock_nothing_is_changed(plugin: str | None, says: str) -> None:
    capture = rocky(plugin=plugin)
    [why] = planned(capture, lock(capture)).blocked
    assert says in why
    assert "python3-dnf-plugin-versionlock" in why


def test_half_a_transaction_is_named_and_not_built_upon() -> None:
    text = (RECORDED / "installed.txt").read_text(encoding="utf-8") + "dkms\t3.2.0-1.el9\tnoarch\n"
    capture = rocky(text)
    assert any("dkms is installed in two versions" in why for why in planned(capture, lock(capture)).blocked)


def test_the_other_flavour_goes_in_the_same_transaction() -> None:
    text = (RECORDED / "installed.txt").read_text(encoding="utf-8")
    capture = rocky(text)
    entry = lock(capture, modules="proprietary", driver="580.95.05")
    plan = planned(capture, entry)
    assert [p.name for p in plan.moving if isinstance(p, AbsentPackage) and p.unit == "driver"] == [
        "kmod-nvidia-open-dkms"
    ]
    call, given = dnf_call(plan.moving)
    assert call[-1] == "shell"
    assert f"install kmod-nvidia-latest-dkms-{NVIDIA}.noarch\n" in given
    assert "remove kmod-nvidia-open-dkms\n" in given


def test_calls_are_one_for_each_kind() -> None:
    package = Package(name="a", version="1:2-3.el9", unit="driver", architecture="x86_64")
    kept = package.model_copy(update={"archive": "/kept/a-2-3.el9.x86_64.rpm"})
    gone = AbsentPackage(name="b")
    assert dnf_call([package])[0][-2:] == ("install", "a-1:2-3.el9.x86_64")
    assert "--disablerepo=*" not in dnf_call([package])[0]
    assert "--disablerepo=*" in dnf_call([kept, gone])[0]
    assert dnf_call([kept, gone])[1] == "install /kept/a-2-3.el9.x86_64.rpm\nremove b\nrun\n"
    assert dnf_call([gone])[0][-2:] == ("remove", "b")
    begins = "printf '%s\\n' 'install /kept/a-2-3.el9.x86_64.rpm' 'remove b' run | dnf "
    assert dnf_line([kept, gone]).startswith(begins)
    assert rpm_name("a", "1:2-3.el9", "x86_64") == "a-2-3.el9.x86_64.rpm"


# What is rendered.


def complete(plan: HostPlan) -> HostPlan:
    moves = tuple(
        Move(name=p.name, action="install", after=p.version)
        if isinstance(p, Package)
        else Move(name=p.name, action="remove", before="1-1")
        for p in plan.moving
    )
    return plan.model_copy(update={"transaction": moves, "keep": Keep(), "reboot": True})


def back() -> HostPlan:
    """A plan that takes an upgrade back: packages from their archives, one that came goes, the lock as it was."""
    resources = (
        KeptFile(path=LOCKS, source="/kept/locks", sha256="c" * 64, pins=True),
        Package(
            name="nvidia-driver-cuda",
            version=NVIDIA,
            unit="driver",
            architecture="x86_64",
            sha256="b" * 64,
            archive="/var/lib/provision/history/r1/rpms/nvidia-driver-cuda-580.95.05-1.el9.x86_64.rpm",
        ),
        AbsentPackage(name="dkms", unit="other"),
        RunningDriver(version="580.95.05", flavour="open"),
    )
    from provisioner.model.resource import Difference

    differences = [
        Difference(one, one.model_copy(update={"version": "1"}) if hasattr(one, "version") else one, ("version",))
        for one in resources
    ]
    plan = plan_from("rocky-02", differences, policy=Intent().policy, networks=(), enrolled=False)
    return complete(plan.model_copy(update={"manager": "dnf"})).model_copy(update={"keep": None})


def rendered(tmp_path: Path) -> Path:
    capture = rocky()
    plan = complete(planned(capture, lock(capture)))
    found = project([plan, back()], {}, run="r1", made_by="0", made_at="2026-11-30T00:00:00Z")
    for name, text in found.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_a_run_calls_dnf_alone(tmp_path: Path) -> None:
    text = (rendered(tmp_path) / "group_1.yml").read_text(encoding="utf-8")
    assert "dracut" in text, "nothing else builds the boot image anew"
    for word in ("apt-get", "apt-mark", "dpkg", "update-initramfs", "lsinitramfs"):
        assert word not in text, word
    tasks = [task for play in yaml.safe_load(text) for task in play.get("tasks", ())]
    names = [task["name"] for task in tasks]
    order = ["Keep what", "Lock ", "Simulate the", "Stage ", "Compare the staged", "Install "]
    places = [next(i for i, name in enumerate(names) if name.startswith(begin)) for begin in order if begin != "Stage "]
    assert places == sorted(places), names
    keep = (tmp_path / "files" / "group_1" / "keep.py").read_text(encoding="utf-8")
    assert LOCKS in keep
    assert PLUGIN not in keep


def test_a_way_back_reads_no_repository(tmp_path: Path) -> None:
    text = (rendered(tmp_path) / "group_2.yml").read_text(encoding="utf-8")
    assert text.count("--disablerepo=*") >= 2
    assert "makecache" not in text
    assert "--downloadonly" not in text


def test_what_stands_beside_an_older_one_replaces_nothing() -> None:
    """The kernel-devel of an older kernel stays, and need not be kept: most repositories have dropped it by then."""
    text = (
        (RECORDED / "installed.txt")
        .read_text(encoding="utf-8")
        .replace("kernel-devel\t5.14.0-570.12.1", "kernel-devel\t5.14.0-427.1")
    )
    capture = rocky(text.replace("3:580.95.05", "3:575.57.08"))
    plan = complete(planned(capture, lock(capture)))
    moves = plan.transaction or ()
    assert "kernel-devel" in {move.name for move in moves}
    found = project([plan], {}, run="r1", made_by="0", made_at="now")
    spec = found.files["files/group_1/keep.py"].rpartition("\nmain(")[2].rstrip("\n)")
    assert set(ast.literal_eval(spec)["replaced"]) == {move.name for move in moves} - {"kernel-devel"}


@pytest.mark.tools
def test_ansible_lint_passes_at_its_strictest_profile_for_rpms(tmp_path: Path) -> None:
    folder = rendered(tmp_path)
    books = sorted(p.name for p in folder.glob("*.yml") if p.name != "inventory.yml")
    done = subprocess.run(
        [BIN / "ansible-lint", "--offline", "--nocolor", "--profile", "production", *books],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kernel_that_has_no_kernel_devel_is_named() -> None:
    capture = rocky()
    entry = lock(capture)
    assert entry.kernels == (KERNEL,)
    other = entry.model_copy(update={"kernels": (KERNEL, "5.14.0-570.17.1.el9_6.x86_64")})
    [why] = planned(capture, other).blocked
    assert "dnf install kernel-devel-5.14.0-570.17.1.el9_6.x86_64" in why


@pytest.mark.parametrize("name", ["upgrade.txt", "wrapped.txt", "remove.txt", "kernel.txt", "shell.txt"])
def test_the_run_reads_a_table_as_the_plan_does(name: str, tmp_path: Path) -> None:
    """The task that compares again before the drain, with a dnf that prints what a real one printed."""
    moves = dnf_table.parse(CommandOutput(rc=1, stdout=(RECORDED / name).read_text(encoding="utf-8"), stderr="")).moves
    if name == "shell.txt":
        moves = (
            Move(name="kmod-nvidia-latest-dkms", action="install", after=NVIDIA),
            Move(name="kmod-nvidia-open-dkms", action="remove", before=NVIDIA),
        )
    assert moves
    plan = back().model_copy(update={"transaction": moves})
    found = project([plan], {}, run="r1", made_by="0", made_at="2026-11-30T00:00:00Z")
    tasks = [task for play in yaml.safe_load(found.files["group_1.yml"]) for task in play.get("tasks", ())]
    [task] = [task for task in tasks if task["name"].startswith("Simulate")]
    script = task["ansible.builtin.shell"]["cmd"].replace("/run/", f"{tmp_path}/")
    (tmp_path / "dnf").write_text(f"#!/bin/sh\ncat {RECORDED / name}\nexit 1\n", encoding="utf-8")
    (tmp_path / "dnf").chmod(0o755)
    expected = found.files["files/group_1/transaction"]

    def ran(given: str) -> subprocess.CompletedProcess[str]:
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(
            ["bash", "-c", script], input=given, capture_output=True, text=True, env=path, check=False
        )

    assert ran(expected).returncode == 0, ran(expected).stdout
    assert ran("".join(expected.splitlines(keepends=True)[1:])).returncode == 1
