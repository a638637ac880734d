"""Ends the trial of a change on a host, and says what to say of one that is going back by itself already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from provisioner.errors import HostError
from provisioner.host.trial import BUSY, FOLDER

if TYPE_CHECKING:
    from provisioner.actions.ports import HostShell
    from provisioner.model.inventory import InventoryHost

RUN = f"{FOLDER}/run"
CONFIRM = f"[ ! -x {RUN} ] || {RUN} confirm || exit $?"
CANCEL = f"[ ! -x {RUN} ] || {RUN} cancel || exit $?"


def cancel(host: InventoryHost, shell: HostShell) -> None:
    """Somebody else takes the change back, or goes on from it. Raises HostError when the host is at it itself."""
    answer = shell.run(host, CANCEL)
    if answer.rc != 0:
        raise went_back(host.name, answer.stderr)


def went_back(host: str, said: str) -> HostError:
    """Return what is to be said of a host that began to go back by itself before it was confirmed."""
    return HostError(
        "trial-ended",
        host,
        f"{host} takes the change back by itself",
        context=said.strip().splitlines()[-3:],
        hint=f"provision status {host} tells when it is back; provision_policy.trial_min says how long it waits",
    )


__all__ = ["BUSY", "CANCEL", "CONFIRM", "cancel", "went_back"]
