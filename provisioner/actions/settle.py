"""Sees what goes on at a host by itself, and waits for it: an apt or dpkg at work, a boot that began or is to come."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from provisioner.errors import HostError
from provisioner.model.transaction import ASK_AT_WORK, AT_WORK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provisioner.actions.ports import HostShell
    from provisioner.model.inventory import InventoryHost

LIMIT_S = 900
WAIT = f"""
end=$(($(date +%s) + {LIMIT_S}))
while [ -n "$({ASK_AT_WORK})" ]; do
    [ "$(date +%s)" -lt "$end" ] || exit 75
    sleep 1
done
"""
BOOT = "# boot "
CLOCK = "# now "
SCHEDULED = "/run/systemd/shutdown/scheduled"
"""Where logind notes what `shutdown +MIN` or unattended-upgrades' Automatic-Reboot-Time asked for: USEC=, MODE=."""

# The same two that the probe takes for a boot: a system container keeps its machine's boot id over a reboot.
ASK = f"""{ASK_AT_WORK}
first=$(cat /proc/1/stat); set -- ${{first##*)}}
echo "{BOOT}$(cat /proc/sys/kernel/random/boot_id):${{20}}"
echo "{CLOCK}$(date +%s)"
cat {SCHEDULED} 2>/dev/null
:
"""
UP = '[ "$(systemctl is-system-running 2>/dev/null)" != stopping ]'
"""A shell condition that fails from the moment at which a host was told to reboot or halt."""

SOON_S = 3600
"""How long before a shutdown that somebody scheduled no change begins any more: as long as a run may hold a host."""

BACK_S = 600
"""How long a boot may last: some rigs take minutes before they come to their boot loader."""
PAUSE_S = 2.0
GOING_DOWN = "host-going-down"
_DOES = {"poweroff": "power off"}
GONE = ("ssh-unreachable", "ssh-timeout", GOING_DOWN)
"""References of a host that may only be in the middle of a boot, when it was seen a moment ago."""


@dataclass(frozen=True)
class UnderWay:
    """What goes on there: somebody changes packages, which boot it is in ("": it did not tell), what is to come."""

    apt: bool
    boot: str
    leaves: Leaves | None = None


@dataclass(frozen=True)
class Leaves:
    """A shutdown that somebody scheduled: `reboot`, `poweroff`, `halt` or `kexec`, and the seconds until then."""

    mode: str
    in_s: int


def look(host: InventoryHost, shell: HostShell) -> UnderWay:
    """See what goes on there. Raises HostError."""
    lines = shell.run(host, ASK).stdout.splitlines()
    return UnderWay(AT_WORK in lines, _after(BOOT, lines), _leaves(lines))


def _after(mark: str, lines: Sequence[str]) -> str:
    return next((line[len(mark) :] for line in lines if line.startswith(mark)), "")


def _leaves(lines: Sequence[str]) -> Leaves | None:
    """Whose mode begins with `dry-` only writes to the terminals (`shutdown -k`)."""
    now, at, mode = _after(CLOCK, lines), _after("USEC=", lines), _after("MODE=", lines)
    if not (now.isdigit() and at.isdigit()) or mode.startswith("dry-"):
        return None
    return Leaves(mode or "shutdown", max(0, int(at) // 1_000_000 - int(now)))


def refuse_soon(host: InventoryHost, now: UnderWay) -> None:
    """Raises HostError `shutdown-scheduled` when the host is to leave before a change could be through."""
    if now.leaves is None or now.leaves.in_s >= SOON_S:
        return
    does, minutes = _DOES.get(now.leaves.mode, now.leaves.mode), -(-now.leaves.in_s // 60)
    raise HostError(
        "shutdown-scheduled",
        host.name,
        f"{host.name} is scheduled to {does} in {minutes} min, in the middle of what would be changed",
        context=(f"{SCHEDULED} there: MODE={now.leaves.mode}",),
        hint=f"wait for it, or on the host: sudo shutdown -c; then: provision apply --limit {host.name}",
    )


def wait(host: InventoryHost, shell: HostShell) -> None:
    """Wait for it. Raises HostError `apt-at-work` when it does not come to its end."""
    answer = shell.run(host, WAIT, timeout_s=LIMIT_S + 60)
    if answer.rc != 0:
        raise HostError(
            "apt-at-work",
            host.name,
            f"{host.name}: another apt or dpkg is still at work after {LIMIT_S // 60} min",
            context=answer.stderr.strip().splitlines()[-3:],
            hint="on the host: sudo fuser -v /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock",
        )


def back(host: InventoryHost, shell: HostShell) -> None:
    """Wait until a host that has gone, or is going down, is up. Raises the HostError of the last try."""
    ends = time.monotonic() + BACK_S
    while True:
        try:
            if shell.run(host, UP, timeout_s=20).rc == 0:
                return
            problem = going_down(host)
        except HostError as lost:
            if lost.reference not in GONE:
                raise
            problem = lost
        if time.monotonic() >= ends:
            raise problem
        time.sleep(PAUSE_S)


def going_down(host: InventoryHost) -> HostError:
    """The error for a host on which systemd is stopping."""
    return HostError(
        GOING_DOWN,
        host.name,
        f"{host.name} is going down",
        hint=f"wait until it is up again: provision apply --limit {host.name}",
    )
