"""The main job as an operator does it: bare hosts to enrolled ones, and what may happen to them afterwards.

One story in numbered steps on real hosts; each step needs those before it, so the first failure ends the story. The
short form has one host of Debian 12 that serves Lium: its driver is held below the newest one that Debian offers, so a
lost pin would show. The long form (PROVISION_LONG=1, `scripts/test --all`) adds Debian 11 with Kepler and Debian 13.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from provisioner.resolve.lock import read_lock
from tests.lab import standins
from tests.lab.conftest import ssh
from tests.lab.operator import BIN, LONG, Operator

pytestmark = pytest.mark.lab

HOSTS = {
    "rig-02": ("bookworm:rtx-3090", "lium", "535.261.03"),
    **({"rig-01": ("bullseye:tesla-k80", "akash", "470.256.02")} if LONG else {}),
    **({"rig-03": ("trixie:rtx-4090*2", "ionet", "550.163.01")} if LONG else {}),
}
DRIVER_PACKAGE = "nvidia-kernel-dkms"


@pytest.fixture(scope="module")
def operator(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    lab = lab_factory(*(f"{name}={spec}" for name, (spec, _, _) in HOSTS.items()))
    folder = tmp_path_factory.mktemp("operator")
    variables = lab.folder / "host_vars"
    variables.mkdir()
    for name, (_, network, _) in HOSTS.items():
        (variables / f"{name}.yml").write_text(f"provision_networks: [{network}]\n", encoding="utf-8")
    yield Operator(lab, folder)


def test_01_a_plan_needs_a_lock(operator: Operator) -> None:
    """Without a lock there is nothing to plan for, and the message says what makes one."""
    assert "[lock-not-found]" in operator.run("plan", code=Exit.BAD_INPUT)


def test_02_resolve_writes_the_lock(operator: Operator) -> None:
    """The lock has the driver that the network's list and the card allow, with hashes of the host's own index."""
    operator.run("resolve")
    lock = read_lock(operator.folder / "provision.lock")

    for name, (_, _, driver) in HOSTS.items():
        entry = lock.hosts[name]
        assert entry.driver_version is not None
        assert entry.driver_version.value == driver
        assert all(len(package.sha256) == 64 for package in entry.packages)


def test_03_resolve_again_is_the_same_byte_for_byte(operator: Operator) -> None:
    """Same host, same matrix: same lock."""
    before = (operator.folder / "provision.lock").read_bytes()
    operator.run("resolve")

    assert (operator.folder / "provision.lock").read_bytes() == before


def test_04_the_plan_of_a_bare_host(operator: Operator) -> None:
    """Everything is missing, a reboot is named, nothing has been done yet."""
    for name, plan in operator.plan().items():
        assert plan["reboot"], name
        assert not plan["enrolled"]
    assert "differs" in operator.run("plan", "--exit-code", code=Exit.DIFFERS) or LONG
    assert operator.runs() == 0


def test_05_nobody_confirmed(operator: Operator) -> None:
    """Without a terminal and without --yes nothing is applied."""
    assert "[not-confirmed]" in operator.run("apply", code=Exit.BAD_INPUT)


def test_05b_a_host_that_is_to_reboot_soon_is_not_begun_with(operator: Operator) -> None:
    """As unattended-upgrades schedules it, with systemd's own shutdown; taken off again, nothing is different."""
    before = operator.plan()
    for name in HOSTS:
        operator.on(name, "sudo shutdown -r +30")
    told = {name: plan["notes"] for name, plan in operator.plan().items()}
    output = operator.run("apply", "--yes", code=Exit.FAILED)
    for name in HOSTS:
        operator.on(name, "sudo shutdown -c")
        assert any("scheduled to reboot" in note and "no change begins" in note for note in told[name]), told
        assert f"{name} is scheduled to reboot in 30 min" in output
        assert operator.lab.host(name).exec("test -e /var/lib/provision/apply.lock").rc != 0

    assert "[shutdown-scheduled]" in output
    assert operator.runs() == 0
    for name, plan in operator.plan().items():
        gone = [change["what"] for change in before[name]["changes"] if change not in plan["changes"]]
        assert gone == ["directory /var/lib/provision"]  # where the lease had lain


def test_06_interrupted_in_the_middle(operator: Operator) -> None:
    """Ctrl-C while packages are being installed: an exit code of its own, and the host is free again."""
    running = operator.start("apply", "--yes")
    lines = []
    assert running.stdout is not None
    for line in running.stdout:
        lines.append(line)
        if "  change  Install" in line:
            break
    assert any("Install" in line for line in lines), "".join(lines)
    time.sleep(5)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=120)

    assert running.returncode == Exit.INTERRUPTED, output
    for name in HOSTS:
        assert operator.lab.host(name).exec("test -e /var/lib/provision/apply.lock").rc != 0


def test_07_apply_goes_on_from_what_it_finds(operator: Operator) -> None:
    """The next apply finishes the job: driver, runtime, reboot, verification, enrolment."""
    output = operator.run("apply", "--yes")

    for name, (_, _, driver) in HOSTS.items():
        assert f"{name}  enrolled" in output
        assert operator.on(name, "cat /sys/module/nvidia/version").strip() == driver
        assert driver in operator.on(name, "nvidia-smi")
        operator.on(name, "sudo docker info")


def test_08_nothing_to_change(operator: Operator) -> None:
    """A second plan and a second apply say so, and render no run."""
    before = operator.runs()

    assert "Nothing to change" in operator.run("plan", "--exit-code")
    operator.run("apply", "--yes")
    assert operator.runs() == before


def test_09_status_and_verify(operator: Operator) -> None:
    """Every host is enrolled, with a signature that holds; JUnit and JSON say the same as the table."""
    assert operator.run("status").count("enrolled") > len(HOSTS)
    junit = operator.folder / "checks.xml"
    operator.run("verify", "--junit", str(junit))

    assert 'failures="0"' in junit.read_text(encoding="utf-8")


def test_10_a_hand_run_dist_upgrade_leaves_the_pins(operator: Operator) -> None:
    """`apt-get dist-upgrade -y` by hand, with newer drivers on offer, moves neither driver nor runtime."""
    for name in HOSTS:
        operator.on(name, "sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get dist-upgrade -y")

    assert "Nothing to change" in operator.run("plan", "--exit-code")


def test_10b_unattended_upgrades_leaves_them_too(operator: Operator) -> None:
    """It runs for real, allowed to take everything from every origin, as an owner may have it set."""
    for name in HOSTS:
        operator.on(name, "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq unattended-upgrades")
        said = operator.on(
            name,
            "echo 'Unattended-Upgrade::Origins-Pattern { \"origin=*\"; };' | sudo tee /etc/apt/apt.conf.d/99-all"
            " >/dev/null && sudo unattended-upgrade -v 2>&1; sudo rm /etc/apt/apt.conf.d/99-all",
        )
        assert "Traceback" not in said

    assert "Nothing to change" in operator.run("plan", "--exit-code")


def test_11_a_foreign_install_without_the_version_keeps_it(operator: Operator) -> None:
    """Somebody's `apt-get install nvidia-kernel-dkms` is answered by the pin: the locked version is already there."""
    for name in HOSTS:
        operator.on(name, f"sudo DEBIAN_FRONTEND=noninteractive apt-get install -y {DRIVER_PACKAGE}")

    assert "Nothing to change" in operator.run("plan", "--exit-code")


@pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
def test_11b_a_foreign_installer_finds_no_cuda_drivers(operator: Operator, tmp_path: Path) -> None:
    """Its source is there, with NVIDIA's own driver, newer than the locked one; full-upgrade and autoremove follow."""
    repository = standins.build(tmp_path, standins.driver("580.159.03"))
    listed = "/etc/apt/sources.list.d/foreign.list"
    quiet = "sudo DEBIAN_FRONTEND=noninteractive"
    for name in HOSTS:
        unpack = f"sudo mkdir -p {standins.WHERE} && sudo tar xz -C {standins.WHERE}"
        assert ssh(operator.lab, name, unpack, given=repository.packed()).rc == 0
        source = f"deb [trusted=yes] copy:{standins.WHERE} /"
        operator.on(name, f"echo '{source}' | sudo tee {listed} && sudo apt-get update -qq")
        assert "580.159.03-1" in operator.on(name, "apt-cache madison cuda-drivers")
        refused = ssh(operator.lab, name, f"{quiet} apt-get install -y cuda-drivers")
        assert refused.rc != 0 and "'cuda-drivers' has no installation candidate" in refused.stderr
        operator.on(name, f"{quiet} apt-get full-upgrade -y && {quiet} apt-get autoremove -y")
        operator.on(name, f"sudo rm -r {listed} {standins.WHERE}")

    assert "Nothing to change" in operator.run("plan", "--exit-code")


def test_12_driver_taken_away_by_hand(operator: Operator) -> None:
    """The plan says exactly what is gone, apply mends only that, and without a reboot: the driver is still loaded."""
    operator.on(
        "rig-02",
        "sudo DEBIAN_FRONTEND=noninteractive apt-get purge -y --allow-change-held-packages"
        " nvidia-kernel-dkms nvidia-smi",
    )
    plan = operator.plan()["rig-02"]
    changes = plan["changes"]
    assert isinstance(changes, list)
    kernel = operator.on("rig-02", "uname -r").strip()

    assert {change["what"] for change in changes} == {
        "package nvidia-kernel-dkms",
        "package nvidia-smi",
        f"module nvidia for {kernel}",
    }
    assert not plan["reboot"]
    assert "rig-02  enrolled" in operator.run("apply", "--yes")
    assert "Nothing to change" in operator.run("plan", "--exit-code")


def test_13_a_saved_plan_is_applied_exactly_or_refused(operator: Operator) -> None:
    """A hold is lost, the plan saved; then something else moves: refused. Put back: applied."""
    operator.on("rig-02", "sudo apt-mark unhold nvidia-smi")
    operator.run("plan", "-o", "hold.plan")
    operator.on("rig-02", "sudo apt-mark unhold docker.io")

    refusal = operator.run("apply", "hold.plan", code=Exit.BAD_INPUT)
    assert "[plan-stale]" in refusal
    assert "package docker.io" in refusal

    operator.on("rig-02", "sudo apt-mark hold docker.io")
    output = operator.run("apply", "hold.plan")
    assert "nvidia-smi is not held" in output or "1 package is not held" in output
    assert "nvidia-smi" in operator.on("rig-02", "apt-mark showhold").split()


def test_14_two_runs_at_once(operator: Operator) -> None:
    """The second run on a host is told who holds it, with an exit code of its own."""
    operator.on("rig-02", "sudo apt-mark unhold nvidia-smi")
    operator.on(
        "rig-02",
        "printf 'run=r0\\nuser=ben\\ncontroller=laptop\\npid=1\\nuntil=99999999999\\n'"
        " | sudo tee /var/lib/provision/apply.lock",
    )
    output = operator.run("apply", "--yes", "--limit", "rig-02", code=Exit.BUSY)
    assert "run r0 by ben on laptop" in output

    operator.run("apply", "--yes", "--limit", "rig-02", "--break-lock")


def test_15_the_run_works_by_hand(operator: Operator) -> None:
    """The rendered folder is a plain Ansible project: ansible-playbook alone repeats it."""
    newest = sorted((operator.folder / ".provision" / "runs").iterdir())[-1]
    operator.on("rig-02", "sudo apt-mark unhold nvidia-smi")
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), "site.yml"], cwd=newest, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "nvidia-smi" in operator.on("rig-02", "apt-mark showhold").split()


def test_16_a_failed_check_keeps_the_host_out(operator: Operator) -> None:
    """A broken runtime after a change: the host is not enrolled, its record is gone, and the reason is told."""
    operator.on(
        "rig-02",
        "sudo apt-mark unhold nvidia-smi && sudo mv /usr/sbin/runc /usr/sbin/runc.away",
    )
    try:
        output = operator.run("apply", "--yes", "--limit", "rig-02", code=Exit.FAILED)
        assert "[not-verified]" in output
        assert "container" in output
        assert operator.lab.host("rig-02").exec("test -e /var/lib/provision/enrolment.json").rc != 0
        assert "rig-02" in operator.run("status")
    finally:
        operator.on("rig-02", "sudo mv /usr/sbin/runc.away /usr/sbin/runc")
    assert "rig-02  enrolled" in operator.run("apply", "--yes", "--limit", "rig-02")


def test_17_each_host_fails_by_itself(operator: Operator) -> None:
    """A host that is not there and one with another key get messages of their own; the good host is planned."""
    extra = operator.lab.folder / "extra.yml"
    inventory = yaml.safe_load(operator.inventory.read_text(encoding="utf-8"))
    address = inventory["lab"]["hosts"]["rig-02"]["ansible_host"]
    extra.write_text(
        "lab:\n  hosts:\n"
        "    gone: {ansible_host: 127.0.0.1, ansible_port: 1, provision_networks: [lium]}\n"
        # Another user, since ssh shares the open connection of the same user to the same address.
        f"    stranger: {{ansible_host: {address}, ansible_user: root, "
        "ansible_ssh_common_args: -o UserKnownHostsFile=/nonexistent, "
        "provision_networks: [lium]}\n",
        encoding="utf-8",
    )
    lock_path = operator.folder / "provision.lock"
    before = lock_path.read_text(encoding="utf-8")
    lock = json.loads(before)
    lock["hosts"] |= {"gone": lock["hosts"]["rig-02"], "stranger": lock["hosts"]["rig-02"]}
    lock_path.write_text(json.dumps(lock), encoding="utf-8")
    try:
        output = operator.run("plan", "-i", str(extra), code=Exit.FAILED)
    finally:
        lock_path.write_text(before, encoding="utf-8")
        extra.unlink()

    assert "[ssh-unreachable]" in output
    assert "[ssh-host-key-unknown]" in output
    assert "up to date" in output


def test_18_a_lock_of_another_matrix_is_refused(operator: Operator) -> None:
    """Reasons of another matrix may no longer hold: nothing is looked at."""
    lock_path = operator.folder / "provision.lock"
    before = lock_path.read_text(encoding="utf-8")
    lock_path.write_text(before.replace(json.loads(before)["matrix"], "0" * 64), encoding="utf-8")
    try:
        assert "[lock-other-matrix]" in operator.run("plan", code=Exit.BAD_INPUT)
    finally:
        lock_path.write_text(before, encoding="utf-8")


def test_19_outside_the_checkout(operator: Operator, tmp_path: Path) -> None:
    """`pip install .` into an empty environment, then plan: the wheel carries matrix, templates and playbooks."""
    source = tmp_path / "source"
    root = Path(__file__).resolve().parent.parent.parent
    shutil.copytree(root, source, ignore=shutil.ignore_patterns(".venv", ".git", ".provision", ".nox", "__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    installed = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "pip"), "install", "-q", str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(source)
    done = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "provision"), "plan", "-i", str(operator.inventory)],
        cwd=operator.folder,
        env={**operator.environment, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to change" in done.stdout
