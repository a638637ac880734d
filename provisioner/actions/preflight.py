"""The steps of `provision preflight`: plan, look as closely as doctor, hold the mechanisms against what would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from provisioner.actions.plan import Planned, merged, with_ahead
from provisioner.actions.ports import Prober
from provisioner.doctor.diagnose import Catalogue
from provisioner.errors import HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan
from provisioner.probe.request import AHEAD, DOCTOR, Request

CLOSE = replace(
    DOCTOR,
    files=tuple(dict.fromkeys((*DOCTOR.files, *AHEAD.files))),
    listings=tuple(dict.fromkeys((*DOCTOR.listings, *AHEAD.listings))),
    commands=tuple(dict.fromkeys((*DOCTOR.commands, *AHEAD.commands))),
)
"""Doctor's look, with what a plan wants to see besides."""


def preflight(
    hosts: Sequence[InventoryHost], plan: Callable[[], Planned], prober: Prober, catalogue: Catalogue
) -> Planned:
    """Return the plan, each host's with all that would be wrong after it; who does not change is not looked at."""
    planned = plan()
    changing = [host for host in hosts if host.name in planned.plan.hosts and planned.plan.hosts[host.name].changes]
    looks = prober.probe(changing, {host.name: Request(CLOSE) for host in changing}) if changing else {}
    failed = dict(planned.failed)
    plans: dict[str, HostPlan] = dict(planned.plan.hosts)
    for name, look in looks.items():
        if isinstance(look, HostError):
            failed[name] = look
            del plans[name]
        else:
            capture = merged(look, planned.seen[name].capture)
            plans[name] = with_ahead(plans[name], planned.plan.locked[name], capture, catalogue)
    return replace(planned, plan=planned.plan.model_copy(update={"hosts": plans}), failed=failed)
