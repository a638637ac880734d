"""How long a host will not serve: an estimate from rough figures, so that a person can choose the hour.

The figures were seen on lab hosts with two cores (docs/benchmarks.md); a rig with more cores is faster.
"""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.model.plan import Change
from provisioner.model.resource import AbsentPackage, KernelModule, Package, RunningDriver

SECONDS_PER_PACKAGE = 1.0
SECONDS_PER_MODULE_BUILD = 180.0
SECONDS_PER_REBOOT = 90.0
SECONDS_TO_VERIFY = 15.0


def not_serving_s(changes: Sequence[Change], *, drains: bool, built_before: bool = False) -> int:
    """Return the seconds from the drain to the enrolment; 0 when the host serves all along.

    `built_before`: kernel modules are built while the host serves.
    """
    if not drains:
        return 0
    seconds = SECONDS_TO_VERIFY
    for change in changes:
        if isinstance(change.wanted, (Package, AbsentPackage)):
            seconds += SECONDS_PER_PACKAGE
        elif isinstance(change.wanted, KernelModule) and not built_before:
            seconds += SECONDS_PER_MODULE_BUILD
        elif isinstance(change.wanted, RunningDriver):
            seconds += SECONDS_PER_REBOOT
    return round(seconds)
