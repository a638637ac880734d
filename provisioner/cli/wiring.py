"""Builds the adapters that actions are handed; the only file that knows which effect stands behind which port."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.adapters import ssh
from provisioner.errors import HostError
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.probe.request import Request

if TYPE_CHECKING:
    from provisioner.actions.apply import ApplyPorts
    from provisioner.actions.ports import Enroller, HostShell, Prober, Verifier

STATE_DIR = Path(".provision")


class SshProber:
    """The Prober of the command line. `on_done` hears of each host as it answers."""

    def __init__(
        self,
        *,
        forks: int = 50,
        timeout_s: float = 60,
        on_done: Callable[[str, Capture | HostError], None] | None = None,
    ) -> None:
        self._forks = forks
        self._timeout_s = timeout_s
        self._on_done = on_done

    def probe(self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]) -> dict[str, Capture | HostError]:
        targets = [ssh.Target.from_variables(host.name, host.variables) for host in hosts]
        return ssh.probe(targets, requests, limit=self._forks, timeout_s=self._timeout_s, on_done=self._on_done)


class CaptureProber:
    """A Prober that answers from recorded captures: the same commands, no host."""

    def __init__(self, captures: Mapping[str, Capture]) -> None:
        self._captures = captures

    def probe(self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]) -> dict[str, Capture | HostError]:
        return {
            host.name: self._captures.get(host.name)
            or HostError("no-capture", host.name, f"{host.name}: no capture was given for it")
            for host in hosts
        }


class SshShell:
    """The HostShell of the command line."""

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        target = ssh.Target.from_variables(host.name, host.variables)
        return asyncio.run(ssh.run(target, script, stdin.encode(), timeout_s=timeout_s))


def alive(pid: int) -> bool:
    """Whether a process of this machine still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def who_am_i() -> tuple[str, str, int]:
    """Return user, machine and process, for the lock on the hosts."""
    return getpass.getuser(), socket.gethostname(), os.getpid()


def prober_for(hosts: Sequence[InventoryHost], args: argparse.Namespace) -> tuple[tuple[InventoryHost, ...], Prober]:
    """Return the hosts and who looks at them: recorded captures when --capture is given, ssh otherwise."""
    if not args.capture:
        return tuple(hosts), SshProber(forks=args.forks, timeout_s=args.timeout)
    from provisioner.adapters.captures import load_capture

    captures = {capture.host: capture for capture in map(load_capture, args.capture)}
    known = {host.name: host for host in hosts}
    chosen = [known.get(name) or InventoryHost(name, {}, Intent()) for name in captures]
    return tuple(chosen), CaptureProber(captures)


def apply_ports(*, forks: int, timeout_s: float) -> ApplyPorts:
    """Return everything that an apply needs, with real effects."""
    from provisioner.actions.apply import ApplyPorts
    from provisioner.adapters.paths import TunnelPaths
    from provisioner.adapters.runner import AnsibleRunner
    from provisioner.adapters.runs import RunFolders, SystemClock
    from provisioner.adapters.signing import Keyring

    shell = SshShell()
    return ApplyPorts(
        prober=SshProber(forks=forks, timeout_s=timeout_s),
        shell=shell,
        runner=AnsibleRunner(ssh.ansible_ssh_settings()),
        store=RunFolders(STATE_DIR / "runs"),
        verifier=verifier(),
        enroller=enroller(shell),
        signatures=Keyring(),
        paths=TunnelPaths(),
        clock=SystemClock(),
        alive=alive,
    )


def verifier() -> Verifier:
    """Return who runs the checks: pytest-testinfra over one open shell per host."""
    from provisioner.adapters.verify import TestinfraVerifier

    return TestinfraVerifier()


def enroller(shell: HostShell, valid: timedelta | None = None) -> Enroller:
    """Return who writes enrolment records; the operator's key is made when the first one is signed."""
    from provisioner.actions.enrol import VALID, HostEnroller
    from provisioner.adapters.enrolled import EnrolledFolder
    from provisioner.adapters.runs import SystemClock
    from provisioner.adapters.signing import load_or_make, trusted_lines

    ledger = EnrolledFolder(STATE_DIR / "enrolled")
    return HostEnroller(shell, ledger, load_or_make, SystemClock(), trusted_lines, valid or VALID)
