"""Several looks at one host as one capture: what counts of which."""

from __future__ import annotations

from datetime import timedelta

from provisioner.actions.plan import merged
from provisioner.facts.machine import clock_skew_s
from provisioner.model.capture import Capture, CommandOutput
from tests.world import WHEN


def look(seconds: float, *, tells_time: bool = True, **commands: str) -> Capture:
    """A look so many seconds after the first; the host's clock is the controller's."""
    at = WHEN + timedelta(seconds=seconds)
    said = {name: CommandOutput(rc=0, stdout=text) for name, text in commands.items()}
    if tells_time:
        said["date +%s.%N"] = CommandOutput(rc=0, stdout=f"{at.timestamp():.9f}\n")
    return Capture(host="rig-01", taken_at=at, probe="0.1.0", files={}, commands=said)


def test_a_second_look_much_later_does_not_put_the_clock_wrong() -> None:
    """The host's time of the second look was held against the time of the first: 43 s off, and the plan was blocked."""
    whole = merged(look(0, uname="first"), look(43, hostname="second"))

    assert clock_skew_s(whole, whole.taken_at) == 0.0
    assert set(whole.commands) == {"uname", "hostname", "date +%s.%N"}


def test_a_look_that_tells_no_time_leaves_the_first_ones() -> None:
    whole = merged(look(0), look(43, tells_time=False))

    assert whole.taken_at == WHEN
    assert clock_skew_s(whole, whole.taken_at) == 0.0
