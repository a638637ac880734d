"""The host as such: units, clock, disk, pending reboots, and the gate before the client units."""

from __future__ import annotations

import re

from provisioner.checks.check import Check, NotMade, Seen, Verdict, cat, failed, found, listed, not_applicable, passed
from provisioner.checks.driver import KERNELS, running_and_next
from provisioner.checks.units import UNIT_STATES, units
from provisioner.model.shutdown import NOTED, scheduled
from provisioner.model.stack import HostLock

CLOCK = "date +%s.%N"
SYNCHRONISED = "timedatectl show --property=NTPSynchronized --value"
DISK = "LC_ALL=C df -Pk / /boot /var /var/lib/docker 2>/dev/null; :"
MOUNTS = cat("/proc/mounts")
_SCHEDULED = "scheduled "
REBOOT = rf"""sed -n 's/^[A-Z_]*=/scheduled &/p' {NOTED} 2>/dev/null
if [ -e /run/reboot-required ]; then cat /run/reboot-required.pkgs 2>/dev/null; exit 1; fi"""
CLIENTS = r"""
[ -e /var/lib/provision/enrolment.json ] && echo record
systemctl list-units --all --plain --no-legend --no-pager 'provision-client@*' provision-clients.target |
  sed 's/^/unit /'"""
STATE = r"""[ -e /var/lib/provision ] || exit 3; stat -c '%U %a' /var/lib/provision"""

OFFSET_S = 2.0
ROOT_MIB = 1024  # an upgrade of driver and runtime unpacks about this much before it removes the old files
BOOT_MIB = 128  # one more kernel and its initramfs


def failed_units(wanted: HostLock, seen: Seen) -> Verdict:
    names = [name for name, state in units(seen).items() if state.get("ActiveState") == "failed"]
    return failed(listed(names)) if names else passed()


def clock_offset(wanted: HostLock, seen: Seen) -> Verdict:
    """The host looked at its clock between `sent` and `answered`, so only what lies outside of that counts."""
    if not seen.sent:
        raise NotMade("the connection does not say when the question was sent")
    host = float(seen.output)
    offset = min(0.0, host - seen.sent) or max(0.0, host - seen.answered)
    words = f"{offset:+.1f} s" if offset else "within the time of the question"
    return found(abs(offset) < OFFSET_S, f"{words} against this machine")


def clock_synchronised(wanted: HostLock, synchronised: Seen, states: Seen) -> Verdict:
    running = [
        name
        for name, state in units(states).items()
        if re.match(r"chrony|ntp|systemd-timesyncd", name) and state.get("ActiveState") == "active"
    ]
    if not running:
        return failed("no service keeps the clock")
    if synchronised.rc == 0 and synchronised.stdout.strip() == "no":
        return failed(f"{listed(running)} runs, the clock is not synchronised yet")
    return passed(listed(running))


def _free(seen: Seen) -> dict[str, int]:
    """Mount point -> MiB free."""
    lines = [line.split() for line in seen.output.splitlines()[1:]]
    free = {fields[5]: int(fields[3]) // 1024 for fields in lines if len(fields) >= 6 and fields[3].isdigit()}
    if not free:
        raise NotMade("df named no file system")
    return free


def disk_root(wanted: HostLock, seen: Seen) -> Verdict:
    free = {mount: mib for mount, mib in _free(seen).items() if mount != "/boot"}
    tight = [f"{mount} has {mib} MiB" for mount, mib in sorted(free.items()) if mib < ROOT_MIB]
    return failed(f"{listed(tight)} free, {ROOT_MIB} wanted") if tight else passed(f"{min(free.values())} MiB free")


def disk_boot(wanted: HostLock, seen: Seen) -> Verdict:
    free = _free(seen).get("/boot")
    if free is None:
        return not_applicable("/boot is no file system of its own")
    return found(free >= BOOT_MIB, f"{free} MiB free, {BOOT_MIB} wanted")


def root_writable(wanted: HostLock, seen: Seen) -> Verdict:
    """A file system that met an error is remounted read-only, and everything seems well until the next write."""
    options = [fields[3].split(",") for line in seen.output.splitlines() if (fields := line.split())[1] == "/"]
    if not options:
        raise NotMade("/proc/mounts does not name /")
    return found("rw" in options[-1], "mounted read-write" if "rw" in options[-1] else "/ is mounted read-only")


def no_reboot_pending(wanted: HostLock, seen: Seen) -> Verdict:
    """Asked for by packages, or given a time: unattended-upgrades' Automatic-Reboot, somebody's `shutdown +MIN`."""
    lines = seen.stdout.splitlines()
    leaves = scheduled("\n".join(line.removeprefix(_SCHEDULED) for line in lines if line.startswith(_SCHEDULED)))
    names = {word for line in lines if not line.startswith(_SCHEDULED) for word in line.split()}
    reasons = []
    if leaves is not None:
        reasons.append(f"{leaves.mode} scheduled for {leaves.when}")
    if seen.rc != 0:
        reasons.append(f"asked for by {listed(sorted(names))}" if names else "asked for")
    return failed("; ".join(reasons)) if reasons else passed()


def newest_kernel_runs(wanted: HostLock, seen: Seen) -> Verdict:
    running, following = running_and_next(seen)
    if following is None:
        raise NotMade("which kernel boots next cannot be told")
    return found(running == following, f"runs {running}, boots next {following}")


def clients_gated(wanted: HostLock, seen: Seen) -> Verdict:
    lines = seen.output.splitlines()
    active = [
        fields[1]
        for line in lines
        if line.startswith("unit ") and len(fields := line.split()) > 3
        if fields[3] in ("active", "activating", "reloading")
    ]
    if "record" in lines:
        return passed("enrolled")
    return failed(f"running without an enrolment record: {listed(active)}") if active else passed("closed")


def state_private(wanted: HostLock, seen: Seen) -> Verdict:
    """Whoever can write there can open the gate and feed rollback."""
    if seen.rc == 3:
        return not_applicable("there is no /var/lib/provision yet")
    owner, mode = seen.output.split()
    return found(owner == "root" and not int(mode, 8) & 0o022, f"{owner}, mode {mode}")


CHECKS = (
    Check("clock-offset", f"Clock is within {OFFSET_S:g} s of this machine's", clock_offset, (CLOCK,)),
    Check(
        "clock-synchronised",
        "A service keeps the clock",
        clock_synchronised,
        (SYNCHRONISED, UNIT_STATES),
        required=False,
    ),
    Check("units-failed", "No unit has failed", failed_units, (UNIT_STATES,)),
    Check("disk-root", "Disk has room", disk_root, (DISK,)),
    Check("disk-boot", "/boot has room for one more kernel", disk_boot, (DISK,)),
    Check("root-writable", "/ can be written to", root_writable, (MOUNTS,)),
    Check("no-reboot-pending", "No reboot is asked for", no_reboot_pending, (REBOOT,), required=False),
    Check(
        "newest-kernel",
        "The kernel that runs is the one that boots next",
        newest_kernel_runs,
        (KERNELS,),
        required=False,
    ),
    Check("clients-gated", "Client units run only on an enrolled host", clients_gated, (CLIENTS,)),
    Check("state-private", "/var/lib/provision belongs to root alone", state_private, (STATE,)),
)
