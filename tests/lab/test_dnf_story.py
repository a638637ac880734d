"""RHEL-likes against stand-ins: dnf and rpm of Debian's archive on a host that says it is Rocky Linux 9.

What is proven is what dnf, rpm and the version lock do with the very tasks that are rendered: offers read, a
transaction refused, a pinned install, an upgrade by hand that moves nothing, an upgrade, and the way back with the
repository gone.
Nothing of Rocky's own is here: no kernel, no module, no boot image, no reboot; those changes are left out of the plans,
and grubby and dracut are stand-ins of a line.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from provisioner.actions.observe import Seen, observe
from provisioner.actions.plan import Goal, goal_of, plan_for, request_for, simulated
from provisioner.actions.rollback import plan_rollback
from provisioner.adapters.inventory import read as read_inventory
from provisioner.adapters.lab import Lab
from provisioner.adapters.runs import SystemClock
from provisioner.cli.wiring import SshProber
from provisioner.errors import Exit
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.history import HISTORY
from provisioner.model.inventory import InventoryHost
from provisioner.model.manager import LOCKS
from provisioner.model.plan import HostPlan
from provisioner.model.resource import AbsentFile, AbsentPackage, KeptFile, Package, VersionLock
from provisioner.probe.request import Profile, Request, dnf_offers_command
from provisioner.render.project import project
from provisioner.resolve.lock import read_lock
from tests.lab import standins_rpm
from tests.lab.conftest import ssh
from tests.lab.operator import BIN, LONG, Operator

pytestmark = pytest.mark.lab

HOST = "rig-rpm"
KERNEL = "5.14.0-570.12.1.el9_6.x86_64"
OLD, NEW, OTHER = "580.95.05", "580.159.03", "590.48.01"
OWN_LOCK = "somebodys-0:1.0-1.*"
REPO = """[cuda-rhel9-x86_64]
name=stand-ins
baseurl=http://127.0.0.1:8399/repo
enabled=1
gpgcheck=0
"""
PREPARE = f"""set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q update >/dev/null
apt-get -qy --no-install-recommends install dnf rpm createrepo-c dnf-plugins-core >/dev/null 2>&1
cd {standins_rpm.WHERE}
bash build.sh
systemd-run --quiet --unit=standins python3 -m http.server 8399 --bind 127.0.0.1 --directory {standins_rpm.WHERE}
sed -i 's/^enabled.*/enabled = false/' /etc/dnf/plugins/local.conf
printf '%s\\n' '[main]' gpgcheck=True installonly_limit=3 clean_requirements_on_remove=True best=True >/etc/dnf/dnf.conf
echo module_platform_id=platform:el9 >>/etc/dnf/dnf.conf
echo 9 >/etc/dnf/vars/releasever
mkdir -p /etc/yum.repos.d
cat >/etc/yum.repos.d/cuda-rhel9.repo
echo '{OWN_LOCK}' >{LOCKS}
rm /etc/os-release
printf '%s\\n' 'NAME="Rocky Linux"' ID=rocky VERSION_ID=9.6 'PRETTY_NAME="Rocky Linux 9.6"' >/etc/os-release
touch /boot/vmlinuz-{KERNEL}
mkdir -p /lib/modules/{KERNEL}/build /lib/modules/$(uname -r)/build
touch /lib/modules/{KERNEL}/build/Makefile /lib/modules/$(uname -r)/build/Makefile
printf '#!/bin/sh\\necho /boot/vmlinuz-{KERNEL}\\n' >/usr/local/bin/grubby
printf '#!/bin/sh\\necho "$*" >/run/dracut\\n' >/usr/local/bin/dracut
chmod 755 /usr/local/bin/grubby /usr/local/bin/dracut
dnf -yq module enable nvidia-driver:580-open >/dev/null 2>&1
dnf -yq install kernel-5.14.0-570.12.1.el9_6 runc >/dev/null 2>&1
rpm -i repo/bystander-*.rpm  # dnf would follow what calls it obsolete
"""
OURS = (VersionLock, Package, AbsentPackage)


class Nobody:
    def verifies(self, _record: object) -> bool | None:
        return None


class Rpm(Operator):
    """An operator of a host with dnf, who takes of each plan what concerns packages, and runs just that."""

    prober = SshProber(timeout_s=300)

    @property
    def host(self) -> InventoryHost:
        [host] = read_inventory((str(self.inventory),), HOST)
        return host

    def goal(self) -> Goal:
        return goal_of(read_lock(self.folder / "provision.lock").hosts[HOST], "m")

    def planned(self) -> HostPlan:
        """The part of the plan that concerns packages, as dnf answered it on the host."""
        goal = self.goal()
        seen, failed = observe([self.host], {HOST: request_for(goal)}, self.prober)
        assert failed == {}
        plan = plan_for(seen[HOST], goal, Nobody())
        assert plan.blocked == ()
        return self.answered(_of_packages(plan), seen)

    def answered(self, plan: HostPlan, seen: dict[str, Seen]) -> HostPlan:
        plans, failed = simulated({HOST: plan}, seen, self.prober)
        assert failed == {}
        return plans[HOST]

    def back(self) -> HostPlan:
        found = plan_rollback([self.host], None, prober=self.prober, clock=SystemClock(), signatures=Nobody())
        assert found.failed == {}
        plan = found.plan.hosts[HOST]
        assert plan.blocked == ()
        return self.answered(_of_packages(plan), found.seen)

    def play(self, plan: HostPlan, run: str, code: int = 0) -> str:
        """Run the rendered playbook as a person would, by hand."""
        folder = self.folder / run
        shutil.rmtree(folder, ignore_errors=True)
        rendered = project([plan], {HOST: dict(self.host.variables)}, run=run, made_by="test", made_at="now")
        for name, text in rendered.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", str(self.inventory), "-i", "inventory.yml", "group_1.yml"],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def as_root(self, command: str, rc: int = 0) -> str:
        done = ssh(self.lab, HOST, f"sudo sh -c {command!r}")
        assert done.rc == rc, f"{command}: {done.rc} {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def offered(self) -> str:
        """What the probe hears of dnf."""
        command = dnf_offers_command()
        found = self.prober.probe([self.host], {HOST: Request(Profile(commands=(command,)))})[HOST]
        assert isinstance(found, Capture), found
        answer = found.command(command.line)
        assert isinstance(answer, CommandOutput)
        return answer.stdout

    def driver(self) -> set[str]:
        form = "%{VERSION} "
        names = "kmod-nvidia-open-dkms nvidia-driver-cuda nvidia-driver-cuda-libs libnvidia-ml nvidia-persistenced"
        return set(self.as_root(f'rpm -q --qf "{form}" {names}').split())

    def installed(self) -> str:
        return self.as_root("rpm -qa | sort")


def _of_packages(plan: HostPlan) -> HostPlan:
    kept = tuple(
        change
        for change in plan.changes
        if isinstance(change.wanted, OURS)
        or (isinstance(change.wanted, (KeptFile, AbsentFile)) and change.wanted.path == LOCKS)
    )
    return plan.model_copy(update={"changes": kept, "reboot": False, "drain": (), "drains": (), "trial": None})


@pytest.fixture(scope="module")
def operator(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rpm]:
    lab = lab_factory(f"{HOST}=bookworm:rtx-3090")
    where = standins_rpm.WHERE
    unpacked = ssh(lab, HOST, f"sudo mkdir -p {where} && sudo tar xz -C {where}", given=standins_rpm.specs())
    assert unpacked.rc == 0, unpacked.stderr
    ssh(lab, HOST, "cat >/tmp/prepare", given=PREPARE.encode())
    done = ssh(lab, HOST, "sudo bash /tmp/prepare", given=REPO.encode())
    assert done.rc == 0, done.stdout + done.stderr
    yield Rpm(lab, tmp_path_factory.mktemp("operator"))


def test_01_offers_are_read_and_locked_exactly(operator: Rpm) -> None:
    operator.want(HOST, driver=f"=={OLD}")
    entry = read_lock(operator.folder / "provision.lock").hosts[HOST]
    versions = {package.name: package.version for package in entry.packages}

    assert entry.os == "rocky-9"
    assert versions["nvidia-driver-cuda"] == versions["kmod-nvidia-open-dkms"] == f"3:{OLD}-1.el9"
    assert versions["docker-ce"] == "3:29.3.0-1.el9"
    assert versions["kernel-devel"] == "5.14.0-570.12.1.el9_6"
    assert KERNEL in entry.kernels


def test_02_a_pinned_install(operator: Rpm) -> None:
    """The lock is written before the transaction, the owner's entry stays, and runc goes as the plan has named it."""
    plan = operator.planned()
    assert plan.blocked == ()
    assert [p.name for p in plan.moving if isinstance(p, AbsentPackage)] == ["runc"]
    assert plan.transaction is not None
    assert "dkms" in {move.name for move in plan.transaction}, "what comes along is shown"

    operator.play(plan, "20261130T000001Z-aaaa")

    assert operator.driver() == {OLD}
    locks = operator.as_root(f"cat {LOCKS}")
    assert OWN_LOCK in locks
    assert f"nvidia-driver-cuda-3:{OLD}-1.el9.*" in locks
    assert operator.planned().changes == (), "looked at again, nothing differs"
    operator.as_root(f"test -s /var/lib/provision/rpms/nvidia-driver-cuda-{OLD}-1.el9.x86_64.rpm")
    assert operator.as_root("cat /run/dracut") == "--regenerate-all --force\n"


def test_03_an_upgrade_by_hand_moves_nothing(operator: Rpm) -> None:
    """Newer drivers, toolkits and a newer kernel are offered; whoever asks gets none of them."""
    before = operator.installed()

    assert "Nothing to do" in operator.as_root("LC_ALL=C dnf -y upgrade")
    for name in (f"nvidia-driver-cuda-3:{NEW}-1.el9", "kernel-core-5.14.0-570.17.1.el9_6"):
        said = operator.as_root(f"LC_ALL=C dnf -y --allowerasing install {name}", rc=1)
        assert "filtered out by exclude filtering" in said
    operator.as_root("dnf -y autoremove")
    assert operator.installed() == before
    operator.as_root(f"touch {HISTORY}/20261130T000001Z-aaaa/done")  # as enrolment does


def test_04_what_nobody_asked_for_is_refused(operator: Rpm) -> None:
    """590's stand-in calls a foreign package obsolete: dnf would take it away without a word in anybody's plan."""
    before = operator.installed()
    assert OTHER not in operator.offered(), "it is of another module stream than the one that is enabled"
    operator.as_root("dnf -qy module reset nvidia-driver && dnf -qy module enable nvidia-driver:590-open")
    operator.want(HOST, driver=f"=={OTHER}")
    assert operator.planned().blocked == ("dnf would remove bystander 1.0-1.el9, which the plan did not ask for",)
    operator.as_root("dnf -qy module reset nvidia-driver && dnf -qy module enable nvidia-driver:580-open")
    assert operator.installed() == before


@pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
def test_05_a_plan_that_is_no_longer_true_ends_before_anything_is_changed(operator: Rpm) -> None:
    """Somebody installs a package of the transaction between the plan and the run: dnf's moves are others now."""
    operator.want(HOST, driver=f"=={NEW}")
    plan = operator.planned()
    assert plan.transaction is not None
    told = plan.model_copy(update={"transaction": plan.transaction[1:]})
    said = operator.play(told, "20261130T000002Z-bbbb", code=2)
    assert f"+{plan.transaction[0].name} " in said
    assert operator.driver() == {OLD}


def test_06_an_upgrade_keeps_what_it_replaces(operator: Rpm) -> None:
    """In the long form the run that came before was cut short: this one takes its record over, and ends it."""
    operator.want(HOST, driver=f"=={NEW}")
    plan = operator.planned()
    assert {move.action for move in plan.transaction or ()} == {"upgrade"}
    operator.play(plan, "20261130T000003Z-cccc")

    assert operator.driver() == {NEW}
    assert operator.planned().changes == ()
    kept = operator.as_root(f"ls {HISTORY}/20261130T000003Z-cccc/rpms")
    assert f"nvidia-driver-cuda-{OLD}-1.el9.x86_64.rpm" in kept
    put_by = operator.as_root("ls /var/lib/provision/rpms")
    assert f"nvidia-driver-cuda-{NEW}-1.el9.x86_64.rpm" in put_by
    assert f"-{OLD}-" not in put_by
    assert "docker-ce-29.3.0-1.el9.x86_64.rpm" in put_by, "what did not move stays"
    assert "Nothing to do" in operator.as_root("LC_ALL=C dnf -y upgrade")


def test_07_the_way_back_needs_no_repository(operator: Rpm) -> None:
    """The repository is gone, dnf's cache is empty; what was kept is enough, and the pins are those of before."""
    operator.as_root(f"systemctl stop standins; rm -rf {standins_rpm.WHERE}/repo; dnf -q clean all")
    plan = operator.back()
    assert plan.blocked == ()
    assert {move.action for move in plan.transaction or ()} == {"downgrade"}

    operator.play(plan, "20261130T000004Z-dddd")

    assert operator.driver() == {OLD}
    locks = operator.as_root(f"cat {LOCKS}")
    assert f"nvidia-driver-cuda-3:{OLD}-1.el9.*" in locks
    assert NEW not in locks
    assert OWN_LOCK in locks
    put_by = operator.as_root("ls /var/lib/provision/rpms")
    assert f"nvidia-driver-cuda-{OLD}-1.el9.x86_64.rpm" in put_by, "the next change finds it there"
    assert f"-{NEW}-" not in put_by


@pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
def test_08_without_a_way_back_nothing_is_begun(operator: Rpm) -> None:
    """No repository has any more what is installed, and the copies are gone too: keeping it fails while it serves."""
    operator.as_root(f"rm -rf /var/lib/provision/rpms {HISTORY}")
    goal = operator.goal()
    seen, _ = observe([operator.host], {HOST: request_for(goal)}, operator.prober)
    plan = _of_packages(plan_for(seen[HOST], goal, Nobody()))
    said = operator.play(plan, "20261130T000005Z-eeee", code=2)
    assert "there would be no way back" in said
    assert operator.driver() == {OLD}


@pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
def test_09_a_repository_that_is_gone_is_said_by_resolve(operator: Rpm) -> None:
    said = operator.run("resolve", code=Exit.UNRESOLVABLE)
    assert "what its package sources offer" in said or "package sources" in said
