"""Runs every check of the table against every host that pytest-testinfra was given."""

from __future__ import annotations

import time
from typing import Any

import pytest

from provisioner.checks.check import Check, Seen, Verdict
from provisioner.checks.table import CHECKS
from provisioner.errors import HostError
from provisioner.model.stack import HostLock


def look(host: Any, command: str) -> Seen:
    """Run one look; a backend that knows when it asked is believed, otherwise the time around the call is taken."""
    sent = time.time()
    result = host.run(command)
    answered = time.time()
    return Seen(
        result.rc,
        result.stdout,
        result.stderr,
        getattr(result, "sent", sent),
        getattr(result, "answered", answered),
        getattr(result, "seconds", answered - sent),
    )


def made(check: Check, host: Any, wanted: HostLock) -> tuple[Verdict, float]:
    """Look and judge; a host that gives no shell (stock backends raise RuntimeError) makes the check unknown."""
    try:
        seen = tuple(look(host, command) for command in check.looks)
    except (HostError, RuntimeError) as error:
        return Verdict("unknown", f"not made: {error}"), 0.0
    return check.make(wanted, seen), sum(one.seconds for one in seen)


@pytest.mark.parametrize(
    "check", [pytest.param(check, id=check.id, marks=pytest.mark.looks(*check.looks)) for check in CHECKS]
)
def test_host(host: Any, check: Check, wanted: HostLock, request: pytest.FixtureRequest) -> None:
    """A required check that fails, or cannot be made, fails; an advisory one only says so."""
    verdict, seconds = made(check, host, wanted)
    for name, value in (
        ("host", host.backend.get_hostname()),
        ("check", check.id),
        ("title", check.title),
        ("required", check.required),
        ("status", verdict.status),
        ("detail", verdict.detail),
        ("seconds", round(seconds, 4)),
    ):
        request.node.user_properties.append((name, value))
    line = f"{check.title}: {verdict.detail or verdict.status}"
    if verdict.status in ("failed", "unknown") and check.required:
        pytest.fail(line, pytrace=False)
    if verdict.status != "passed":
        pytest.skip(line if check.required else f"{line} (advisory)")
