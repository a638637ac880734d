"""A plan after which the next boot would have no driver is blocked, and says what to type next."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from provisioner.cli.views.plan import host_lines
from provisioner.model.capture import UNKNOWN, CommandOutput
from provisioner.model.facts import HostFacts, KernelFacts, ModuleBuild, Package
from provisioner.model.intent import Intent, Policy
from provisioner.model.plan import HostPlan
from provisioner.model.resource import AbsentPackage, Hold, KernelModule, NoRunFile
from provisioner.model.stack import HostLock
from provisioner.plan.kernels import SIGNING, asks_for_a_key, boot_refusals, key_refusals
from provisioner.plan.order import host_plan
from provisioner.resources.difference import difference
from provisioner.resources.wanted import beside_the_lock, wanted
from tests import world

LOCK = world.entry()
FACTS = world.fitting_facts(LOCK)
NEW = "6.1.0-57-amd64"


def plan(facts: HostFacts, lock: HostLock = LOCK, *, bare: bool = False) -> HostPlan:
    capture = world.bare_capture(lock) if bare else world.fitting_capture(lock)
    resources = (*wanted(lock), *beside_the_lock(lock, facts))
    return host_plan("rig-01", lock, difference(resources, facts, capture), enrolled=True)


def booting(release: str, *headers: str, modules: tuple[ModuleBuild, ...] | None = None) -> HostFacts:
    kernel = KernelFacts(world.KERNEL, (world.KERNEL, release), release, (world.KERNEL, *headers))
    driver = FACTS.driver if modules is None else replace(FACTS.driver, modules=(*modules,))
    return replace(FACTS, kernel=kernel, driver=driver)


def test_a_kernel_without_headers_that_boots_next_stops_everything() -> None:
    """Somebody installed it beside the driver; the next reboot, whoever makes it, would have no GPU."""
    facts = booting(NEW)

    [line] = boot_refusals(plan(facts), LOCK, facts)

    assert line.startswith(f"kernel {NEW} boots next, and has neither a module of driver 535.261.03 nor headers")
    assert f"Install linux-headers-{NEW}" in line


def test_a_new_kernel_with_headers_gets_its_module() -> None:
    """The lock does not know of it; the module is built all the same, and no reboot is needed for that."""
    facts = booting(NEW, NEW)
    found = plan(facts)

    assert boot_refusals(found, LOCK, facts) == ()
    assert [c.wanted for c in found.changes] == [
        KernelModule(kernel=NEW, version=world.DRIVER, flavour="proprietary"),
    ]
    assert not found.reboot


def test_a_new_kernel_with_its_module_is_fine() -> None:
    built = ModuleBuild(world.KERNEL, world.DRIVER, "proprietary")
    facts = booting(NEW, modules=(built, replace(built, kernel=NEW)))

    assert boot_refusals(plan(facts), LOCK, facts) == ()


def test_headers_that_the_lock_brings_are_enough() -> None:
    lock = world.entry(packages=(*LOCK.packages, world.locked(f"linux-headers-{NEW}", "6.1.180-1", "kernel")))

    assert boot_refusals(plan(booting(NEW), lock), lock, booting(NEW)) == ()


def test_what_was_not_seen_is_not_held_against_a_host() -> None:
    facts = replace(FACTS, kernel=replace(FACTS.kernel, next_boot=UNKNOWN))

    assert boot_refusals(plan(facts), LOCK, facts) == ()


@pytest.mark.parametrize(("free", "blocked"), [(40, True), (100, False), (None, False)])
def test_a_full_boot_stops_a_change_that_builds_an_image(free: int | None, blocked: bool) -> None:
    """An image that is cut short does not boot, and dpkg calls it installed."""
    disk = {"/": 9000} if free is None else {"/": 9000, "/boot": free}
    bare = replace(world.bare_facts(), disk_free_mib=disk)

    lines = boot_refusals(plan(bare, bare=True), LOCK, bare)

    assert [line.startswith("/boot has 40 MiB free") for line in lines] == ([True] if blocked else [])
    assert boot_refusals(plan(replace(FACTS, disk_free_mib=disk)), LOCK, replace(FACTS, disk_free_mib=disk)) == ()


def test_kernels_are_held_with_the_driver() -> None:
    """What the lock does not name: the kernel and the package that would bring the next one."""
    assert isinstance(FACTS.packages, dict)
    names = ("linux-image-amd64", f"linux-image-{world.KERNEL}", "linux-base", "linux-headers-6.1.0-50-common")
    packages = {**FACTS.packages, **{name: Package(name, "6.1.175-1", held=False) for name in names}}
    facts = replace(FACTS, packages=packages)

    found = plan(facts)

    assert [c.wanted for c in found.changes] == [
        Hold(name=f"linux-image-{world.KERNEL}"),
        Hold(name="linux-image-amd64"),
    ]
    assert (found.drain, found.reboot) == ((), False)
    free = world.entry(intent=Intent(networks=("akash",), policy=Policy(hold_kernel=False)))
    assert plan(facts, free).up_to_date


def test_a_driver_of_nvidias_installer_is_taken_away_first() -> None:
    """Found by its uninstaller; its replacement drains like any other change, and says what it cannot do."""
    facts = replace(FACTS, driver=replace(FACTS.driver, run_file_install=True, library="570.86.15"))
    [change] = [c for c in plan(facts).changes if isinstance(c.wanted, NoRunFile)]

    assert (change.before, change.phase) == ("installed, 570.86.15", "change")
    assert change.notes == (
        "driver 570.86.15 of NVIDIA's installer (.run) goes first; a rollback cannot bring it back",
    )
    assert f"             {change.notes[0]}" in host_lines(plan(facts), 6)
    assert plan(facts).drain == ("akash",)


def test_the_other_flavours_modules_of_the_same_branch_go() -> None:
    """Both would be built for one card."""
    assert isinstance(FACTS.packages, dict)
    name = "nvidia-open-kernel-dkms"
    facts = replace(FACTS, packages={**FACTS.packages, name: Package(name, world.DRIVER_DEB, held=False)})

    assert AbsentPackage(name=name) in [c.wanted for c in plan(facts).changes]


def test_secure_boot_asks_for_a_key_only_where_a_module_is_built() -> None:
    bare = world.bare_facts()
    on = replace(bare, driver=replace(bare.driver, secure_boot=True))

    assert asks_for_a_key(plan(on, bare=True), on)
    assert not asks_for_a_key(plan(bare, bare=True), bare)
    assert not asks_for_a_key(plan(FACTS), replace(FACTS, driver=replace(FACTS.driver, secure_boot=True)))


@pytest.mark.parametrize(
    ("said", "steps"),
    [
        ("/var/lib/dkms/mok.pub is already enrolled\n", []),
        (
            "/var/lib/dkms/mok.pub is not enrolled\n",
            ["mokutil --import", "reboot, and at the console", "provision plan"],
        ),
        ("/var/lib/dkms/mok.pub is already in the enrollment request\n", ["reboot, and at", "provision plan"]),
        ("", ["dkms generate_mok", "mokutil --import", "reboot, and at the console", "provision plan"]),
        ("no mokutil\n", ["apt-get install mokutil dkms", "dkms generate_mok", "mokutil --import", "reboot", "prov"]),
    ],
)
def test_without_an_enrolled_key_the_exact_steps_are_told(said: str, steps: list[str]) -> None:
    """Only the steps that are left, numbered, each a command or what is to be seen at the console."""
    head = key_refusals(CommandOutput(rc=0, stdout=said))

    assert len(head[1:]) == len(steps)
    for number, (line, step) in enumerate(zip(head[1:], steps, strict=True), 1):
        assert line.startswith(f"  {number}. {step}")


def test_the_question_about_keys_is_a_shell_line() -> None:
    assert subprocess.run(["sh", "-n", "-c", SIGNING], check=False).returncode == 0
