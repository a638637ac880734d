"""`provision verify`: arguments, the checks, a view."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.model.inventory import InventoryHost


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="only these hosts, by name")
    options.inventory(parser)
    options.lock(parser)
    options.json_output(parser)
    output(parser)
    parser.add_argument(
        "--enrol",
        action="store_true",
        help="enrol the hosts that pass, and stop and withdraw those that do not; without it nothing is changed",
    )


def output(parser: argparse.ArgumentParser) -> None:
    """Add what decides how the results are shown."""
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write the results as JUnit XML")
    parser.add_argument("--all", action="store_true", help="show the checks that passed, too")


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.enrol import VALID

    return checked(args, enrol_for=VALID if args.enrol else None)


def checked(args: argparse.Namespace, *, enrol_for: timedelta | None) -> int:
    """Check, show, and with `enrol_for` let hosts in for so long or keep them out."""
    from provisioner.actions.verify import settle, verify
    from provisioner.adapters import inventory
    from provisioner.adapters.runs import RunFolders
    from provisioner.adapters.verify import TestinfraVerifier
    from provisioner.cli.views.verify import junit_text, verified_json, verified_text
    from provisioner.cli.wiring import STATE_DIR, SshShell, enroller

    began = time.monotonic()
    hosts = named(inventory.read(tuple(args.inventory), args.limit), args.hosts)
    lock = options.read_lock_in_use(args.lock)
    verifier = TestinfraVerifier(forks=args.forks, timeout_s=args.timeout)
    verified = verify(hosts, lock, verifier, run=RunFolders(STATE_DIR / "runs").new_id())
    if enrol_for is not None:
        settle(verified, hosts, lock, enroller(SshShell(), enrol_for))
    if args.junit is not None:
        _save(args.junit, junit_text(verified))
    if args.json:
        print(verified_json(verified))
    else:
        seconds = time.monotonic() - began
        print(
            verified_text(verified, seconds=seconds, lock=str(args.lock), inventory=args.inventory, everything=args.all)
        )
    return Exit.OK if verified.passed else Exit.FAILED


def named(hosts: Sequence[InventoryHost], names: Sequence[str]) -> tuple[InventoryHost, ...]:
    """Return the hosts that were named, or all; a name that is not in the inventory is a mistake."""
    known = {host.name: host for host in hosts}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadInput(
            "unknown-host",
            f"no such host: {', '.join(unknown)}",
            context=(f"the inventory has {', '.join(known)}",),
            hint="give the inventory with -i; patterns go to --limit",
        )
    return tuple(known[name] for name in dict.fromkeys(names)) if names else tuple(hosts)


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise BadInput("junit-not-written", f"{path}: {problem.strerror}") from problem
    print(f"results written to {path}", file=sys.stderr)
