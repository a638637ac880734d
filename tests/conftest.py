"""A test that needs a tool is skipped where the tool is missing, and fails where the set-up should have brought it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator

import pytest
from hypothesis import settings

# A law holds however busy the machine is: hypothesis's limit of 200 ms for an example would time the tests.
settings.register_profile("provision", deadline=None)
settings.load_profile("provision")

# What a shell starts in the background ignores Ctrl-C, and so does all that it starts; several tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """PROVISION_MUST_RUN names markers (`tools browser`); scripts/test sets it, because it installs what they need."""
    report = yield
    must = [name for name in os.environ.get("PROVISION_MUST_RUN", "").split() if item.get_closest_marker(name)]
    if report.skipped and must and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"PROVISION_MUST_RUN names '{must[0]}', and this was to be skipped: {reason}"
    return report
