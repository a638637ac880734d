"""Options and fixtures of the checks: the lock entry of the host at hand, and where results are noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provisioner.model.stack import HostLock, Lock


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("provision").addoption(
        "--provision-lock",
        metavar="FILE",
        default="provision.lock",
        help="the lock that the hosts are checked against (default provision.lock)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "looks(*commands): commands that only read, shared by all tests of a host")


@pytest.fixture(scope="session")
def lock(pytestconfig: pytest.Config) -> Lock:
    path = Path(pytestconfig.getoption("provision_lock"))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise pytest.UsageError(f"--provision-lock: {path}: {error.strerror}") from error
    if text.lstrip().startswith("{"):
        return Lock.model_validate_json(text)
    import yaml

    return Lock.model_validate(yaml.safe_load(text))


@pytest.fixture
def wanted(host: Any, lock: Lock) -> HostLock:
    """The lock entry of the host that is being checked."""
    name = host.backend.get_hostname()
    entry = lock.hosts.get(name)
    if entry is None:
        pytest.fail(
            f"not made: {name} is not in the lock (it has {', '.join(lock.hosts) or 'no hosts'})", pytrace=False
        )
    return entry
