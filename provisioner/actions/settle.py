"""Waits for what a killed run left going on a host by itself: an apt or dpkg at work, or a boot that had begun."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from provisioner.errors import HostError
from provisioner.model.transaction import ASK_AT_WORK, AT_WORK

if TYPE_CHECKING:
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
# The same two that the probe takes for a boot: a system container keeps its machine's boot id over a reboot.
ASK = f"""{ASK_AT_WORK}
first=$(cat /proc/1/stat); set -- ${{first##*)}}
echo "{BOOT}$(cat /proc/sys/kernel/random/boot_id):${{20}}"
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
    """Whether somebody changes packages on the host right now, and which boot it is in; "": it did not tell."""

    apt: bool
    boot: str


def look(host: InventoryHost, shell: HostShell) -> UnderWay:
    """See what goes on there. Raises HostError."""
    lines = shell.run(host, ASK).stdout.splitlines()
    return UnderWay(AT_WORK in lines, next((line[len(BOOT) :] for line in lines if line.startswith(BOOT)), ""))


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
