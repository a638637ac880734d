"""Runs provisioner/checks under pytest, in this process and for all hosts at once, and takes the results as values.

The hosts are asked everything that the checks want to know before pytest is even imported, and each host's checks wait
for that host alone: what the controller computes costs no time while the hosts answer.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioner import __version__
from provisioner.adapters import ssh
from provisioner.adapters.looks import SHELLS_AT_ONCE, Looking
from provisioner.adapters.shell import Connection, Explain, Shell, not_reached
from provisioner.checks.table import CHECKS
from provisioner.errors import HostError, ProvisionError
from provisioner.model.enrolment import lock_digest
from provisioner.model.inventory import InventoryHost
from provisioner.model.results import CheckResult, Fault, HostVerification
from provisioner.model.stack import HostLock, Lock

if TYPE_CHECKING:
    import pytest

FOLDER = Path(__file__).resolve().parent.parent / "checks"


class TestinfraVerifier:
    """The Verifier of the command line: the checks over one open root shell per host."""

    __test__ = False  # pytest would take the name for a test

    def __init__(self, *, forks: int = SHELLS_AT_ONCE, timeout_s: float = 60) -> None:
        self._forks = forks
        self._timeout_s = timeout_s

    def verify(
        self, hosts: Sequence[InventoryHost], locked: Mapping[str, HostLock], *, run: str
    ) -> dict[str, HostVerification]:
        """Check each host against its lock entry. A host that gives no shell gets a fault instead of results."""
        if not hosts:
            return {}
        connections = {host.name: replace(connection(host), open_limit=self._timeout_s) for host in hosts}
        with contextlib.ExitStack() as stack:
            # In the order in which pytest-testinfra sorts hosts: whose checks come first is read first.
            shells = {name: Shell(name, connections[name]) for name in sorted(connections)}
            looking = Looking(shells, [look for check in CHECKS for look in check.looks], self._forks)
            stack.callback(looking.end)
            import pytest

            from provisioner.adapters import testinfra_backend

            collector = _Collector()
            names = []
            for name, known in connections.items():
                names.append(testinfra_backend.connect(name, known, looking))
                stack.callback(testinfra_backend.disconnect, name)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="provision-verify-")))
            lock = folder / "provision.lock"
            lock.write_text(
                Lock(made_by=__version__, matrix="", hosts={h.name: locked[h.name] for h in hosts}).model_dump_json()
            )
            (folder / "pytest.ini").write_text("[pytest]\n")
            stack.enter_context(_untouched_by_the_environment())
            code = pytest.main(_arguments(folder, lock, names), plugins=[testinfra_backend, collector])
            faults = looking.faults()
        if code == pytest.ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise ProvisionError(
                "checks-not-run",
                "the checks themselves could not be run",
                context=collector.trouble[-12:] or (f"pytest ended with exit code {int(code)}",),
                hint="this is a defect of provision; please report it with the lines above",
            )
        return {
            host.name: collector.verification(host.name, run, lock_digest(locked[host.name]), faults.get(host.name))
            for host in hosts
        }


def connection(host: InventoryHost) -> Connection:
    """How to open a root shell on a host: the shared ssh connection that probe and playbook use, or this machine."""
    target = ssh.Target.from_variables(host.name, host.variables)
    session = ssh.session(target, ("sh",))
    return Connection(session.argv, session.before, _explain(target))


def _explain(target: ssh.Target) -> Explain:
    def explain(host: str, rc: int, stderr: str) -> HostError:
        return ssh.explain(target, rc, stderr) or not_reached(host, rc, stderr)

    return explain


def _arguments(folder: Path, lock: Path, names: Sequence[str]) -> list[str]:
    """Nothing of the user's own pytest settings, and no plugin that the checks do not need."""
    without = ("cacheprovider", "terminal", "junitxml", "warnings", "logging", "faulthandler", "doctest", "unittest")
    return [
        *("-c", str(folder / "pytest.ini"), "--rootdir", str(folder)),
        *("--confcutdir", str(FOLDER)),
        *("--capture=no", "--assert=plain", "-p", "testinfra.plugin"),
        *(word for name in without for word in ("-p", f"no:{name}")),
        *("--provision-lock", str(lock), f"--hosts={','.join(names)}"),
        str(FOLDER / "test_host.py"),
    ]


@contextlib.contextmanager
def _untouched_by_the_environment() -> Iterator[None]:
    """Somebody's PYTEST_ADDOPTS=-x must not decide which checks are made."""
    kept = {name: os.environ.pop(name, None) for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")}
    kept["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Collector:
    """A pytest plugin that keeps what the tests noted."""

    def __init__(self) -> None:
        self.results: dict[str, list[CheckResult]] = {}
        self.trouble: tuple[str, ...] = ()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        noted: dict[str, Any] = dict(report.user_properties)
        if report.when == "call" and "status" in noted:
            self.results.setdefault(noted["host"], []).append(
                CheckResult(
                    host=noted["host"],
                    id=noted["check"],
                    title=noted["title"],
                    status=noted["status"],
                    required=noted["required"],
                    detail=noted["detail"],
                    seconds=noted["seconds"],
                )
            )
        elif report.failed:
            self.trouble += tuple(str(report.longrepr).splitlines())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.trouble += tuple(str(report.longrepr).splitlines())

    def pytest_internalerror(self, excrepr: object) -> None:
        self.trouble += tuple(str(excrepr).splitlines())

    def verification(self, host: str, run: str, digest: str, error: HostError | None) -> HostVerification:
        """What came of one host; a host without results and without a fault is a defect of ours, not a pass."""
        if error is not None:
            fault = Fault(error.reference, error.message, error.context, error.hint)
            return HostVerification(host, run, digest, (), fault)
        results = tuple(self.results.get(host, ()))
        if not results or self.trouble:
            fault = Fault("checks-not-run", f"{host}: the checks could not be run", self.trouble[-12:])
            return HostVerification(host, run, digest, results, fault)
        return HostVerification(host, run, digest, results)
