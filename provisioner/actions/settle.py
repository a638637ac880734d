"""Waits on a host until nobody's apt or dpkg is at work there: one that a killed run left behind goes on by itself."""

from __future__ import annotations

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


def at_work(host: InventoryHost, shell: HostShell) -> bool:
    """Whether somebody changes packages on the host right now."""
    return AT_WORK in shell.run(host, ASK_AT_WORK).stdout


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
