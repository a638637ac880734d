"""Every check, in the order in which the table prints them."""

from __future__ import annotations

from provisioner.checks import driver, packages, runtime, system, tunnel
from provisioner.checks.check import Check

# The clock stands first among the looks too: its answer is the sharper the less was asked before it.
CHECKS: tuple[Check, ...] = (
    *system.CHECKS[:1],
    *driver.CHECKS,
    *packages.CHECKS,
    *runtime.CHECKS,
    *tunnel.CHECKS,
    *system.CHECKS[1:],
)
