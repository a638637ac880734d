"""Sees what goes on at a host by itself, and waits for it: an apt or dpkg at work, a boot that began or is to come."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from provisioner.errors import HostError
from provisioner.model.shutdown import NOTED, Shutdown, scheduled
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

# The same two that the probe takes for a boot: a system container keeps its machine's boot id over a reboot.
ASK = f"""{ASK_AT_WORK}
first=$(cat /proc/1/stat); set -- ${{first##*)}}
echo "{BOOT}$(cat /proc/sys/kernel/random/boot_id):${{20}}"
echo "{CLOCK}$(date +%s)"
cat {NOTED} 2>/dev/null
:
"""
UP = '[ "$(systemctl is-system-running 2>/dev/null)" != stopping ]'
"""A shell condition that fails from the moment at which a host was told to reboot or halt."""

BACK_S = 600
"""How long a boot may last: some rigs take minutes before they come to their boot loader."""
PAUSE_S = 2.0
GOING_DOWN = "host-going-down"
GONE = ("ssh-unreachable", "ssh-timeout", GOING_DOWN)
"""References of a host that may only be in the middle of a boot, when it was seen a moment ago."""


@dataclass(frozen=True)
class UnderWay:
    """What goes on there: somebody changes packages, which boot it is in ("": it did not tell), what is to come."""

    apt: bool
    boot: str
    now_s: int = 0
    leaves: Shutdown | None = None


def look(host: InventoryHost, shell: HostShell) -> UnderWay:
    """See what goes on there. Raises HostError."""
    lines = shell.run(host, ASK).stdout.splitlines()
    now = _after(CLOCK, lines)
    leaves = scheduled("\n".join(lines)) if now.isdigit() else None
    return UnderWay(AT_WORK in lines, _after(BOOT, lines), int(now) if leaves else 0, leaves)


def _after(mark: str, lines: Sequence[str]) -> str:
    return next((line[len(mark) :] for line in lines if line.startswith(mark)), "")


def refuse_soon(host: InventoryHost, now: UnderWay) -> None:
    """Raises HostError `shutdown-scheduled` when the host is to leave before a change could be through."""
    if now.leaves is None or not now.leaves.too_soon(now.now_s):
        return
    minutes = max(0, -(-(now.leaves.at_s - now.now_s) // 60))
    raise HostError(
        "shutdown-scheduled",
        host.name,
        f"{host.name} is scheduled to {now.leaves.does} in {minutes} min, in the middle of what would be changed",
        context=(f"{NOTED} there: MODE={now.leaves.mode}",),
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
