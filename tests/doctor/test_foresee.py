"""The state that a plan leads to: what it sets is there, what nobody knows is not, and faults show before they cost."""

from __future__ import annotations

from typing import Any

import pytest

from provisioner.doctor.after import after
from provisioner.doctor.diagnose import diagnose
from provisioner.doctor.facts import FACTS
from provisioner.doctor.foresee import foresee, mends
from provisioner.doctor.host import Host
from provisioner.model.capture import UNKNOWN, Capture
from provisioner.model.plan import Change, HostPlan
from provisioner.model.resource import File, KernelModule, Package, Resource, RunningDriver, Service
from provisioner.model.transaction import Move
from tests.doctor.hosts import DF_LINE, UNITS_LINE, Rig, out
from tests.doctor.world import catalogue

OLD, NEW = "535.216.03", "535.261.03"
DEB = f"{NEW}-1~deb12u1"
NAMES = ("nvidia-kernel-dkms", "nvidia-driver", "nvidia-smi", "libnvidia-ml1", "libcuda1", "nvidia-alternative")


def change(wanted: Resource, **more: Any) -> Change:
    return Change(phase="change", what=wanted.key, before="x", after="y", wanted=wanted, **more)


def upgrade(rig: Rig, **more: Any) -> HostPlan:
    """The plan that brings the packages, the module for this kernel and the running driver to NEW."""
    wanted = [Package(name=name, version=DEB, unit="driver") for name in NAMES]
    changes = [change(one, keys=("version",)) for one in wanted]
    changes.append(change(KernelModule(kernel=rig.kernel, version=NEW, flavour="proprietary")))
    changes.append(change(RunningDriver(version=NEW, flavour="proprietary")))
    return HostPlan(host="rig-01", changes=tuple(changes), reboot=True, **more)


def rig(**more: Any) -> Rig:
    return Rig(system="debian-12", driver=OLD, **more)


def value(capture: Capture, fact: str) -> object:
    return FACTS[fact].of(Host(capture, catalogue().matrix)).value


def test_an_upgrade_of_a_healthy_host_has_nothing_ahead() -> None:
    """No false alarm: neither a finding nor one that the boot would settle."""
    assert foresee(rig().capture(), upgrade(rig()), catalogue()) == ()


def test_what_the_plan_sets_is_there_and_what_only_the_boot_shows_is_not() -> None:
    """Packages, libraries and modules are the new ones; what is loaded, said or answered is not known yet."""
    later = after(rig().capture(), upgrade(rig()))

    assert value(later, "driver.packaged") == (NEW,)
    assert value(later, "driver.library") == NEW
    assert value(later, "driver.modules") == (NEW,)
    for fact in ("driver.loaded", "kernel.nouveau", "cards.in_nvml", "nvidia-smi", "cards.bound_to", "docker.runtimes"):
        assert value(later, fact) is UNKNOWN, fact


def test_a_plan_of_nothing_leads_to_the_same_host() -> None:
    """Byte for byte."""
    capture = rig().capture()

    assert after(capture, HostPlan(host="rig-01")) is capture


def test_a_module_that_is_kept_out_stops_the_plan() -> None:
    """It may be the boot that tells, and nobody wants to learn it there."""
    files: dict[str, str | None] = {"/etc/modprobe.d/gaming.conf": "blacklist nvidia\n"}
    ahead = foresee(rig(files=files).capture(), upgrade(rig()), catalogue())

    assert [(item.mechanism, item.stops) for item in ahead] == [("modprobe-keeps-nvidia-out", True)]
    assert ahead[0].evidence == ("blacklist nvidia   /etc/modprobe.d/gaming.conf:1",)


def test_the_disk_is_counted_with_what_will_be_unpacked() -> None:
    """4 GiB are enough now and not after 800 MiB of archives."""
    capture = rig(commands={DF_LINE: out("File Avail\n/ 5000\n/var 5000\n/usr 5000\n")}).capture()

    assert foresee(capture, upgrade(rig()), catalogue()) == ()
    (item,) = foresee(capture, upgrade(rig(), download_bytes=800 << 20), catalogue())
    assert (item.mechanism, item.new, item.stops) == ("disk-nearly-full", True, False)


def test_archives_of_which_nobody_told_the_size_count_as_well() -> None:
    """A lock without sizes, what apt brings besides, and archives that the host kept: all of it is unpacked."""
    capture = rig(commands={DF_LINE: out("File Avail\n/ 3600\n/var 3600\n/usr 3600\n")}).capture()
    few = HostPlan(host="rig-01", changes=(change(Service(name="docker.service")),))
    besides = tuple(
        Move(name=f"libnvidia-gl-{n}", action="install", before=None, after="570.1-1", origin="") for n in range(9)
    )
    archived = Package(name="nvidia-smi", version=DEB, unit="driver", size=900 << 20, archive="/kept/nvidia-smi.deb")
    kept = HostPlan(host="rig-01", changes=(change(archived, keys=("version",)),))

    assert foresee(capture, few, catalogue()) == ()
    for plan in (upgrade(rig()), few.model_copy(update={"transaction": besides}), kept):
        assert [item.mechanism for item in foresee(capture, plan, catalogue())] == ["disk-nearly-full"], plan


def test_packages_that_go_take_no_room() -> None:
    """Removing is not installing."""
    capture = rig(commands={DF_LINE: out("File Avail\n/ 2100\n/var 2100\n/usr 2100\n")}).capture()
    gone = tuple(Move(name=f"libnvidia-gl-{n}", action="remove", before="1", after=None, origin="") for n in range(9))
    plan = HostPlan(host="rig-01", changes=(change(Service(name="docker.service")),), transaction=gone)

    assert foresee(capture, plan, catalogue()) == ()


def test_what_is_wrong_already_is_told_as_such() -> None:
    """A clock that is off stays off, and verification would not pass: the plan is refused."""
    capture = rig(commands={"date +%s.%N": out("1795490000.000000000\n")}).capture()
    (item,) = foresee(capture, upgrade(rig()), catalogue())

    assert (item.mechanism, item.new, item.stops) == ("clock-is-off", False, True)


def test_a_kernel_that_loses_its_module_shows() -> None:
    """Another kernel boots next and the plan builds for the running one only: the old module goes with its package."""
    following = "6.1.0-99-amd64"
    kernel = rig().kernel
    listing = "".join(f"/lib/modules/{k}/updates/dkms/nvidia-current.ko\n" for k in (kernel, following))
    tree = "".join(f"/var/lib/dkms/nvidia-current/{OLD}/{k}/x86_64\n" for k in (kernel, following))
    boot = "".join(f"initrd.img-{k}\nvmlinuz-{k}\n" for k in (kernel, following))
    commands = {
        "ls -d /lib/modules/*/updates/dkms/nvidia*": out(listing),
        "readlink -f /var/lib/dkms/*/kernel-*": out(tree),
        "ls /boot": out(boot),
    }
    found = [item.mechanism for item in foresee(rig(commands=commands).capture(), upgrade(rig()), catalogue())]

    assert "next-kernel-without-module" in found


def test_the_transaction_counts_more_than_the_wish() -> None:
    """What apt would bring along is in the predicted host, also what nobody named."""
    moves = (Move(name="nvidia-smi", action="upgrade", before="x", after=DEB, origin=""),)
    later = after(rig().capture(), upgrade(rig(), transaction=moves))

    assert value(later, "driver.packaged") == (OLD, NEW)


# What a plan mends.


def test_a_failed_unit_is_mended_by_the_plan_that_starts_it() -> None:
    """The mechanism names the part, the plan has the change, and the unit would run."""
    sick = rig(commands={UNITS_LINE: out(rig().units(nvidia_persistenced="failed"))}).capture()
    plan = HostPlan(host="rig-01", changes=(change(Service(name="nvidia-persistenced.service")),))
    (mend,) = mends(diagnose(sick, catalogue()), sick, plan, catalogue())

    assert [one.what for one in mend.changes] == ["service nvidia-persistenced.service"]


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        pytest.param(None, "no plan", id="no-lock"),
        pytest.param(HostPlan(host="rig-01", blocked=("no",)), "blocked", id="blocked"),
        pytest.param(HostPlan(host="rig-01"), "as locked", id="nothing-to-change"),
        pytest.param(
            HostPlan(host="rig-01", changes=(change(Service(name="docker.service")),)), "not enough", id="another-unit"
        ),
    ],
)
def test_why_a_plan_does_not_mend_it(plan: HostPlan | None, why: str) -> None:
    """Each with its own reason; nothing is claimed that the predicted host does not bear out."""
    sick = rig(commands={UNITS_LINE: out(rig().units(nvidia_persistenced="failed"))}).capture()
    (mend,) = mends(diagnose(sick, catalogue()), sick, plan, catalogue())

    assert (mend.by_plan, mend.why) == (False, why)


def test_a_foreign_file_is_left_to_its_owner() -> None:
    """No part of a plan takes somebody's blacklist away: by hand."""
    files = {"/etc/modprobe.d/x.conf": "blacklist nvidia\n", "/sys/module/nvidia/version": None, "/proc/modules": ""}
    sick = rig(files={**files, "/proc/driver/nvidia/version": None}).capture()
    plan = HostPlan(host="rig-01", changes=(change(File(path="/etc/modprobe.d/provision-nouveau.conf", content="x")),))
    found = mends(diagnose(sick, catalogue()), sick, plan, catalogue())

    assert [(m.finding.mechanism.id, m.why) for m in found][:1] == [("modprobe-keeps-nvidia-out", "by hand")]
