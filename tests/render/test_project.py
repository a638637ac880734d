"""A rendered run is a plain Ansible project: exact versions, shared playbooks, no secret in it, valid syntax."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import UndefinedError

from provisioner.model.facts import Package as Installed
from provisioner.model.plan import Change, DrainStep, HostPlan
from provisioner.model.resource import (
    CONTAINERD_FILES,
    AbsentFile,
    AbsentPackage,
    ContainerImages,
    KeptFile,
    Package,
    Service,
)
from provisioner.model.stack import Choice
from provisioner.model.transaction import Move
from provisioner.plan.order import host_plan
from provisioner.render.project import Project, project
from provisioner.render.templates import fill, yaml_scalar
from provisioner.resources.difference import difference
from provisioner.resources.wanted import wanted
from tests import world

BIN = Path(sys.executable).parent


def bare_plan(host: str = "rig-01", **changes: object) -> HostPlan:
    lock = world.entry(**changes)
    differences = difference(wanted(lock), world.bare_facts(host), world.bare_capture(lock, host))
    return host_plan(host, lock, differences, enrolled=False)


def rendered(*plans: HostPlan, **variables: object) -> Project:
    hosts = {plan.host: {"ansible_host": "192.0.2.1", "ansible_become": True, **variables} for plan in plans}
    return project(plans, hosts, run="r1", made_by="0.1.0", made_at="2026-11-24T03:07:00Z")


def test_packages_of_the_toolkit_are_named_as_such() -> None:
    """A unit that the renderer does not know would stop every run of a host that has one."""
    packages = (world.locked("nvidia-smi"), world.locked("nvidia-container-toolkit", "1.19.1-1", "toolkit"))

    run = rendered(bare_plan(packages=packages))

    assert any("driver and toolkit" in text for text in run.files.values())


def write(run: Project, folder: Path) -> Path:
    for name, text in run.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_hosts_with_the_same_plan_share_a_playbook() -> None:
    """Two alike hosts are one group; a host with another driver is a second one."""
    other = bare_plan("rig-03", packages=(world.locked("nvidia-smi", "550.163.01-2"),))
    run = rendered(bare_plan("rig-01"), bare_plan("rig-02"), other)

    assert [group.hosts for group in run.groups] == [("rig-01", "rig-02"), ("rig-03",)]


def test_phases_are_plays_in_order() -> None:
    """A bare host's playbook has the four phases that Ansible runs, and each change stands in its phase."""
    plays = yaml.safe_load(rendered(bare_plan()).files["group_1.yml"])

    assert [play["name"] for play in plays] == [
        "Stage while serving",
        "Drain the clients",
        "Change the host",
        "Reboot into the new driver",
        "Start what needs the driver",
    ]


def drained(*steps: DrainStep) -> dict[str, Any]:
    """The variables of the drain of a rendered run."""
    plan = bare_plan().model_copy(update={"drains": steps})
    plays = yaml.safe_load(rendered(plan).files["group_1.yml"])
    return dict(plays[1]["vars"])


def test_a_drain_waits_for_what_its_contract_names() -> None:
    """The program on the host is told how long, what a job is, and what to do and undo; words stay words."""
    akash = DrainStep(
        network="akash",
        kind="scale-zero",
        how="x",
        command=("kubectl", "--replicas=0"),
        undo=("kubectl", "--replicas=1"),
        then=("kubectl", "drain"),
    )
    lost = akash.model_copy(update={"interrupt": True, "wait_s": 0, "undo": ()})
    lium = DrainStep(network="lium", kind="notice-period", how="x", containers="pod_*", wait_s=60)
    blind = DrainStep(network="golem", kind="stop", how="x", sees_jobs=False)

    assert drained(akash, lium, blind)["provision_drains"] == [
        {
            "network": "akash",
            "wait_s": 1800,
            "argv": [
                *("/usr/local/sbin/provision-client", "drain", "akash", "--wait", "1800"),
                *("--undo", "kubectl", "--replicas=1", "--then", "kubectl", "drain"),
                *("--do", "kubectl", "--replicas=0"),
            ],
        },
        {
            "network": "lium",
            "wait_s": 60,
            "argv": [
                *("/usr/local/sbin/provision-client", "drain", "lium", "--wait", "60"),
                *("--containers", "pod_*"),
            ],
        },
    ]
    assert drained(lost)["provision_drains"][0]["argv"] == [
        *("/usr/local/sbin/provision-client", "drain", "akash", "--interrupt"),
        *("--then", "kubectl", "drain", "--do", "kubectl", "--replicas=0"),
    ]


def test_without_contracts_clients_are_just_stopped() -> None:
    """A host that is not enrolled has nothing to wait for."""
    assert drained() == {"provision_hosts": "group_1"}


def test_one_transaction_with_exact_versions() -> None:
    """All packages go into one apt call, each with its exact version, held ones with leave to change."""
    plays = yaml.safe_load(rendered(bare_plan()).files["group_1.yml"])
    (install,) = [t["ansible.builtin.command"]["argv"] for t in plays[2]["tasks"] if t["name"].startswith("Install")]

    assert install[install.index("install") + 1 :] == [
        "nvidia-kernel-dkms=535.261.03-1~deb12u1",
        "nvidia-smi=535.261.03-1~deb12u1",
        "nvidia-persistenced=535.171.04-1~deb12u1",
        "docker.io=20.10.24+dfsg1-1+deb12u1",
        "linux-headers-6.1.0-50-amd64=6.1.175-1",
    ]
    assert {"--allow-downgrades", "--allow-change-held-packages", "--no-install-recommends"} <= set(install)


def test_only_modules_that_ship_with_ansible() -> None:
    """Every task is one of ansible.builtin's, so plain ansible-core runs it."""
    plays = yaml.safe_load(rendered(bare_plan()).files["group_1.yml"])
    keywords = {"name", "register", "changed_when", "failed_when", "environment", "until", "retries", "delay"}
    used = {key for play in plays for task in play.get("tasks", []) for key in task} - keywords

    assert used
    assert all(name.startswith("ansible.builtin.") for name in used)


def test_hashes_of_the_lock_are_compared() -> None:
    """The expected SHA-256 of every staged archive stands beside the name under which apt keeps it."""
    sums = rendered(bare_plan()).files["files/group_1/SHA256SUMS"].splitlines()

    assert f"{'a' * 64}  /var/cache/apt/archives/nvidia-smi_535.261.03-1~deb12u1_amd64.deb" in sums
    assert len(sums) == 5


def test_epoch_in_an_archive_name() -> None:
    """apt writes the colon of an epoch as %3a."""
    plan = bare_plan(packages=(world.locked("docker.io", "5:29.0-1", "runtime"),))

    assert "docker.io_5%3a29.0-1_amd64.deb" in rendered(plan).files["files/group_1/SHA256SUMS"]


def test_no_password_is_rendered() -> None:
    """Connection variables go into the run's inventory; passwords never do."""
    run = rendered(bare_plan(), ansible_become_password="swordfish", ansible_ssh_pass="swordfish")

    assert not [name for name, text in run.files.items() if "swordfish" in text]
    assert "ansible_host: 192.0.2.1" in run.files["inventory.yml"]


def test_undefined_names_are_errors() -> None:
    """A template that is handed too little fails instead of writing an empty word."""
    with pytest.raises(UndefinedError):
        fill("tasks/restart.yml.j2")


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "1.0", "0755", "a: b", "a #b", "- x", "~", "535.261.03-1~deb12u1", "x=1"]
)
def test_words_survive_yaml(word: str) -> None:
    """Every word reads back as the same text."""
    assert word == yaml.safe_load(f"key: {yaml_scalar(word)}")["key"]


def test_ansible_accepts_the_syntax(tmp_path: Path) -> None:
    """ansible-playbook itself parses the rendered run, started by hand in its folder."""
    step = DrainStep(network="lium", kind="notice-period", how="x", containers="pod_*")
    drains = bare_plan("rig-03").model_copy(update={"drains": (step,)})
    folder = write(rendered(moved(bare_plan("rig-01")), way_back("rig-02"), drains), tmp_path)
    done = subprocess.run(
        [BIN / "ansible-playbook", "--syntax-check", "site.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.tools
def test_ansible_lint_passes_at_its_strictest_profile(tmp_path: Path) -> None:
    """ansible-lint's production profile finds nothing in a run that has every kind of task."""
    lock = world.entry()
    facts = world.fitting_facts(lock)
    assert isinstance(facts.packages, dict)
    loose = {
        name: type(p)(p.name, p.version, held=not p.held, whole=p.name != "docker.io")
        for name, p in facts.packages.items()
    }
    differences = difference(wanted(lock), type(facts)(**{**vars(facts), "packages": loose}), world.bare_capture(lock))
    plan = host_plan("rig-02", lock, differences, enrolled=False)
    folder = write(rendered(moved(bare_plan("rig-01")), plan, way_back("rig-03")), tmp_path)
    done = subprocess.run(
        [
            BIN / "ansible-lint",
            "--offline",
            "--nocolor",
            "--profile",
            "production",
            *sorted(p.name for p in folder.glob("*.yml") if p.name != "inventory.yml"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def moved(plan: HostPlan) -> HostPlan:
    """The plan as apt answered it: each package that is missing comes."""
    moves = tuple(
        Move(name=c.wanted.name, action="install", after=c.wanted.version, origin="Debian:12/oldstable")
        for c in plan.changes
        if isinstance(c.wanted, Package)
    )
    return plan.model_copy(update={"transaction": moves})


def way_back(host: str = "rig-01") -> HostPlan:
    """A plan that takes back an install: one package from its archive, others go, files as they were or gone."""
    resources = (
        KeptFile(path="/etc/apt/preferences.d/provision.pref", source="/kept/a", sha256="c" * 64, pins=True),
        Package(
            name="nvidia-smi",
            version="535.216.03-1",
            unit="driver",
            held=False,
            sha256="b" * 64,
            archive="/kept/nvidia-smi_535.216.03-1_amd64.deb",
        ),
        AbsentPackage(name="nvidia-kernel-dkms", purge=True),
        AbsentFile(path="/etc/modprobe.d/provision-nouveau.conf", rebuilds_initramfs=True),
        KeptFile(
            path="/etc/docker/daemon.json", source="/kept/b", sha256="c" * 64, mode="0600", restarts=("docker.service",)
        ),
        AbsentFile(path="/etc/systemd/system/provision-clients.target"),
        Service(name="docker.service", enabled=False, active=False),
    )
    keys = {"package nvidia-smi": ("version", "held")}
    changes = tuple(
        Change(
            phase="stage" if getattr(r, "pins", False) else "change",
            what=r.key,
            before="something",
            after="before",
            wanted=r,
            keys=keys.get(r.key, ("x",)),
        )
        for r in resources
    )
    transaction = (
        Move(name="nvidia-smi", action="downgrade", before="535.261.03-1", after="535.216.03-1"),
        Move(name="nvidia-kernel-dkms", action="purge", before="535.261.03-1"),
    )
    return HostPlan(
        host=host, changes=changes, transaction=transaction, reboot=True, drain=("akash",), takes_back=("r0", "r1")
    )


def tasks_of(run: Project, play: int) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = yaml.safe_load(run.files["group_1.yml"])[play]["tasks"]
    return tasks


def test_what_is_replaced_is_kept_before_anything_else() -> None:
    """The first task of all is the program that keeps; it names every package and file that the plan touches."""
    run = rendered(moved(bare_plan()))
    first = tasks_of(run, 0)[0]
    program = run.files["files/group_1/keep.py"]
    spec = ast.literal_eval(program.rpartition("\nmain(")[2].rstrip()[:-1])

    assert first["name"] == "Keep what this run replaces, in /var/lib/provision/history/r1"
    assert first["ansible.builtin.command"]["stdin"] == "{{ lookup('ansible.builtin.file', 'files/group_1/keep.py') }}"
    assert spec["packages"]["nvidia-smi"] == "driver"
    assert spec["to"]["nvidia-smi"] == world.DRIVER_DEB
    assert {"/etc/apt/preferences.d/provision.pref", "/etc/docker/daemon.json"} <= set(spec["files"])
    assert spec["files"]["/etc/docker/daemon.json"]["restarts"] == ["docker.service"]
    assert spec["units"]["nvidia-persistenced.service"] == {"after_reboot": True}
    assert (spec["most"], spec["limit"]) == (3, 4096 << 20)
    compile(program, "keep.py", "exec")


def test_the_note_of_a_clients_images_is_kept() -> None:
    """It says which images are wanted: left at the newer ones, a rollback would end in a host that differs."""
    images = ContainerImages(network="akash", images=("mirror/client@sha256:00",), sha256="0" * 64)
    plan = bare_plan()
    plan = plan.model_copy(
        update={
            "changes": (
                *plan.changes,
                Change(phase="change", what="images akash", before=None, after="1 image", wanted=images),
            )
        }
    )
    program = rendered(plan).files["files/group_1/keep.py"]
    spec = ast.literal_eval(program.rpartition("\nmain(")[2].rstrip()[:-1])

    assert spec["files"][images.mark] == {"initramfs": False, "pins": False, "restarts": []}


def test_the_same_transaction_is_simulated_staged_and_made() -> None:
    """Three calls of apt-get that differ in one word each; the simulation is compared with the plan's moves."""
    run = rendered(moved(bare_plan()))
    stage, change = tasks_of(run, 0), tasks_of(run, 2)
    simulate = next(t["ansible.builtin.shell"] for t in stage if t["name"].startswith("Simulate"))
    fetch = next(t["ansible.builtin.command"]["argv"] for t in stage if "all that they need" in t["name"])
    install = next(t["ansible.builtin.command"]["argv"] for t in change if t["name"].startswith("Install"))

    assert [word for word in fetch if word != "--download-only"] == install
    simulated = shlex.split(simulate["cmd"].partition("$(")[2].partition(")\n")[0].replace("\\\n", ""))
    assert [word for word in simulated if word != "--simulate"] == install
    assert f"nvidia-smi - {world.DRIVER_DEB}" in run.files["files/group_1/transaction"].splitlines()


def test_the_way_back_takes_nothing_from_the_network() -> None:
    """Archives by their path, compared with their kept hashes; no index, no download; what came goes, with purge."""
    run = rendered(way_back())
    stage, change = tasks_of(run, 0), tasks_of(run, 2)
    install = next(t["ansible.builtin.command"]["argv"] for t in change if t["name"].startswith("Install"))

    assert install[install.index("install") + 1 :] == ["/kept/nvidia-smi_535.216.03-1_amd64.deb", "nvidia-kernel-dkms-"]
    assert "--purge" in install
    marks = stage[0]["ansible.builtin.command"]["argv"][2:]
    assert marks == ["/var/lib/provision/history/r0/done", "/var/lib/provision/history/r1/done"]
    assert run.files["files/group_1/SHA256SUMS"] == f"{'b' * 64}  /kept/nvidia-smi_535.216.03-1_amd64.deb\n"
    assert not [task["name"] for task in stage if "index" in task["name"] or "download" in str(task)]
    assert [task["name"] for task in change] == [
        "Remove /etc/modprobe.d/provision-nouveau.conf",
        "Disable provision-clients.target, which was not there before",
        "Remove /etc/systemd/system/provision-clients.target",
        "Install 1 and remove 1 packages of driver (module builds take minutes)",
        "Release 1 packages",
        "Put /etc/docker/daemon.json back",
        "Restart docker.service, which reads its settings only at start",
        "Stop docker.service",
    ]


def test_a_template_of_units_goes_with_its_instances() -> None:
    """Ansible refuses to stop `x@.service` itself (unit in unknown state), and the way back ended there."""
    template = AbsentFile(path="/etc/systemd/system/provision-client@.service")
    change = Change(phase="change", what=template.key, before="1 line", after="not there", wanted=template, keys=("x",))
    run = rendered(HostPlan(host="rig-01", changes=(change,), takes_back=("r0",)))
    stop, remove = tasks_of(run, 1)

    assert stop["ansible.builtin.command"]["argv"] == ["systemctl", "stop", "provision-client@*.service"]
    assert remove["ansible.builtin.file"]["state"] == "absent"


def test_a_part_of_a_unit_goes_alone() -> None:
    """A drop-in is no unit: systemd knows none of its name to disable."""
    part = AbsentFile(path="/etc/systemd/system/nvidia-cdi-refresh.service.d/provision.conf")
    change = Change(phase="change", what=part.key, before="4 lines", after="not there", wanted=part, keys=("x",))
    tasks = tasks_of(rendered(HostPlan(host="rig-01", changes=(change,))), 1)

    assert [task["name"] for task in tasks] == [f"Remove {part.path}"]


def test_a_package_source_comes_before_the_index_with_its_key() -> None:
    """Key, source, index: in this order, and both files are kept for the way back."""
    run = rendered(bare_plan(sources=(world.SOURCE,)))
    stage = yaml.safe_load(run.files["group_1.yml"])[0]["tasks"]
    names = [task["name"] for task in stage]

    key = names.index("Write the key of docker (98D1F7E8DAA19B46D3FF0615D1EA9165F2BD78B2)")
    assert key < names.index("Write the package source docker") < names.index("Stage the package index")
    assert run.files[f"files/group_1{world.SOURCE.path}"] == world.SOURCE.text
    assert run.files[f"files/group_1{world.SOURCE.key_path}"] == world.SOURCE.key
    assert repr(world.SOURCE.path) in run.files["files/group_1/keep.py"]


def test_links_come_first_and_specs_last() -> None:
    """Device links while the host serves, before anything that makes systemd reload; the spec when the driver runs."""
    toolkit = Choice(value="nvidia-container-toolkit 1.20.0-1")
    plan = bare_plan(toolkit=toolkit, cdi=Choice(value="present"))
    plays = yaml.safe_load(rendered(plan).files["group_1.yml"])
    names = {play["name"]: [task["name"] for task in play.get("tasks", ())] for play in plays}

    stage = names["Stage while serving"]
    links = next(n for n, name in enumerate(stage) if name.startswith("Link the GPUs in /dev/char"))
    assert links < stage.index("Stage the package index")
    assert names["Start what needs the driver"][-1] == "Make the CDI spec anew for driver 535.261.03"


def test_a_plan_without_reload_makes_no_links() -> None:
    """A hold that is put back touches no unit."""
    lock = world.entry()
    facts = world.fitting_facts(lock)
    assert isinstance(facts.packages, dict)
    loose = {**facts.packages, "nvidia-smi": Installed("nvidia-smi", world.DRIVER_DEB, held=False)}
    differences = difference(wanted(lock), replace(facts, packages=loose), world.fitting_capture(lock))
    run = rendered(host_plan("rig-01", lock, differences, enrolled=True))

    assert "/dev/char" not in run.files["group_1.yml"]


def test_the_last_task_before_a_reboot_looks_for_the_module() -> None:
    """A kernel that came in between, or a build that left nothing, ends the run before the reboot."""
    plays = yaml.safe_load(rendered(bare_plan()).files["group_1.yml"])
    change = next(play for play in plays if play["name"] == "Change the host")
    guard = change["tasks"][-1]

    assert guard["name"] == "Check that the kernel that boots next has the module of driver 535.261.03"
    script = guard["ansible.builtin.shell"]["cmd"]
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    assert plays[plays.index(change) + 1]["name"] == "Reboot into the new driver"


def test_containerd_is_configured_by_nvidias_own_program_and_kept_first() -> None:
    """Both files are kept, with the unit that reads them."""
    lock = world.entry(
        runtime=Choice(value="containerd 1.7.24"), toolkit=Choice(value="nvidia-container-toolkit 1.20.0-1")
    )
    capture = world.bare_capture(lock)
    capture = capture.model_copy(update={"files": {**capture.files, **dict.fromkeys(CONTAINERD_FILES)}})
    found = difference(wanted(lock), world.bare_facts(), capture)
    run = rendered(host_plan("rig-01", lock, found, enrolled=False))

    assert "- --runtime=containerd" in run.files["group_1.yml"]
    assert "'/etc/containerd/config.toml': {" in run.files["files/group_1/keep.py"]


def test_the_module_is_built_before_the_drain_where_dkms_is_there_already() -> None:
    """In the staging, from the archive that was just compared, and cleared away after it; not on a first install."""
    plan = moved(bare_plan())
    stage, change = tasks_of(rendered(plan), 0), tasks_of(rendered(plan), 2)
    build = stage[-1]

    assert build["name"].startswith(f"Build the NVIDIA modules for {world.KERNEL} while the host serves")
    archive = f"/var/cache/apt/archives/nvidia-kernel-dkms_{world.DRIVER_DEB}_amd64.deb"
    assert archive in build["ansible.builtin.shell"]["cmd"]
    assert change[-2]["name"].startswith("Clear away")

    first = Move(name="dkms", action="install", after="3.0.10", origin="Debian:12/oldstable")
    assert plan.transaction is not None
    names = [
        task["name"]
        for task in tasks_of(rendered(plan.model_copy(update={"transaction": (*plan.transaction, first)})), 0)
    ]
    assert not [name for name in names if name.startswith("Build")]
