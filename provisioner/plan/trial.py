"""Whether a change is tried across its reboot, so that the host goes back by itself when nobody comes back to it."""

from __future__ import annotations

from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Policy
from provisioner.model.plan import Change, HostPlan, Trial
from provisioner.model.resource import RunningDriver
from provisioner.model.shutdown import Shutdown


def trial_of(plan: HostPlan, policy: Policy, facts: HostFacts) -> Trial | None:
    """Return the trial of a plan that reboots; None where there is nothing to go back to, or the policy has none.

    There is something when the host was enrolled before, with a driver that is still loaded.
    """
    driver = next((change for change in plan.changes if isinstance(change.wanted, RunningDriver)), None)
    if driver is None or driver.before in (None, "none") or not policy.trial_min or facts.enrolled_before is not True:
        return None
    assert isinstance(driver.wanted, RunningDriver)
    what = driver_move(driver)
    once, note = _kernel(facts)
    if once is not None:
        what += f" on kernel {once}"
    return Trial(minutes=policy.trial_min, what=what, driver=driver.wanted.version, once=once, note=note)


def driver_move(change: Change) -> str:
    """Return `driver 535.216.03 → 535.261.03`, and the flavours where the version stays."""
    before, after = ((text or "none").partition(" ")[0] for text in (change.before, change.after))
    return f"driver {before} → {after}" if before != after else f"driver {change.before} → {change.after}"


def notes_of(facts: HostFacts) -> tuple[str, ...]:
    """What the host did by itself, or is about to do: whoever comes next has to know."""
    trial = facts.trial
    told = [] if trial is UNKNOWN or trial is None else [trial.words]
    stays = facts.kernel.stays
    if isinstance(stays, str) and (trial is UNKNOWN or trial is None or not trial.live):
        told.append(stays)
    if isinstance(facts.shutdown, Shutdown):
        told.append(_leaves(facts.shutdown, facts.taken_at.timestamp()))
    return tuple(told)


def _leaves(shutdown: Shutdown, now_s: float) -> str:
    """What a run will refuse is said before it is begun."""
    told = f"it is scheduled to {shutdown.does} on {shutdown.when}"
    if shutdown.too_soon(now_s):
        return f"{told}: no change begins within an hour of that; on the host, to call it off: sudo shutdown -c"
    return told


def _kernel(facts: HostFacts) -> tuple[str | None, str]:
    """The kernel that boots once, or why the one that boots next is not tried."""
    running, fresh = facts.kernel.running, facts.kernel.next_boot
    if running is UNKNOWN or fresh is UNKNOWN or running == fresh:
        return None, ""
    if facts.kernel.installed is UNKNOWN or running not in facts.kernel.installed:
        return None, f"kernel {fresh} is not tried: {running}, which runs, is not in /boot"
    if facts.kernel.boots_once is True:
        return fresh, ""
    return None, f"kernel {fresh} is not tried: its boot loader cannot take a kernel once and forget it"
