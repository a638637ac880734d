"""A testinfra backend over one open shell per host, and the pytest plugin that reads all hosts at once.

`shell://rig-01` names a host whose connection was given with `connect`, or else one that plain `ssh rig-01` reaches.
Loading this module registers the backend, so `pytest -p provisioner.adapters.testinfra_backend --hosts=shell://rig-01`
works with every stock testinfra module. As a plugin it also honours the mark `looks`: commands that only read, which
all tests of a host share. They are sent to all hosts side by side before the first test, and `host.run` of the same
text is then answered from what came back. Under any other backend the mark does nothing and `host.run` runs them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, unquote

import pytest
import testinfra.backend
import testinfra.host
from testinfra.backend import base

from provisioner.adapters.looks import SHELLS_AT_ONCE, Looking
from provisioner.adapters.shell import Answer, Connection, Shell
from provisioner.errors import HostError

SCHEME = "shell"


_connections: dict[str, Connection] = {}
_ahead: dict[str, Looking] = {}


def connect(host: str, connection: Connection, ahead: Looking | None = None) -> str:
    """Say how `host` is reached; returns its testinfra name, such as `shell://rig-01`.

    `ahead` holds looks that are being read already; tests wait for their own host only.
    """
    _connections[host] = connection
    if ahead is not None:
        _ahead[host] = ahead
    return f"{SCHEME}://{quote(host, safe='')}"


def disconnect(host: str) -> None:
    """Forget how `host` is reached, and the password that may have been part of it."""
    _connections.pop(host, None)
    _ahead.pop(host, None)


def plain_ssh(host: str, *, ssh_config: str | None = None, identity: str | None = None) -> tuple[str, ...]:
    """The connection of a host that nobody described: as the user's own ssh would reach it."""
    return (
        "ssh",
        *(("-F", ssh_config) if ssh_config else ()),
        *(("-i", identity) if identity else ()),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
        *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s"),
        *("-o", f"ControlPath=/tmp/provision-{os.getuid()}-%C"),
        host,
        'if [ "$(id -u)" = 0 ]; then exec sh; else exec sudo -n sh; fi',
    )


class TimedResult(base.CommandResult):  # type: ignore[misc]  # testinfra's classes count as untyped
    """A result that also knows when, by the controller's clock, its command was sent and answered."""

    sent: float = 0.0
    answered: float = 0.0
    seconds: float = 0.0


class ShellBackend(base.BaseBackend):  # type: ignore[misc]  # as above
    """testinfra's contract over one open shell."""

    NAME = SCHEME

    def __init__(
        self,
        hostspec: str,
        ssh_config: str | None = None,
        ssh_identity_file: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(unquote(hostspec), *args, **kwargs)
        known = _connections.get(self.hostname) or Connection(
            plain_ssh(self.hostname, ssh_config=ssh_config, identity=ssh_identity_file)
        )
        self._shell = Shell(self.hostname, known)
        self._ahead = _ahead.get(self.hostname)
        self._looks: dict[str, Answer] = {}
        self.fault: HostError | None = None
        """Why the host could not be reached when its looks were read; every run then fails at once with it."""

    @property
    def reads_ahead(self) -> bool:
        """Whether this host's looks were begun before the tests were collected."""
        return self._ahead is not None

    def get_encoding(self) -> str:
        """What hosts of today write; asking each costs a Python start."""
        return "utf-8"

    def decode(self, data: bytes) -> str:
        return data.decode("utf-8", "replace")

    def run(self, command: str, *args: str, **kwargs: Any) -> base.CommandResult:
        self._take_ahead()
        if self.fault is not None:
            raise self.fault
        line = self.get_command(command, *args)
        answer = self._looks.get(line) or self._shell.run(line, limit=float(kwargs.get("limit", 120.0)))
        result = TimedResult(
            backend=self,
            exit_status=answer.rc,
            command=line.encode("utf-8", "surrogateescape"),
            _stdout=answer.stdout,
            _stderr=answer.stderr,
        )
        result.sent, result.answered, result.seconds = answer.sent, answer.answered, answer.seconds
        return result

    def _take_ahead(self) -> None:
        """Take what was read ahead, waiting for it when it is still on its way."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        try:
            answers = ahead.answers(self.hostname)
        except HostError as error:
            self.fault = error
            return
        self._looks |= {self.get_command(command): answer for command, answer in answers.items()}

    def look(self, commands: Iterable[str]) -> None:
        """Read these once; until `forget`, running one of them returns what was read."""
        lines = [self.get_command(command) for command in commands]
        try:
            self._looks |= dict(zip(lines, self._shell.look(lines), strict=True))
        except HostError as error:
            self.fault = error

    def give_up(self) -> None:
        """End a look that is under way in another thread."""
        self._shell.give_up()

    def forget(self) -> None:
        """Drop what was read and close the shell; the next use opens it again."""
        self._looks.clear()
        self.fault = None
        self._shell.close()


testinfra.backend.BACKENDS[SCHEME] = f"{__name__}.{ShellBackend.__name__}"


def look_at_all(wanted: Mapping[ShellBackend, Iterable[str]], at_once: int = SHELLS_AT_ONCE) -> None:
    """Read the looks of all hosts side by side; a host's failure stays its own."""
    if not wanted:
        return
    with ThreadPoolExecutor(max(1, min(at_once, len(wanted)))) as pool:
        try:
            list(pool.map(lambda pair: pair[0].look(pair[1]), wanted.items()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for backend in wanted:
                backend.give_up()
            raise


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("provision").addoption(
        "--shells-at-once",
        type=int,
        default=SHELLS_AT_ONCE,
        metavar="N",
        help=f"shell:// hosts that are read side by side (default {SHELLS_AT_ONCE})",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "looks(*commands): commands that only read, shared by all tests of a host")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before the first test: the looks that the collected tests name, for each host once and in their order."""
    if session.config.option.collectonly:
        return
    wanted: dict[ShellBackend, dict[str, None]] = {}
    for backend, item in _with_shell(session.items):
        if backend.reads_ahead:
            continue
        for mark in item.iter_markers("looks"):
            wanted.setdefault(backend, {}).update(dict.fromkeys(mark.args))
    look_at_all(wanted, session.config.option.shells_at_once)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What was read belongs to this run alone; the next one reads again."""
    for backend in backends_of(session):
        backend.forget()
    for cache in (testinfra.host.Host._host_cache, testinfra.host.Host._hosts_cache):
        cache.clear()


def backends_of(session: pytest.Session) -> set[ShellBackend]:
    """The backends of the collected tests' hosts."""
    return {backend for backend, _ in _with_shell(getattr(session, "items", ()))}


def _with_shell(items: Iterable[pytest.Item]) -> Iterable[tuple[ShellBackend, pytest.Item]]:
    for item in items:
        call = getattr(item, "callspec", None)
        host = call.params.get("_testinfra_host") if call is not None else None
        if host is not None and isinstance(host.backend, ShellBackend):
            yield host.backend, item
