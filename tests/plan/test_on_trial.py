"""When a change is tried across its reboot, and what a plan says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provisioner.actions.observe import Seen
from provisioner.actions.plan import goal_of, plan_for
from provisioner.cli.views.plan import host_lines
from provisioner.facts import trial as facts
from provisioner.model.capture import UNKNOWN, Capture, CommandOutput
from provisioner.model.facts import HostFacts, TrialFacts
from provisioner.model.intent import Intent, Policy
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan
from provisioner.model.shutdown import Shutdown
from tests.world import KERNEL, WHEN, entry, fitting_capture, fitting_facts


class Keys:
    def verifies(self, record: object) -> bool:
        return True


def plan(*, minutes: int = 15, loaded: str | None = "535.216.03", **changes: object) -> HostPlan:
    """An enrolled host on which another driver is loaded than the locked one."""
    lock = entry(intent=Intent(networks=("akash",), policy=Policy(trial_min=minutes)))
    seen: HostFacts = replace(fitting_facts(lock), enrolled_before=True)
    seen = replace(seen, driver=replace(seen.driver, loaded=loaded))
    seen = replace(seen, **changes)  # type: ignore[arg-type]
    host = InventoryHost("rig-01", {}, lock.intent)
    return plan_for(Seen(host, fitting_capture(lock), seen), goal_of(lock, "m"), Keys())


def test_a_reboot_into_another_driver_is_tried() -> None:
    """The plan says in a line what the host does by itself."""
    made = plan()

    assert made.trial is not None
    assert (made.trial.what, made.trial.driver, made.trial.once) == (
        "driver 535.216.03 → 535.261.03",
        "535.261.03",
        None,
    )
    assert "on trial: back by itself unless sound and confirmed within 15 min" in "\n".join(host_lines(made, 6))


def test_a_change_of_flavour_alone_names_the_flavours() -> None:
    """`535.261.03 → 535.261.03` would tell nothing, neither on the first line nor in the trial."""
    lock = entry(intent=Intent(networks=("akash",)))
    driver = fitting_facts(lock).driver
    made = plan(loaded="535.261.03", driver=replace(driver, loaded_flavour="open"))

    words = "driver 535.261.03 (open) → 535.261.03 (proprietary)"
    assert made.trial is not None and made.trial.what == words
    assert "\n".join(host_lines(made, 6)).startswith(f"rig-01  {words} ")


@pytest.mark.parametrize(
    "changes", [{"minutes": 0}, {"loaded": None}, {"enrolled_before": False}, {"enrolled_before": UNKNOWN}]
)
def test_nothing_to_go_back_to_is_not_tried(changes: dict[str, object]) -> None:
    """Nor what the policy does not want, nor what was not seen."""
    assert plan(**changes).trial is None  # type: ignore[arg-type]


def test_no_reboot_no_trial() -> None:
    assert plan(loaded="535.261.03").trial is None


@pytest.mark.parametrize(("once", "expected"), [(True, "6.1.0-57-amd64"), (False, None), (UNKNOWN, None)])
def test_the_kernel_that_boots_next_is_tried_where_the_loader_can(once: object, expected: str | None) -> None:
    """Where it cannot, the plan says so."""
    fresh = "6.1.0-57-amd64"
    kernel = replace(
        fitting_facts(entry()).kernel,
        installed=(KERNEL, fresh),
        next_boot=fresh,
        headers=(KERNEL, fresh),
        boots_once=once,  # type: ignore[arg-type]
    )
    made = plan(kernel=kernel)

    assert made.trial is not None
    assert made.trial.once == expected
    text = "\n".join(host_lines(made, 6))
    assert (f"GRUB boots kernel {fresh} once" in text) == (expected is not None)
    assert (f"kernel {fresh} is not tried" in text) == (expected is None)


NOTE = (
    '{"state": "back", "what": "driver 1 → 2", "at": "2026", "why": "nobody confirmed", "problem": "", "limit_s": 900}'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NOTE, TrialFacts("back", "driver 1 → 2", "2026", 900, "nobody confirmed")),
        (None, None),
        ("{", UNKNOWN),
        ('{"state": "back"}', UNKNOWN),
        ("[]", UNKNOWN),
    ],
)
def test_what_the_host_noted(text: str | None, expected: object) -> None:
    """A note that cannot be read is not none."""
    seen = Capture(host="a", taken_at=WHEN, probe="0", files={facts.STATE: text}, commands={})

    assert facts.read(seen) == expected
    assert facts.read(seen.model_copy(update={"files": {}})) == UNKNOWN


def test_enrolled_before() -> None:
    """A listing that was not made says nothing."""
    line = "ls -d /var/lib/provision/history/now.json"
    found = {
        rc: CommandOutput(rc=rc, stdout=out, stderr=err)
        for rc, out, err in (
            (0, "/var/lib/provision/history/now.json\n", ""),
            (2, "", "ls: cannot access: No such file or directory"),
        )
    }
    seen = Capture(host="a", taken_at=WHEN, probe="0", files={}, commands={})

    assert facts.enrolled_before(seen) is UNKNOWN
    assert facts.enrolled_before(seen.model_copy(update={"commands": {line: found[0]}})) is True
    assert facts.enrolled_before(seen.model_copy(update={"commands": {line: found[2]}})) is False


def test_a_host_that_went_back_is_told_of() -> None:
    """With the reason, in the plan that would try it again."""
    made = plan(
        trial=TrialFacts("back", "driver 535.216.03 → 535.261.03", "2026-11-25T05:00:00Z", 900, "sshd does not run")
    )

    assert "the host went back by itself, driver 535.216.03 → 535.261.03 did not stay" in "\n".join(host_lines(made, 6))


@pytest.mark.parametrize(
    ("ahead_s", "mode", "expected"),
    [
        (2400, "reboot", "reboot on 2026-11-24 03:47 UTC: no change begins within an hour of that"),
        (3600, "poweroff", "power off on 2026-11-24 04:07 UTC"),
        (-60, "shutdown", "shut down on"),
    ],
)
def test_a_scheduled_shutdown_is_told_before_a_run_refuses_it(ahead_s: int, mode: str, expected: str) -> None:
    at = int(WHEN.timestamp()) + ahead_s
    made = plan(shutdown=Shutdown(mode, at))

    assert not made.blocked  # whoever reads it now may apply it later
    assert [note.startswith("it is scheduled to ") for note in made.notes] == [True]
    assert expected in made.notes[0]
    assert ("sudo shutdown -c" in made.notes[0]) == (ahead_s < 3600)
    assert expected in "\n".join(host_lines(made, 6))


@pytest.mark.parametrize("shutdown", [None, UNKNOWN])
def test_no_scheduled_shutdown_no_word(shutdown: object) -> None:
    assert not plan(shutdown=shutdown).notes
