"""Refuses a plan after which the next boot has no driver: no module for that kernel, no room, no enrolled key."""

from __future__ import annotations

from provisioner.model.capture import UNKNOWN, CommandOutput, Unknown
from provisioner.model.facts import HostFacts
from provisioner.model.manager import Manager, manager_of
from provisioner.model.plan import HostPlan
from provisioner.model.resource import AbsentFile, File, KeptFile, KernelModule, Package
from provisioner.model.stack import HostLock

BOOT_SPARE_MIB = 100
"""A boot image of Debian with all modules takes 30 to 80 MiB, and the new one is written beside the old one."""

SIGNING = (
    "command -v mokutil >/dev/null || echo no mokutil; "
    "for key in /var/lib/dkms/mok.pub /var/lib/shim-signed/mok/MOK.der; do "
    'test -e "$key" && LC_ALL=C mokutil --test-key "$key" 2>&1; done; true'
)
"""Asks which of the keys that DKMS signs with are enrolled; only where Secure Boot is on and a module will be built."""


def boot_refusals(plan: HostPlan, lock: HostLock, facts: HostFacts) -> tuple[str, ...]:
    """Return why the host may not be changed, as far as facts tell: each line says what to type next."""
    if lock.driver_version is None:
        return ()
    return (*_without_module(lock, facts), *_without_room(plan, lock, facts))


def _without_module(lock: HostLock, facts: HostFacts) -> tuple[str, ...]:
    """The kernel that boots next must have the module, or what it is built from."""
    assert lock.driver_version is not None
    release, headers, modules = facts.kernel.next_boot, facts.kernel.headers, facts.driver.modules
    if release is UNKNOWN or headers is UNKNOWN or modules is UNKNOWN:
        return ()
    names = {package.name for package in lock.packages}
    prebuilt = any(name.startswith("linux-modules-nvidia-") and name.endswith(f"-{release}") for name in names)
    dnf = manager_of(lock.os) == "dnf"
    devel = any(p.name == "kernel-devel" and f"{p.version}.{p.architecture}" == release for p in lock.packages)
    there = any(build.kernel == release and build.version == lock.driver_version.value for build in modules)
    if there or release in headers or prebuilt or devel or f"linux-headers-{release}" in names:
        return ()
    package = f"kernel-devel-{release}" if dnf else f"linux-headers-{release}"
    return (
        f"kernel {release} boots next, and has neither a module of driver {lock.driver_version.value} nor headers to "
        f"build one: after a reboot the host would have no GPU. Install {package}, or let provision "
        "resolve lock it; where no source offers it, remove that kernel",
    )


def _without_room(plan: HostPlan, lock: HostLock, facts: HostFacts) -> tuple[str, ...]:
    free = UNKNOWN if facts.disk_free_mib is UNKNOWN else facts.disk_free_mib.get("/boot", UNKNOWN)
    if free is UNKNOWN or free >= BOOT_SPARE_MIB or not _builds_boot_image(plan):
        return ()
    return (
        f"/boot has {free} MiB free, and the boot image is built anew beside the old one: {BOOT_SPARE_MIB} MiB are "
        f"needed. Remove kernels that are not used: {_REMOVE[manager_of(lock.os)]}",
    )


_REMOVE = {"apt": "apt-get autoremove --purge", "dnf": "dnf remove --oldinstallonly"}


def _builds_boot_image(plan: HostPlan) -> bool:
    return any(
        (isinstance(c.moves, Package) and c.moves.unit in ("driver", "kernel"))
        or (isinstance(c.wanted, (File, KeptFile, AbsentFile)) and c.wanted.rebuilds_initramfs)
        for c in plan.changes
    )


def asks_for_a_key(plan: HostPlan, facts: HostFacts) -> bool:
    """Whether the change builds a module that the kernel takes only signed. Ubuntu's prebuilt ones are signed."""
    if facts.driver.secure_boot is not True:
        return False
    return any(isinstance(c.wanted, KernelModule) or (c.moves and "dkms" in c.moves.name) for c in plan.changes)


def key_refusals(answer: CommandOutput | Unknown, manager: Manager = "apt") -> tuple[str, ...]:
    """Return the steps at the console when no key is enrolled that DKMS would sign with; () when one is."""
    if answer is UNKNOWN:
        return ("Secure Boot is on, and whether a key of this host is enrolled could not be seen",)
    if "is already enrolled" in answer.stdout:
        return ()
    steps = []
    if "no mokutil" in answer.stdout:
        steps.append(f"{'apt-get' if manager == 'apt' else manager} install mokutil dkms")
    if "/mok" not in answer.stdout.lower():
        steps.append("dkms generate_mok                             (makes the key; DKMS signs with it)")
    if "in the enrollment request" not in answer.stdout:
        steps.append("mokutil --import /var/lib/dkms/mok.pub        (asks for a password for once)")
    steps.append("reboot, and at the console: Enroll MOK → Continue → Yes → that password → Reboot")
    steps.append("provision plan")
    return (
        "Secure Boot is on, and no key is enrolled that this host could sign the module with: the kernel would "
        "refuse it. Somebody has to do this at the console, once:",
        *(f"  {number}. {step}" for number, step in enumerate(steps, 1)),
    )
